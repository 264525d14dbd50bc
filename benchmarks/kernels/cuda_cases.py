"""The cases of cuda_events.py: each compares with the CPU kernel first, then times ours and its peers.

Goals are ratios to a peer in the same run, and shares of a copy's bandwidth.
"""

from __future__ import annotations

from functools import partial

import torch

from benchmarks.kernels import peers
from benchmarks.kernels.cuda_timing import Bench, graphed, rotating, sets_of
from benchmarks.kernels.peers import ALPHA
from dlp_fast.ops import (
    TriggerTable,
    augment,
    entropy_rank,
    high_pass_residual,
    inject_trigger,
    row_entropy,
    select,
)
from dlp_fast.ops.residual_scan import WEIGHTS

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def logits(rows: int, classes: int, dtype: torch.dtype, seed: int) -> torch.Tensor:
    generator = torch.Generator("cuda").manual_seed(seed)
    x = torch.randn(rows, classes, generator=generator, device="cuda") * 2
    at = torch.randint(classes, (rows, 1), generator=generator, device="cuda")
    return x.scatter_add_(1, at, torch.full((rows, 1), 6.0, device="cuda")).to(dtype)


def name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def small_ranking(bench: Bench) -> None:
    """50,000 x 10: what a run on CIFAR-10 has. Nothing but launches; with and without a graph."""
    name = "entropy_rank, lowest 1 % and highest 0.1 % of each class, [50,000, 10] float32"
    if bench.late(name):
        return
    inputs = sets_of(partial(logits, 50_000, 10, torch.float32))
    x, k, m = inputs[0], 500, 50
    for got, want in zip(entropy_rank(x, k, m, check=True), entropy_rank(x.cpu(), k, m), strict=True):
        assert torch.equal(got.cpu(), want), "CUDA and CPU differ"
    graph = graphed(lambda: entropy_rank(x, k, m))
    first = entropy_rank(x, k, m)
    graph()
    torch.cuda.synchronize()
    assert torch.equal(first.lowest.cpu(), entropy_rank(x.cpu(), k, m).lowest)
    contenders = {
        "ours": graph,
        "ours with its launch": rotating(inputs, lambda x: entropy_rank(x, k, m)),
        "eager": rotating(inputs, lambda x: peers.eager_rank_both(x, k, m)),
    }
    bench.measure(name, x.nbytes + 8.0 * len(x), contenders, {"eager": 30})


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
    compiled = torch.compile(peers.eager_entropy, dynamic=False)
    rival = peers.triton_entropy()
    for n, classes, dtype, goals in ENTROPIES:
        name = f"row_entropy [{n:,}, {classes:,}] {name_of(dtype)}"
        if bench.late(name):
            continue
        inputs = sets_of(partial(logits, n, classes, dtype))
        x, some = inputs[0], inputs[0][:20_000]
        assert torch.equal(row_entropy(some).cpu(), row_entropy(some.cpu())), "CUDA and CPU differ"
        torch.testing.assert_close(row_entropy(some), peers.eager_entropy(some), rtol=1e-3, atol=1e-4)
        contenders = {
            "ours": row_entropy,
            "eager": peers.eager_entropy,
            "compile": compiled,
            "triton": rival,
            "chunked": peers.chunked_entropy if n <= 100_000 else None,
        }
        if rival:
            torch.testing.assert_close(rival(some), peers.eager_entropy(some), rtol=1e-3, atol=1e-4)
        calls = {who: rotating(inputs, of) for who, of in contenders.items() if of is not None}
        bench.measure(name, x.nbytes + 8.0 * n, calls, goals)


def rankings(bench: Bench) -> None:
    for n, classes, dtype, goal in (
        (1_280_000, 1000, torch.bfloat16, 6),
        (1_280_000, 1000, torch.float32, 7),
    ):
        name = f"entropy_rank, lowest 1 % of [{n:,}, {classes:,}] {name_of(dtype)}"
        if bench.late(name):
            continue
        x, k = logits(n, classes, dtype, 0), n // 100
        calls = {
            "ours": lambda x=x, k=k: entropy_rank(x, k),
            "eager": lambda x=x, k=k: peers.eager_rank(x, k),
        }
        bench.measure(name, x.nbytes + 8.0 * n, calls, {"eager": goal})


