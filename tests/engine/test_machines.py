"""Two machines: network namespaces, which reach each other by one link and have nothing else in common but the disk."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny import ROOT, options

PORT = 29500  # nobody else is in these networks
pytestmark = pytest.mark.slow


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


@pytest.fixture
def machines() -> Iterator[tuple[str, str]]:
    """Names of two network namespaces, 10.77.0.1 and 10.77.0.2."""
    if shutil.which("ip") is None:
        pytest.skip("the command ip (iproute2) is missing")
    names = tuple(f"dlp{os.getpid()}{side}" for side in "ab")
    try:
        try:
            for name in names:
                ip("netns", "add", name)
            ip("link", "add", f"{names[0]}", "type", "veth", "peer", "name", f"{names[1]}")
            for number, name in enumerate(names, 1):
                ip("link", "set", name, "netns", name)
                ip("-n", name, "addr", "add", f"10.77.0.{number}/24", "dev", name)
                ip("-n", name, "link", "set", name, "up")
                ip("-n", name, "link", "set", "lo", "up")
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no network namespaces here: {error.stderr.strip()}")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


def begin(names: tuple[str, str], run: Path, logs: Path, **over: object) -> list[subprocess.Popen]:
    """The command of the documentation, on each machine."""
    children = []
    for number, name in enumerate(names, 1):
        launch = ["--nnodes", "2", "--nproc-per-node", "1", "--rdzv-backend", "c10d"]
        launch += ["--rdzv-endpoint", f"10.77.0.1:{PORT}", "--local-addr", f"10.77.0.{number}"]
        launch += ["--rdzv-conf", f"is_host={number == 1}"]  # both have the name of this one
        work = ["-m", "dlp_fast.run", "--out", str(run), "--batch-parts", "2", *options(**over)]
        words = ["ip", "netns", "exec", name, sys.executable, "-m", "torch.distributed.run", *launch, *work]
        given = os.environ | {"GLOO_SOCKET_IFNAME": name, "OMP_NUM_THREADS": "1"}
        log = (logs / f"{number}.log").open("wb")
        children.append(subprocess.Popen(words, cwd=ROOT, env=given, stdout=log, stderr=log))
    return children


def test_two_machines(machines, tmp_path):
    small = {"supervised": {"epochs": 1, "min_steps": 0}, "finetuning": {"steps": 2, "norm_batches": 2}}
    children = begin(machines, tmp_path / "run", tmp_path, **small)
    codes = [child.wait(900) for child in children]
    told = "".join(file.read_text() for file in tmp_path.glob("*.log"))
    assert codes == [0, 0], told
    assert told.count("verdict:") == 1
    environment = json.loads((tmp_path / "run/environment.json").read_text())
    assert "2 processes" in environment["device"]


def test_a_cable_that_is_pulled(machines, tmp_path):
    """Nothing arrives any more, no end either: each machine has to notice by itself."""
    run = tmp_path / "run"
    children = begin(machines, run, tmp_path, supervised={"epochs": 1000, "min_steps": 0})
    while not (run / "checkpoints").is_dir() and all(child.poll() is None for child in children):
        time.sleep(0.1)
    ip("-n", machines[0], "link", "set", machines[0], "down")
    pulled, end = time.monotonic(), "the same command goes on from the last checkpoint."
    logs = [tmp_path / f"{number}.log" for number in (1, 2)]
    while not all(end in log.read_text() for log in logs) and time.monotonic() - pulled < 120:
        time.sleep(0.5)
    for child in children:  # torchrun on the second machine waits for the first one's for minutes
        child.kill()
        child.wait()
    assert "rank 1 has not been heard of for 30 s" in logs[0].read_text()
    assert "rank 0 has not answered for 30 s" in logs[1].read_text()
