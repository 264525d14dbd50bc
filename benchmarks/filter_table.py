"""The filter, measured: precision of each score over epochs, attacks, rates and seeds.

    python benchmarks/filter_table.py --data DIR --out benchmarks/results/filter_cpu_DATE.json

Trains stage 1 once for each cell and scores the same trajectory by every filter at every epoch. Cells that the
result file holds already are not run again. The attack is known here, to the table and to nothing that it measures.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro
from dlp_fast.checkpoint import write_atomic
from dlp_fast.filtering.suspicion import snapshot, trajectory
from dlp_fast.runfolder import environment
from dlp_fast.runlog import RunLog
from dlp_fast.scoring import TestSet
from safetensors.torch import load_file, save_file
from sklearn.metrics import roc_auc_score

from dlp_fast.attacks.poisoning import plan
from dlp_fast.config import FilterConfig, SupervisedConfig
from dlp_fast.data import sources
from dlp_fast.engine.batches import TrainingData, pixel_statistics, training_order
from dlp_fast.engine.device import choose_compute
from dlp_fast.engine.session import Session
from dlp_fast.models.registry import build_model
from dlp_fast.stages.supervised import supervised

STREAM = 9  # of the draw of images, beside those of the stages
RATES = {
    "badnets": (0.1, 0.05, 0.2),
    "blended": (0.1, 0.05, 0.2),
    "sig": (0.5, 0.8),  # of the target class, whose labels stay
}
LOW = (0.02, 0.01, 0.005)  # with the first seed only: few images carry the trigger, and it is learnt late


def cells(seeds: int, low: bool) -> list[tuple[str, float, int]]:
    """(attack, rate, seed): every attack and rate with every seed, and as many clean sets; a seed also chooses the
    images and the target class.
    """
    if low:
        return [(attack, rate, 0) for rate in LOW for attack in ("badnets", "blended")]
    poisoned = [(a, r, s) for s in range(seeds) for k in range(3) for a in RATES for r in RATES[a][k : k + 1]]
    clean = [("none", 0.0, s) for s in range(len(poisoned))]
    return [cell for pair in zip(clean, poisoned) for cell in pair]


@dataclass
class Options:
    data: str
    """Image folder (a clean one: it is poisoned here)."""
    out: Path
    """Result file, JSON."""
    images: int = 5000
    """How many images, the same number of each class."""
    image_size: int | None = None
    """Side in pixels; unset: the images' own. 16 for CIFAR-10 costs a quarter, for many cells on a CPU."""
    epochs: int = 12
    """Epochs of stage 1."""
    batch: int = 64
    """Images a step."""
    learning_rate: float = 0.05
    """Step size of stage 1."""
    seeds: int = 3
    """How many seeds; each is other images, another target class, other weights."""
    low: bool = False
    """The low rates instead."""
    part: tuple[int, int] = (0, 1)
    """K N: do every N-th cell from the K-th on, so that N processes share the work, each with its own --out."""
    keep: Path | None = None
    """Folder to keep the trajectories in (safetensors), to try another filter on them."""
    rescore: bool = False
    """Train nothing: score the kept trajectories of the cells that are done by the filter as it is now."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Of stage 1."""
    threads: int = 1
    """CPU threads."""


