"""A step of FixMatch, WRN-16-1, 64 labeled + 448 weak + 448 strong: our stage 3 beside the reference loop."""

from __future__ import annotations

import pytest
import torch

from benchmarks.kernels.reference_loader import CIFAR, fixmatch_loop
from dlp_fast.config import FinetuningConfig
from dlp_fast.data.storage import ResidentImages
from dlp_fast.engine.batches import TrainingData
from dlp_fast.engine.device import choose_compute
from dlp_fast.engine.session import Session
from dlp_fast.models.registry import build_model
from dlp_fast.runs.log import RunLog
from dlp_fast.selection.labels import Labels
from dlp_fast.stages.finetuning import finetuning

GROUP = "FixMatch, WRN-16-1, 64 + 448 + 448, 4 steps"
STEPS, N = 4, 2000


def some_labels(ids: torch.Tensor) -> Labels:
    """The first 500 with their labels, the others without, nobody suspected."""
    return Labels(ids[:500], ids[500:], torch.zeros(len(ids), dtype=torch.bool))


@pytest.fixture(scope="module")
def pictures():
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (N, 32, 32, 3), generator=generator, dtype=torch.uint8)
    return pixels, torch.randint(0, 10, (N,), generator=generator)


def test_bench_ours(benchmark, pictures, timed):
    benchmark.group = GROUP
    compute = choose_compute("cpu", "auto")
    pixels, labels = pictures
    images = ResidentImages(pixels)
    data = TrainingData(images, labels, 10, CIFAR["mean"], CIFAR["std"], True, 0, compute.device)
    model = build_model("wrn-16-1", 10, 32, 0)
    batch = 64 if timed else 8
    config = FinetuningConfig(steps=STEPS, batch=batch, mu=7, norm_batches=0)
    ids = torch.arange(N)

    def steps() -> int:
        with Session(compute, RunLog(None, quiet=True)) as session:
            return finetuning(session, model, data, some_labels(ids), config).steps

    assert benchmark.pedantic(steps, rounds=5 if timed else 1, warmup_rounds=1 if timed else 0) == STEPS


@pytest.mark.parametrize("workers", [2], ids=["two workers"])
def test_bench_peer(benchmark, pictures, timed, workers):
    benchmark.group = GROUP
    model = build_model("wrn-16-1", 10, 32, 0).to(memory_format=torch.contiguous_format).train()
    run = fixmatch_loop(model, *pictures, workers=workers if timed else 0, batch=64 if timed else 8)
    benchmark.pedantic(run, args=(STEPS,), rounds=5 if timed else 1, warmup_rounds=1 if timed else 0)


CUDA_STEPS = 200
CUDA_GROUP = f"FixMatch, WRN-16-1, 64 + 448 + 448, {CUDA_STEPS} steps on a GPU"


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("graphs", ["auto", "off"])
def test_bench_ours_cuda(benchmark, pictures, timed, graphs):
    """With the capture of the graph, which each run does anew."""
    benchmark.group = CUDA_GROUP
    compute = choose_compute("cuda", "auto", graphs)
    pixels, labels = pictures
    images = ResidentImages(pixels.cuda())
    data = TrainingData(images, labels, 10, CIFAR["mean"], CIFAR["std"], True, 0, compute.device)
    model = build_model("wrn-16-1", 10, 32, 0).cuda()
    config = FinetuningConfig(steps=CUDA_STEPS if timed else 8, batch=64, mu=7, norm_batches=0)
    ids = torch.arange(N)

    def steps() -> None:
        with Session(compute, RunLog(None, quiet=True)) as session:
            finetuning(session, model, data, some_labels(ids), config)
        torch.cuda.synchronize()

    benchmark.pedantic(steps, rounds=3 if timed else 1, warmup_rounds=1 if timed else 0)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("workers", [4, 16])
def test_bench_peer_cuda(benchmark, pictures, timed, workers):
    benchmark.group = CUDA_GROUP
    model = build_model("wrn-16-1", 10, 32, 0).to(memory_format=torch.contiguous_format).cuda().train()
    run = fixmatch_loop(model, *pictures, workers=workers, device="cuda")

    def steps() -> None:
        run(CUDA_STEPS if timed else 2)
        torch.cuda.synchronize()

    benchmark.pedantic(steps, rounds=2 if timed else 1, warmup_rounds=1 if timed else 0)