SELECTIONS = (
    ("random", 1_280_000, {"topk": 2}),
    ("random", 10_000_000, {"topk": 4}),
    ("random", 100_000_000, {"topk": 4, "stable sort": 6}),
    ("equal", 1_280_000, {}),
    ("two-valued", 1_280_000, {}),
    ("denormal", 1_280_000, {}),
)


def keys(kind: str, n: int) -> torch.Tensor:
    g = torch.Generator("cuda").manual_seed(n)
    x = torch.rand(n, generator=g, device="cuda")
    if kind == "random":
        return x
    return {"equal": x * 0 + 0.5, "two-valued": (x < 0.5).float(), "denormal": (x * 40).floor() * 1e-45}[kind]


def selections(bench: Bench) -> None:
    for kind, n, goals in SELECTIONS:
        name = f"select, lowest 1 % of {n:,} {kind}"
        if bench.late(name):
            continue
        scores, k = keys(kind, n), n // 100
        wanted = torch.sort(scores, stable=True).indices[:k]
        assert torch.equal(select(scores, k).lowest, wanted), "not the k smallest in order"
        calls = {
            "ours": lambda s=scores, k=k: select(s, k),
            "topk": lambda s=scores, k=k: torch.topk(s, k, largest=False, sorted=False),
            "stable sort": lambda s=scores, k=k: torch.sort(s, stable=True).indices[:k],
        }
        bench.measure(name, 4.0 * n, calls, goals)
    for classes, per_class, goal in ((10, 1280, 10), (1000, 12, 100)):
        name = f"select, highest {per_class:,} of each of {classes:,} classes, 1,280,000"
        if bench.late(name):
            continue
        scores = keys("random", 1_280_000)
        labels = torch.randint(classes, scores.shape, device="cuda")
        mine = select(scores, 0, per_class, labels, classes, check=True).highest
        want = select(scores.cpu(), 0, per_class, labels.cpu(), classes).highest
        assert torch.equal(mine.cpu(), want), "CUDA and CPU differ"
        calls = {
            "ours": lambda s=scores, y=labels, c=classes, m=per_class: select(s, 0, m, y, c),
            "loop": lambda s=scores, y=labels, c=classes, m=per_class: peers.highest_by_loop(s, y, c, m),
        }
        bench.measure(name, 12.0 * len(scores), calls, {"loop": goal})


