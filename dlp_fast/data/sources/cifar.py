"""CIFAR-10 as a data set; what reads its files is `dlp_fast.data.cifar`."""

from __future__ import annotations

from dlp_fast.data.cifar import CLASSES, load_cifar10
from dlp_fast.data.sources.arrays import from_numpy
from dlp_fast.data.sources.dataset import Dataset


def cifar10(folder: str | None, image_size: int | None) -> Dataset:
    """CIFAR-10 from `folder`, or downloaded where it is None; errors as in `load_cifar10`."""
    files = load_cifar10(folder)
    return from_numpy(
        "cifar10",
        (files.train_images, files.train_labels),
        (files.test_images, files.test_labels),
        CLASSES,
        image_size=image_size,
    )
