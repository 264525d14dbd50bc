"""Runs of a few seconds on the digits, in this process or in one of their own; the tests have the same."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "tests"))

from tiny import (  # noqa: E402
    Done,
    command,
    finish,
    full_disk,
    image_folder,
    options,
    picture,
    session,
    start,
    start_together,
    training_data,
    work_together,
)

__all__ = [
    "Done",
    "command",
    "finish",
    "finished_run",
    "full_disk",
    "hashes",
    "image_folder",
    "options",
    "picture",
    "session",
    "start",
    "start_together",
    "training_data",
    "work_together",
]

SAME = ("model.safetensors", "samples.csv", "classes.json", "predictions.safetensors")


def hashes(run: Path) -> dict[str, str]:
    """SHA-256 of what a run ends with, of the files that no clock and no folder's name changes."""
    return {name: hashlib.sha256((run / name).read_bytes()).hexdigest() for name in SAME}


def finished_run(folder: Path, *more: str) -> Path:
    """A finished run in `folder`; AssertionError with what it printed where it failed."""
    done = command("run", "--out", folder, *options(), *more)
    assert done.code == 0, done.text
    return folder
