"""Freed memory is kept while a session trains on a CPU."""

from __future__ import annotations

import resource

import pytest
import torch

from dlp_fast.engine import allocator
from dlp_fast.engine.allocator import freed_memory_kept

glibc = pytest.mark.skipif(allocator._glibc() is None, reason="malloc is not glibc's")


def page_faults(megabytes: int = 24) -> int:
    """Of taking and giving back blocks as a training step does, after the first time."""
    count = 0
    for turn in range(3):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        kept = [torch.ones(megabytes << 18) for _ in range(3)]
        del kept
        count += turn > 0 and resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    return count


@glibc
def test_no_page_is_asked_for_twice(monkeypatch):
    for name in allocator.OWN:
        monkeypatch.delenv(name, raising=False)
    with freed_memory_kept():
        assert page_faults() < 200
    assert page_faults() > 2000  # given back again


@glibc
def test_the_users_own_setting_stands(monkeypatch):
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1000000")
    with freed_memory_kept():
        assert page_faults() > 2000


@glibc
def test_a_run_on_a_gpu_leaves_malloc_alone(monkeypatch):
    for name in allocator.OWN:
        monkeypatch.delenv(name, raising=False)
    with freed_memory_kept(False):
        assert page_faults() > 2000


def test_another_malloc_is_left_alone(monkeypatch):
    monkeypatch.setattr(allocator, "_glibc", lambda: None)
    with freed_memory_kept():
        pass
