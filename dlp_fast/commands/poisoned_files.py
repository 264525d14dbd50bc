"""An attack written to disk: pictures with their triggers, and the truth beside them."""

from __future__ import annotations

import contextlib
import csv
import io
from pathlib import Path

import torch
from PIL import Image

from dlp_fast.attacks.poisoning import Poisoning, plan
from dlp_fast.commands.guard import tell
from dlp_fast.commands.poison import PoisonConfig
from dlp_fast.config import DataConfig
from dlp_fast.data import sources
from dlp_fast.runs.files import new_folder, write_atomic
from dlp_fast.runs.log import RunLog
from dlp_fast.runs.names import csv_cell, printable


def write_png(folder: Path, classes: tuple[str, ...], label: int, number: int, pixels: torch.Tensor) -> str:
    """Write one picture (PNG: a trigger of single pixels survives); returns its path below `folder`'s parent."""
    place = folder / classes[label]
    place.mkdir(parents=True, exist_ok=True)
    path = place / f"{number:06d}.png"
    Image.fromarray(pixels.numpy()).save(path)
    return path.relative_to(folder.parent).as_posix()


def poison(config: PoisonConfig) -> None:
    """Make the attack of `config`, write it, and tell what was written."""
    log = RunLog(None)
    options = DataConfig(image_size=config.image_size, follow_links=config.follow_links)
    dataset = sources.load(config.data, options, progress=log.counter())
    for warning in dataset.warnings:
        log.warn(warning)
    train, classes = dataset.train, dataset.train.classes
    attack = plan(
        config.attack,
        train.labels,
        classes,
        (train.images.height, train.images.width),
        rate=config.poison_rate,
        rate_of=config.poison_of,
        target=config.target,
        seed=config.seed,
        images=train.images,
        progress=log.counter(),
    )
    with new_folder(config.out) as folder, contextlib.closing(log):
        _write(folder, dataset, attack, log)
    aims = ", ".join(printable(classes[target]) for target in attack.targets)
    tell(f"{attack.describe(classes)}; target class {aims}")
    tell(
        f"written to {config.out}: train, truth.csv" + (", test, test_triggered" if dataset.test else ""),
    )
    tell(f"next: python -m dlp_fast.run --data {config.out}")


def _write(folder: Path, dataset: sources.Dataset, attack: Poisoning, log: RunLog) -> None:
    train, classes = dataset.train, dataset.train.classes
    text = io.StringIO()
    truth = csv.writer(text, lineterminator="\n")
    truth.writerow(["path", "poisoned", "label", "true_label", "source", "cover"])
    victims = attack.poison(train.images)
    log.start("writing train", len(train.labels), unit="files")
    for ids in torch.arange(len(train.labels)).split(256):
        pictures = victims.get(ids)
        for i, pixels in zip(ids.tolist(), pictures, strict=True):
            label, true = int(attack.labels[i]), int(attack.true_labels[i])
            path = write_png(folder / "train", classes, label, i, pixels)
            names = (csv_cell(classes[label]), csv_cell(classes[true]))
            source, cover = csv_cell(train.paths[i]), int(attack.cover[i])
            truth.writerow([csv_cell(path), int(attack.poisoned[i]), *names, source, cover])
        log.advance(int(ids[-1]) + 1, 1)
    write_atomic(folder / "truth.csv", text.getvalue().encode("utf-8"))
    if dataset.test is not None:
        _write_test(folder, dataset.test, attack, log)
    log.finish()


def _write_test(folder: Path, test: sources.ImageSet, attack: Poisoning, log: RunLog) -> None:
    """test and, with the trigger on each image that the attack aims at, test_triggered; both under true labels."""
    classes = test.classes
    triggered, _, counted = attack.triggered_test(test.images, test.labels)
    aimed = set(counted.tolist())
    log.start("writing test", len(test.labels), unit="files")
    for ids in torch.arange(len(test.labels)).split(256):
        pictures, changed = test.images.get(ids), triggered.get(ids)
        for row, i in enumerate(ids.tolist()):
            label = int(test.labels[i])
            write_png(folder / "test", classes, label, i, pictures[row])
            if i in aimed:
                write_png(folder / "test_triggered", classes, label, i, changed[row])
        log.advance(int(ids[-1]) + 1, 1)