def subset(labels: torch.Tensor, classes: int, images: int, seed: int) -> torch.Tensor:
    """images // classes ids of each class, ascending, drawn by `seed`."""
    order = training_order(seed, STREAM, 0, len(labels))
    parts = [order[labels[order] == c][: images // classes] for c in range(classes)]
    return torch.cat(parts).sort().values


def at_epoch(
    epoch: int,
    entropy: torch.Tensor,
    loss: torch.Tensor,
    labels: torch.Tensor,
    poisoned: np.ndarray,
    classes: int,
) -> dict[str, object]:
    """Every filter's figures, had stage 1 ended after `epoch` epochs."""
    config = FilterConfig()
    k = max(1, round(config.rate * len(labels)))
    entropy, loss = entropy[:epoch], loss[:epoch]
    of = trajectory(entropy, loss, labels, classes, config)
    scores = {
        "snapshot": snapshot(entropy).score.numpy(),
        "mean entropy": entropy.mean(0).numpy(),
        "mean loss": loss.mean(0).numpy(),
        "clusters": of.score.numpy(),
    }
    trusted = ~(of.clustered | of.unlearnt).numpy()
    found = of.found(config)
    facts: dict[str, object] = {
        "epoch": epoch,
        "found": [{"label": s.label, "strength": s.strength(config.min_separation)} for s in found],
        "strongest_other": max(
            (s.strength(config.min_separation) for s in of.splits if s not in found), default=None
        ),
        "clustered": int(of.clustered.sum()),
        "trusted": int(trusted.sum()),
        "poison_trusted": int((poisoned & trusted).sum()),
    }
    if poisoned.any():
        for name, score in scores.items():
            order = np.argsort(score, kind="stable")
            facts[name] = {
                "precision": float(poisoned[order[:k]].mean()),
                "auroc": float(roc_auc_score(poisoned, -score)),
            }
    return facts


def scored(
    entropy: torch.Tensor, loss: torch.Tensor, labels: torch.Tensor, poisoned: torch.Tensor, classes: int
) -> list[dict[str, object]]:
    """Figures after every third epoch, and after the last."""
    last = len(loss)
    return [
        at_epoch(epoch, entropy, loss, labels, poisoned.numpy(), classes)
        for epoch in sorted({*range(3, last + 1, 3), last})
    ]


def trajectory_file(options: Options, dataset: sources.Dataset, attack: str, rate: float, seed: int) -> Path:
    return options.keep / f"{dataset.name}-{attack}-{rate:g}-{seed}.safetensors"


def run_cell(
    options: Options, dataset: sources.Dataset, attack: str, rate: float, seed: int
) -> dict[str, object]:
    began = time.monotonic()
    chosen = subset(dataset.train.labels, len(dataset.train.classes), options.images, seed)
    images, labels = sources.ResidentImages(dataset.train.images.get(chosen)), dataset.train.labels[chosen]
    poisoned, table, target = torch.zeros(len(labels), dtype=torch.bool), None, None
    if attack != "none":
        plot = plan(
            attack,
            labels,
            dataset.train.classes,
            (images.height, images.width),
            rate=rate,
            rate_of="auto",
            target=str(seed % len(dataset.train.classes)),
            seed=seed,
            images=images,
        )
        images, labels = plot.poison(images), plot.labels
        poisoned, table, target = plot.poisoned, plot.table, plot.target
    compute = choose_compute("auto", options.precision)
    images = images.to(compute.device)
    mean, std = pixel_statistics(images)
    classes = len(dataset.train.classes)
    data = TrainingData(images, labels, classes, mean, std, dataset.flip, seed, compute.device)
    model = build_model("wrn-16-1", classes, images.height, seed).to(compute.device)
    config = SupervisedConfig(
        epochs=options.epochs, min_steps=0, batch=options.batch, learning_rate=options.learning_rate
    )
    with Session(seed, compute, RunLog(None, quiet=True)) as session:
        first = supervised(session, model, data, config)
    few = subset(dataset.test.labels, classes, 1000, seed)
    test = TestSet(
        sources.ResidentImages(dataset.test.images.get(few)), dataset.test.labels[few], table, target
    )
    measured = test.measure(model, compute.device, mean, std)
    epochs = scored(first.entropy, first.loss, labels, poisoned, classes)
    if options.keep:
        kept = {"entropy": first.entropy, "loss": first.loss, "labels": labels, "poisoned": poisoned}
        options.keep.mkdir(parents=True, exist_ok=True)
        save_file(kept, trajectory_file(options, dataset, attack, rate, seed))
    seconds = round(time.monotonic() - began, 1)
    return {"attack": attack, "rate": rate, "seed": seed, "seconds": seconds, **measured, "epochs": epochs}


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    torch.set_num_threads(options.threads)
    dataset = sources.load(options.data, image_size=options.image_size)
    saved = {"cells": []}
    if options.out.is_file():
        saved = json.loads(options.out.read_text())
    done = {(c["attack"], c["rate"], c["seed"]) for c in saved["cells"]}
    images = dataset.train.images
    saved["set"] = f"{options.images:,} of {dataset.name} at {images.width} px"
    saved["classes"] = len(dataset.train.classes)
    if options.rescore:
        for cell in saved["cells"]:
            name = trajectory_file(options, dataset, cell["attack"], cell["rate"], cell["seed"])
            kept = load_file(name)
            of = (kept[k] for k in ("entropy", "loss", "labels", "poisoned"))
            cell["epochs"] = scored(*of, len(dataset.train.classes))
        write_atomic(options.out, json.dumps(saved).encode())
        return
    saved["environment"] = environment(choose_compute("auto", options.precision).describe())
    saved["options"] = {
        k: str(v) for k, v in vars(options).items() if k not in ("out", "data", "keep", "part")
    }
    number, parts = options.part
    for attack, rate, seed in cells(options.seeds, options.low)[number::parts]:
        if (attack, rate, seed) in done:
            continue
        cell = run_cell(options, dataset, attack, rate, seed)
        saved["cells"].append(cell)
        write_atomic(options.out, json.dumps(saved).encode())
        last = cell["epochs"][-1]
        print(
            f"{attack} {rate:g} seed {seed}: ASR {cell['attack_success_rate']}, found "
            f"{[(f['label'], round(f['strength'], 2)) for f in last['found']]}, others "
            f"{last['strongest_other']:.2f}, poison trusted "
            f"{last['poison_trusted']}/{last['trusted']}, "
            + ", ".join(
                f"{n} {last[n]['precision']:.2f}"
                for n in ("snapshot", "mean entropy", "clusters")
                if n in last
            )
            + f", {cell['seconds']} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
