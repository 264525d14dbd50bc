"""Runs of a second or two, for the tests: digits, one thread, few steps."""

from __future__ import annotations

import contextlib
import importlib
import io
import multiprocessing
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from dlp_fast.data.storage import ResidentImages
from dlp_fast.engine.batches import TrainingData, pixel_statistics
from dlp_fast.engine.device import choose_compute
from dlp_fast.engine.session import Session
from dlp_fast.runs.checkpoint import Checkpoints
from dlp_fast.runs.log import RunLog

ROOT = Path(__file__).resolve().parents[1]

# So few steps show no poison, and every stage should run; what proposes without learning has tests of its own.
QUICK = {"nothing_found": "suspect", "proposals": ("learning_curves",), "verify_from": 1}
# Sections as `defend()` takes them; `options()` gives the same for a command line.
CONFIG = {
    "threads": 1,
    "precision": "fp32",
    "device": "cpu",
    "model": "wrn-10-1",
    "checkpoint_seconds": 0.2,
    "supervised": {"epochs": 2, "min_steps": 0, "batch": 128},
    "detection": QUICK,
    "unlearning": {"epochs": 3},
    "finetuning": {"steps": 12, "batch": 32, "norm_batches": 5},
}
# The same in still fewer steps, for the stages on `training_data()`.
TINY = {
    "model": "wrn-10-1",
    "supervised": {"epochs": 2, "min_steps": 0, "batch": 32},
    "detection": QUICK,
    "unlearning": {"epochs": 1},
    "finetuning": {"steps": 4, "batch": 16, "norm_batches": 2},
}


def options(**over: object) -> list[str]:
    """CONFIG (with the top-level keys of `over` replaced) as options of `dlp_fast.run`."""
    words = []
    for key, value in {**CONFIG, **over}.items():
        for name, one in value.items() if isinstance(value, dict) else [("", value)]:
            several = one if isinstance(one, tuple) else (one,)
            words += [f"--{key}.{name}".rstrip(".").replace("_", "-"), *map(str, several)]
    return words


@contextlib.contextmanager
def threads_kept():
    """`threads` of a configuration is set for the whole process; put it back."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def full_disk(room: int):
    """No file of this process may grow beyond `room` bytes, as on a disk that is full.

    Only around the code under test: pytest's own output may be a longer file.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


@dataclass
class Done:
    """How a command ended: exit code and what it printed, both streams together."""

    code: int
    text: str


def command(module: str, *arguments: object) -> Done:
    """Run the command `python -m dlp_fast.<module>` in this process."""
    from dlp_fast.commands.options import guarded

    main = importlib.import_module(f"dlp_fast.{module}").main
    before, sys.argv = sys.argv, [module, *map(str, arguments)]
    text, code = io.StringIO(), 0
    try:
        with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text), threads_kept():
            guarded(main)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    finally:
        sys.argv = before
    return Done(code, text.getvalue())


