"""The cases of cuda_events.py that rank rows: each compares with the CPU kernel first, then times ours and its peers.

Goals are ratios to a peer in the same run, and shares of a copy's bandwidth.
"""

from __future__ import annotations

from functools import partial

import torch

from benchmarks.kernels import peers
from benchmarks.kernels.cuda_timing import Bench, Call, lazily, rotating, sets_of
from benchmarks.kernels.selection_peers import PEERS, checked
from dlp_fast.ops import entropy_rank, row_entropy, select


def logits(rows: int, classes: int, dtype: torch.dtype, device: str, seed: int) -> torch.Tensor:
    generator = torch.Generator(device).manual_seed(seed)
    x = torch.randn(rows, classes, generator=generator, device=device) * 2
    at = torch.randint(classes, (rows, 1), generator=generator, device=device)
    return x.scatter_add_(1, at, torch.full((rows, 1), 6.0, device=device)).to(dtype)


def name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def small_ranking(bench: Bench) -> None:
    """50,000 x 10: what a run on CIFAR-10 has. Nothing but launches; with and without a graph."""
    name = "entropy_rank, lowest 1 % and highest 0.1 % of each class, [50,000, 10] float32"
    if bench.late(name):
        return
    n = bench.few(50_000)
    inputs = sets_of(partial(logits, n, 10, torch.float32, bench.device))
    x, k, m = inputs[0], n // 100, n // 1000
    for got, want in zip(entropy_rank(x, k, m, check=True), entropy_rank(x.cpu(), k, m), strict=True):
        assert torch.equal(got.cpu(), want), "CUDA and CPU differ"
    contenders = {
        "ours": bench.graphed(lambda: entropy_rank(x, k, m)),
        "ours with its launch": rotating(inputs, lambda x: entropy_rank(x, k, m)),
        "eager": rotating(inputs, lambda x: peers.eager_rank_both(x, k, m)),
    }
    bench.measure(name, x.nbytes + 8.0 * n, contenders, {"eager": 30, "µs": 25})


ENTROPIES = (
    (50_000, 10, torch.float32, {"compile": 2, "triton": 3}),
    (50_000, 100, torch.bfloat16, {"compile": 1.1}),
    (50_000, 1000, torch.float32, {"compile": 1.1, "triton": 1, "copy": 0.85}),
    (1_280_000, 100, torch.bfloat16, {"compile": 1.1, "triton": 1, "copy": 0.75}),
    (1_280_000, 1000, torch.bfloat16, {"compile": 1.1, "triton": 1, "copy": 0.75}),
    (1_280_000, 1000, torch.float32, {"compile": 1.1, "triton": 1, "copy": 0.85}),
    (8192, 32_000, torch.bfloat16, {"triton": 1, "copy": 0.75}),
)


def entropies(bench: Bench) -> None:
    compiled = bench.compiled(peers.eager_entropy)
    rival = peers.triton_entropy() if bench.device == "cuda" else None
    for rows, classes, dtype, goals in ENTROPIES:
        name = f"row_entropy [{rows:,}, {classes:,}] {name_of(dtype)}"
        if bench.late(name):
            continue
        n = bench.few(rows)
        inputs = sets_of(partial(logits, n, classes, dtype, bench.device))
        x, some = inputs[0], inputs[0][:20_000]
        assert torch.equal(row_entropy(some).cpu(), row_entropy(some.cpu())), "CUDA and CPU differ"
        torch.testing.assert_close(row_entropy(some), peers.eager_entropy(some), rtol=1e-3, atol=1e-4)
        contenders = {
            "ours": row_entropy,
            "eager": peers.eager_entropy,
            "compile": compiled,
            "triton": rival,
        }
        if rows <= 100_000:
            contenders["chunked"] = peers.chunked_entropy
        if rival:
            torch.testing.assert_close(rival(some), peers.eager_entropy(some), rtol=1e-3, atol=1e-4)
        calls = {who: of and rotating(inputs, of) for who, of in contenders.items()}
        bench.measure(name, x.nbytes + 8.0 * n, calls, goals)


# rows, classes, type, whether the highest 1 % of each class are wanted too, goals
RANKINGS = (
    (1_280_000, 1000, torch.bfloat16, False, {"eager": 6, "compile": 1.1}),
    (1_280_000, 1000, torch.float32, False, {"eager": 7, "compile": 1.1}),
    (10_000_000, 10, torch.float32, False, {"compile": 2}),
    (100_000_000, 10, torch.float32, False, {"compile": 2}),
    (1_280_000, 10, torch.float32, True, {"eager": 12}),
    (1_280_000, 1000, torch.bfloat16, True, {"eager": 30}),
)


