"""From a picture of any kind and size to what a network was trained on: the one way, for training and for use.

A file is read as the scan and the training read it: checked in a child process with bounds, upright by its EXIF
orientation, RGB, brought to the size by the run's own rule. Pictures in memory take the same way from there.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from dlp_fast.data import decode
from dlp_fast.data.fitting import FITS
from dlp_fast.data.fitting import fit as fitted
from dlp_fast.data.image_index import ImageIndex, image_index
from dlp_fast.data.scan import Progress, Quarantined, scan_files
from dlp_fast.data.storage import FileImages
from dlp_fast.errors import ConfigError, DataError
from dlp_fast.runs.names import printable


def check_fit(fit: str) -> str:
    """`fit`, where this version knows it; else ConfigError."""
    if fit not in FITS:
        raise ConfigError(
            f"dataset.fit {fit!r} is unknown to this version of dlp_fast; it knows {', '.join(FITS)}"
        )
    return fit


def preprocess(
    pictures: Any, size: tuple[int, int], fit: str = "squash", bit_depth: int = 16
) -> torch.Tensor:
    """Pictures as a network takes them: uint8 [n, height, width, 3] RGB, on the CPU.

    Args:
        pictures: one picture or many, of any size: a path, a Pillow image, a uint8 array or tensor [h, w, 3] or (grey)
            [h, w], a list of such, or an array [n, h, w, 3]. An array of three dimensions whose last is 3 is one
            picture; any other of three dimensions is n grey ones.
        size: (height, width) in pixels; fit: how a picture is brought to it, see `DataConfig.fit`; bit_depth: bits of
            16-bit samples that count, of which the highest 8 are taken.

    Raises:
        DataError: a file cannot be used, or something is no picture; the first such is named.
        ConfigError: an unknown `fit`.
    """
    check_fit(fit)
    pictures = as_pictures(pictures)
    out = torch.empty((len(pictures), *size, 3), dtype=torch.uint8)
    rows = out.numpy()
    files = [i for i, one in enumerate(pictures) if isinstance(one, (str, os.PathLike))]
    if files:
        index, refused = index_files([pictures[i] for i in files])
        if refused:
            more = f" ({len(refused)} such files)" if len(refused) > 1 else ""
            raise DataError(f"{printable(refused[0].path)}: {refused[0].reason}, {refused[0].detail}{more}")
        out[files] = file_images(index, size, fit, bit_depth).get(torch.arange(len(files)))
    for i, one in enumerate(pictures):
        if not isinstance(one, (str, os.PathLike)):
            rows[i] = np.asarray(fitted(_in_memory(one, i), *size, fit))
    return out


def as_pictures(pictures: Any) -> Sequence[Any]:
    """A sequence of single pictures, from one or many; arrays of many are not copied."""
    if isinstance(pictures, (str, os.PathLike, Image.Image)):
        return [pictures]
    if isinstance(pictures, (np.ndarray, torch.Tensor)):
        if pictures.ndim == 2 or (pictures.ndim == 3 and pictures.shape[2] == 3):
            return [pictures]
        if pictures.ndim not in (3, 4):
            raise DataError(f"images: {_told(pictures)}; expected uint8 [n, height, width, 3]")
        return pictures
    try:
        return pictures if isinstance(pictures, Sequence) else list(pictures)
    except TypeError:
        raise DataError(
            f"images: a {type(pictures).__name__}; expected paths, Pillow images, arrays, or a list of them"
        ) from None


def index_files(
    paths: Sequence[str | os.PathLike[str]],
    *,
    progress: Progress | None = None,
    **limits: Any,
) -> tuple[ImageIndex, list[Quarantined]]:
    """The usable ones of the files `paths`, in their order, and those that are not, with reasons.

    They are examined in child processes, as in a scan; `limits` are those of `scan_files`. A path may be a link:
    whoever names a file means what it leads to. Paths of the index and of the quarantine are real ones.
    """
    real = [os.path.realpath(os.fspath(path)).lstrip(os.sep) for path in paths]
    records, refused = scan_files(os.sep, real, progress=progress, **limits)
    index = image_index(os.sep, {"": records}, ("",), ())
    return index, [Quarantined(os.sep + one.path, one.reason, one.detail) for one in refused]


def file_images(
    index: ImageIndex, size: tuple[int, int], fit: str, bit_depth: int = 16, max_megapixels: float = 64
) -> FileImages:
    """The pictures of checked files at `size`, by the reader that training uses."""
    check_fit(fit)
    return FileImages(index, size, max_megapixels=max_megapixels, fit=fit, bits=bit_depth)


def _in_memory(one: Any, row: int) -> Image.Image:
    """A Pillow image, array or tensor as an upright RGB image."""
    if isinstance(one, Image.Image):
        try:
            return decode.to_rgb(one)
        except (decode.ImageRejected, OSError) as error:
            raise DataError(f"image {row}: cannot be decoded ({error})") from None
    if not isinstance(one, (np.ndarray, torch.Tensor)):
        raise DataError(
            f"image {row}: a {type(one).__name__}; expected a path, a Pillow image or a uint8 array [height, width, 3]"
        )
    array = one.numpy(force=True) if isinstance(one, torch.Tensor) else one
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or 0 in array.shape:
        raise DataError(f"image {row}: {_told(one)}; expected uint8 (0 to 255) [height, width, 3]")
    if array.ndim == 3 and array.shape[2] not in (1, 3):
        hint = "; put the channels last: permute(1, 2, 0)" if array.shape[0] in (1, 3) else ""
        raise DataError(f"image {row}: {_told(one)}; expected [height, width, 3]{hint}")
    array = array if array.ndim == 3 else array[..., None]
    return Image.fromarray(np.ascontiguousarray(np.broadcast_to(array, (*array.shape[:2], 3))))


def _told(one: Any) -> str:
    return f"{str(one.dtype).removeprefix('torch.')} {list(one.shape)}"
