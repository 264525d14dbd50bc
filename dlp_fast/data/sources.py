"""Where images come from: the embedded digits, CIFAR-10, a folder, arrays, a torchvision dataset."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from dlp_fast.data import dali
from dlp_fast.data.cifar import CLASSES as CIFAR10_CLASSES
from dlp_fast.data.cifar import load_cifar10
from dlp_fast.data.decode import ImageRejected, fit, to_rgb
from dlp_fast.data.index import ImageIndex, find_conflicts, find_splits, index_splits
from dlp_fast.data.scan import Progress, Quarantined
from dlp_fast.data.storage import FileImages, ResidentImages
from dlp_fast.errors import ConfigError, DataError
from dlp_fast.runs.names import printable

SMALL_SIDE = 96
"""Images that all have one size, at most this many pixels a side, are used at that size."""
LARGE_SIDE = 224
"""All others are brought to squares of this many pixels a side."""

Images = ResidentImages | FileImages


@dataclass(frozen=True, eq=False)
class ImageSet:
    """One split; position is id.

    Attributes:
        images: uint8 [b, height, width, 3] by ids.
        labels: int64 [n], positions in `classes`.
        paths: where each image comes from: relative to the folder that was given, or `name/split/00012`.
        classes: names.
        sha256: of the file's bytes, or of the pixels where there is no file.
        conflicts: groups of ids with the same bytes under different labels.
    """

    images: Images
    labels: torch.Tensor
    paths: tuple[str, ...]
    classes: tuple[str, ...]
    sha256: tuple[str, ...]
    conflicts: tuple[tuple[int, ...], ...] = ()

    def __len__(self) -> int:
        return len(self.paths)


@dataclass(frozen=True, eq=False)
class Dataset:
    """What a run works on.

    Attributes:
        name: `digits`, `cifar10`, or the name of the folder.
        train, test: the splits; test is None where there is none.
        quarantine: files that were left out, with reasons.
        warnings: what a person should know, one sentence each.
        flip: whether a mirrored image shows the same class (digits do not).
        loader: which one reads the images, and why.
    """

    name: str
    train: ImageSet
    test: ImageSet | None
    quarantine: tuple[Quarantined, ...] = ()
    warnings: tuple[str, ...] = ()
    flip: bool = True
    loader: str = "resident: all images are in memory"


# over 60 lines: half of them are arguments and what each is
def load(
    data: str | Path,
    *,
    image_size: int | None = None,
    loader: str = "auto",
    resident_limit_mb: float = 2048,
    max_megapixels: float = 64,
    max_megabytes: float = 64,
    workers: int | None = None,
    cache: str | Path | None = None,
    progress: Progress | None = None,
) -> Dataset:
    """Load `digits`, `cifar10`, `cifar10:DIR`, or a folder `DIR/<class>/...` or `DIR/train` + `DIR/test`.

    Args:
        data: the source. A folder that is itself called digits or cifar10 is given as `./digits`.
        image_size: side of the square that every image is brought to (shorter side resized, centre cropped),
            in pixels. None: the images' own size where they all have one and it is at most 96, else 224.
        loader: resident (all pixels in memory), dali or torchvision (files are decoded when they are needed, by DALI
            or by Pillow), or auto: resident up to `resident_limit_mb`, else dali where it is installed.
        resident_limit_mb: MiB of pixels (both splits) that `auto` holds in memory.
        max_megapixels, max_megabytes: larger files go to quarantine; millions of pixels, millions of bytes.
        workers: processes that check files and threads that decode them; None: one a core.
        cache: a file that remembers what was checked, see `scan_files`.
        progress: called as `progress(what, done, total)`.

    Raises:
        DataError: the images cannot be used; where files were quarantined before that, they are in its
            attribute `quarantine`.
        ConfigError: an argument out of its range.
        ResourceError: processes or the cache file cannot be used.
    """
    if image_size is not None and not 1 <= image_size <= 4096:
        raise ConfigError(f"image_size: expected 1 to 4096 pixels, got {image_size}")
    if not resident_limit_mb >= 0:
        raise ConfigError(f"resident_limit_mb: expected 0 or more, got {resident_limit_mb}")
    name = str(data)
    if name == "digits":
        return _digits(image_size)
    if name == "cifar10" or name.startswith("cifar10:"):
        folder = name.partition(":")[2] or None
        files = load_cifar10(folder)
        return _from_numpy(
            "cifar10",
            (files.train_images, files.train_labels),
            (files.test_images, files.test_labels),
            CIFAR10_CLASSES,
            image_size=image_size,
        )
    limits = {"max_megapixels": max_megapixels, "max_megabytes": max_megabytes}
    splits = find_splits(name)
    indices, quarantine = index_splits(
        name, splits, **limits, workers=workers, cache=cache, progress=progress
    )
    height, width = _common_size(list(indices.values()), image_size)
    pixels = sum(len(index) for index in indices.values()) * height * width * 3
    chosen = choose_loader(loader, pixels, resident_limit_mb)
    sets = {
        split: _folder_set(index, (height, width), chosen[0], workers, max_megapixels, progress)
        for split, index in indices.items()
    }
    warnings = [warning for index in indices.values() for warning in index.warnings]
    for split, images in sets.items():
        if images.conflicts:
            warnings.append(_tell_conflicts(split, images))
    return Dataset(
        name=printable(Path(name).resolve().name) or "images",
        train=sets["train"],
        test=sets.get("test"),
        quarantine=tuple(quarantine),
        warnings=tuple(warnings),
        loader=f"{chosen[0]}: {chosen[1]}",
    )


def choose_loader(loader: str, pixels: int, limit_mb: float) -> tuple[str, str]:
    """(resident | dali | torchvision, why) for `pixels` bytes of decoded images."""
    if loader != "auto":
        return loader, "as asked for"
    size, limit = f"{pixels / (1 << 20):,.0f} MiB of pixels", f"{limit_mb:,.0f} MiB"
    if pixels <= limit_mb * (1 << 20):
        return "resident", f"{size} fit in {limit} (--dataset.resident-megabytes)"
    missing = dali.available()
    if missing:
        return "torchvision", f"{size} do not fit in {limit}, and {missing}"
    return "dali", f"{size} do not fit in {limit}"


def load_split(
    folder: str | Path,
    *,
    classes: Sequence[str],
    size: int | tuple[int, int],
    resident_limit_mb: float = 2048,
    max_megapixels: float = 64,
    max_megabytes: float = 64,
    workers: int | None = None,
    cache: str | Path | None = None,
    progress: Progress | None = None,
) -> tuple[ImageSet, list[Quarantined]]:
    """Load `folder/<class>/...` for a model that is trained: labels are positions in `classes`, of which
    some may have no folder; images are brought to `size` (side, or height and width). Else as `load`.
    """
    indices, quarantine = index_splits(
        folder,
        {"": ""},
        classes=classes,
        max_megapixels=max_megapixels,
        max_megabytes=max_megabytes,
        workers=workers,
        cache=cache,
        progress=progress,
    )
    height, width = (size, size) if isinstance(size, int) else size
    pixels = len(indices[""]) * height * width * 3
    kind, _ = choose_loader("auto", pixels, resident_limit_mb)
    images = _folder_set(indices[""], (height, width), kind, workers, max_megapixels, progress)
    return images, quarantine


def from_arrays(
    images: np.ndarray | torch.Tensor,
    labels: np.ndarray | torch.Tensor | Sequence[int],
    test_images: np.ndarray | torch.Tensor | None = None,
    test_labels: np.ndarray | torch.Tensor | Sequence[int] | None = None,
    classes: Sequence[str] | None = None,
    *,
    name: str = "arrays",
    flip: bool = True,
) -> Dataset:
    """A data set of uint8 images [n, height, width, 3] (RGB) or [n, height, width] (grey) in memory.

    Args:
        images, labels: the training set; labels are whole numbers from 0.
        test_images, test_labels: the test set, of the same height and width; both or neither.
        classes: names; None: as many as the largest label asks for, named by their numbers.
        name: for paths and reports.
        flip: whether a mirrored image shows the same class.

    Raises:
        DataError: a wrong shape or dtype, or a label that is negative, too large, fractional or NaN, with the
            row; fewer than two classes; a class without an image.
    """
    if (test_images is None) != (test_labels is None):
        raise DataError("test_images and test_labels: give both or neither")
    train = _checked(images, labels, "images", "labels", classes)
    names = tuple(map(str, classes)) if classes is not None else tuple(map(str, range(train[1].max() + 1)))
    present = np.bincount(train[1], minlength=len(names))
    if (present > 0).sum() < 2:
        raise DataError(f"labels: expected at least two classes, got only {names[train[1][0]]!r}")
    if not present.all():
        missing = np.flatnonzero(present == 0)
        raise DataError(
            f"labels: no image of class {missing[0]} ({names[missing[0]]!r}); number the classes without gaps"
        )
    test = None
    if test_images is not None:
        test = _checked(test_images, test_labels, "test_images", "test_labels", names)
        if test[0].shape[1:] != train[0].shape[1:]:
            raise DataError(
                f"test_images: expected {list(train[0].shape[1:3])} pixels as in images, "
                f"got {list(test[0].shape[1:3])}"
            )
    return _from_numpy(name, train, test, names, flip=flip)


def from_torchvision(
    dataset: object,
    test: object = None,
    *,
    image_size: int | None = None,
    resident_limit_mb: float = 2048,
    name: str | None = None,
    flip: bool = True,
) -> Dataset:
    """A data set from map-style datasets that give (image, label).

    An image may be a Pillow image of any mode, a uint8 array [height, width, 3] or [height, width], or a
    tensor [1 or 3, height, width] or [height, width], uint8 or floating-point within 0..1 (not normalised).
    All are read once and held in memory, `resident_limit_mb` MiB at most. Images of different sizes are
    brought to `image_size`, as in `load`. Class names come from `dataset.classes`.

    Raises:
        DataError: an item that cannot be used, with its row; otherwise as `from_arrays`.
    """
    name = name or type(dataset).__name__
    budget = int(resident_limit_mb * (1 << 20))
    train_pictures, train_labels = _collect(dataset, "dataset", image_size, budget)
    test_pictures, test_labels = ([], []) if test is None else _collect(test, "test", image_size, budget)
    sizes = {picture.size for picture in train_pictures + test_pictures}
    height, width = _target_size(sizes, image_size)

    def stack(pictures: list[Image.Image]) -> np.ndarray:
        return np.stack([np.asarray(fit(picture, height, width)) for picture in pictures])

    classes = getattr(dataset, "classes", None)
    return from_arrays(
        stack(train_pictures),
        train_labels,
        None if test is None else stack(test_pictures),
        None if test is None else test_labels,
        None if classes is None else [str(c) for c in classes],
        name=name,
        flip=flip,
    )


def _digits(image_size: int | None) -> Dataset:
    """scikit-learn's 1,797 handwritten digits, 8 x 8 with values 0..16, shown as 16 x 16 RGB.

    Of each digit every fifth, in the order of the file, is a test image: no random generator is asked, so
    that the split is the same for ever.
    """
    from sklearn.datasets import load_digits  # half a second that other sources need not pay

    digits = load_digits()
    grey = np.rint(digits.images * 255 / 16).astype(np.uint8).repeat(2, axis=1).repeat(2, axis=2)
    labels = digits.target.astype(np.int64)
    is_test = np.zeros(len(labels), dtype=bool)
    for digit in range(10):
        is_test[np.flatnonzero(labels == digit)[4::5]] = True
    rgb = np.repeat(grey[..., None], 3, axis=3)
    return _from_numpy(
        "digits",
        (rgb[~is_test], labels[~is_test]),
        (rgb[is_test], labels[is_test]),
        tuple(map(str, range(10))),
        image_size=image_size,
        flip=False,
    )


def _from_numpy(
    name: str,
    train: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray] | None,
    classes: tuple[str, ...],
    *,
    image_size: int | None = None,
    flip: bool = True,
) -> Dataset:
    def image_set(split: str, images: np.ndarray, labels: np.ndarray) -> ImageSet:
        sha256 = tuple(hashlib.sha256(image).hexdigest() for image in np.ascontiguousarray(images))
        if image_size is not None and images.shape[1:3] != (image_size, image_size):
            resized = [np.asarray(fit(Image.fromarray(i), image_size, image_size)) for i in images]
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
    for split, images in (("train", train_set), ("test", test_set)):
        if images is not None and images.conflicts:
            warnings.append(_tell_conflicts(split, images))
    return Dataset(name, train_set, test_set, warnings=tuple(warnings), flip=flip)


def _folder_set(
    index: ImageIndex,
    size: tuple[int, int],
    loader: str,
    workers: int | None,
    max_megapixels: float,
    progress: Progress | None,
) -> ImageSet:
    reader = dali.DaliImages if loader == "dali" else FileImages
    images: Images = reader(index, size, workers, max_megapixels=max_megapixels)
    if loader == "resident":
        images = _read_all(images, progress)
    return ImageSet(
        images=images,
        labels=torch.from_numpy(index.labels.copy()),
        paths=index.paths,
        classes=index.classes,
        sha256=index.sha256,
        conflicts=find_conflicts(index.sha256, index.labels),
    )


def _read_all(files: FileImages, progress: Progress | None) -> ResidentImages:
    pixels = torch.empty((len(files), files.height, files.width, 3), dtype=torch.uint8)
    done = 0
    for batch in files.prefetch(torch.arange(len(files)).split(256)):
        pixels[done : done + len(batch)] = batch
        done += len(batch)
        if progress:
            progress("reading images", done, len(files))
    return ResidentImages(pixels)


def _common_size(indices: list[ImageIndex], image_size: int | None) -> tuple[int, int]:
    sizes = {
        (int(width), int(height))
        for index in indices
        for width, height in np.unique(np.stack([index.widths, index.heights]), axis=1).T
    }
    return _target_size(sizes, image_size)


def _target_size(sizes: set[tuple[int, int]], image_size: int | None) -> tuple[int, int]:
    """(height, width) for pictures of these (width, height)."""
    if image_size is not None:
        return image_size, image_size
    if len(sizes) == 1:
        ((width, height),) = sizes
        if max(width, height) <= SMALL_SIDE:
            return height, width
    return LARGE_SIDE, LARGE_SIDE


def _tell_conflicts(split: str, images: ImageSet) -> str:
    ids = images.conflicts[0]
    example = " and ".join(printable(images.paths[i]) for i in ids[:2])
    count = len(images.conflicts)
    return (
        f"{split}: {count} image{'s' * (count > 1)} with the same bytes under different labels, "
        f"such as {example}: mistakes, or a sign of poison"
    )


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
        raise DataError(
            f"{images_name}: expected [n, height, width, 3] or [n, height, width], got {list(pixels.shape)}"
        )
    if len(pixels) == 0:
        raise DataError(f"{images_name}: no images")
    values = _as_numpy(labels, labels_name)
    if values.ndim != 1 or len(values) != len(pixels):
        raise DataError(
            f"{labels_name}: expected [{len(pixels)}], one for each image, got {list(values.shape)}"
        )
    if values.dtype.kind not in "iuf":
        raise DataError(f"{labels_name}: expected whole numbers, got {values.dtype}")
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
        raise DataError(f"{name}: not an array ({error})") from None


def _collect(
    dataset: object, name: str, image_size: int | None, budget: int
) -> tuple[list[Image.Image], list[int]]:
    """All pictures, fitted to `image_size` where it is given, and labels; `budget` is in bytes of pixels."""
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
            image, label = dataset[row]
        except Exception as error:
            raise DataError(f"{name}: row {row} cannot be read ({type(error).__name__}: {error})") from error
        picture = _picture(image, f"{name}: row {row}")
        if image_size is not None:
            picture = fit(picture, image_size, image_size)
        used += 3 * picture.width * picture.height
        if used > budget:
            raise DataError(
                f"{name}: more than {budget >> 20} MiB of pixels by row {row} of {count}; give a smaller "
                "image_size, or the folder that the images come from: its files can stay on the disk"
            )
        pictures.append(picture)
        if isinstance(label, (np.ndarray, torch.Tensor)) and label.ndim == 0:
            label = label.item()
        if isinstance(label, bool) or not isinstance(label, (int, np.integer)):
            raise DataError(f"{name}: row {row} has label {label!r}; expected a whole number from 0")
        labels.append(int(label))
    return pictures, labels


def _picture(image: object, where: str) -> Image.Image:
    if isinstance(image, Image.Image):
        try:
            return to_rgb(image)
        except (ImageRejected, OSError) as error:
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