def _child(module: str, arguments: list[str], log: str, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    from dlp_fast.commands.options import guarded

    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    sys.argv = [module, *arguments]
    guarded(importlib.import_module(f"dlp_fast.{module}").main)


_CHILDREN = multiprocessing.get_context("forkserver")
_CHILDREN.set_forkserver_preload(
    ["dlp_fast.run", "dlp_fast.api", "sklearn.datasets", "sklearn.mixture", "torch._dynamo"]
)


def start(
    module: str, arguments: list[str], log: Path, environment: dict[str, str] | None = None
) -> multiprocessing.Process:
    """Begin `python -m dlp_fast.<module>` in a process of its own that need not import everything anew."""
    child = _CHILDREN.Process(target=_child, args=(module, arguments, str(log), environment or {}))
    child.start()
    return child


def places(world: int) -> list[dict[str, str]]:
    """The environment of each of `world` processes of one run, as torchrun gives it to them on one machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    meet = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
    count = {"WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world)}
    return [meet | count | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(world)]


def slurm_places(world: int) -> list[dict[str, str]]:
    """The same as srun gives it, with the meeting place that a person exports."""
    meet = {name: value for name, value in places(1)[0].items() if not name.endswith(("RANK", "SIZE"))}
    count = {"SLURM_NTASKS": str(world), "SLURM_STEP_TASKS_PER_NODE": str(world), "SLURM_NODEID": "0"}
    return [meet | count | {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)} for rank in range(world)]


def start_together(
    world: int, arguments: list[str], logs: Path, launcher: Callable[[int], list[dict[str, str]]] = places
) -> list[multiprocessing.Process]:
    """Begin one run of `world` processes; what each prints goes to `logs/rank<number>.log`."""
    return [
        start("run", arguments, logs / f"rank{rank}.log", environment)
        for rank, environment in enumerate(launcher(world))
    ]


def _rank(work: Callable[..., None], arguments: tuple, log: str, environment: dict[str, str]) -> None:
    from dlp_fast.commands.guard import guarded

    os.environ.update(environment)
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    torch.set_num_threads(1)
    guarded(lambda: work(*arguments))


def work_together(
    world: int,
    work: Callable[..., None],
    arguments: tuple,
    logs: Path,
    launcher: Callable[[int], list[dict[str, str]]] = places,
) -> list[multiprocessing.Process]:
    """Begin `work(*arguments)`, a function of a module, in `world` processes of one run, guarded as a command is."""
    children = [
        _CHILDREN.Process(target=_rank, args=(work, arguments, str(logs / f"rank{rank}.log"), environment))
        for rank, environment in enumerate(launcher(world))
    ]
    for child in children:
        child.start()
    return children


def finish(child: multiprocessing.Process, seconds: float = 300) -> int:
    """Its exit code (negative: the signal that ended it)."""
    child.join(seconds)
    if child.is_alive():
        child.kill()
        raise AssertionError(f"still running after {seconds} s")
    return child.exitcode


Pixels = ResidentImages  # an image set in memory, as the stages see it


def training_data(n: int = 96, classes: int = 3, side: int = 8, seed: int = 0) -> TrainingData:
    """Pictures of `classes` shades with noise: learnt in a few steps."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % classes
    shade = (labels * 200 // classes)[:, None, None, None]
    noise = torch.randint(0, 56, (n, side, side, 3), generator=generator)
    images = Pixels((shade + noise).to(torch.uint8))
    mean, std = pixel_statistics(images)
    return TrainingData(images, labels, classes, mean, std, False, seed, torch.device("cpu"))


def session(log: RunLog | None = None, checkpoints: Checkpoints | None = None) -> Session:
    """A session in memory, or one that keeps its state."""
    return Session(choose_compute("cpu", "fp32"), log or RunLog(None, quiet=True), checkpoints)


def watch_finetuning(monkeypatch) -> list:
    """A list to which each training of stage 3 adds the Labels that it was given, and the Finetuned that came of it."""
    from dlp_fast.stages import rounds

    seen, stage = [], rounds.finetuning

    def noted(of, model, data, labels, *others):
        found = stage(of, model, data, labels, *others)
        seen.append((labels, found))
        return found

    monkeypatch.setattr(rounds, "finetuning", noted)
    return seen


def picture(side: int = 16, seed: int = 0, mode: str = "RGB") -> Image.Image:
    """A picture of noise around one shade."""
    rng = np.random.default_rng(seed)
    if mode == "I;16":
        return Image.fromarray(rng.integers(0, 65536, (side, side), dtype=np.uint16))
    pixels = rng.integers(0, 60, (side, side, 3), dtype=np.uint8) + np.uint8(40 * (seed % 5))
    return Image.fromarray(pixels).convert(mode)


def image_folder(
    root: Path, each: int = 30, classes: tuple[str, ...] = ("cat", "dog"), side: int = 16
) -> Path:
    """`root/<class>/<number>.png`."""
    for k, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for i in range(each):
            picture(side, seed=5 * i + 2 * k).save(root / name / f"{i:03d}.png")
    return root
