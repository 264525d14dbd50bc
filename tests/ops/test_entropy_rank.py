"""entropy_rank, row_entropy, entropy_and_class, select against float64 oracles and stable sorts."""

from __future__ import annotations

import importlib
import math
import os
import subprocess
import sys

import pytest
import torch

from dlp_fast.errors import NumericError
from dlp_fast.ops import entropy_and_class, entropy_rank, native_available, row_entropy, select
from dlp_fast.ops.entropy_rank_reference import entropy_rank_reference, select_reference

face = importlib.import_module("dlp_fast.ops.entropy_rank")  # the package exports a function of the same name

DEVICES = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])
native = pytest.mark.skipif(not native_available(), reason="native ops are not built")


def saturated(n: int, classes: int, gap: float, seed: int = 0) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, classes, generator=g) * 2
    x[torch.arange(n), torch.randint(classes, (n,), generator=g)] += gap
    return x


def oracle(logits: torch.Tensor) -> torch.Tensor:
    """float64, tail-exact: the textbook form loses a saturated row even in float64."""
    x = logits.double()
    top = x.argmax(1, keepdim=True)
    t = x - x.gather(1, top)
    term = t.exp().scatter(1, top, 0.0)
    s = term.sum(1)
    return (torch.log1p(s) - (t * term).sum(1) / (1 + s)) / math.log(2)


def relative_error(logits: torch.Tensor) -> float:
    want = oracle(logits)
    return ((row_entropy(logits).double().cpu() - want).abs() / want).max().item()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("gap", [0, 8, 15, 22, 30])
