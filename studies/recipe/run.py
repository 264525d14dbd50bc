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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.common import add_out, add_threads, parser_of, write_result
from dlp_fast.attacks.poisoning import plan
from dlp_fast.config import DataConfig, FinetuningConfig, RunConfig
from dlp_fast.data import sources
from dlp_fast.data.storage import ResidentImages
from dlp_fast.defenses.setting import accuracy_on
from dlp_fast.engine.batches import TrainingData, pixel_statistics
from dlp_fast.evaluation.metrics import TestSet
from dlp_fast.runs.files import write_atomic
from dlp_fast.stages.rounds import SNAPSHOTS, late_decision
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


@dataclass(frozen=True)
class Parts:
    """train: what stage 3 is given; suspected: bool [n], whose labels it is not given; held: images of the training set
    that follow; test: the test set, with the attack where there is one.
    """

    train: TrainingData
    suspected: Tensor
    held: TrainingData
    test: TestSet


def parts(cell: Cell, folders: Path) -> Parts:
    of = SETS[cell.set]
    dataset = loaded(of.data if of.data == "digits" else str(folders / of.data), of.side)
    whole, test, classes = dataset.train, dataset.test, len(dataset.train.classes)
    ids = [(whole.labels == c).nonzero().flatten()[cell.offset :] for c in range(classes)]
    first = torch.cat([of_class[: of.images] for of_class in ids]).sort().values
    then = torch.cat([of_class[of.images : of.images + of.held] for of_class in ids]).sort().values
    pixels, labels, attack = ResidentImages(whole.images.get(first)), whole.labels[first], None
    suspected = torch.zeros(len(first), dtype=torch.bool)
    if cell.leaked:
        size = (pixels.height, pixels.width)
        attack = plan(
            "badnets",
            labels,
            whole.classes,
            size,
            rate=0.1,
            rate_of="all",
            target="0",
            seed=cell.seed,
            images=pixels,
            device="cpu",
        )
        pixels, labels = attack.poison(pixels), attack.labels
        suspected[attack.poisoned.nonzero().flatten()[cell.leaked :]] = True
    mean, std = pixel_statistics(pixels)
    cpu = torch.device("cpu")
    train = TrainingData(pixels, labels, classes, mean, std, dataset.flip, cell.seed, cpu)
    held = dataclasses.replace(
        train, images=ResidentImages(whole.images.get(then)), labels=whole.labels[then]
    )
    return Parts(
        train,
        suspected,
        held,
        TestSet(test.images, test.labels, attack and attack.triggered_test(test.images, test.labels)),
    )


def run(cell: Cell, folders: Path) -> dict[str, Any]:
    """What came of `cell`; only `look` measures on test images, and asks the learning curves of stage 3."""
    of = parts(cell, folders)
    config = FinetuningConfig(epochs=cell.passes, min_steps=1, **RECIPES[cell.recipe])
    look = cell.part.startswith("look")
    model, done = train_stage3(of.train, config, suspected=of.suspected, snapshots=SNAPSHOTS if look else 0)
    result = dataclasses.asdict(cell) | {"steps": done.steps, "seconds": done.seconds}
    if not look:
        accuracy = accuracy_on(model, of.held, torch.arange(len(of.held)))
        return result | {"accuracy": accuracy, "measured_on": len(of.held)}
    late = late_decision(
        done.labeled, done.entropy, done.loss, of.train, RunConfig(), bool(of.suspected.any())
    )
    measured = of.test.measure(model, of.train.device, of.train.mean, of.train.std)
    return result | {
        "accuracy": measured["clean_accuracy"],
        "measured_on": len(of.test.labels),
        "attack_success_rate": measured["attack_success_rate"],
        "stage3_scores": [round(entry.score, 3) for entry in late.scored],
        "stage3_found": [len(group.core) for group in late.found],
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
