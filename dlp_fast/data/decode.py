"""The one definition of "the picture in this file".

A picture is RGB, uint8, [height, width, 3]:

* EXIF orientation is applied;
* alpha is dropped (the colours under it stay as they are stored);
* palette, 1-bit, grey, grey+alpha, CMYK and YCbCr are converted to RGB by Pillow;
* 16-bit samples keep their high byte, in grey files as in colour files;
* of an animation or a multi-page file the first picture counts.

Only the formats in `FORMATS` are ever handed to a decoder. This module imports nothing of dlp_fast and no
torch, because the scan's child processes load it alone.
"""

from __future__ import annotations

import os
import stat
import zlib
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

from PIL import (
    BmpImagePlugin,
    Image,
    JpegImagePlugin,
    MpoImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

if TYPE_CHECKING:
    import numpy as np

# Loaded here so that `Image.open` need not load every plug-in there is to find these. MPO is the JPEG of
# phones, which Pillow's JPEG plug-in hands over to this one.
PLUGINS = (
    BmpImagePlugin,
    JpegImagePlugin,
    MpoImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "PPM")

# Formats that people do put into image folders and that are refused by name, told by their first bytes.
_REFUSED_STARTS = (
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"8BPS", "Photoshop"),
    (b"\x00\x00\x01\x00", "ICO"),
    (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\x00\x00\x00\x0cJXL \r\n\x87\n", "JPEG XL"),
    (b"%!PS", "PostScript"),
    (b"%PDF", "PDF"),
    (b"SIMPLE  =", "FITS"),
    (b"qoif", "QOI"),
)

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


class ImageRejected(Exception):
    """A file is not usable as an image: a reason from a fixed list and a detail for people."""

    def __init__(self, reason: str, detail: str):
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True)
class Picture:
    """A decoded picture: `image` is a Pillow image in mode RGB; `format` and `mode` are the file's own."""

    image: Image.Image
    format: str
    mode: str


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


