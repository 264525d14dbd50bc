"""Which image formats are read, and why a file is none of them.

Only the formats in `FORMATS` are ever handed to a decoder. Loaded by the scan's child processes, too: nothing of torch.
"""

from __future__ import annotations

import importlib
import importlib.util
import threading
import zlib
from io import BytesIO

from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    MpoImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
    features,
)

# Loaded here so that `Image.open` need not load every plug-in there is to find these. MPO is the JPEG of
# phones, which Pillow's JPEG plug-in hands over to this one.
PLUGINS = (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    MpoImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "PPM", "GIF", "AVIF", "JPEG2000")
"""Pillow's names of what is read; HEIF comes to it where `heif_missing` says None."""
NAMES = "JPEG, PNG, BMP, WebP, TIFF, PPM, GIF, AVIF, JPEG 2000 or HEIF"
"""The same for people."""
AvifImagePlugin.DEFAULT_MAX_THREADS = (
    1  # files are decoded side by side already, and a child's memory is bounded
)

# Formats that people do put into image folders and that are refused by name, told by their first bytes.
_REFUSED_STARTS = (
    (b"8BPS", "Photoshop"),
    (b"\x00\x00\x01\x00", "ICO"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\x00\x00\x00\x0cJXL \r\n\x87\n", "JPEG XL"),
    (b"%!PS", "PostScript"),
    (b"%PDF", "PDF"),
    (b"SIMPLE  =", "FITS"),
    (b"qoif", "QOI"),
)
# ... and what they put there by mistake.
_OTHER_STARTS = (
    (b"version https://git-lfs", "a pointer of Git LFS; git lfs pull fetches the file"),
    (b"<!doctype html", "a web page; its download may have failed"),
    (b"<html", "a web page; its download may have failed"),
    (b"<svg", "a drawing (SVG); convert it to PNG"),
    (b"<?xml", "XML"),
    (b"{", "JSON"),
    (b"\x93NUMPY", "an array of numpy; save it as PNG"),
    (b"PK\x03\x04", "a zip archive or an Office document"),
    (b"\x1f\x8b", "a file packed by gzip; unpack it"),
)
_JPEG_2000_STARTS = (b"\x00\x00\x00\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51")
_GIF_STARTS = (b"GIF87a", b"GIF89a")
_AVIF_BRANDS = (b"avif", b"avis")
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_VIDEO_BRANDS = (
    b"qt  ",
    b"isom",
    b"iso2",
    b"mp41",
    b"mp42",
    b"avc1",
    b"M4V ",
    b"M4A ",
    b"3gp4",
    b"3gp5",
    b"dash",
)
_HEIF_ADVICE = "install pillow-heif (pip install pillow-heif) or convert it"
# Of a PNG's chunks, what may say how the picture stands; all other text can be as long as it likes, unread.
_ORIENTATION_TEXTS = (b"Raw profile type exif\0", b"XML:com.adobe.xmp\0")
_PNG_TEXTS = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")
_PNG_START = b"\x89PNG\r\n\x1a\n"
_SUBFILE, _SUB_DIRECTORIES, _DNG_VERSION = 254, 330, 50706  # tags of TIFF
_heif_lock = threading.Lock()
_heif: list[str | None] = []


class ImageRejected(Exception):
    """A file is not usable as an image: a reason from a fixed list and a detail for people."""

    def __init__(self, reason: str, detail: str):
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


def heif_missing() -> str | None:
    """None where HEIF is read, else why not. pillow-heif is loaded at the first call: by sets of HEIF files alone."""
    with _heif_lock:
        if not _heif:
            try:
                importlib.import_module("pillow_heif").register_heif_opener(thumbnails=False)
                _heif.append(None)
            except ModuleNotFoundError:
                _heif.append("pillow-heif is not installed")
            except (ImportError, OSError, RuntimeError, AttributeError) as error:
                _heif.append(f"pillow-heif does not load ({str(error).splitlines()[0]})")
        return _heif[0]


def readers() -> str:
    """What reads images here, for caches: another answer, other pictures."""
    import PIL

    heif = "with pillow-heif" if importlib.util.find_spec("pillow_heif") else "without pillow-heif"
    return f"Pillow {PIL.__version__} {heif}"


def open_image(data: bytes) -> Image.Image:
    """A Pillow image whose header alone is read, from the bytes of a file.

    Raises ImageRejected: not_an_image, unsupported_format, too_large, truncated, unreadable.
    """
    formats = FORMATS
    if is_heif(data) and heif_missing() is None:
        formats = (*FORMATS, "HEIF")
    try:
        # a text or colour profile beyond what Pillow unpacks says nothing of the pixels
        seen = without_texts(data, keep_orientation=True) if data.startswith(_PNG_START) else data
        image = Image.open(BytesIO(seen), formats=formats)
    except UnidentifiedImageError:
        raise _unidentified(data) from None
    except Image.DecompressionBombError as error:
        raise ImageRejected("too_large", str(error)) from None
    except MemoryError:
        raise ImageRejected("too_large", "opening it needs more memory than allowed") from None
    except Exception as error:
        raise undecodable(data, error) from None
    if isinstance(image, TiffImagePlugin.TiffImageFile) and _is_raw(image, data):
        raise unsupported("a camera's raw file (what Pillow reads of it is a preview)")
    return image


def _is_raw(image: TiffImagePlugin.TiffImageFile, data: bytes) -> bool:
    """Whether a TIFF is the raw file of a camera: DNG and CR2 say so; in NEF, ARW and others the first picture is a
    reduced one, and the raw one is in a directory below it.
    """
    tags = image.tag_v2
    reduced = tags.get(_SUBFILE) == 1 and _SUB_DIRECTORIES in tags
    return _DNG_VERSION in tags or data[8:10] == b"CR" or reduced


def is_heif(data: bytes) -> bool:
    """Whether the first bytes are those of a HEIF file (not AVIF, which is built alike)."""
    if data[4:8] != b"ftyp":
        return False
    brands = [data[8:12], *(data[at : at + 4] for at in range(16, min(_first_box(data), 256), 4))]
    return not set(brands) & set(_AVIF_BRANDS) and bool(set(brands) & set(_HEIF_BRANDS))


def _first_box(data: bytes) -> int:
    return int.from_bytes(data[:4], "big")


def without_texts(data: bytes, *, keep_orientation: bool = False) -> bytes:
    """A PNG without its texts and colour profile; with `keep_orientation`, without those that cannot tell how the
    picture stands. A file that is cut short stays so.
    """
    kept, at = [_PNG_START], 8
    while at + 12 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        orients = keep_orientation and data.startswith(_ORIENTATION_TEXTS, at + 8)
        if data[at + 4 : at + 8] not in _PNG_TEXTS or orients:
            kept.append(data[at:end])
        at = end
    return b"".join([*kept, data[at:]])


def _unidentified(data: bytes) -> ImageRejected:
    for start, name in _REFUSED_STARTS:
        if data.startswith(start):
            return unsupported(name)
    if data[4:8] == b"ftyp":
        if is_heif(data):
            missing = heif_missing()
            return _damaged() if missing is None else _unsupported_heif(missing)
        if data[8:12] in _AVIF_BRANDS:
            return _damaged() if features.check("avif") else unsupported("AVIF")
        if data[8:12] in _VIDEO_BRANDS:
            return ImageRejected("not_an_image", "a video")
        return unsupported("a video, or HEIF of an unknown kind")
    if data.startswith(_JPEG_2000_STARTS) and not features.check("jpg_2000"):
        return unsupported("JPEG 2000")
    if _cut_short(data):
        return ImageRejected("truncated", "the file ends within its header")
    starts = (b"\xff\xd8\xff", _PNG_START, *_GIF_STARTS, *_JPEG_2000_STARTS)
    if data.startswith(starts) or _is_webp(data):
        return _damaged()
    return ImageRejected("not_an_image", _what_it_is(data) or f"none of {', '.join(FORMATS)}")


def _what_it_is(data: bytes) -> str:
    """What a file is that is no image, and what to do, by its first bytes; "" where that is not known."""
    text = data[:256].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    found = (what for start, what in _OTHER_STARTS if data.startswith(start) or text.startswith(start))
    return "a DICOM file; convert it to PNG" if data[128:132] == b"DICM" else next(found, "")


def _damaged() -> ImageRejected:
    return ImageRejected("unreadable", "the header is damaged")


def _unsupported_heif(missing: str) -> ImageRejected:
    return ImageRejected("unsupported_format", f"HEIF; {missing}: {_HEIF_ADVICE}")


def unsupported(name: str) -> ImageRejected:
    return ImageRejected("unsupported_format", f"{name}; convert it to one of {', '.join(FORMATS)}")


def undecodable(data: bytes, error: Exception) -> ImageRejected:
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
    if data.startswith(_PNG_START):
        return b"IEND" not in data[-2048:]
    if data.startswith(b"BM"):
        return len(data) >= 6 and len(data) < int.from_bytes(data[2:6], "little") < 1 << 31
    return _is_webp(data) and len(data) < int.from_bytes(data[4:8], "little") + 8


def check_png(data: bytes) -> None:
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
