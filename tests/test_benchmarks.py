"""What the scripts of benchmarks/ reckon from what they measure."""

from __future__ import annotations

import json
import subprocess
from types import SimpleNamespace

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


def test_batch_norm_and_relu_are_one_operation_in_its_row_alone(idle_share, monkeypatch):
    from dlp_fast.models import batch_norm

    monkeypatch.setattr(idle_share, "measure", lambda steps, graphs: (graphs, "cuda" in batch_norm.FUSED_ON))
    found = {name: idle_share.row(1, *how) for name, how in idle_share.ROWS.items()}
    assert found == {"off": ("off", False), "auto": ("auto", False), "auto, fused": ("auto", True)}
    assert list(batch_norm.FUSED_ON) == ["cpu"]


@pytest.fixture
def kernels(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.kernels import cuda_cases, cuda_events, cuda_timing, peers, ptxas, summarize

    return {
        "cases": cuda_cases,
        "events": cuda_events,
        "timing": cuda_timing,
        "peers": peers,
        "ptxas": ptxas,
        "summarize": summarize,
    }


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


def test_the_table_of_events_shows_who_is_left_out_with_its_goal(kernels):
    row = {"name": "op", "bytes": 8.0, "bytes_per_second": 4e9, "goals": {"DALI": 3, "µs": 25}}
    row |= {"seconds": {"ours": 2e-6, "copy": 1e-6}, "left_out": {"DALI": "not installed"}}
    assert "| 50 % | 25 µs | DALI: not installed (3) |" in kernels["timing"].table([row], "here", [])


@pytest.fixture
def rehearsal(kernels, monkeypatch):
    monkeypatch.setattr(kernels["timing"].Rehearsal, "most", 200)
    monkeypatch.setattr("dlp_fast.data.dali.available", lambda: "left to the slow test")
    monkeypatch.setattr("benchmarks.kernels.kornia_views.available", lambda: False)
    return kernels["timing"].Rehearsal(0, 60)


@pytest.mark.filterwarnings("ignore:The image decoding and encoding:DeprecationWarning")
def test_every_case_for_a_gpu_runs_on_a_cpu(kernels, rehearsal):
    """So that the minutes of a GPU go into times: shapes, peers and goals of all cases hold."""
    assert kernels["events"].measured(rehearsal, None, {}) == []
    rows = {row["name"]: row for row in rehearsal.rows}
    assert len(rows) == len(rehearsal.rows) > 40 and not rehearsal.skipped
    views = rows["augment, both views of 448 x 32 px into bf16, RandAugment"]
    assert (
        views["left_out"] == {"DALI": "not installed", "kornia": "not installed"}
        and views["goals"]["DALI"] == 3
    )
    for parts in (
        "entropy_rank",
        "row_entropy",
        "select",
        "inject",
        "augment",
        "high_pass",
        "window",
        "256 JPEG",
        "batch_norm_relu, forward",
        "batch_norm_relu, eval",
    ):
        assert any(name.startswith(parts) for name in rows), parts


def test_a_case_whose_result_is_wrong_is_told_and_the_others_go_on(kernels, rehearsal, monkeypatch, tmp_path):
    right = kernels["cases"].select
    monkeypatch.setattr(
        kernels["cases"],
        "select",
        lambda *given, **how: SimpleNamespace(lowest=right(*given, **how).lowest.flip(0)),
    )
    cases = kernels["cases"]
    monkeypatch.setattr(kernels["events"], "PARTS", (cases.selections, cases.small_ranking))
    failed = kernels["events"].measured(
        rehearsal, tmp_path / "out.json", {"device": "", "torch": "", "cuda": ""}
    )
    assert failed == [{"name": "selections", "failed": "not the k smallest in order"}]
    kept = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert kept[-1] == failed[0] and kept[0]["name"].startswith("entropy_rank") and len(kept) == 2


def test_a_peer_that_fails_is_left_out_with_its_reason(kernels, monkeypatch):
    timing = kernels["timing"]
    monkeypatch.setattr(timing, "timed", lambda call, seconds: call() or 2e-6)
    monkeypatch.setattr(timing, "copy_of", lambda moved: lambda: None)

    def broken():
        raise ValueError("no driver\nand more")

    bench = timing.Bench(0.1, 60)
    bench.measure("op", 8.0, {"ours": lambda: None, "DALI": timing.lazily(broken), "triton": None})
    (row,) = bench.rows
    assert row["left_out"] == {"DALI": "no driver", "triton": "not installed"}
    assert row["seconds"] == {"ours": 2e-6, "copy": 2e-6}
    with pytest.raises(ValueError, match="no driver"):
        bench.measure("op", 8.0, {"ours": broken})
    with pytest.raises(AssertionError, match="who are not in it"):
        bench.measure("op", 8.0, {"ours": lambda: None}, {"eager": 3})


@pytest.mark.slow
def test_dali_makes_both_views(kernels):
    pytest.importorskip("nvidia.dali")
    from benchmarks.kernels import cuda_picture_cases

    bench = kernels["timing"].Rehearsal(0, 60)
    images = kernels["peers"].pictures(3, 32)
    for given in (images, [cuda_picture_cases.as_jpeg(picture) for picture in images]):
        weak, strong = cuda_picture_cases.dali_batches(bench, given, 32)()
        assert weak.as_array().shape == strong.as_array().shape == (3, 3, 32, 32)
        assert weak.as_array().std() > 0.5


@pytest.mark.slow
def test_kornia_makes_both_views(kernels):
    from benchmarks.kernels import kornia_views

    if not kornia_views.available():
        pytest.skip("kornia is not installed")
    weak, strong = kornia_views.views(32, (0.5,) * 3, (0.25,) * 3)(kernels["peers"].pictures(3, 32))
    assert weak.shape == strong.shape == (3, 3, 32, 32) and weak.dtype == torch.bfloat16
    assert weak.float().std() > 0.1 and strong.float().std() > 0.1


def test_a_native_peer_is_found_by_its_header(kernels, monkeypatch, tmp_path):
    from benchmarks.kernels import selection_peers

    monkeypatch.setattr(selection_peers, "FOLDER", tmp_path)
    monkeypatch.setattr(selection_peers, "nvcc", lambda: str(tmp_path / "cuda/bin/nvcc"))
    peer = selection_peers.Peer("new.cu", "new/top.cuh", ("package/include",))
    assert peer.folders() is None
    for place in ("package/include", "cuda/include/cccl"):  # build/peers, and a CUDA toolkit that has it
        header = tmp_path / place / "new/top.cuh"
        header.parent.mkdir(parents=True)
        header.touch()
        assert tmp_path / place in peer.folders()
        header.unlink()
    header.touch()
    monkeypatch.setattr(selection_peers, "nvcc", lambda: None)
    assert peer.folders() is None and not peer.available()
    peer.library("90").write_bytes(b"compiled before")
    assert peer.available() and peer.compiled("90") == tmp_path / "new_sm90.so"


def test_a_peer_that_does_not_choose_the_smallest_is_not_timed(kernels):
    from benchmarks.kernels import selection_peers

    scores = torch.tensor([3.0, 1.0, 2.0, 1.0])
    wanted = torch.tensor([1, 3])
    assert (
        selection_peers.checked(lambda: lambda s, k: s.topk(k, largest=False).indices, scores, wanted)()
        is not None
    )
    with pytest.raises(AssertionError, match="not the k smallest"):
        selection_peers.checked(lambda: lambda s, k: s.topk(k).indices, scores, wanted)


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


def test_architectures_stand_side_by_side(kernels):
    ptxas = kernels["ptxas"]
    here, there = ptxas.Kernel("k", 256, 64, 0, 0, 512), ptxas.Kernel("k", 256, 128, 8, 4, 512)
    text = ptxas.side_by_side({"90": [here], "120": [there, ptxas.Kernel("new", 32, 16, 0, 0, 0)]})
    assert "| kernel | threads | static shared, bytes | sm_90 | sm_120 |" in text
    assert "| `k` | 256 | 512 | 64, 4, 50 % | 128, 2, 33 %, stack 8, **spilled 4** |" in text
    assert "| `new` | 32 | 0 |  | 16, 24, 50 % |" in text


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


def test_what_a_release_holds_is_read(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.system import release_build

    assert release_build.as_torch_list(("80-real", "100-real", "120")) == "8.0;10.0;12.0+PTX"
    usage = """Fatbin elf code:
arch = sm_80
Resource usage:
 Common:
  GLOBAL:0
 Function one:
  REG:55 STACK:0 SHARED:28832 LOCAL:0
 Function two:
  REG:40 STACK:216 SHARED:0 LOCAL:0
Fatbin elf code:
arch = sm_120
 Function one:
  REG:57 STACK:0 SHARED:28832 LOCAL:0
Fatbin elf code:
arch = sm_80
 Function three:
  REG:64 STACK:8 SHARED:0 LOCAL:0
"""
    found = release_build.contents(usage, "PTX file    1: one.sm_120.ptx\nPTX file    2: two.sm_120.ptx\n")
    assert found["architectures"] == {
        "80": {"kernels": 3, "most_registers": 64, "most_stack": 216},
        "120": {"kernels": 1, "most_registers": 57, "most_stack": 0},
    }
    assert found["ptx"] == ["120"]


def test_options_that_are_places_are_in_no_result(tmp_path):
    from argparse import Namespace

    from benchmarks.common import chosen, write_result

    options = Namespace(
        trees=[tmp_path, tmp_path], out=tmp_path / "a.json", data="here", seeds=[1, 2], slice=20
    )
    assert chosen(options) == {"seeds": [1, 2], "slice": 20}
    write_result(options.out, chosen(options), "CPU")
    assert options.out.is_file()


def test_a_run_that_has_ended_leaves_the_other_its_turn(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.system import two_commits

    run = object.__new__(two_commits.Run)
    run.process, run.wall = subprocess.Popen(["true"], start_new_session=True), 0.0
    run.process.wait(timeout=60)
    run.work(until=20)
    assert run.wall == 0.0


def test_processor_seconds_are_told_by_stage(monkeypatch):
    """Halted time costs nothing, and what is done before a stage's first event is not that stage's."""
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.system import two_commits

    events = [
        *({"kind": "epoch", "stage": "supervised", "time": when} for when in (107.0, 109.0, 211.0)),
        {"kind": "finding", "time": 216.0},
        *({"kind": "steps", "stage": "finetuning", "time": when} for when in (220.0, 223.0)),
        {"kind": "done", "time": 224.0},
    ]
    samples = [(100.0, 0.0), (110.0, 10.0), (210.0, 10.0), (226.0, 26.0)]  # halted for 100 seconds
    assert two_commits.by_stage(events, samples) == {
        "supervised": 6.0,
        "start, reading": 5.0,
        "detection": 5.0,
        "finetuning": 6.0,
        "before stage 3": 1.0,
        "predictions, report": 3.0,
    }
