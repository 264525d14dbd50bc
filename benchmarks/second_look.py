"""What further networks add to stage 1: the strength of each sign by one network, by another, and by several averaged.

    python benchmarks/second_look.py --data DIR --out RESULT.json [--networks 2]

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
from dlp_fast.checkpoint import write_atomic
from dlp_fast.filtering.curves import strengths
from dlp_fast.filtering.doubt import averaged
from dlp_fast.filtering.suspicion import trajectory
from dlp_fast.runfolder import environment
from dlp_fast.runlog import RunLog
from dlp_fast.scoring import TestSet
from filter_table import subset
from safetensors.torch import save_file
from torch import Tensor

from dlp_fast.attacks.poisoning import Poisoning, plan
from dlp_fast.config import FilterConfig, SupervisedConfig
from dlp_fast.data import sources
from dlp_fast.engine.batches import TrainingData, pixel_statistics
from dlp_fast.engine.device import choose_compute
from dlp_fast.engine.session import Session
from dlp_fast.models.registry import build_model
from dlp_fast.pipeline import AGAIN
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
    """Image folder (a clean one: it is poisoned here), with train and test; or digits."""
    out: Path
    """Result file, JSON."""
    networks: int = 2
    """How many networks look; each number of them from two on is averaged."""
    images: int | None = 5000
    """How many images, the same number of each class; none: all."""
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
    chosen = torch.arange(len(dataset.train.labels))
    if options.images is not None:
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
    few = torch.arange(len(dataset.test.labels))
    if len(few) > TESTED:
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


def looks(
    options: Options, dataset: sources.Dataset, part: Part, key: dict[str, Any]
) -> tuple[list[dict[str, Tensor]], list[dict[str, Any]]]:
    """(curves of each network, their figures)."""
    classes, seed = len(dataset.train.classes), key["seed"]
    curves, rows = [], []
    for net in range(options.networks):
        name = f"{key['attack']}-{key['rate']:g}-{seed}-{key['precision']}-{net}.safetensors"
        found, figures = look(dataset, part, seed + net * AGAIN, key["precision"])
        file = options.out.with_suffix("") / name
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file(found, file)
        curves.append(found)
        rows.append(key | {"net": net} | figures | facts(found, part, classes, seed % classes))
    return curves, rows


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    if options.networks < 2:
        raise SystemExit("--networks: two or more, else there is nothing to average.")
    dataset = sources.load(options.data, image_size=options.image_size)
    classes = len(dataset.train.classes)
    saved: dict[str, Any] = {"single": [], "averaged": []}
    if options.out.is_file():
        saved = json.loads(options.out.read_text())
        held = max((row["networks"] for row in saved["averaged"]), default=options.networks)
        if held != options.networks:
            raise SystemExit(f"{options.out} holds runs with {held} networks each; choose another --out.")
    saved["environment"] = environment(choose_compute("auto", options.precisions[0]).describe())
    done = {(r["attack"], r["rate"], r["seed"], r["precision"]) for r in saved["averaged"]}
    wanted = [c for c in CASES if options.attacks is None or c[0] in options.attacks]
    for seed in range(options.seeds):
        for attack, rate in wanted:
            left = [p for p in options.precisions if (attack, rate, seed, p) not in done]
            if not left:
                continue
            part = part_of(options, dataset, attack, rate, seed)
            for precision in left:
                key = {"attack": attack, "rate": rate, "seed": seed, "precision": precision}
                curves, rows = looks(options, dataset, part, key)
                saved["single"] += rows
                told = []
                for count in range(2, options.networks + 1):
                    mean = {name: averaged([of[name] for of in curves[:count]]) for name in curves[0]}
                    row = {"networks": count} | facts(mean, part, classes, seed % classes)
                    saved["averaged"].append(key | row)
                    told.append(f"{count} networks {row['target']} (others {row['strongest_other']})")
                write_atomic(options.out, json.dumps(saved, indent=1).encode() + b"\n")
                alone = ", ".join(str(row["target"]) for row in rows)
                print(
                    f"{attack} {rate:g} seed {seed} {precision}: alone {alone}; {', '.join(told)}", flush=True
                )


if __name__ == "__main__":
    main()
