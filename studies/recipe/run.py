"""Accuracy of stage 3 over its schedule, averaging, weight decay and label smoothing, on clean images.

    python -m studies.recipe.run --folders DIR --out OUT --part screen

DIR holds cifar10/ and tinyimagenet20/, image folders with train and test. Cells that OUT holds already are not run
again, so that the same command goes on where it stopped; OUT/result.json has all of them. See README.md for the rule.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import add_out, add_threads, parser_of, write_result
from dlp_fast.config import DataConfig, FinetuningConfig
from dlp_fast.data import sources
from dlp_fast.data.storage import ResidentImages
from dlp_fast.defenses.setting import accuracy_on
from dlp_fast.engine.batches import TrainingData, pixel_statistics
from dlp_fast.runs.files import write_atomic
from studies._common import train_stage3
from studies.recipe.cells import PARTS, RECIPES, SETS, Cell, cells


def parser() -> argparse.ArgumentParser:
    of = parser_of(__doc__, "studies.recipe.run")
    of.add_argument("--folders", type=Path, required=True, help="where cifar10/ and tinyimagenet20/ lie")
    add_out(of, "folder of the cells and of result.json", "FOLDER")
    add_threads(of, 1)
    of.add_argument("--part", choices=PARTS, required=True, help="see README.md")
    of.add_argument("--recipes", nargs="+", default=list(RECIPES), choices=RECIPES, help="which recipes")
    return of


@functools.lru_cache(maxsize=1)
def loaded(data: str, side: int | None) -> sources.Dataset:
    return sources.load(data, DataConfig(image_size=side))


def parts(cell: Cell, folders: Path) -> tuple[TrainingData, TrainingData]:
    """(images to train on, images to measure on: those of the training set that follow, or the test set)."""
    of = SETS[cell.set]
    dataset = loaded(of.data if of.data == "digits" else str(folders / of.data), of.side)
    train, test, classes = dataset.train, dataset.test, len(dataset.train.classes)
    ids = [(train.labels == c).nonzero().flatten()[cell.offset :] for c in range(classes)]
    first = torch.cat([of_class[: of.images] for of_class in ids]).sort().values
    then = torch.cat([of_class[of.images : of.images + of.held] for of_class in ids]).sort().values
    mean, std = pixel_statistics(ResidentImages(train.images.get(first)))

    def part(images: sources.ImageSet, ids: torch.Tensor) -> TrainingData:
        pixels, labels = ResidentImages(images.images.get(ids)), images.labels[ids]
        return TrainingData(pixels, labels, classes, mean, std, dataset.flip, cell.seed, torch.device("cpu"))

    measured = part(test, torch.arange(len(test.labels))) if cell.part == "look" else part(train, then)
    return part(train, first), measured


def run(cell: Cell, folders: Path) -> dict[str, Any]:
    train, measured = parts(cell, folders)
    config = FinetuningConfig(epochs=cell.passes, min_steps=1, **RECIPES[cell.recipe])
    model, done = train_stage3(train, config)
    accuracy = accuracy_on(model, measured, torch.arange(len(measured)))
    return dataclasses.asdict(cell) | {
        "steps": done.steps,
        "accuracy": accuracy,
        "measured_on": len(measured),
        "seconds": done.seconds,
    }


def kept(out: Path) -> list[dict[str, Any]]:
    return [json.loads(file.read_text()) for file in sorted((out / "cells").glob("*.json"))]


def main() -> None:
    options = parser().parse_args()
    torch.set_num_threads(options.threads)
    (options.out / "cells").mkdir(parents=True, exist_ok=True)
    for cell in cells(options.part, options.recipes):
        file = options.out / "cells" / f"{cell.name}.json"
        if not file.exists():
            found = run(cell, options.folders)
            write_atomic(file, json.dumps(found).encode())
            print(time.strftime("%H:%M:%S"), cell.name, f"{100 * found['accuracy']:.2f}", flush=True)
    write_result(options.out / "result.json", {"cells": kept(options.out)}, "CPU, fp32")


if __name__ == "__main__":
    main()
