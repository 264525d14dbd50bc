"""Runs of a second or two, in this process or in one of their own."""

from __future__ import annotations

import hashlib
import os
import sys
from multiprocessing import Process
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
    "small",
    "start",
    "start_together",
    "training_data",
    "used",
    "work_together",
]

SAME = ("model.safetensors", "samples.csv", "classes.json", "predictions.safetensors")


def used(child: Process) -> float:
    """Seconds of CPU that a process and its children have used; 0 where it is gone."""
    try:
        others = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()
        own, *rest = (
            Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in (child.pid, *others)
        )
    except (OSError, ValueError):
        return 0.0
    ticks = sum(map(int, own[11:15])) + sum(int(ticks) for of in rest for ticks in of[11:13])
    return ticks / os.sysconf("SC_CLK_TCK")


def hashes(run: Path) -> dict[str, str]:
    """SHA-256 of what a run ends with, of the files that no clock and no folder's name changes."""
    return {name: hashlib.sha256((run / name).read_bytes()).hexdigest() for name in SAME}


def small(folder: Path) -> list[str]:
    """Options of a run on 96 pictures, which are made in `folder`: of one class a third are another's, with a mark.

    Each stage takes part, and so do a second network, the one without the labels in question, and two rounds.
    """
    data = image_folder(folder / "small", each=48, classes=("cat", "dog"), side=8)
    for number in range(16):
        marked = picture(8, seed=5 * number + 202)
        marked.paste((255, 0, 255), (5, 5, 8, 8))
        marked.save(data / f"cat/{number:03d}.png")
    return ["--data", str(data), *options(
        checkpoint_seconds=0.05,
        supervised={"epochs": 3, "min_steps": 0, "batch": 16},
        detection={
            "nothing_found": "suspect", "networks": 2, "verify_from": 0,
            "learning_curves.min_class_size": 4,
        },
        unlearning={"epochs": 2},
        finetuning={"steps": 8, "batch": 16, "norm_batches": 2, "rounds": 2},
    )]  # fmt: skip


def finished_run(folder: Path, *words: str) -> Path:
    """A finished run in `folder` with these options; AssertionError with what it printed where it failed."""
    done = command("run", "--out", folder, *words)
    assert done.code == 0, done.text
    return folder
