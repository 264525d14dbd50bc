"""Freed memory is kept while a session trains on a CPU."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from dlp_fast.engine import allocator

# Page faults of taking and giving back blocks as a training step does, once malloc has found places for them; in a
# process of its own, whose heap nobody has cut to pieces before.
PROGRAM = """
import resource, torch
from dlp_fast.engine.allocator import AFTER, freed_memory_kept, glibc
for of in AFTER:
    glibc().mallopt(of, 128 << 10)  # what it begins with; then it adapts, more or less
def page_faults():
    count = 0
    for turn in range(10):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        kept = [torch.ones(24 << 18) for _ in range(3)]
        del kept
        count += (turn > 7) * (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    return count
with freed_memory_kept(False):
    not_wanted = page_faults()
with freed_memory_kept():
    within = page_faults()
print(within, not_wanted)
"""


@pytest.mark.skipif(allocator.glibc() is None, reason="malloc is not glibc's")
def test_no_page_is_asked_for_twice():
    environment = {name: value for name, value in os.environ.items() if name not in allocator.OWN}
    environment |= {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, check=True, capture_output=True, text=True
    )
    within, not_wanted = map(int, done.stdout.split())
    assert within < 200, done.stdout
    assert not_wanted > 2000, done.stdout  # given back, and asked for again


def test_the_users_own_setting_stands(monkeypatch):
    monkeypatch.setattr(allocator, "glibc", lambda: pytest.fail("malloc is set up"))
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1000000")
    with allocator.freed_memory_kept():
        pass


def test_another_malloc_is_left_alone(monkeypatch):
    monkeypatch.setattr(allocator, "glibc", lambda: None)
    with allocator.freed_memory_kept():
        pass
