"""Supervised training, images/s: our stage 1 beside the loop that a user would write.

The peer: eager PyTorch, contiguous NCHW, fp32, a DataLoader with two workers and PIL transforms (ToTensor, Normalize).
Both train WRN-16-1 at batch 128 on the same pictures. First the batches of both are compared.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from dlp_fast.config import SupervisedConfig
from dlp_fast.data.storage import ResidentImages
from dlp_fast.engine.batches import TrainingData
from dlp_fast.engine.device import choose_compute
from dlp_fast.engine.session import Session
from dlp_fast.models.registry import build_model
from dlp_fast.runs.log import RunLog
from dlp_fast.stages.supervised import supervised

MEAN, STD = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)
BATCH = 128


class PilImages(Dataset):
    def __init__(self, pixels: np.ndarray, labels: torch.Tensor):
        self.pictures, self.labels = [Image.fromarray(p) for p in pixels], labels
        self.transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, STD)])

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, i: int):
        return self.transform(self.pictures[i]), int(self.labels[i])


@pytest.fixture(scope="module")
def pictures(request):
    n = 1280 if not request.config.getoption("benchmark_disable") else 256
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (n, 32, 32, 3), generator=generator, dtype=torch.uint8)
    return pixels, torch.randint(0, 10, (n,), generator=generator)


def training_data(pixels: torch.Tensor, labels: torch.Tensor, device: torch.device) -> TrainingData:
    images = ResidentImages(pixels).to(device)
    return TrainingData(images, labels, 10, MEAN, STD, flip=True, seed=0, device=device)


def test_batches_agree(pictures):
    pixels, labels = pictures
    ours = training_data(pixels, labels, torch.device("cpu")).plain(torch.arange(16))
    theirs = torch.stack([PilImages(pixels.numpy(), labels)[i][0] for i in range(16)])
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-6)
    assert ours.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("precision", ["fp32", "auto"])
@pytest.mark.benchmark(group="supervised, WRN-16-1, batch 128, images of one epoch")
def test_ours(benchmark, pictures, precision):
    compute = choose_compute("cpu", precision)
    data = training_data(*pictures, compute.device)
    config = SupervisedConfig(epochs=1, min_steps=0, batch=BATCH)
    # the scoring pass of the filter is part of our stage and not of the peer's epoch: it is timed all the same
    model = build_model("wrn-16-1", 10, 32, 0)
    benchmark.extra_info["images"] = len(data)

    def epoch() -> None:
        with Session(compute, RunLog(None, quiet=True)) as session:
            supervised(session, model, data, config)

    benchmark.pedantic(epoch, rounds=5, warmup_rounds=1)


@pytest.mark.benchmark(group="supervised, WRN-16-1, batch 128, images of one epoch")
def test_peer_plain_loop(benchmark, pictures):
    pixels, labels = pictures
    model = build_model("wrn-16-1", 10, 32, 0).to(memory_format=torch.contiguous_format).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    loader = DataLoader(
        PilImages(pixels.numpy(), labels),
        BATCH,
        shuffle=True,
        num_workers=2,
        persistent_workers=True,
        drop_last=True,
    )
    benchmark.extra_info["images"] = len(labels)

    def epoch() -> None:
        for x, y in loader:
            loss = torch.nn.functional.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    benchmark.pedantic(epoch, rounds=5, warmup_rounds=1)


CUDA_GROUP = "supervised, WRN-16-1, batch 128, 200 steps on a GPU"


@pytest.fixture(scope="module")
def many():
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (200 * BATCH, 32, 32, 3), generator=generator, dtype=torch.uint8)
    return pixels, torch.randint(0, 10, (len(pixels),), generator=generator)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("graphs", ["auto", "off"])
@pytest.mark.benchmark(group=CUDA_GROUP)
def test_ours_cuda(benchmark, many, graphs):
    compute = choose_compute("cuda", "auto", graphs)
    data = training_data(*many, compute.device)
    config = SupervisedConfig(epochs=1, min_steps=0, batch=BATCH)
    model = build_model("wrn-16-1", 10, 32, 0).cuda()

    def epoch() -> None:
        with Session(compute, RunLog(None, quiet=True)) as session:
            supervised(session, model, data, config)
        torch.cuda.synchronize()

    benchmark.pedantic(epoch, rounds=5, warmup_rounds=1)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.benchmark(group=CUDA_GROUP)
def test_peer_eager_cuda(benchmark, many):
    """Eager bf16 AMP, channels-last, the images on the device already."""
    pixels, labels = (t.cuda() for t in many)
    mean, std = (torch.tensor(v, device="cuda") for v in (MEAN, STD))
    model = build_model("wrn-16-1", 10, 32, 0).cuda().train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)

    def epoch() -> None:
        for ids in torch.randperm(len(labels), device="cuda").split(BATCH):
            x = ((pixels[ids].float() / 255 - mean) / std).permute(0, 3, 1, 2)
            with torch.autocast("cuda", torch.bfloat16):
                logits = model(x)
            loss = torch.nn.functional.cross_entropy(logits.float(), labels[ids])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        torch.cuda.synchronize()

    benchmark.pedantic(epoch, rounds=5, warmup_rounds=1)
