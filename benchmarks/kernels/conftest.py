"""Facts about the machine in every saved result, two threads, and small sizes where nothing is timed."""

from __future__ import annotations

import os
import platform
import subprocess

import pytest
import torch

from dlp_fast.runs.environment import environment

THREADS = 2


def commit() -> str:
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


def machine_facts() -> dict[str, object]:
    """What a reader needs to judge a number: processor, threads, versions, the native build."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    of = environment(gpu or "CPU")
    return {
        "cpu": of["processor"],
        "cores": os.cpu_count(),
        "threads": THREADS,
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "gpu": gpu,
        "torch": of["torch"],
        "torch_cuda": of["cuda"],
        "python": of["python"],
        "system": f"{platform.system()} {platform.release()}",
        "commit": commit(),
        "build": of["native"],
    }


def pytest_benchmark_update_machine_info(config, machine_info):
    facts = machine_facts()
    # the plugin's own facts hold the host's name, which nobody needs and which is private
    machine_info.clear()
    machine_info.update(facts)


@pytest.fixture(autouse=True)
def _two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def timed(request) -> bool:
    """Whether times are taken; where not (plain ``pytest``), small sizes are checked for equality only."""
    return not request.config.getoption("benchmark_disable")
