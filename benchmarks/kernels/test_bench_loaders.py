"""Files to both FixMatch views at 224 px: DALI or Pillow threads with our augmentation, beside a DataLoader's workers.

Needs the full-size pictures of DLP_FAST_TEST_DATA; elsewhere, JPEGs of noise that are made here.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import ConcatDataset, DataLoader

from benchmarks.kernels.reference_loader import CIFAR, FileViews
from dlp_fast.data import dali
from dlp_fast.data.dali import DaliImages
from dlp_fast.data.index import index_folder
from dlp_fast.data.pixel_cache import CachedImages
from dlp_fast.data.storage import FileImages
from dlp_fast.engine.batches import TrainingData

SIZE, BATCH, EPOCHS = 224, 16, 4
GROUP = "files to weak and strong views, 224 px"


@pytest.fixture(scope="module")
def folder(tmp_path_factory, request) -> Path:
    """Two classes of JPEG files."""
    root = tmp_path_factory.mktemp("files")
    samples = Path(os.environ.get("DLP_FAST_TEST_DATA", "/nowhere")) / "imagenet_samples"
    few = request.config.getoption("benchmark_disable")
    names = sorted(samples.glob("*.JPEG"))[: 4 if few else None]
    for i in range(2):
        (root / "ab"[i]).mkdir()
    for i, name in enumerate(names):
        shutil.copy(name, root / "ab"[i % 2])
    if not names:
        rng = np.random.default_rng(0)
        for i in range(4 if few else 40):
            coarse = Image.fromarray(rng.integers(0, 256, (25, 33, 3), dtype=np.uint8))
            coarse.resize((500, 375), Image.Resampling.BICUBIC).save(
                root / "ab"[i % 2] / f"{i}.jpg", quality=90
            )
    return root


def data_of(folder: Path, reader) -> TrainingData:
    index = index_folder(folder)[0]
    images = reader(index, SIZE, 2)
    labels = torch.from_numpy(index.labels.copy())
    return TrainingData(images, labels, 2, CIFAR["mean"], CIFAR["std"], True, 0, torch.device("cpu"))


def an_epoch(data: TrainingData, epoch: int) -> int:
    parts = torch.arange(len(data)).split(BATCH)
    for ids, following in zip(parts, (*parts[1:], None)):
        if following is not None:
            data.expect(following)
        weak, strong = data.views(ids, epoch, strong=True)
        assert weak.shape == strong.shape == (len(ids), 3, SIZE, SIZE)
    return len(data)


@pytest.mark.parametrize("kind", ["torchvision", "dali", "cached"])
def test_bench_ours(benchmark, folder, kind, tmp_path):
    def cached(*of):
        return CachedImages(FileImages(*of), tmp_path)

    reader = {"torchvision": FileImages, "dali": DaliImages, "cached": cached}[kind]
    if reader is DaliImages and dali.available():
        pytest.skip(str(dali.available()))
    benchmark.group = GROUP
    data = data_of(folder, reader)
    plain = data_of(folder, FileImages)
    same = (
        (data.images.get(torch.arange(4)).int() - plain.images.get(torch.arange(4)).int())
        .abs()
        .float()
        .mean()
    )
    assert float(same) < 0.5  # of 255: the decoders and resizers round otherwise
    seen = benchmark.pedantic(
        lambda: sum(an_epoch(data, e) for e in range(EPOCHS)), rounds=3, warmup_rounds=1
    )
    assert seen == EPOCHS * len(data)
    benchmark.extra_info["images"] = seen


def test_bench_peer_two_workers(benchmark, folder):
    benchmark.group = GROUP
    views = FileViews(sorted(folder.rglob("*.[jJ]*")), SIZE)
    loader = DataLoader(ConcatDataset([views] * EPOCHS), BATCH, num_workers=2, persistent_workers=True)
    benchmark.pedantic(lambda: sum(len(weak) for weak, _ in loader), rounds=3, warmup_rounds=1)
    benchmark.extra_info["images"] = EPOCHS * len(views)
