"""Map-style datasets, as torchvision and Hugging Face have them: read once, held in memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image

from dlp_fast.config import DataConfig
from dlp_fast.data import samples
from dlp_fast.data.appearance import common_depth
from dlp_fast.data.decode import ImageRejected, decode_picture, fit, to_rgb
from dlp_fast.data.shards import IMAGE_KEYS
from dlp_fast.data.sources.arrays import from_arrays
from dlp_fast.data.sources.dataset import Dataset, target_size
from dlp_fast.errors import DataError
from dlp_fast.runs.names import listing

LABEL_KEYS = ("label", "labels", "fine_label", "class", "cls", "category", "target")


def image_and_label(names: Iterable[str], where: str) -> tuple[str, str]:
    """Which of `names` (columns, keys) of `where` are the picture and its label; DataError where one is missing."""
    names = list(map(str, names))
    image, label = (next((key for key in keys if key in names), None) for keys in (IMAGE_KEYS, LABEL_KEYS))
    if image is None or label is None:
        raise DataError(
            f"{where} has {listing(names)}; expected an image ({', '.join(IMAGE_KEYS)}) and a label "
            f"({', '.join(LABEL_KEYS)}): rename the columns"
        )
    return image, label


Pixels = Image.Image | np.ndarray
"""An RGB picture, or samples of 16 bits [height, width], until it is known how many bits the set uses."""


def from_torchvision(
    dataset: object,
    test: object = None,
    *,
    options: DataConfig | None = None,
    name: str | None = None,
    flip: bool = True,
) -> Dataset:
    """A data set from map-style datasets of (image, label), or of {"image": ..., "label": ...} as Hugging Face's are.

    An image may be a Pillow image of any mode, a uint8 array [height, width, 3] or [height, width], or a
    tensor [1 or 3, height, width] or [height, width], uint8 or floating-point within 0..1 (not normalised).
    All are read once and held in memory, `options.resident_megabytes` MiB at most. Images of different sizes are
    brought to `options.image_size` by `options.fit`, as in `load`. A label is a whole number from 0 or a name. Class
    names come from `dataset.classes` or from the features of a Hugging Face dataset.

    Raises:
        DataError: an item that cannot be used, with its row; otherwise as `from_arrays`.
    """
    options = options or DataConfig()
    name = name or type(dataset).__name__
    train_pictures, train_labels = _collect(dataset, "dataset", options)
    test_pictures, test_labels = ([], []) if test is None else _collect(test, "test", options)
    height, width = target_size({_size(p) for p in train_pictures + test_pictures}, options.image_size)
    peaks = [int(p.max(initial=0)) for p in train_pictures if isinstance(p, np.ndarray)]
    bits = common_depth(peaks, options.bit_depth)

    def stack(pictures: list[Pixels]) -> np.ndarray:
        return np.stack([np.asarray(fit(_eight_bits(p, bits), height, width, options.fit)) for p in pictures])

    made = from_arrays(
        stack(train_pictures),
        train_labels,
        None if test is None else stack(test_pictures),
        None if test is None else test_labels,
        class_names(dataset),
        name=name,
        flip=flip,
    )
    told = made.warnings
    if peaks and bits < 16:
        told += (f"dataset: {len(peaks):,} images of 16-bit samples read as {bits} bits (dataset.bit_depth)",)
    return Dataset(name, made.train, made.test, warnings=told, flip=flip, fit=options.fit, bit_depth=bits)


def class_names(dataset: Any) -> list[str] | None:
    """Names of the classes where a dataset says them."""
    classes = getattr(dataset, "classes", None)
    if classes is not None:
        return [str(c) for c in classes]
    features = getattr(dataset, "features", None)
    if isinstance(features, Mapping):
        for key in LABEL_KEYS:
            names = getattr(features.get(key), "names", None)
            if names:
                return [str(c) for c in names]
    return None


def _size(picture: Pixels) -> tuple[int, int]:
    return picture.size if isinstance(picture, Image.Image) else (picture.shape[1], picture.shape[0])


def _eight_bits(picture: Pixels, bits: int) -> Image.Image:
    if isinstance(picture, Image.Image):
        return picture
    return Image.fromarray(samples.to_eight_bits(picture, bits)).convert("RGB")


def _collect(dataset: Any, name: str, options: DataConfig) -> tuple[list[Pixels], list[int | str]]:
    """All pictures, fitted to the image size where one is given, and labels."""
    side, budget = options.image_size, options.resident_megabytes << 20
    pictures, labels = [], []
    used = 0
    try:
        count = len(dataset)
    except TypeError:
        raise DataError(f"{name}: expected a map-style dataset, with a length") from None
    if count == 0:
        raise DataError(f"{name}: no images")
    for row in range(count):
        try:
            item = dataset[row]
        except Exception as error:
            raise DataError(f"{name}: row {row} cannot be read ({type(error).__name__}: {error})") from error
        image, label = _parts(item, f"{name}: row {row}")
        picture = _picture(image, f"{name}: row {row}", int(options.max_megapixels * 1e6))
        if side is not None and isinstance(picture, Image.Image):
            picture = fit(picture, side, side, options.fit)
        width, height = _size(picture)
        used += 3 * width * height
        if used > budget:
            raise DataError(
                f"{name}: more than {budget >> 20} MiB of pixels by row {row} of {count}; give a smaller "
                "image_size, or the folder that the images come from: its files can stay on the disk"
            )
        pictures.append(picture)
        labels.append(_label(label, f"{name}: row {row}"))
    return pictures, labels


def _parts(item: Any, where: str) -> tuple[Any, Any]:
    """(image, label) of an item of either kind."""
    if isinstance(item, Mapping):
        image, label = image_and_label(item, where)
        return item[image], item[label]
    try:
        image, label = item
    except (TypeError, ValueError):
        raise DataError(
            f'{where} is a {type(item).__name__}; expected (image, label) or {{"image": ..., "label": ...}}'
        ) from None
    return image, label


def _label(label: Any, where: str) -> int | str:
    if isinstance(label, (np.ndarray, np.generic, torch.Tensor)) and label.ndim == 0:
        label = label.item()
    if isinstance(label, str):
        return label
    if isinstance(label, bool) or not isinstance(label, int):
        raise DataError(f"{where} has label {label!r}; expected a whole number from 0, or a name")
    return label


def _picture(image: object, where: str, max_pixels: int) -> Pixels:
    if isinstance(image, Mapping) and isinstance(image.get("bytes"), bytes):  # Hugging Face's, not decoded
        try:
            return decode_picture(image["bytes"], max_pixels=max_pixels).image
        except ImageRejected as error:
            raise DataError(f"{where} cannot be decoded ({error})") from None
    if isinstance(image, Image.Image):
        try:
            image.load()
            if image.mode.startswith("I"):
                return samples.grey(image)
            return to_rgb(image)
        except (ImageRejected, OSError, samples.UnusableSamples) as error:
            raise DataError(f"{where} cannot be decoded ({error})") from None
    if isinstance(image, torch.Tensor):
        array = image.detach().cpu().numpy()
        if array.ndim == 3:
            array = array.transpose(1, 2, 0)
        if array.dtype.kind == "f":
            if not (array.min() >= 0 and array.max() <= 1):
                raise DataError(
                    f"{where} has values outside of 0..1 or NaN; give the dataset without Normalize"
                )
            array = np.rint(array * 255).astype(np.uint8)
    elif isinstance(image, np.ndarray):
        array = image
    else:
        raise DataError(f"{where} is a {type(image).__name__}; expected a Pillow image, a tensor or an array")
    if array.ndim == 2:
        array = array[..., None]
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] not in (1, 3) or 0 in array.shape:
        raise DataError(
            f"{where} is {array.dtype} {list(array.shape)}; "
            "expected uint8 [height, width, 3] or [height, width]"
        )
    return Image.fromarray(np.ascontiguousarray(np.broadcast_to(array, (*array.shape[:2], 3))))