def rankings(bench: Bench) -> None:
    compiled = bench.compiled(peers.eager_entropy)
    for rows, classes, dtype, both, goals in RANKINGS:
        kinds = "lowest 1 % and highest 1 % of each class" if both else "lowest 1 %"
        name = f"entropy_rank, {kinds} of [{rows:,}, {classes:,}] {name_of(dtype)}"
        if bench.late(name):
            continue
        n = bench.few(rows)
        x, k = logits(n, classes, dtype, bench.device, 0), n // 100
        m = max(1, k // classes) if both else 0
        mine = entropy_rank(x, k, m, check=True)
        wanted = torch.sort(mine.entropy, stable=True).indices[:k]
        assert torch.equal(mine.lowest, wanted), "not the k smallest in order"
        del mine, wanted
        if both:
            calls = {
                "ours": lambda x=x, k=k, m=m: entropy_rank(x, k, m),
                "eager": lambda x=x, k=k, m=m: peers.eager_rank_both(x, k, m),
            }
        else:
            calls = {
                "ours": lambda x=x, k=k: entropy_rank(x, k),
                "eager": lambda x=x, k=k: peers.eager_rank(x, k),
                "compile": lambda x=x, k=k: peers.eager_rank(x, k, compiled),
            }
        bench.measure(name, x.nbytes + 8.0 * n, calls, goals)


NATIVE = dict.fromkeys(PEERS, 1.0)  # they give no order, and ties as they come
SELECTIONS = (
    ("random", 1_280_000, {"topk": 2} | NATIVE),
    ("random", 10_000_000, {"topk": 4} | NATIVE),
    ("random", 100_000_000, {"topk": 4, "stable sort (CUB)": 6} | NATIVE),
    ("random", 100_000, {}),
    ("equal", 1_280_000, {}),
    ("two-valued", 1_280_000, {}),
    ("sorted", 1_280_000, {}),
    ("reversed", 1_280_000, {}),
    ("denormal", 1_280_000, {}),
)


def keys(kind: str, n: int, device: str) -> torch.Tensor:
    g = torch.Generator(device).manual_seed(n)
    x = torch.rand(n, generator=g, device=device)
    return {
        "random": lambda: x,
        "equal": lambda: x * 0 + 0.5,
        "two-valued": lambda: (x < 0.5).float(),
        "sorted": lambda: x.sort().values,
        "reversed": lambda: x.sort(descending=True).values,
        "denormal": lambda: (x * 40).floor() * 1e-45,
    }[kind]()


def selections(bench: Bench) -> None:
    """A stable sort of so many keys is CUB's radix sort, which torch calls. See selection_peers.py for CUB's top-k."""
    for kind, rows, goals in SELECTIONS:
        name = f"select, lowest 1 % of {rows:,} {kind}"
        if bench.late(name):
            continue
        n = bench.few(rows)
        scores, k = keys(kind, n, bench.device), n // 100
        wanted = torch.sort(scores, stable=True).indices[:k]
        assert torch.equal(select(scores, k).lowest, wanted), "not the k smallest in order"
        calls: dict[str, Call | None] = {
            "ours": lambda s=scores, k=k: select(s, k),
            "topk": lambda s=scores, k=k: torch.topk(s, k, largest=False, sorted=False),
            "stable sort (CUB)": lambda s=scores, k=k: torch.sort(s, stable=True).indices[:k],
        }
        for who, peer in PEERS.items():
            here = bench.device == "cuda" and peer.available()
            calls[who] = lazily(partial(checked, peer.lowest, scores, wanted)) if here else None
        bench.measure(name, 4.0 * n, calls, goals)


def selections_by_class(bench: Bench) -> None:
    for classes, per_class, goal in ((10, 1280, 10), (1000, 12, 100)):
        name = f"select, highest {per_class:,} of each of {classes:,} classes, 1,280,000"
        if bench.late(name):
            continue
        scores = keys("random", bench.few(1_280_000), bench.device)
        labels = torch.randint(classes, scores.shape, device=bench.device)
        mine = select(scores, 0, per_class, labels, classes, check=True).highest
        want = select(scores.cpu(), 0, per_class, labels.cpu(), classes).highest
        assert torch.equal(mine.cpu(), want), "CUDA and CPU differ"
        calls = {
            "ours": lambda s=scores, y=labels, c=classes, m=per_class: select(s, 0, m, y, c),
            "loop": lambda s=scores, y=labels, c=classes, m=per_class: peers.highest_by_loop(s, y, c, m),
        }
        bench.measure(name, 12.0 * len(scores), calls, {"loop": goal})
