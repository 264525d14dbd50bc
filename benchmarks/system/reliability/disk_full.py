"""A disk that is full: exit code 5 in words, and the same command ends with the same bytes when there is room.

    python -m benchmarks.system.reliability.disk_full --count 20

For root the disk is a tmpfs, of sizes spread from nothing to all that a run takes, so that each of its writes is hit.
Without the right to mount one, and in every second trial, the limit is RLIMIT_FSIZE: a file that grows beyond it fails
with EFBIG, as one on a full disk does with ENOSPC; this hits the large files wherever they are written.
"""

from __future__ import annotations

import contextlib
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

from benchmarks.system.reliability.promise import Promise, Trial, main
from benchmarks.system.reliability.tiny_run import command, finished_run, full_disk, hashes, small

PAGE = 4096  # bytes; a tmpfs counts in these


def mount(folder: Path, how: str) -> bool:
    """Whether a tmpfs with the options `how` is at `folder` now."""
    folder.mkdir(exist_ok=True)
    words = ["mount", "-t", "tmpfs", "-o", how, "tmpfs", str(folder)]
    with contextlib.suppress(FileNotFoundError):
        return subprocess.run(words, capture_output=True).returncode == 0
    return False


def verdict(run: Path, first, again, expected: dict[str, str], what: str) -> Trial:
    """first: how the run on the full disk ended, again: the same command with room."""
    same = again.code == 0 and hashes(run) == expected
    clean = (first.code == 5 and "error: " in first.text) or first.code == 0
    last = " ".join(first.text.split())[-160:]
    kept = clean and same and "Traceback" not in first.text
    return Trial(kept, f"{what}: code {first.code} ({last}), then {again.code}, same bytes: {same}")


def trials(count: int, rng: random.Random, folder: Path) -> Iterator[Trial]:
    options = small(folder)
    whole = finished_run(folder / "whole", *options)
    expected = hashes(whole)
    sizes = [path.stat().st_size for path in whole.rglob("*") if path.is_file()]
    pages = sum(size // PAGE + 1 for size in sizes)
    can_mount = mount(folder / "try", "size=1m") and not subprocess.call(["umount", str(folder / "try")])
    for number in range(count):
        if can_mount and number % 2 == 0:
            disk, room = folder / "disk", int((number + 2 * rng.random()) / count * pages) + 1
            assert mount(disk, f"size={room * PAGE}")
            try:
                first = command("run", "--out", disk / "run", *options)
                subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
                again = command("run", "--out", disk / "run", *options)
                yield verdict(disk / "run", first, again, expected, f"a disk of {room} of {pages} pages")
            finally:
                subprocess.run(["umount", str(disk)], check=True)
            continue
        run, room = folder / f"run{number}", int(max(sizes) ** rng.uniform(0.3, 0.99))
        with full_disk(room):
            first = command("run", "--out", run, *options)
        yield verdict(
            run, first, command("run", "--out", run, *options), expected, f"files of at most {room} bytes"
        )


PROMISE = Promise(
    "disk full",
    "a full disk ends a run with exit code 5 and loses nothing: the same command goes on when there is room",
    "a tmpfs of sizes spread over what a run takes, and no file beyond a random size; then the same command with room, "
    "bytes compared",
    trials,
    full=60,
    sample=4,
    part=20,
)

if __name__ == "__main__":
    main(PROMISE)
