"""One situation and its check; and what areas share: a command run on a folder, and folders of small pictures."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
CLASSES = ("cats", "dogs", "owls")
WIDE = {"COLUMNS": "10000"}  # a message is one line, however narrow the terminal

QUICK = (
    "--preset", "scan", "--device", "cpu", "--threads", "1", "--supervised.epochs", "1", "--supervised.min-steps", "4",
    "--detection.networks", "1",
)  # fmt: skip
"""Options of a run of seconds. Its verdict says nothing; what it reads, prints and writes is what it always does."""
DRY = (*QUICK, "--model", "wrn-10-1", "--dry-run")
"""Quicker still: the images are read, and nothing is written."""


@dataclass(frozen=True)
class Row:
    """One situation of docs or issue threads.

    id: F3, F3.symlink, ...: area-wide unique; situation: what a person has; check: is given an empty folder, builds its
    inputs there, runs the command and raises AssertionError where the answer is not the right one.
    """

    id: str
    situation: str
    check: Callable[[Path], None]


@dataclass(frozen=True)
class Done:
    """How a command ended: exit code, and what it printed (both streams)."""

    code: int
    text: str

    def ended(self, code: int, *said: str, unsaid: tuple[str, ...] = ()) -> None:
        """AssertionError unless it ended with `code`, each of `said` was printed, and none of `unsaid`."""
        assert self.code == code, f"exit code {self.code}, not {code}: {self.text[-2000:]}"
        for words in said:
            assert words in self.text, f"not said: {words!r}; but: {self.text[-2000:]}"
        for words in (*unsaid, "Traceback (most recent call last)"):
            assert words not in self.text, f"said: {words!r}: {self.text[-2000:]}"


def command(module: str, *arguments: object, cwd: Path | None = None) -> Done:
    """`python -m dlp_fast.<module>`, in this process, for speed; in the folder `cwd`."""
    from dlp_fast.commands.options import guarded

    main = importlib.import_module(f"dlp_fast.{module}").main
    threads, before, sys.argv = torch.get_num_threads(), sys.argv, [module, *map(str, arguments)]
    text, code = io.StringIO(), 0
    try:
        with (
            _environment(WIDE),
            contextlib.chdir(cwd or os.getcwd()),
            contextlib.redirect_stdout(text),
            contextlib.redirect_stderr(text),
        ):
            guarded(main)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    finally:
        sys.argv = before
        torch.set_num_threads(threads)
    return Done(code, text.getvalue())


def process(module: str, *arguments: object, cwd: Path | None = None, **environment: str) -> Done:
    """The same in a process of its own, under other variables of the environment; some seconds slower."""
    of = {**os.environ, **WIDE, "PYTHONPATH": str(ROOT), **environment}
    words = [sys.executable, "-m", f"dlp_fast.{module}", *map(str, arguments)]
    done = subprocess.run(words, cwd=cwd, env=of, capture_output=True, timeout=600)
    return Done(done.returncode, (done.stdout + done.stderr).decode("utf-8", "replace"))


@contextlib.contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def picture(rng: np.random.Generator, kind: int, width: int = 32, height: int = 32) -> Image.Image:
    """One RGB picture: each kind has a hue and a direction of stripes of its own, under noise."""
    hue = ((200, 60, 60), (60, 200, 60), (60, 60, 200), (200, 200, 60), (60, 200, 200))[kind % 5]
    y, x = np.mgrid[:height, :width]
    stripes = np.sin((x if kind % 2 else y) / (2 + kind % 7) + rng.uniform(0, 6)) * 40
    pixels = np.array(hue, float) + stripes[..., None] + rng.normal(0, 25, (height, width, 3))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def images(
    root: Path, classes: tuple[str, ...] = CLASSES, each: int = 12, side: int = 32, seed: int = 0
) -> Path:
    """`root/<class>/<number>.png`; other pictures for another seed. Returns `root`."""
    rng = np.random.default_rng(seed)
    for kind, name in enumerate(classes):
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(each):
            picture(rng, kind, side, side).save(root / name / f"{i:03d}.png")
    return root
