"""Accuracy and attack success rate over the length of stage 3.

    python -m studies.stage3_length.run --data DIR --image-size 16 --out RESULT.json --plot steps.png

Each length is a whole run with the same seed, so the same stage 1 and the same suspects: the cosine schedule belongs to
the length.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from benchmarks.common import add_data, add_out, add_threads, chosen, parser_of, write_result
from dlp_fast.api import execute
from dlp_fast.config import DataConfig, build
from dlp_fast.data import sources
from dlp_fast.engine.device import choose_compute

RATE = 0.1  # of all images


def parser() -> argparse.ArgumentParser:
    of = parser_of(__doc__, "studies.stage3_length.run")
    add_data(of)
    add_out(of)
    add_threads(of, 2)
    of.add_argument("--attacks", nargs="+", default=["badnets", "blended"], help="which, at 10 percent")
    of.add_argument(
        "--epochs", type=float, nargs="+", default=[3, 6, 12, 25, 50], help="passes over the trusted images"
    )
    of.add_argument("--seed", type=int, default=0, help="seed of everything")
    of.add_argument("--plot", type=Path, metavar="PNG", help="picture to draw")
    return of


def point(
    options: argparse.Namespace, dataset: sources.Dataset, attack: str, epochs: float
) -> dict[str, Any]:
    values = {
        "data": options.data,
        "attack": attack,
        "poison_rate": RATE,
        "seed": options.seed,
        "threads": options.threads,
        "finetuning": {"epochs": epochs, "min_steps": 1},
    }
    began = time.monotonic()
    stages = execute(build(values, "stage3_length"), dataset, quiet=True, keep=False).results["stages"]
    last = stages["finetuning"]
    print(attack, epochs, last["steps"], last["clean_accuracy"], last["attack_success_rate"], flush=True)
    return {"attack": attack, "epochs": epochs, **last, "wall": time.monotonic() - began}


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
    options = parser().parse_args()
    torch.set_num_threads(options.threads)
    dataset = sources.load(options.data, DataConfig(image_size=options.image_size))
    points = []
    for attack in options.attacks:
        for epochs in options.epochs:
            points.append(point(options, dataset, attack, epochs))
            result = {"options": chosen(options), "images": len(dataset.train.labels), "points": points}
            write_result(options.out, result, choose_compute("auto", "auto").describe())
    if options.plot:
        draw(points, options.plot)


if __name__ == "__main__":
    main()
