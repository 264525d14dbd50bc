"""Folders and names: splits, links, run folders among images, duplicates, system folders, Unicode."""

from __future__ import annotations

from pathlib import Path

from studies.field_reports.row import DRY, Row, command, images


def capital_splits(here: Path) -> None:
    images(here / "data/Train")
    images(here / "data/Test", each=4, seed=1)
    done = command("run", "--data", here / "data", *DRY)
    done.ended(0, "36 training images, 3 classes", "12 test images")


ROWS = [
    Row("F3.capital", "Train/ and Test/", capital_splits),
]