def poisoned_set(n: int, size: int) -> tuple[torch.Tensor, TriggerTable, torch.Tensor, torch.Tensor]:
    """(images, a blended trigger for 10 % of them, which of them, its overlay), on the GPU; compared with the CPU."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (n, size, size, 3), dtype=torch.uint8, generator=generator).cuda()
    overlay = torch.randint(0, 256, (size, size, 3), dtype=torch.uint8, generator=generator)
    table = TriggerTable.blend(overlay, ALPHA)
    which = torch.full((n,), -1, dtype=torch.int64)
    which[torch.randperm(n, generator=generator)[: n // 10]] = 0
    on_device, where = table.to("cuda"), which.cuda()
    poisoned = inject_trigger(images, on_device, where)
    assert torch.equal(poisoned[:500].cpu(), inject_trigger(images[:500].cpu(), table, which[:500]))
    assert torch.equal(poisoned, peers.blended_where(images, overlay.cuda(), where, ALPHA))
    return images, on_device, where, overlay.cuda()


def triggers(bench: Bench) -> None:
    compiled = torch.compile(peers.blended_where, dynamic=False)
    for size, n in ((32, 50_000), (224, 2048)):
        if bench.late(f"inject_trigger, {n:,} x {size} px"):
            continue
        images, table, where, overlay = poisoned_set(n, size)
        work, everywhere = images.clone(), torch.zeros_like(where)

        def by_index(work=work, where=where, overlay=overlay) -> None:
            ids = (where >= 0).nonzero().flatten()
            work[ids] = peers.blended(work[ids], overlay, ALPHA)

        bench.measure(
            f"inject_trigger, 10 % of {n:,} x {size} px in place",
            2 * 0.1 * images.nbytes,
            {
                "ours": lambda w=work, t=table, on=where: inject_trigger(w, t, on, out=w),
                "eager, by index": by_index,
                "compile, whole batch": lambda i=images, o=overlay, on=where: compiled(i, o, on, ALPHA),
            },
            {"compile, whole batch": 4, "copy": 0.8},
        )
        bench.measure(
            f"inject_trigger, all of {n:,} x {size} px in place",
            2.0 * images.nbytes,
            {
                "ours": lambda w=work, t=table, on=everywhere: inject_trigger(w, t, on, out=w),
                "eager": lambda i=images, o=overlay: peers.blended(i, o, ALPHA),
            },
            {"eager": 14, "copy": 0.8},
        )


def normalised_triggers(bench: Bench) -> None:
    for size, n in ((32, 50_000), (224, 2048)):
        name = f"inject_trigger, 10 % of {n:,} x {size} px, normalised into bf16"
        if bench.late(name):
            continue
        images, table, where, overlay = poisoned_set(n, size)
        out = torch.empty(
            (n, 3, size, size), dtype=torch.bfloat16, device="cuda", memory_format=torch.channels_last
        )
        mean, std = (torch.tensor(v, device="cuda").view(1, 3, 1, 1) for v in (MEAN, STD))

        def eager(images=images, where=where, overlay=overlay, mean=mean, std=std) -> torch.Tensor:
            x = peers.blended_where(images, overlay, where, ALPHA)
            return ((x.permute(0, 3, 1, 2).float() / 255 - mean) / std).to(torch.bfloat16)

        keywords = {"out": out, "mean": MEAN, "std": STD}
        inject_trigger(images, table, where, **keywords)
        assert (out[:256].float() - eager()[:256].float()).abs().max() <= 2**-6
        calls = {
            "ours": lambda i=images, t=table, on=where, k=keywords: inject_trigger(i, t, on, **k),
            "eager": eager,
        }
        bench.measure(name, 3.0 * images.nbytes, calls, {"eager": 15, "copy": 0.8})


def views(bench: Bench) -> None:
    """No peer in torch draws each image's own RandAugment on a GPU; what Pillow takes is in the CPU benchmarks."""
    for size, n in ((32, 448), (32, 8192), (224, 512)):
        for operations, kind in ((2, "RandAugment"), (0, "crop, flip and cutout alone")):
            name = f"augment, both views of {n:,} x {size} px into bf16, {kind}"
            if bench.late(name):
                continue
            generator = torch.Generator().manual_seed(0)
            images = torch.randint(0, 256, (n, size, size, 3), dtype=torch.uint8, generator=generator)
            ids = torch.arange(n)
            here, on = images.cuda(), ids.cuda()
            given = {
                "pad": size // 8,
                "cutout": size // 2,
                "mean": MEAN,
                "std": STD,
                "operations": operations,
            }
            for ours, wanted in zip(
                augment(here[:64], on[:64], 3, 1, **given), augment(images[:64], ids[:64], 3, 1, **given)
            ):
                assert torch.equal(ours.cpu(), wanted), "CUDA and CPU views differ"

            def both(images=here, ids=on, given=given) -> object:
                return augment(images, ids, 3, 1, dtype=torch.bfloat16, **given)

            moved = images.nbytes * (1 + 2 * 2.0)  # read once, two views of two bytes a value
            bench.measure(name, moved, {"ours": graphed(both), "ours with its launch": both}, {"copy": 0.6})


def residuals(bench: Bench) -> None:
    for size, n in ((32, 50_000), (224, 1024)):
        name = f"high_pass_residual of {n:,} x {size} px"
        if bench.late(name):
            continue
        generator = torch.Generator().manual_seed(0)
        images = torch.randint(0, 256, (n, size, size, 3), dtype=torch.uint8, generator=generator)
        mean = torch.rand(size, size, 3, generator=generator)
        here, on = images.cuda(), mean.cuda()
        assert torch.equal(high_pass_residual(here[:50], on).cpu(), high_pass_residual(images[:50], mean))
        weights = torch.tensor(WEIGHTS, dtype=torch.float32, device="cuda")
        weights /= weights.sum()
        bench.measure(
            name,
            images.nbytes * 5.0,
            {
                "ours": lambda x=here, m=on: high_pass_residual(x, m),
                "eager": lambda x=here, m=on, w=weights: peers.residual_by_convolution(x, m, w),
            },
            {"copy": 0.5},
        )


# the cases that say most come first, should the time be short
PARTS = (small_ranking, selections, entropies, triggers, normalised_triggers, views, residuals, rankings)
