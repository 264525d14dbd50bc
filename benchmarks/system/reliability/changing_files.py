"""Image files that vanish, change, or become something else after they were checked: told, never used.

python -m benchmarks.system.reliability.changing_files --count 60
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from benchmarks.system.reliability.promise import Promise, Trial, main
from benchmarks.system.reliability.tiny_run import image_folder, picture
from dlp_fast.config import DataConfig
from dlp_fast.data import load
from dlp_fast.errors import DataError


def vanish(file: Path, _: random.Random) -> None:
    file.unlink()


def other(file: Path, rng: random.Random) -> None:
    picture(16, seed=rng.randrange(10**6)).save(file)


def other_at_once(file: Path, rng: random.Random) -> None:
    """Another picture of the same size and time: only the hash can tell."""
    before = file.stat()
    content = bytearray(file.read_bytes())
    content[rng.randrange(50, len(content))] ^= 1 << rng.randrange(8)
    file.write_bytes(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def cut(file: Path, rng: random.Random) -> None:
    file.write_bytes(file.read_bytes()[: rng.randrange(file.stat().st_size)])


def link(file: Path, _: random.Random) -> None:
    file.unlink()
    file.symlink_to("/etc/hostname")


def pipe(file: Path, _: random.Random) -> None:
    file.unlink()
    os.mkfifo(file)


def folder_instead(file: Path, _: random.Random) -> None:
    file.unlink()
    file.mkdir()


CHANGES: tuple[Callable[[Path, random.Random], None], ...] = (
    vanish,
    other,
    other_at_once,
    cut,
    link,
    pipe,
    folder_instead,
)


def trials(count: int, rng: random.Random, folder: Path) -> Iterator[Trial]:
    for number in range(count):
        change = CHANGES[number % len(CHANGES)]
        root = image_folder(folder / str(number), each=3)
        data = load(root, DataConfig(workers=1), loader="torchvision")
        victim = rng.randrange(len(data.train.paths))
        change(root / data.train.paths[victim], rng)
        what = f"{change.__name__} of {data.train.paths[victim]}"
        try:
            data.train.images.get(torch.arange(len(data.train)))
        except DataError as error:
            yield Trial(data.train.paths[victim] in str(error), f"{what}: {error}")
        else:
            yield Trial(False, f"{what}: nothing was told")


PROMISE = Promise(
    "changing files",
    "a file that vanishes or changes after it was checked stops the run with its name",
    "removed, replaced, changed by a bit under the same size and time, cut, made a link, a pipe or a folder",
    trials,
    full=63,
    sample=14,
)

if __name__ == "__main__":
    main(PROMISE)