def decode_picture(data: bytes, *, max_pixels: int) -> Picture:
    """Decode the bytes of a file; the size in its header is checked before any pixel is decoded.

    Raises ImageRejected: empty, not_an_image, unsupported_format, too_large, truncated, unreadable.
    """
    if not data:
        raise ImageRejected("empty", "0 bytes")
    try:
        image = Image.open(BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        raise _unidentified(data) from None
    except Image.DecompressionBombError as error:
        raise ImageRejected("too_large", str(error)) from None
    except MemoryError:
        raise ImageRejected("too_large", "opening it needs more memory than allowed") from None
    except Exception as error:
        raise _undecodable(data, error) from None
    with image:
        width, height = image.size
        if width * height > max_pixels:
            detail = f"{width} x {height} pixels, the limit is {max_pixels / 1e6:g} million"
            raise ImageRejected("too_large", detail)
        if width < 1 or height < 1:
            raise ImageRejected("unreadable", f"a picture of {width} x {height} pixels")
        file_format = "JPEG" if image.format == "MPO" else str(image.format)
        file_mode = image.mode
        if file_format == "PNG":
            _check_png(data)
        try:
            image.load()
            rgb = _upright(_to_rgb(image), image)
        except ImageRejected:
            raise
        except MemoryError:
            raise ImageRejected("too_large", "decoding it needs more memory than allowed") from None
        except Exception as error:
            raise _undecodable(data, error) from None
    return Picture(rgb, file_format, file_mode)


def decode_image(data: bytes, *, max_pixels: int) -> np.ndarray:
    """The picture in a file's bytes as uint8 [height, width, 3]; errors as in `decode_picture`."""
    import numpy as np

    return np.asarray(decode_picture(data, max_pixels=max_pixels).image)


def to_rgb(image: Image.Image) -> Image.Image:
    """A Pillow image of any mode as RGB, upright, by the rules above."""
    image.load()
    return _upright(_to_rgb(image), image)


def region(
    source_width: int, source_height: int, height: int, width: int
) -> tuple[float, float, float, float]:
    """(left, top, right, bottom) in pixels of a picture: what is left of it, unscaled, by resizing the shorter side to
    fit `height` x `width` and cropping the centre.
    """
    if source_width * height >= source_height * width:
        whole_height, whole_width = height, max(width, source_width * height // source_height)
    else:
        whole_height, whole_width = max(height, source_height * width // source_width), width
    left, top = round((whole_width - width) / 2), round((whole_height - height) / 2)
    across, down = source_width / whole_width, source_height / whole_height
    return (
        left * across,
        top * down,
        min((left + width) * across, source_width),
        min((top + height) * down, source_height),
    )


def fit(image: Image.Image, height: int, width: int) -> Image.Image:
    """Resize so that the shorter side fits (bilinear with antialiasing), then crop the centre.

    Only the part that the crop keeps is computed: a picture of 1 x 10,000,000 pixels costs no more than
    another. An image that has the size already is returned as it is.
    """
    if image.size == (width, height):
        return image
    box = region(*image.size, height, width)
    return image.resize((width, height), Image.Resampling.BILINEAR, box=box)


def _to_rgb(image: Image.Image) -> Image.Image:
    mode = image.mode
    if mode == "RGB":
        return image
    if mode.startswith("I"):
        return _high_byte(image).convert("RGB")
    if mode == "F":
        raise ImageRejected("unsupported_format", "floating-point samples; convert the file to 8 or 16 bits")
    if mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    try:
        return image.convert("RGB")
    except ValueError as error:
        raise ImageRejected("unsupported_format", f"colour mode {mode}: {error}") from None


def _high_byte(image: Image.Image) -> Image.Image:
    import numpy as np  # a tenth of a second that each of the scan's children need not pay at its start

    samples = np.asarray(image)
    if samples.dtype.itemsize > 2 and (samples.min() < 0 or samples.max() > 0xFFFF):
        raise ImageRejected("unsupported_format", "32-bit samples; convert the file to 8 or 16 bits")
    return Image.fromarray((samples >> 8).astype(np.uint8))


def _upright(rgb: Image.Image, source: Image.Image) -> Image.Image:
    try:
        orientation = source.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception:  # damaged metadata does not make a picture unusable
        orientation = 1
    how = _TRANSPOSE.get(orientation) if isinstance(orientation, int) else None
    return rgb.transpose(how) if how is not None else rgb


def _unidentified(data: bytes) -> ImageRejected:
    for start, name in _REFUSED_STARTS:
        if data.startswith(start):
            return _unsupported(name)
    if data[4:8] == b"ftyp":
        brand = data[8:12]
        if brand in (b"avif", b"avis"):
            return _unsupported("AVIF")
        return _unsupported("HEIF or a video")
    if _cut_short(data):
        return ImageRejected("truncated", "the file ends within its header")
    if data.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")) or _is_webp(data):
        return ImageRejected("unreadable", "the header is damaged")
    return ImageRejected("not_an_image", f"none of {', '.join(FORMATS)}")


def _unsupported(name: str) -> ImageRejected:
    return ImageRejected("unsupported_format", f"{name}; convert it to one of {', '.join(FORMATS)}")


def _undecodable(data: bytes, error: Exception) -> ImageRejected:
    text = " ".join(str(error).split())[:200] or type(error).__name__
    if isinstance(error, Image.DecompressionBombError):
        return ImageRejected("too_large", text)
    if isinstance(error, EOFError) or "truncated" in text.lower() or _cut_short(data):
        return ImageRejected("truncated", text)
    return ImageRejected("unreadable", text)


def _cut_short(data: bytes) -> bool:
    """Whether a file that no decoder accepts ends before its own format says that it should."""
    if data.startswith(b"\xff\xd8\xff"):
        return b"\xff\xda" not in data or b"\xff\xd9" not in data[-2048:]
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return b"IEND" not in data[-2048:]
    if data.startswith(b"BM"):
        return len(data) >= 6 and len(data) < int.from_bytes(data[2:6], "little") < 1 << 31
    return _is_webp(data) and len(data) < int.from_bytes(data[4:8], "little") + 8


def _check_png(data: bytes) -> None:
    """Checksums of all chunks up to the end of the picture: Pillow passes over those of the pixel data, and
    other decoders (DALI's) do not.
    """
    # Image.verify() ends at the name of IEND: a file that is cut or damaged in its last four bytes passes it.
    at = 8
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        end = at + 8 + length
        kind = data[at + 4 : at + 8]
        if end + 4 > len(data):
            break
        if zlib.crc32(memoryview(data)[at + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            raise ImageRejected("unreadable", f"wrong checksum of chunk {kind.decode('ascii', 'replace')}")
        if kind == b"IEND":
            return
        at = end + 4
    raise ImageRejected("truncated", "the file ends before its IEND chunk")


def _is_webp(data: bytes) -> bool:
    return data[:4] == b"RIFF" and data[8:12] == b"WEBP"