@pytest.mark.parametrize("classes", [2, 10, 32, 33, 200, 1000, 2500])
def test_entropy_is_exact_to_2e_6_and_selects_the_oracles_rows(classes, gap, device):
    n = min(4000, 300_000 // classes)
    x = saturated(n, classes, gap)
    want = oracle(x)
    got = entropy_rank(x.to(device), n // 100)
    assert relative_error(x) <= 2e-6
    assert (got.entropy >= 0).all()
    assert set(got.lowest.tolist()) == set(torch.sort(want, stable=True).indices[: n // 100].tolist())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("classes", [10, 100, 1000])
def test_half_precision_logits_are_read_without_loss(dtype, classes):
    assert relative_error(saturated(50_000 // classes, classes, 12).to(dtype)) <= 2e-6


def test_half_denormals_and_signs():
    every = torch.arange(0, 0x7C00, dtype=torch.int32).to(torch.int16).view(torch.float16)
    rows = torch.stack([every, -every], 1)
    got, want = row_entropy(rows), row_entropy(rows.float())
    assert torch.equal(got, want)


def test_large_margins_underflow_to_zero_and_tie_by_id():
    x = torch.zeros(6, 10)
    x[:, 3] = torch.tensor([90.0, 200.0, 1e30, 86.0, 3e38, 90.0])
    x[4, 0] = -3e38  # the difference overflows
    got = entropy_rank(x, 6)
    assert got.lowest.tolist() == [0, 1, 2, 4, 5, 3]
    assert got.entropy[3] > 0 and got.entropy[[0, 1, 2, 4, 5]].eq(0).all()


def test_equal_logits_give_log2_of_classes():
    for classes in (2, 10, 64, 1000):
        assert row_entropy(torch.full((1, classes), 5.0)).item() == pytest.approx(
            math.log2(classes), rel=1e-6
        )


def keys(kind: str, n: int) -> torch.Tensor:
    g = torch.Generator().manual_seed(n)
    return {
        "random": lambda: torch.randn(n, generator=g),
        "equal": lambda: torch.full((n,), -2.5),
        "two": lambda: torch.randint(2, (n,), generator=g).float() - 0.5,
        "sorted": lambda: torch.randn(n, generator=g).sort().values,
        "reversed": lambda: torch.randn(n, generator=g).sort(descending=True).values,
        "denormal": lambda: torch.randint(-40, 40, (n,), generator=g).float() * 1e-45,
        "signed zero": lambda: torch.where(torch.rand(n, generator=g) < 0.5, -0.0, 0.0),
        "close": lambda: (torch.randint(3000, (n,), generator=g, dtype=torch.int32) + 0x3F800000).view(
            torch.float32
        ),
    }[kind]()


KINDS = ["random", "equal", "two", "sorted", "reversed", "denormal", "signed zero", "close"]


def assert_chosen_like_reference(scores, k, m, labels, classes):
    got = select(scores, k, m, labels, classes, check=True)
    low, high, counts, _ = select_reference(scores, k, m, labels, classes)
    assert torch.equal(got.lowest, low)
    assert torch.equal(got.counts, counts)
    assert torch.equal(got.highest, high[: int(counts.sum())])


@native
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("n", [1, 17, 1000, 33001])
@pytest.mark.parametrize("kind", KINDS)
def test_selection_is_the_stable_sort(kind, n, device):
    scores = keys(kind, n).to(device)
    for classes in (1, 10, 300):
        labels = torch.randint(classes, (n,), generator=torch.Generator().manual_seed(classes)).to(device)
        for k, m in ((0, n), (1, 0), (n // 100, 1), (n // 2, n // 50), (n, 3)):
            assert_chosen_like_reference(scores, k, m, labels, classes)


@native
@pytest.mark.parametrize("threads", [1, 3])
def test_few_of_many_rows_with_rare_and_absent_classes(threads):
    """Thresholds from a sample know little of a class of three rows, and nothing of one that it misses."""
    n = 60_000
    scores = keys("random", n)
    labels = torch.zeros(n, dtype=torch.int64)
    labels[::7], labels[[5, 40_001, 59_998]], labels[17_000:17_200] = 2, 3, 5
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        for given in (labels, labels.int()):
            assert_chosen_like_reference(scores, 40, 5, given, 6)
            assert_chosen_like_reference(-scores, 3, 250, given, 6)
    finally:
        torch.set_num_threads(before)


def sampled_rows(n: int, size: int) -> torch.Tensor:
    """Which rows the CPU kernel draws thresholds from: one of each stretch."""
    rows, word = [], 1
    for i in range(size):
        begin, word = n * i // size, (word * 1664525 + 1013904223) % 2**32
        rows.append(begin + (word >> 8) % (n * (i + 1) // size - begin))
    return torch.tensor(rows)


def test_a_sample_that_misleads_changes_nothing():
    n = 16_384
    scores = keys("random", n).abs()
    labels = (torch.arange(n) % 12 == 0).long()
    drawn = sampled_rows(n, n // 8)
    assert len(drawn.unique()) == n // 8
    scores[drawn] -= 10  # all that the sample sees is lower than all others
    assert_chosen_like_reference(scores, n // 16, 0, None, 0)
    assert_chosen_like_reference(-scores, 0, 100, labels, 2)


def test_labels_of_both_widths_and_strided_inputs():
    scores, labels = torch.randn(3000), torch.randint(7, (3000,))
    want = select(scores, 30, 5, labels, 7)
    wide_scores, wide_labels = torch.stack([scores, -scores], 1), torch.stack([labels, labels * 0], 1)
    for got in (
        select(scores, 30, 5, labels.int(), 7),
        select(wide_scores[:, 0], 30, 5, wide_labels[:, 0], 7),
    ):
        assert all(torch.equal(a, b) for a, b in zip(got, want))


def test_absent_classes_and_small_ones():
    got = select(torch.tensor([3.0, 1.0, 2.0]), 0, 2, torch.tensor([4, 4, 1]), 6)
    assert got.counts.tolist() == [0, 1, 0, 0, 2, 0]
    assert got.highest.tolist() == [2, 0, 1]


def test_classes_come_from_the_largest_logit_when_there_are_no_labels():
    for classes in (10, 40):
        x = torch.randint(-3, 3, (2000, classes)).float()  # many equal largest logits: the first one counts
        top = (x == x.max(1, keepdim=True).values).int().argmax(1)
        got, want = entropy_rank(x, 20, 9), entropy_rank(x, 20, 9, top)
        assert all(torch.equal(a, b) for a, b in zip(got, want))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("classes", [10, 70])
def test_strided_rows_give_the_same_bits(classes, dtype):
    x = saturated(501, classes * 2, 6).to(dtype)
    for view in (
        x[::3, :classes],
        x[:, ::2],
        x.t().contiguous().t()[:, :classes],
        x[:1, :classes].expand(9, classes),
    ):
        assert torch.equal(row_entropy(view), row_entropy(view.contiguous()))


@pytest.mark.parametrize("classes", [10, 100])
def test_a_row_has_the_same_bits_alone_and_in_any_batch(classes):
    x = saturated(333, classes, 9)
    alone = torch.cat([row_entropy(x[i : i + 1]) for i in range(333)])
    assert torch.equal(alone, row_entropy(x))


def test_empty():
    got = entropy_rank(torch.empty(0, 10), 0, 5)
    assert [t.numel() for t in got] == [0, 0, 0, 10]
    assert got.counts.eq(0).all()


@native
def test_bits_do_not_depend_on_threads():
    x = saturated(40000, 12, 10)
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 3, 4):
            torch.set_num_threads(threads)
            results.append(entropy_rank(x, 600, 50))
    finally:
        torch.set_num_threads(before)
    for got in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(got, results[0]))


def test_a_hundred_repetitions_are_bit_equal():
    x = saturated(17000, 10, 14)
    first = entropy_rank(x, 200, 20)
    for _ in range(100):
        assert all(torch.equal(a, b) for a, b in zip(entropy_rank(x, 200, 20), first))


@native
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("n", [2000, 300_000])  # few rows: one launch for both choices; many: by digits
def test_a_captured_graph_ranks_new_logits(n):
    x = saturated(n, 10, 10).cuda()
    entropy_rank(x, n // 100, 20)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = entropy_rank(x, n // 100, 20)
    x.copy_(saturated(n, 10, 7, seed=5))
    graph.replay()
    torch.cuda.synchronize()
    want = entropy_rank(x.cpu(), n // 100, 20)
    for got, wanted in zip(captured, want, strict=True):
        assert torch.equal(got.cpu()[: len(wanted)], wanted)


LEVEL_SCRIPT = """
import hashlib, torch
from dlp_fast.ops import entropy_rank
digest = hashlib.sha256()
g = torch.Generator().manual_seed(3)
for classes in (3, 10, 32, 45, 1100):
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        x = (torch.randn(900, classes, generator=g) * 8).to(dtype)
        for t in entropy_rank(x, 90, 7):
            digest.update(t.numpy().tobytes())
print(digest.hexdigest())
"""


@native
def test_every_simd_level_gives_the_same_bits():
    seen = set()
    for level in ("baseline", "avx2", "avx512"):
        run = subprocess.run(
            [sys.executable, "-c", LEVEL_SCRIPT],
            env=os.environ | {"DLP_FAST_SIMD": level, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
        )
        assert run.returncode == 0, run.stderr
        seen.add(run.stdout)
    assert len(seen) == 1


@pytest.mark.parametrize("size", [1, 64, 1000])
def test_entropies_and_classes_in_batches_equal_one_call(size):
    x = saturated(1000, 10, 9)
    want = entropy_rank(x, 50, 4)
    entropy, top = map(torch.cat, zip(*map(entropy_and_class, x.split(size)), strict=True))
    assert torch.equal(entropy, want.entropy) and torch.equal(top, x.argmax(1))
    got = select(entropy, 50, 4, top, 10)
    assert all(torch.equal(a, b) for a, b in zip(got, want))


@native
@pytest.mark.parametrize("device", DEVICES)
def test_opcheck(device):
    x, labels = saturated(50, 10, 5).to(device), torch.randint(10, (50,), device=device)
    scores = torch.randn(50, device=device)
    ops = torch.ops.dlp_fast
    torch.library.opcheck(ops.row_entropy, (x,))
    torch.library.opcheck(ops.entropy_rank, (x, 5, 2, None))
    torch.library.opcheck(ops.entropy_rank, (x, 5, 2, labels))
    torch.library.opcheck(ops.select, (scores, 5, 2, labels, 10))
    torch.library.opcheck(ops.select, (scores, 5, 0, None, 0))


@native
def test_reference_agrees_with_the_native_op():
    x = saturated(500, 20, 8)
    ours, plain = entropy_rank(x, 25, 3), entropy_rank_reference(x, 25, 3, None)
    torch.testing.assert_close(ours.entropy, plain[0], rtol=2e-6, atol=0)
    assert torch.equal(ours.lowest, plain[1])
    assert torch.equal(ours.highest, plain[2][: len(ours.highest)])
    assert torch.equal(ours.counts, plain[3])


def test_without_the_native_module_the_reference_answers(monkeypatch):
    x = saturated(300, 10, 8)
    want = entropy_rank(x, 9, 2)
    monkeypatch.setattr(face, "native_on", lambda device: False)
    got = entropy_rank(x, 9, 2)
    assert torch.equal(got.lowest, want.lowest) and torch.equal(got.highest, want.highest)
    with pytest.raises(NumericError, match="first rows: 1"):
        entropy_rank(torch.tensor([[0.0, 1.0], [math.nan, 0.0]]), 1)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("classes", [10, 50, 1030])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_logits_that_are_not_finite_are_named(value, classes, dtype):
    x = torch.zeros(40, classes, dtype=dtype)
    x[7, 0] = x[23, classes - 1] = x[30, classes // 2] = value
    for call in (lambda: entropy_rank(x, 1, 1), lambda: row_entropy(x)):
        with pytest.raises(
            NumericError, match=r"logits must be finite, .* in 3 of 40 rows; first rows: 7, 23, 30"
        ):
            call()
    with pytest.raises(NumericError, match="first rows: 107, 123, 130"):
        entropy_and_class(x, first_id=100)


def test_scores_that_are_not_finite_are_named_even_when_nothing_is_chosen():
    scores = torch.zeros(50000)
    scores[[41000, 49999]] = torch.tensor([math.inf, math.nan])
    for k in (0, 10):
        with pytest.raises(NumericError, match=r"scores must be finite, .* first rows: 41000, 49999"):
            select(scores, k)


X, S, L = torch.zeros(4, 3), torch.zeros(4), torch.zeros(4, dtype=torch.int64)


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: entropy_rank(X.double(), 1), TypeError, "logits must be a float32, .* got torch.float64"),
        (lambda: entropy_rank([1.0], 1), TypeError, "logits must be .* got list"),
        (lambda: entropy_rank(S, 1), ValueError, r"logits must have 2 dimensions .* got shape \(4,\)"),
        (lambda: entropy_rank(X[:, :1], 1), ValueError, r"2 to 16777216 classes \(columns\), got 1"),
        (lambda: entropy_rank(X, 5), ValueError, "lowest must be from 0 to the number of rows, 4, got 5"),
        (lambda: entropy_rank(X, -1), ValueError, "lowest must be from 0 .* got -1"),
        (lambda: entropy_rank(X, 1.5), TypeError, "lowest must be an int, got float"),
        (lambda: entropy_rank(X, 1, -2), ValueError, "highest_per_class must not be negative, got -2"),
        (lambda: entropy_rank(X, 1, 1, L[:3]), ValueError, r"labels must have shape \(4,\), got \(3,\)"),
        (lambda: entropy_rank(X, 1, 1, L.float()), TypeError, "labels must be an int64 .* got torch.float32"),
        (lambda: entropy_rank(X, 1, 1, L + 3), ValueError, r"labels must be in \[0, 3\), got 3 for row 0"),
        (lambda: entropy_rank(X, 1, 0, L - 1), ValueError, r"labels must be in \[0, 3\), got -1 for row 0"),
        (lambda: select(X, 1), ValueError, r"scores must have 1 dimension, got shape \(4, 3\)"),
        (lambda: select(S.half(), 1), TypeError, "scores must be a float32 tensor, got torch.float16"),
        (lambda: select(S, 1, 1), ValueError, "highest_per_class = 1 needs labels"),
        (lambda: select(S, 1, 1, L), ValueError, "num_classes must be given with labels"),
        (lambda: select(S, 1, 1, L, 0), ValueError, "num_classes must be from 1 to 16777216, got 0"),
        (lambda: select(S, 1, num_classes=-3), ValueError, "num_classes must be from 0 to 16777216, got -3"),
        (lambda: select(S, 1, 1, L + 9, 9), ValueError, r"labels must be in \[0, 9\), got 9 for row 0"),
        (lambda: row_entropy(S), ValueError, "logits must have 2 dimensions"),
        (lambda: entropy_and_class(X[:, :1]), ValueError, r"2 to 16777216 classes \(columns\), got 1"),
    ],
)  # fmt: skip
def test_bad_arguments(call, error, match):
    with pytest.raises(error, match=match):
        call()


@native
@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda ops: ops.entropy_rank(S, 1, 0, None), "logits must have 2 dimensions"),
        (lambda ops: ops.entropy_rank(X, 9, 0, None), "lowest must be from 0"),
        (lambda ops: ops.select(S, 1, 1, None, 3), "highest_per_class needs labels"),
        (lambda ops: ops.select(S, 1, 1, L.float(), 3), "labels must be int64 or int32"),
    ],
)
def test_the_raw_ops_check_too(call, match):
    with pytest.raises(RuntimeError, match=match):
        call(torch.ops.dlp_fast)
