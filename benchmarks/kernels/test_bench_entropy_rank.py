"""Entropy ranking and selection beside their peers, in one process; equality is asserted before the timing.

pytest benchmarks/kernels/test_bench_entropy_rank.py --benchmark-enable --benchmark-group-by=group
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.kernels.peers import KINDS, eager_entropy, eager_rank_both, keys, logits
from dlp_fast.ops import entropy_rank, native_available, row_entropy, select

pytestmark = pytest.mark.skipif(not native_available(), reason="native ops are not built")


@pytest.fixture(scope="module", autouse=True)
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("classes", [10, 1000])
@pytest.mark.parametrize("who", ["ours", "eager", "compile"])
def test_rank_50k_rows(benchmark, classes, who):
    x = logits(50_000 if benchmark.enabled else 1000, classes)
    lowest, per_class = len(x) // 100, max(1, len(x) // 100 // classes)
    ours = entropy_rank(x, lowest, per_class)
    torch.testing.assert_close(ours.entropy, eager_entropy(x), rtol=1e-3, atol=1e-4)
    benchmark.group = f"rank [{len(x)}, {classes}]"
    if who == "compile":
        compiled = torch.compile(eager_entropy, dynamic=False) if benchmark.enabled else eager_entropy
        run = lambda: eager_rank_both(x, lowest, per_class, compiled)  # noqa: E731
    elif who == "eager":
        run = lambda: eager_rank_both(x, lowest, per_class)  # noqa: E731
    else:
        run = lambda: entropy_rank(x, lowest, per_class)  # noqa: E731
    benchmark.pedantic(run, rounds=5 if who != "ours" and classes > 10 else 30, warmup_rounds=1)


@pytest.mark.parametrize("classes", [10, 1000])
@pytest.mark.parametrize("who", ["ours", "eager", "compile"])
def test_entropy_50k_rows(benchmark, classes, who):
    x = logits(50_000 if benchmark.enabled else 1000, classes)
    torch.testing.assert_close(row_entropy(x), eager_entropy(x), rtol=1e-3, atol=1e-4)
    compiled = (
        torch.compile(eager_entropy, dynamic=False)
        if who == "compile" and benchmark.enabled
        else eager_entropy
    )
    run = row_entropy if who == "ours" else compiled
    benchmark.group = f"entropy [{len(x)}, {classes}]"
    benchmark.pedantic(run, args=(x,), rounds=15, warmup_rounds=1)


@pytest.mark.parametrize("n", [1_280_000, 10_000_000])
@pytest.mark.parametrize("who", ["ours", "torch.topk", "np.argpartition"])
def test_select_1_percent(benchmark, n, who):
    n = n if benchmark.enabled else 10000
    scores, k = keys("random", n), n // 100
    assert torch.equal(select(scores, k).lowest, torch.sort(scores, stable=True).indices[:k])
    array = scores.numpy()
    run = {
        "ours": lambda: select(scores, k),
        "torch.topk": lambda: torch.topk(scores, k, largest=False),
        "np.argpartition": lambda: np.argpartition(array, k)[:k],
    }[who]
    benchmark.group = f"select k = 1 % of {n}"
    benchmark.pedantic(run, rounds=7, warmup_rounds=1)


@pytest.mark.parametrize("kind", KINDS)
def test_adversarial_keys(benchmark, kind):
    n = 1_280_000 if benchmark.enabled else 10000
    scores, k = keys(kind, n), n // 100
    first = select(scores, k).lowest
    assert torch.equal(first, torch.sort(scores, stable=True).indices[:k])
    benchmark.group = f"select by kind of keys, {n}"
    benchmark.pedantic(select, args=(scores, k), rounds=20, warmup_rounds=1)
