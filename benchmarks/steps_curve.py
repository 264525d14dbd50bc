"""Accuracy and attack success rate over the length of stage 3: where its default comes from.

    python benchmarks/steps_curve.py --data DIR --out RESULT.json --plot docs/images/steps.png

Stage 1 and the filter run once; stage 3 is run anew for each length, since the cosine schedule belongs to the length.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from dlp_fast.checkpoint import write_atomic
from dlp_fast.runfolder import environment
from dlp_fast.runlog import RunLog
from dlp_fast.scoring import TestSet
from matplotlib.figure import Figure

from dlp_fast.attacks.poisoning import plan
from dlp_fast.config import RunConfig, build, merge
from dlp_fast.data import sources
from dlp_fast.engine.batches import TrainingData, pixel_statistics
from dlp_fast.engine.device import choose_compute
from dlp_fast.engine.session import Session
from dlp_fast.pipeline import Pipeline


@dataclass
class Options:
    data: str
    """Image folder, clean, with train and test."""
    out: Path
    """Result file, JSON."""
    attacks: tuple[str, ...] = ("badnets", "blended")
    """Which attacks, at 10 %."""
    epochs: tuple[float, ...] = (3, 6, 12, 25, 50)
    """Lengths of stage 3, passes over the trusted images."""
    image_size: int | None = None
    """Side in pixels; unset: the images' own."""
    seed: int = 0
    """Seed of everything."""
    threads: int = 2
    """CPU threads."""
    plot: Path | None = None
    """PNG to write."""


def curve(options: Options, dataset: sources.Dataset, attack: str) -> list[dict[str, Any]]:
    compute = choose_compute("auto", "auto")
    train = dataset.train
    size = (train.images.height, train.images.width)
    of = plan(
        attack,
        train.labels,
        train.classes,
        size,
        rate=0.1,
        rate_of="auto",
        target="0",
        seed=options.seed,
        images=train.images,
    )
    images = of.poison(train.images.to(compute.device))
    mean, std = pixel_statistics(images)
    data = TrainingData(
        images, of.labels, len(train.classes), mean, std, dataset.flip, options.seed, compute.device
    )
    test = TestSet(dataset.test.images, dataset.test.labels, of.table, of.target)

    def observe(model: torch.nn.Module) -> dict[str, float | None]:
        return test.measure(model, compute.device, mean, std)

    points = []
    with Session(options.seed, compute, RunLog(None, quiet=True)) as session:
        base: dict[str, Any] = {"seed": options.seed}
        for epochs in options.epochs:
            config: RunConfig = build(
                merge(base, {"finetune": {"epochs": epochs, "min_steps": 1}}), "benchmark"
            )
            pipeline = Pipeline(session, data, config, observe)
            session.keep_only(("supervised",))
            began = time.monotonic()
            found = pipeline.run()
            last = found.stages["finetuning"]
            points.append({"attack": attack, "epochs": epochs, **last, "wall": time.monotonic() - began})
            print(
                attack, epochs, last["steps"], last["clean_accuracy"], last["attack_success_rate"], flush=True
            )
    return points


def draw(points: list[dict[str, Any]], path: Path) -> None:
    figure = Figure(figsize=(8, 3), layout="constrained")
    axes = figure.subplots(1, 2)
    for axis, key, title in (
        (axes[0], "clean_accuracy", "clean accuracy (%)"),
        (axes[1], "attack_success_rate", "attack success rate (%)"),
    ):
        for attack in dict.fromkeys(p["attack"] for p in points):
            of = [p for p in points if p["attack"] == attack]
            axis.plot([p["steps"] for p in of], [100 * p[key] for p in of], marker=".", label=attack)
        axis.set_xscale("log")
        axis.set_xlabel("steps of stage 3 (batch 128)")
        axis.set_ylabel(title)
    axes[0].legend()
    figure.savefig(path, dpi=140)


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    torch.set_num_threads(options.threads)
    dataset = sources.load(options.data, image_size=options.image_size)
    points: list[dict[str, Any]] = []
    for attack in options.attacks:
        points += curve(options, dataset, attack)
        saved = {
            "points": points,
            "images": len(dataset.train.labels),
            "image_size": options.image_size,
            "environment": environment(choose_compute("auto", "auto").describe()),
        }
        write_atomic(options.out, json.dumps(saved, indent=1).encode())
    if options.plot:
        draw(points, options.plot)


if __name__ == "__main__":
    main()
