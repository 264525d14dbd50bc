"""What a second network adds to stage 1: the strength of each sign by one network, by another, and by both averaged.

    python benchmarks/second_look.py --data DIR --out RESULT.json

Stage 1 of the default configuration on parts of the image set; a seed is other images, another target class, another
attack. Runs that the result file holds already are not done again; their curves lie beside it (safetensors).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from filter_table import subset
from safetensors.torch import save_file
from torch import Tensor

from dlp_fast.attacks.poisoning import Poisoning, plan
from dlp_fast.checkpoint import write_atomic
from dlp_fast.config import FilterConfig, SupervisedConfig
from dlp_fast.data import sources
from dlp_fast.engine.batches import TrainingData, pixel_statistics
from dlp_fast.engine.device import choose_compute
from dlp_fast.engine.session import Session
from dlp_fast.filtering.curves import strengths
from dlp_fast.filtering.doubt import averaged
from dlp_fast.filtering.suspicion import trajectory
from dlp_fast.models.registry import build_model
from dlp_fast.pipeline import AGAIN
from dlp_fast.runfolder import environment
from dlp_fast.runlog import RunLog
from dlp_fast.scoring import TestSet
from dlp_fast.stages.supervised import supervised

CASES = (
    ("none", 0.0),
    ("badnets", 0.1),
    ("trojannn", 0.1),
    ("blended", 0.1),
    ("blended", 0.05),
    ("lca", 0.5),  # of the target class
    ("sig", 0.5),
)
TESTED = 2000  # test images


@dataclass
class Options:
    data: str
    """Image folder (a clean one: it is poisoned here), with train and test."""
    out: Path
    """Result file, JSON."""
    images: int = 5000
    """How many images, the same number of each class."""
    image_size: int | None = 16
    """Side in pixels; none: the images' own."""
    seeds: int = 3
    """How many seeds."""
    precisions: tuple[Literal["fp32", "bf16"], ...] = ("fp32",)
    """Of stage 1."""
    attacks: tuple[str, ...] | None = None
    """Only these; unset: all five, and clean sets."""


@dataclass(frozen=True)
class Part:
    """Images of one seed, clean; and the attack on them, if any."""

    images: sources.ResidentImages
    labels: Tensor
    attack: Poisoning | None


def part_of(options: Options, dataset: sources.Dataset, attack: str, rate: float, seed: int) -> Part:
    classes = dataset.train.classes
    chosen = subset(dataset.train.labels, len(classes), options.images, seed)
    images, labels = sources.ResidentImages(dataset.train.images.get(chosen)), dataset.train.labels[chosen]
    if attack == "none":
        return Part(images, labels, None)
    of = plan(
        attack,
        labels,
        classes,
        (images.height, images.width),
        rate=rate,
        rate_of="auto",
        target=str(seed % len(classes)),
        seed=seed,
        images=images,
        device=str(choose_compute("auto", "auto").device),
    )
    return Part(images, of.labels, of)


def look(
    dataset: sources.Dataset, part: Part, seed: int, precision: str
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Curves of one network, and what it came to; `seed`: of its weights and its order."""
    compute = choose_compute("auto", precision)
    images = part.images.to(compute.device)
    images = part.attack.poison(images) if part.attack else images
    mean, std = pixel_statistics(images)
    classes = len(dataset.train.classes)
    data = TrainingData(images, part.labels, classes, mean, std, dataset.flip, seed, compute.device)
    model = build_model("wrn-16-1", classes, max(images.height, images.width), seed).to(compute.device)
    with Session(seed, compute, RunLog(None, quiet=True)) as session:
        found = supervised(session, model, data, SupervisedConfig())
    few = subset(dataset.test.labels, classes, TESTED, 0)
    test = sources.ResidentImages(dataset.test.images.get(few)).to(compute.device)
    of = TestSet(
        test, dataset.test.labels[few], part.attack and part.attack.table, part.attack and part.attack.target
    )
    figures = of.measure(model, compute.device, mean, std)
    curves = {"entropy": found.entropy, "loss": found.loss}
    return curves, figures | {"steps": found.steps, "images_per_second": round(found.images_per_second)}


def facts(curves: dict[str, Tensor], part: Part, classes: int, target: int) -> dict[str, Any]:
    """strength (1: found) of the target class and the strongest of all others; suspected; and what is left between."""
    config = FilterConfig()
    of = trajectory(curves["entropy"], curves["loss"], part.labels, classes, config)
    by_class = {
        s.label: v for s, v in zip(of.splits, strengths(of.splits, config.min_separation), strict=True)
    }
    poisoned = part.attack.poisoned if part.attack else torch.zeros(len(part.labels), dtype=torch.bool)
    suspected = of.score < 0
    return {
        "target": round(by_class.get(target, 0.0), 3),
        "strongest_other": round(max([v for c, v in by_class.items() if c != target], default=0.0), 3),
        "suspected": int(suspected.sum()),
        "poison_suspected": int((suspected & poisoned).sum()),
        "real_at_the_edge": int((of.clustered & ~suspected & ~poisoned).sum()),
    }


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    dataset = sources.load(options.data, image_size=options.image_size)
    classes = len(dataset.train.classes)
    saved: dict[str, Any] = {"single": [], "two": []}
    if options.out.is_file():
        saved = json.loads(options.out.read_text())
    saved["environment"] = environment(choose_compute("auto", options.precisions[0]).describe())
    done = {(r["attack"], r["rate"], r["seed"], r["precision"]) for r in saved["two"]}
    wanted = [c for c in CASES if options.attacks is None or c[0] in options.attacks]
    for seed in range(options.seeds):
        for attack, rate in wanted:
            left = [p for p in options.precisions if (attack, rate, seed, p) not in done]
            if not left:
                continue
            part = part_of(options, dataset, attack, rate, seed)
            for precision in left:
                key = {"attack": attack, "rate": rate, "seed": seed, "precision": precision}
                both, rows = [], []
                for net, weights in enumerate((seed, seed + AGAIN)):
                    file = (
                        options.out.with_suffix("")
                        / f"{attack}-{rate:g}-{seed}-{precision}-{net}.safetensors"
                    )
                    curves, figures = look(dataset, part, weights, precision)
                    file.parent.mkdir(parents=True, exist_ok=True)
                    save_file(curves, file)
                    both.append(curves)
                    rows.append(key | {"net": net} | figures | facts(curves, part, classes, seed % classes))
                mean = {name: averaged([of[name] for of in both]) for name in both[0]}
                saved["single"] += rows
                saved["two"].append(key | facts(mean, part, classes, seed % classes))
                write_atomic(options.out, json.dumps(saved, indent=1).encode() + b"\n")
                print(
                    f"{attack} {rate:g} seed {seed} {precision}: {rows[0]['target']}, {rows[1]['target']}, "
                    f"both {saved['two'][-1]['target']}; others {saved['two'][-1]['strongest_other']}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
