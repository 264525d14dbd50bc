"""inject_trigger against eager torch: first equal, then timed, in one process."""

from __future__ import annotations

import time

import pytest
import torch

from benchmarks.kernels.peers import ALPHA, blended, blended_where
from dlp_fast.ops import TriggerTable, inject_trigger

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def eager_where(images, overlay, which):
    return images.copy_(blended_where(images, overlay, which, ALPHA))


def eager_index(images, overlay, which):
    rows = (which >= 0).nonzero().flatten()
    images[rows] = blended(images[rows], overlay, ALPHA)
    return images


def eager_normalised(images, overlay, which):
    poisoned = blended_where(images, overlay, which, ALPHA)
    mean = torch.tensor(MEAN, device=images.device).view(1, 3, 1, 1)
    std = torch.tensor(STD, device=images.device).view(1, 3, 1, 1)
    return (poisoned.permute(0, 3, 1, 2).float() / 255 - mean) / std


class Case:
    def __init__(self, device: str, timed: bool, size: int, poisoned: float):
        n = (512 if size == 224 else 4096) if timed else 16
        generator = torch.Generator().manual_seed(0)
        self.images = torch.randint(0, 256, (n, size, size, 3), dtype=torch.uint8, generator=generator).to(
            device
        )
        self.overlay = torch.randint(0, 256, (size, size, 3), dtype=torch.uint8, generator=generator).to(
            device
        )
        self.triggers = TriggerTable.blend(self.overlay.cpu(), ALPHA).to(device)
        self.which = torch.full((n,), -1, dtype=torch.int64)
        self.which[torch.randperm(n, generator=generator)[: max(1, round(n * poisoned))]] = 0
        self.which = self.which.to(device)
        self.synchronize = torch.cuda.synchronize if device == "cuda" else lambda: None

    def ours_in_place(self, images):
        return inject_trigger(images, self.triggers, self.which, out=images)

    def timed(self, benchmark, function):
        def call():
            function()
            self.synchronize()

        call()
        begin = time.perf_counter()
        call()
        # about two seconds each, so that the whole file stays within minutes on a busy machine
        rounds = max(7, min(100, int(2 / (time.perf_counter() - begin))))
        benchmark.pedantic(call, rounds=rounds, iterations=1)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("size", [32, 224])
@pytest.mark.parametrize("contender", ["ours", "eager_where", "eager_index"])
def test_in_place_one_in_ten(benchmark, timed, device, size, contender):
    """10 % of a uint8 batch blended in place: 512 images of 224 pixels, 4096 of 32."""
    case = Case(device, timed, size, 0.1)
    benchmark.group = f"inject_trigger in place, 10 % of {len(case.images)} x {size} px, {device}"
    expected = case.ours_in_place(case.images.clone())
    peers = {"eager_where": eager_where, "eager_index": eager_index}
    for peer in peers.values():
        assert torch.equal(expected, peer(case.images.clone(), case.overlay, case.which))
    work = case.images.clone()
    if contender == "ours":
        case.timed(benchmark, lambda: case.ours_in_place(work))
    else:
        case.timed(benchmark, lambda: peers[contender](work, case.overlay, case.which))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("contender", ["ours", "eager"])
def test_dense_blend_into_uint8(benchmark, timed, device, contender):
    """Every image of the batch blended into a new uint8 tensor (G11)."""
    case = Case(device, timed, 224, 1.0)
    benchmark.group = f"inject_trigger all of {len(case.images)} x 224 px into uint8, {device}"
    out = torch.empty_like(case.images)
    inject_trigger(case.images, case.triggers, case.which, out=out)
    assert torch.equal(out, blended(case.images, case.overlay, ALPHA))
    if contender == "ours":
        case.timed(benchmark, lambda: inject_trigger(case.images, case.triggers, case.which, out=out))
    else:
        case.timed(benchmark, lambda: blended(case.images, case.overlay, ALPHA))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float16, torch.bfloat16], ids=["fp32", "fp16", "bf16"]
)
@pytest.mark.parametrize("contender", ["ours", "eager"])
def test_normalised(benchmark, timed, device, dtype, contender):
    """10 % blended, all normalised and cast into channels-last floats in the same pass."""
    case = Case(device, timed, 224, 0.1)
    name = str(dtype).removeprefix("torch.")
    benchmark.group = f"inject_trigger 10 % of {len(case.images)} x 224 px into {name}, {device}"
    out = torch.empty(
        (len(case.images), 3, 224, 224), dtype=dtype, device=device, memory_format=torch.channels_last
    )
    arguments = {"out": out, "mean": MEAN, "std": STD}
    inject_trigger(case.images, case.triggers, case.which, **arguments)
    expected = eager_normalised(case.images, case.overlay, case.which).to(dtype)
    # three fp32 roundings apart, hence at most one step of a half float now and then
    step = {torch.float32: 4e-6, torch.float16: 2**-9, torch.bfloat16: 2**-6}[dtype]
    assert (out.float() - expected.float()).abs().max() <= step
    del expected
    if contender == "ours":
        case.timed(benchmark, lambda: inject_trigger(case.images, case.triggers, case.which, **arguments))
    else:
        case.timed(benchmark, lambda: eager_normalised(case.images, case.overlay, case.which).to(dtype))
