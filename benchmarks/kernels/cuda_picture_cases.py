"""The cases of cuda_events.py that work on pictures: equal to the CPU kernel first, then timed beside their peers."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from PIL import Image
from torch.utils.data import ConcatDataset, DataLoader

from benchmarks.kernels import kornia_views, peers
from benchmarks.kernels.cuda_timing import Bench, Call, lazily
from benchmarks.kernels.dali_views import views_pipeline
from benchmarks.kernels.peers import ALPHA
from benchmarks.kernels.reference_loader import CIFAR, PillowViews
from dlp_fast.data import dali
from dlp_fast.ops import TriggerTable, augment, high_pass_residual, inject_trigger, window_hashes
from dlp_fast.ops.residual_scan import WEIGHTS

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIZES = ((32, 50_000), (224, 2048))
WORKERS = 16  # at most, of the DataLoader that Pillow runs in


def pictures_of(bench: Bench, rows: int, size: int) -> int:
    """How many pictures a case has here: large ones are fewer in a rehearsal."""
    return bench.few(rows * size * size // 1024) * 1024 // (size * size)


def poisoned_set(
    bench: Bench, n: int, size: int, triggers: int
) -> tuple[torch.Tensor, TriggerTable, torch.Tensor, torch.Tensor]:
    """(images, blended triggers for 10 % of them, which of them, their overlays), compared with the CPU."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (n, size, size, 3), dtype=torch.uint8, generator=generator)
    overlays = torch.randint(0, 256, (triggers, size, size, 3), dtype=torch.uint8, generator=generator)
    table = TriggerTable.stack([TriggerTable.blend(overlay, ALPHA) for overlay in overlays])
    which = torch.full((n,), -1, dtype=torch.int64)
    which[torch.randperm(n, generator=generator)[: n // 10]] = torch.arange(n // 10) % triggers
    here, on, where = images.to(bench.device), table.to(bench.device), which.to(bench.device)
    over = overlays.to(bench.device)
    poisoned = inject_trigger(here, on, where)
    assert torch.equal(poisoned[:500].cpu(), inject_trigger(images[:500], table, which[:500]))
    some = slice(0, 4096)  # overlays for each image take as much memory as the images
    assert torch.equal(poisoned[some], peers.blended_mixed(here[some], over, where[some], ALPHA))
    return here, on, where, over


def triggers(bench: Bench) -> None:
    compiled = bench.compiled(peers.blended_mixed)
    for size, rows in SIZES:
        if bench.late(f"inject_trigger, {rows:,} x {size} px"):
            continue
        n = pictures_of(bench, rows, size)
        images, table, where, overlays = poisoned_set(bench, n, size, 4)
        work, everywhere, out = images.clone(), torch.zeros_like(where), torch.empty_like(images)

        def by_index(work=work, where=where, overlays=overlays) -> None:
            ids = (where >= 0).nonzero().flatten()
            work[ids] = peers.blended(work[ids], overlays[where[ids]], ALPHA)

        bench.measure(
            f"inject_trigger, 10 % of {rows:,} x {size} px in place, four triggers",
            2 * 0.1 * images.nbytes,
            {
                "ours": lambda w=work, t=table, on=where: inject_trigger(w, t, on, out=w),
                "eager, by index": by_index,
                "compile, whole batch": lambda i=images, o=overlays, on=where: compiled(i, o, on, ALPHA),
            },
            {"compile, whole batch": 4, "copy": 0.8},
        )
        for how, source, into in (("in place", work, work), ("into uint8", images, out)):
            bench.measure(
                f"inject_trigger, all of {rows:,} x {size} px {how}",
                2.0 * images.nbytes,
                {
                    "ours": lambda s=source, t=table, on=everywhere, o=into: inject_trigger(s, t, on, out=o),
                    "eager": lambda s=source, o=overlays[0]: peers.blended(s, o, ALPHA),
                },
                {"eager": 14, "copy": 0.8},
            )


def normalised_triggers(bench: Bench) -> None:
    for size, rows in SIZES:
        name = f"inject_trigger, 10 % of {rows:,} x {size} px, normalised into bf16"
        if bench.late(name):
            continue
        n = pictures_of(bench, rows, size)
        images, table, where, overlays = poisoned_set(bench, n, size, 1)
        out = torch.empty(
            (n, 3, size, size), dtype=torch.bfloat16, device=bench.device, memory_format=torch.channels_last
        )
        mean, std = (torch.tensor(v, device=bench.device).view(1, 3, 1, 1) for v in (MEAN, STD))

        def eager(images=images, where=where, overlay=overlays[0], mean=mean, std=std) -> torch.Tensor:
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


def pillow_batches(images: torch.Tensor, workers: int) -> Call:
    """The next batch of both views by Pillow in the workers of a DataLoader, which run already."""

    def forever() -> Iterator[object]:
        views = ConcatDataset([PillowViews(images)] * 64)
        ahead = {"persistent_workers": True, "prefetch_factor": 1} if workers else {}
        loader = DataLoader(views, len(images), num_workers=workers, **ahead)
        while True:
            yield from loader

    batches = forever()
    return lambda: next(batches)


def dali_batches(bench: Bench, images: torch.Tensor | list[torch.Tensor], size: int) -> Call | None:
    """The next batch of both views by DALI's operators, of images on the device or of files; None: not installed."""
    if dali.available():
        return None
    device_id, files = (0 if bench.device == "cuda" else None), isinstance(images, list)
    given = [file.numpy() for file in images] if files else images if device_id == 0 else images.numpy()

    def make() -> Call:
        half = device_id is not None
        of = views_pipeline(
            lambda: given, len(given), size, CIFAR, device_id=device_id, files=files, half=half
        )
        return of.run

    return lazily(make)


def kornia_batches(images: torch.Tensor, size: int) -> Call | None:
    """Both views of the batch by kornia; None: not installed."""
    if not kornia_views.available():
        return None
    return lazily(lambda: partial(kornia_views.views(size, **CIFAR), images))


def views(bench: Bench) -> None:
    """No peer in torch draws each image's own RandAugment on a GPU; DALI does, at one magnitude for all; kornia draws
    the operations for the batch.
    """
    for size, rows in ((32, 448), (32, 8192), (224, 256)):
        for operations, kind in ((2, "RandAugment"), (0, "crop, flip and cutout alone")):
            name = f"augment, both views of {rows:,} x {size} px into bf16, {kind}"
            if bench.late(name):
                continue
            n = pictures_of(bench, rows, size)
            images, ids = peers.pictures(n, size), torch.arange(n)
            here, on = images.to(bench.device), ids.to(bench.device)
            given = {"pad": size // 8, "cutout": size // 2, "operations": operations, **CIFAR}
            for ours, wanted in zip(
                augment(here[:64], on[:64], 3, 1, **given), augment(images[:64], ids[:64], 3, 1, **given)
            ):
                assert torch.equal(ours.cpu(), wanted), "CUDA and CPU views differ"

            def both(images=here, ids=on, given=given) -> object:
                return augment(images, ids, 3, 1, dtype=torch.bfloat16, **given)

            calls: dict[str, Call | None] = {"ours": bench.graphed(both), "ours with its launch": both}
            goals = {"copy": 0.6}
            if operations and rows < 1000:
                calls["DALI"] = dali_batches(bench, here, size)
                goals["DALI"] = 3 if size == 32 else 1.5
                calls["kornia"], goals["kornia"] = kornia_batches(here, size), 4
                if size == 32:
                    workers = min(WORKERS, os.cpu_count() or 1) if bench.device == "cuda" else 0
                    calls["Pillow in workers"] = lazily(lambda i=images, w=workers: pillow_batches(i, w))
                    goals["Pillow in workers"] = 50
            moved = here.nbytes * (1 + 2 * 2.0)  # read once, two views of two bytes a value
            bench.measure(name, moved, calls, goals)


def as_jpeg(picture: torch.Tensor) -> torch.Tensor:
    """uint8 [h, w, 3] -> uint8 [bytes], of quality 90."""
    file = io.BytesIO()
    Image.fromarray(picture.numpy()).save(file, "JPEG", quality=90)
    return torch.from_numpy(np.frombuffer(file.getvalue(), dtype=np.uint8).copy())


def files(bench: Bench) -> None:
    """JPEG files in memory to both views: nvJPEG as torchvision calls it and our views, beside DALI for both."""
    from torchvision.io import decode_jpeg

    size, rows = 224, 256
    name = f"{rows} JPEG files to both views of {size} px"
    if bench.late(name):
        return
    n = pictures_of(bench, rows, size)
    encoded = [as_jpeg(picture) for picture in peers.pictures(n, size)]
    ids = torch.arange(n, device=bench.device)

    def ours() -> object:
        decoded = torch.stack(decode_jpeg(encoded, device=bench.device))
        images = decoded.permute(0, 2, 3, 1).contiguous()
        return augment(images, ids, 3, 1, dtype=torch.bfloat16, pad=size // 8, cutout=size // 2, **CIFAR)

    weak, strong = ours()
    assert weak.shape == strong.shape == (n, 3, size, size)
    pixels = 3.0 * n * size * size
    moved = sum(len(file) for file in encoded) + pixels * (2 + 2 * 2)  # decoded pixels are written and read
    bench.measure(name, moved, {"ours": ours, "DALI": dali_batches(bench, encoded, size)})


def residuals(bench: Bench) -> None:
    for size, rows in ((32, 50_000), (224, 1024)):
        name = f"high_pass_residual of {rows:,} x {size} px"
        if bench.late(name):
            continue
        n = pictures_of(bench, rows, size)
        generator = torch.Generator().manual_seed(0)
        images = torch.randint(0, 256, (n, size, size, 3), dtype=torch.uint8, generator=generator)
        mean = torch.rand(size, size, 3, generator=generator)
        here, on = images.to(bench.device), mean.to(bench.device)
        assert torch.equal(high_pass_residual(here[:50], on).cpu(), high_pass_residual(images[:50], mean))
        weights = torch.tensor(WEIGHTS, dtype=torch.float32, device=bench.device)
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
        assert torch.equal(window_hashes(here[:50], 16).cpu(), window_hashes(images[:50], 16))
        windows = n * (size - 2) ** 2
        ours = {"ours": lambda x=here: window_hashes(x, 16)}
        name = f"window_hashes of {rows:,} x {size} px"
        bench.measure(name, images.nbytes + 8.0 * windows, ours, {"copy": 0.5})
