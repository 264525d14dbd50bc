"""Images that are in memory: arrays and tensors."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from dlp_fast.data.classes import tell_alike, tell_no_labels
from dlp_fast.data.decode import fit
from dlp_fast.data.index import find_conflicts
from dlp_fast.data.sources.dataset import Dataset, ImageSet, tell_twins
from dlp_fast.data.sources.labels import numbered
from dlp_fast.data.storage import ResidentImages
from dlp_fast.errors import DataError


def from_arrays(
    images: np.ndarray | torch.Tensor,
    labels: np.ndarray | torch.Tensor | Sequence[int] | Sequence[str],
    test_images: np.ndarray | torch.Tensor | None = None,
    test_labels: np.ndarray | torch.Tensor | Sequence[int] | Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    *,
    name: str = "arrays",
    flip: bool = True,
) -> Dataset:
    """A data set of uint8 images [n, height, width, 3] (RGB) or [n, height, width] (grey) in memory.

    Args:
        images, labels: the training set; labels are whole numbers from 0, or names.
        test_images, test_labels: the test set, of the same height and width; both or neither.
        classes: names; None: as many as the largest label asks for, named by their numbers; or, where labels are names,
            those of the training set in the order of their bytes.
        name: for paths and reports.
        flip: whether a mirrored image shows the same class.

    Raises:
        DataError: a wrong shape or dtype, or a label that is negative, too large, fractional or NaN, with the
            row; fewer than two classes; a class without an image.
    """
    if (test_images is None) != (test_labels is None):
        raise DataError("test_images and test_labels: give both or neither")
    labels, classes = numbered(labels, "labels", classes)
    if test_labels is not None:
        test_labels, _ = numbered(test_labels, "test_labels", classes)
    train = _checked(images, labels, "images", "labels", classes)
    names = tuple(map(str, classes)) if classes is not None else tuple(map(str, range(train[1].max() + 1)))
    present = np.bincount(train[1], minlength=len(names))
    if (present > 0).sum() < 2:
        raise DataError(f"labels: expected at least two classes, got only {names[train[1][0]]!r}")
    if not present.all():
        missing = np.flatnonzero(present == 0)
        begins = (
            "labels begin at 1: subtract 1" if list(missing) == [0] else "number the classes without gaps"
        )
        advice = f"{begins}, or give labels as names" if classes is None else "take the name out of classes"
        raise DataError(f"labels: no image of class {missing[0]} ({names[missing[0]]!r}); {advice}")
    test = None
    if test_images is not None:
        test = _checked(test_images, test_labels, "test_images", "test_labels", names)
        if test[0].shape[1:] != train[0].shape[1:]:
            raise DataError(
                f"test_images: expected {list(train[0].shape[1:3])} pixels as in images, "
                f"got {list(test[0].shape[1:3])}"
            )
    return from_numpy(name, train, test, names, flip=flip)


def from_numpy(
    name: str,
    train: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray] | None,
    classes: tuple[str, ...],
    *,
    image_size: int | None = None,
    flip: bool = True,
) -> Dataset:
    """A data set of images uint8 [n, height, width, 3] and labels int64 [n] that have been checked.

    Args: train, test: (images, labels); image_size: side of the square that they are brought to; flip: as in Dataset.
    """

    def image_set(split: str, images: np.ndarray, labels: np.ndarray) -> ImageSet:
        sha256 = tuple(hashlib.sha256(image).hexdigest() for image in np.ascontiguousarray(images))
        if image_size is not None and images.shape[1:3] != (image_size, image_size):
            resized = [np.asarray(fit(Image.fromarray(i), image_size, image_size, "squash")) for i in images]
            images = np.stack(resized)
        return ImageSet(
            images=ResidentImages(torch.from_numpy(np.array(images, order="C"))),
            labels=torch.from_numpy(labels.astype(np.int64)),
            paths=tuple(f"{name}/{split}/{i:05d}" for i in range(len(labels))),
            classes=classes,
            sha256=sha256,
            conflicts=find_conflicts(sha256, labels),
        )

    train_set = image_set("train", *train)
    test_set = None if test is None else image_set("test", *test)
    warnings = [
        f"labels: only one image in class {classes[label]!r}"
        for label in np.flatnonzero(np.bincount(train[1], minlength=len(classes)) == 1)
    ]
    warnings += [*tell_alike("labels", classes), *tell_no_labels("labels", classes)]
    warnings += tell_twins({"train": train_set} | ({"test": test_set} if test_set else {}))
    return Dataset(name, train_set, test_set, warnings=tuple(warnings), flip=flip)


def _checked(
    images: object, labels: object, images_name: str, labels_name: str, classes: Sequence[str] | None
) -> tuple[np.ndarray, np.ndarray]:
    """Images as uint8 [n, height, width, 3] and labels as int64 [n], or a DataError that names the row."""
    pixels = _as_numpy(images, images_name)
    if pixels.dtype != np.uint8:
        raise DataError(
            f"{images_name}: expected uint8 (0..255), got {pixels.dtype}; multiply and round before"
        )
    if pixels.ndim == 3:
        pixels = np.repeat(pixels[..., None], 3, axis=3)
    if pixels.ndim != 4 or pixels.shape[3] != 3 or 0 in pixels.shape[1:]:
        advice = {
            pixels.ndim == 4 and pixels.shape[1] in (1, 3): "; channels come last: transpose by (0, 2, 3, 1)",
            pixels.ndim == 4 and pixels.shape[3] == 1: "; give images[..., 0]",
            pixels.ndim == 4 and pixels.shape[3] == 4: "; give images[..., :3], without alpha",
        }.get(True, "")
        raise DataError(
            f"{images_name}: expected [n, height, width, 3] or [n, height, width], got {list(pixels.shape)}{advice}"
        )
    if len(pixels) == 0:
        raise DataError(f"{images_name}: no images")
    values = _as_numpy(labels, labels_name)
    if values.ndim != 1 or len(values) != len(pixels):
        raise DataError(
            f"{labels_name}: expected [{len(pixels)}], one for each image, got {list(values.shape)}"
        )
    if values.dtype.kind not in "iuf":
        raise DataError(f"{labels_name}: expected whole numbers or names, got {values.dtype}")
    most = len(classes) - 1 if classes is not None else 99_999
    with np.errstate(invalid="ignore"):
        good = (values >= 0) & (values <= most) & (values == np.floor(values))
    if not good.all():
        row = int(np.flatnonzero(~good)[0])
        allowed = f"0 to {most}" if classes is not None else "whole numbers from 0"
        raise DataError(f"{labels_name}: row {row} has label {values[row]}; expected {allowed}")
    if values.dtype.kind == "f":
        raise DataError(
            f"{labels_name}: row 0 has label {values[0]} of type {values.dtype}; expected whole numbers"
        )
    return pixels, values.astype(np.int64)


def _as_numpy(values: object, name: str) -> np.ndarray:
    if isinstance(values, torch.Tensor):
        return values.detach().cpu().numpy()
    try:
        return np.asarray(values)
    except ValueError as error:
        sizes = {np.shape(value) for value in values} if hasattr(values, "__iter__") else set()
        if len(sizes) > 1 and all(len(size) in (2, 3) for size in sizes):
            few = " and ".join(map(str, sorted(sizes)[:2]))
            raise DataError(
                f"{name}: pictures of different sizes, such as {few}; bring them to one size, or give a dataset of "
                "(image, label)"
            ) from None
        raise DataError(f"{name}: not an array ({error})") from None
