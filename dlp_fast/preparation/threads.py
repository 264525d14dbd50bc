"""Threads of a run: as many as there are processors for them when it begins, and the same when it goes on."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import torch

from dlp_fast.config import RunConfig
from dlp_fast.engine.device import Compute
from dlp_fast.errors import DataError
from dlp_fast.runs.files import write_atomic
from dlp_fast.runs.log import RunLog
from dlp_fast.runs.processors import idle_processors
from dlp_fast.runs.writer import RunFolder

FILE = "threads.json"


@contextlib.contextmanager
def fitting_threads(
    config: RunConfig, compute: Compute, folder: RunFolder | None, log: RunLog
) -> Iterator[None]:
    """Have torch use the threads that `config` names, or fewer than it would where other programs need the processors;
    their number is kept in `folder`, since other threads make other last bits. Afterwards it is as it was. Where none
    is named, nothing is changed on a GPU, or where several processes work together.

    Raises DataError where the file that keeps it is damaged.
    """
    before = torch.get_num_threads()
    threads = config.threads or before
    if not config.threads and compute.device.type == "cpu" and compute.processes == 1 and before > 1:
        threads = _fitting(before, folder.path / FILE if folder else None)
        if threads < before:
            log.say(
                f"{threads} of {before} threads: other programs were using the processors when this run began, and "
                "threads that wait for one another are slower than fewer (--threads sets the number)"
            )
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def use_idle_processors(compute: Compute) -> None:
    """For a command that looks at images and trains nothing: no more threads than there are idle processors."""
    most = torch.get_num_threads()
    if compute.device.type == "cpu" and most > 1:
        torch.set_num_threads(min(most, idle_processors()))


def _fitting(most: int, kept: Path | None) -> int:
    """As the run was begun with, or as many as there are idle processors, at most `most`."""
    if kept and kept.is_file():
        return _read(kept)
    threads = min(most, idle_processors())
    if kept:
        write_atomic(kept, json.dumps({"threads": threads}).encode() + b"\n")
    return threads


def _read(file: Path) -> int:
    try:
        threads = json.loads(file.read_text())["threads"]
        if type(threads) is int and threads >= 1:
            return threads
    except (OSError, ValueError, TypeError, KeyError):
        pass
    raise DataError(f"{file} is damaged. Run again into another folder, or give --threads there.")
