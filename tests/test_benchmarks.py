"""What the scripts of benchmarks/ reckon from what they measure."""

from __future__ import annotations

import pytest
from tiny import ROOT


@pytest.fixture
def idle_share(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.system import idle_share

    return idle_share


def test_covered_time_counts_once(idle_share):
    assert idle_share.covered([(5, 6), (0, 2), (1, 3)]) == 4


def test_the_slowest_kernels_are_named(idle_share):
    """By their time in all calls together, not by that of one."""
    kernels = [("rare", 0.0, 6.0), ("often", 0.0, 4.0), ("often", 5.0, 9.0), ("short", 9.0, 10.0)]
    found = idle_share.slowest(kernels, 2)
    assert [kernel["name"] for kernel in found] == ["often", "rare"]
    assert found[0] == {"name": "often", "share": pytest.approx(8 / 15), "microseconds": 4.0, "calls": 2}
    assert len(idle_share.slowest(kernels, 9)) == 3
