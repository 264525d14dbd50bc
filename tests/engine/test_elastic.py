"""A run goes on with another number of processes than it was begun with: its checkpoints know nothing of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny import CONFIG, ROOT, finish, options, places, slurm_places, start, start_together

QUICK = {"supervised": {"epochs": 2, "min_steps": 0}, "finetuning": {"steps": 12, "norm_batches": 4}}


def arguments(run: Path) -> list[str]:
    return ["--out", str(run), "--batch-parts", "3", *options(**QUICK)]


def begin(world: int, run: Path, logs: Path) -> list:
    logs.mkdir()
    if world == 1:
        return [start("run", arguments(run), logs / "rank0.log")]
    return start_together(world, arguments(run), logs)


def told(logs: Path) -> str:
    return "".join(file.read_text() for file in sorted(logs.iterdir()))


def await_checkpoint(run: Path, number: int, children: list) -> None:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and all(child.is_alive() for child in children):
        if any(int(p.name) >= number for p in (run / "checkpoints").glob("[0-9]*")):
            return
        time.sleep(0.02)
    raise AssertionError("no checkpoint in time")


def findings(run: Path) -> tuple[str, bytes, bytes]:
    """(verdict, table of images, model), byte for byte."""
    kind = json.loads((run / "results.json").read_text())["verdict"]["kind"]
    return kind, (run / "samples.csv").read_bytes(), (run / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """One process, never interrupted."""
    folder = tmp_path_factory.mktemp("elastic")
    children = begin(1, folder / "run", folder / "logs")
    assert [finish(child) for child in children] == [0], told(folder / "logs")
    return findings(folder / "run")


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2), (1, 3)])
def test_killed_and_gone_on_with_others(whole, tmp_path, before, after):
    run = tmp_path / "run"
    children = begin(before, run, tmp_path / "first")
    await_checkpoint(run, 4, children)
    os.kill(children[-1].pid, signal.SIGKILL)  # of two, the one that saves nothing: the other ends by itself
    assert finish(children[-1]) == -signal.SIGKILL
    for child in children[:-1]:
        assert finish(child, 60) == 5, told(tmp_path / "first")
    assert not (run / "results.json").exists()
    children = begin(after, run, tmp_path / "second")
    assert [finish(child) for child in children] == [0] * after, told(tmp_path / "second")
    assert "going on from the last checkpoint" in told(tmp_path / "second")
    assert findings(run) == whole
    assert b"suspected_poisoned" in whole[1]


@pytest.mark.slow
def test_a_signal_to_any_rank_saves_and_ends_all(tmp_path):
    run = tmp_path / "run"
    children = begin(2, run, tmp_path / "logs")
    await_checkpoint(run, 2, children)
    os.kill(children[1].pid, signal.SIGTERM)
    assert [finish(child, 60) for child in children] == [143, 143], told(tmp_path / "logs")
    assert told(tmp_path / "logs").count("stopped by SIGTERM") == 1


@pytest.mark.slow
def test_slurm(whole, tmp_path):
    """The command itself, as srun starts it."""
    (tmp_path / "logs").mkdir()
    children = start_together(2, arguments(tmp_path / "run"), tmp_path / "logs", slurm_places)
    assert [finish(child) for child in children] == [0, 0], told(tmp_path / "logs")
    assert findings(tmp_path / "run") == whole


@pytest.mark.slow
def test_torchrun(tmp_path):
    """The launcher itself, by the command of the documentation."""
    run = tmp_path / "run"
    meet = places(2)[0]
    launch = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", meet["MASTER_PORT"]]
    small = options(supervised={"epochs": 1, "min_steps": 0}, finetuning={"steps": 2, "norm_batches": 2})
    done = subprocess.run(
        [sys.executable, *launch, "-m", "dlp_fast.run", "--out", str(run), *small],
        cwd=ROOT,
        env=os.environ | {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("verdict:") == 1
    environment = json.loads((run / "environment.json").read_text())
    assert "2 processes" in environment["device"], environment
    assert CONFIG["device"] == "cpu"
