"""The one definition of "the picture in this file".

A picture is RGB, uint8, [height, width, 3]:

* EXIF orientation is applied;
* alpha is dropped (the colours under it stay as they are stored);
* palette, 1-bit, grey, grey+alpha, CMYK and YCbCr are converted to RGB by Pillow;
* of 16-bit samples the highest 8 of the `bits` that the set uses count, in grey files as in colour files;
* of an animation or a multi-page file the first picture counts.

The scan's child processes load this module and its neighbours without the rest of dlp_fast, and without torch.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image

from dlp_fast.data import samples
from dlp_fast.data.fitting import fit, region
from dlp_fast.data.formats import FORMATS, ImageRejected, check_png, open_image, undecodable
from dlp_fast.data.samples import Look

if TYPE_CHECKING:
    import numpy as np

_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_EXIF_ORIENTATION = 0x0112
_TIFF_BITS = 0x0102


@dataclass(frozen=True)
class Picture:
    """A decoded picture: `image` is a Pillow image in mode RGB; `format` and `mode` are the file's own; `look` is None
    unless it was asked for.
    """

    image: Image.Image
    format: str
    mode: str
    look: Look | None = None


def read_regular(
    root: str, relative: str, *, max_bytes: int, follow_links: bool = False
) -> tuple[bytes, os.stat_result]:
    """The bytes and the status of one regular file under `root` (a real path, no link in it).

    Anything else (FIFO, device, socket, folder) is never opened; a file that a link places outside of
    `root` is refused after opening, by where it really lies, so that no race can slip another one in; unless
    `follow_links`, where a person said that links may lead anywhere.

    Raises ImageRejected: unreadable, not_a_regular_file, link_leaves_folder, empty, too_large.
    """
    path = os.path.join(root, relative)
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise ImageRejected("not_a_regular_file", "not a regular file")
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError as error:
        raise ImageRejected("unreadable", error.strerror or str(error)) from None
    with open(fd, "rb", buffering=0) as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise ImageRejected("not_a_regular_file", "not a regular file")
        if not follow_links and not _location(fd, path).startswith(root.rstrip(os.sep) + os.sep):
            raise ImageRejected("link_leaves_folder", "a link leads out of the folder")
        if status.st_size == 0:
            raise ImageRejected("empty", "0 bytes")
        if status.st_size > max_bytes:
            raise ImageRejected("too_large", f"{status.st_size} bytes, the limit is {max_bytes}")
        try:
            data = file.read(status.st_size)
        except OSError as error:
            raise ImageRejected("unreadable", error.strerror or str(error)) from None
    if len(data) != status.st_size:
        raise ImageRejected("unreadable", "the file changed while it was read")
    return data, status


def _location(fd: int, path: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return os.path.realpath(path)


def decode_picture(data: bytes, *, max_pixels: int, bits: int = 16, look: bool = False) -> Picture:
    """Decode the bytes of a file; the size in its header is checked before any pixel is decoded.

    Args:
        data: the bytes.
        max_pixels: what a picture may have.
        bits: how many bits the samples of the set's 16-bit files use; a file that uses more is scaled by its own.
        look: whether to measure what the picture looks like.

    Raises ImageRejected: empty, not_an_image, unsupported_format, too_large, truncated, unreadable.
    """
    if not data:
        raise ImageRejected("empty", "0 bytes")
    with open_image(data) as image:
        width, height = image.size
        if width * height > max_pixels:
            detail = f"{width} x {height} pixels, the limit is {max_pixels / 1e6:g} million"
            raise ImageRejected("too_large", detail)
        if width < 1 or height < 1:
            raise ImageRejected("unreadable", f"a picture of {width} x {height} pixels")
        file_format = "JPEG" if image.format == "MPO" else str(image.format)
        file_mode = image.mode
        if file_format == "PNG":
            check_png(data)
        try:
            rgb, seen = _loaded(image, data, bits, look)
        except ImageRejected:
            raise
        except MemoryError:
            raise ImageRejected("too_large", "decoding it needs more memory than allowed") from None
        except Exception as error:
            raise undecodable(data, error) from None
    return Picture(rgb, file_format, file_mode, seen)


def _loaded(image: Image.Image, data: bytes, bits: int, look: bool) -> tuple[Image.Image, Look | None]:
    """RGB, upright, and its look where that is asked for, of an opened file."""
    if samples.is_deep_colour(image) and (look or bits < 16):
        with open_image(data) as again:
            deep = samples.deep_colour(image, again)
        image.load()
        eight = samples.to_eight_bits(deep, bits)
        rgb = Image.fromarray(eight[..., 0] if eight.shape[2] == 1 else eight).convert("RGB")
    else:
        image.load()
        deep = _integers(image) if image.mode.startswith("I") else None
        rgb = _to_rgb(image, bits)
    if not look:
        return _upright(rgb, image), None
    transparent = samples.transparent_share(image)
    if deep is None:
        return _upright(rgb, image), samples.measured(rgb, transparent)
    return _upright(rgb, image), samples.measured_deep(deep, _declared_peak(image), transparent)


def _declared_peak(image: Image.Image) -> int:
    """The largest sample that a TIFF of 12 bits can have; 0 where the file's bits are those of its samples."""
    tags = getattr(image, "tag_v2", None)
    return 4095 if tags is not None and tags.get(_TIFF_BITS) == (12,) else 0


def decode_image(data: bytes, *, max_pixels: int, bits: int = 16) -> np.ndarray:
    """The picture in a file's bytes as uint8 [height, width, 3]; arguments and errors as in `decode_picture`."""
    import numpy as np

    return np.asarray(decode_picture(data, max_pixels=max_pixels, bits=bits).image)


def to_rgb(image: Image.Image) -> Image.Image:
    """A Pillow image of any mode as RGB, upright, by the rules above."""
    image.load()
    return _upright(_to_rgb(image), image)


def _to_rgb(image: Image.Image, bits: int = 16) -> Image.Image:
    mode = image.mode
    if mode == "RGB":
        return image
    if mode.startswith("I"):
        return Image.fromarray(samples.to_eight_bits(_integers(image), bits)).convert("RGB")
    if mode == "F":
        raise ImageRejected("unsupported_format", "floating-point samples; convert the file to 8 or 16 bits")
    if mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    try:
        return image.convert("RGB")
    except ValueError as error:
        raise ImageRejected("unsupported_format", f"colour mode {mode}: {error}") from None


def _integers(image: Image.Image) -> np.ndarray:
    try:
        return samples.grey(image)
    except samples.UnusableSamples as error:
        raise ImageRejected("unsupported_format", str(error)) from None


def _upright(rgb: Image.Image, source: Image.Image) -> Image.Image:
    try:
        orientation = source.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception:  # damaged metadata does not make a picture unusable
        orientation = 1
    how = _TRANSPOSE.get(orientation) if isinstance(orientation, int) else None
    return rgb.transpose(how) if how is not None else rgb


__all__ = [
    "FORMATS",
    "ImageRejected",
    "Look",
    "Picture",
    "decode_image",
    "decode_picture",
    "fit",
    "read_regular",
    "region",
    "to_rgb",
]
