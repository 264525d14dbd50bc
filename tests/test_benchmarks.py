"""What the scripts of benchmarks/ reckon from what they measure."""

from __future__ import annotations

import pytest
import torch
from tiny import ROOT

from dlp_fast.ops import entropy_rank, high_pass_residual, row_entropy
from dlp_fast.ops.residual_scan import WEIGHTS


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


@pytest.fixture
def kernels(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.kernels import cuda_timing, peers, ptxas, summarize

    return {"timing": cuda_timing, "peers": peers, "ptxas": ptxas, "summarize": summarize}


def test_peers_do_what_the_ops_do(kernels):
    peers, g = kernels["peers"], torch.Generator().manual_seed(0)
    x = torch.randn(300, 7, generator=g)
    ours = entropy_rank(x, 30, 5)
    for entropy, unit in (
        (peers.eager_entropy, 1),
        (peers.chunked_entropy, 1 / torch.log(torch.tensor(2.0))),
    ):
        torch.testing.assert_close(entropy(x) * unit, row_entropy(x), rtol=1e-4, atol=1e-4)
    low, high = peers.eager_rank_both(x, 30, 5, row_entropy)
    assert set(low.tolist()) == set(ours.lowest.tolist()) and torch.equal(high, ours.highest)
    images = torch.randint(0, 256, (5, 12, 9, 3), dtype=torch.uint8, generator=g)
    mean = torch.rand(12, 9, 3, generator=g)
    weights = torch.tensor(WEIGHTS) / sum(WEIGHTS)
    theirs = peers.residual_by_convolution(images, mean, weights)
    torch.testing.assert_close(theirs, high_pass_residual(images, mean), rtol=1e-3, atol=1e-5)


def test_the_table_of_events_shows_goals_and_what_is_left(kernels):
    row = {"name": "op", "bytes": 8.0, "bytes_per_second": 4e9, "goals": {"eager": 5, "copy": 0.8}}
    row["seconds"] = {"ours": 2e-6, "eager": 8e-6, "copy": 1e-6}
    text = kernels["timing"].table([row], "here", ["slow one"])
    assert "| op | 2.0 µs | 4 | 50 % | 80 % | eager 8.0 µs, 4.0 (5) |" in text
    assert text.endswith("Not measured for lack of time: slow one.\n")


def test_no_case_is_begun_once_the_time_is_up(kernels):
    bench = kernels["timing"].Bench(0.1, budget=-1)
    assert bench.late("one") and bench.skipped == ["one"]
    assert not kernels["timing"].Bench(0.1, budget=60).late("one")


@pytest.mark.parametrize(
    ("threads", "registers", "shared", "expected"),
    [
        (256, 80, 8192, (3, "registers")),
        (256, 32, 8192, (8, "threads")),
        (1024, 64, 7536, (1, "registers")),
        (256, 16, 100_000, (2, "shared memory")),
        (32, 16, 0, (32, "blocks")),
    ],
)
def test_resident_blocks(kernels, threads, registers, shared, expected):
    ptxas = kernels["ptxas"]
    kernel = ptxas.Kernel("k", threads, registers, 0, 0, shared)
    assert kernel.resident(ptxas.PROCESSORS["90"]) == expected


def test_what_ptxas_prints_is_read(kernels):
    told = """ptxas info    : Compiling entry function '_Z1kIfEvPf' for 'sm_90'
ptxas info    : Function properties for _Z1kIfEvPf
    24 bytes stack frame, 8 bytes spill stores, 4 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 512 bytes smem
"""
    ptx = ".visible .entry _Z1kIfEvPf(\n.param .u64 p\n)\n.maxntid 192\n{ }"
    assert kernels["ptxas"].parsed(told, ptx) == [kernels["ptxas"].Kernel("k<float>", 192, 40, 24, 12, 512)]


def saved(**medians):
    return {
        "benchmarks": [
            {"group": "g", "name": name, "params": {"who": name}, "stats": {"median": seconds}}
            for name, seconds in medians.items()
        ]
    }


def test_ratios_are_compared_with_an_earlier_result(kernels):
    """The fastest of ours counts; a peer that only one of the results has is left out."""
    before, now = saved(ours=2.0, eager=8.0, gone=1.0), saved(ours=4.0, ours_fast=1.0, eager=6.0, new=9.0)
    text = kernels["summarize"].compared(now, before)
    assert "| g | eager | 4.00 | 6.00 | 1.50 |" in text
    assert "gone" not in text and "new" not in text


def test_a_kept_result_is_read(kernels):
    kept = sorted((ROOT / "benchmarks" / "results").glob("kernels_cpu_*.json.gz"))[-1]
    assert ("entropy [50000, 10]", "eager") in kernels["summarize"].ratios(
        kernels["summarize"].read_result(kept)
    )
