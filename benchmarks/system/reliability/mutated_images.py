"""Images mutated along their own structure: no crash of the parent, and what is accepted decodes to the same twice.

    python -m benchmarks.system.reliability.mutated_images --count 20000

A mutation changes a field that a decoder acts on: the length, type or content of a chunk (PNG, with its checksum put
right; WebP), of a marker segment (JPEG), of a directory entry (TIFF), of a box or one in it (AVIF, JPEG 2000, HEIF
where pillow-heif is installed), of a header (BMP, GIF, PPM); or it doubles, drops or moves one of these; or flips plain
bytes.
Files that are accepted are decoded twice more, while fresh memory is filled with another byte each time, so that pixels
that a decoder never wrote differ.
"""

from __future__ import annotations

import ctypes
import hashlib
import io
import random
import shutil
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.system.reliability.promise import Promise, Trial, main
from dlp_fast.data.decode import decode_image
from dlp_fast.data.formats import heif_missing
from dlp_fast.data.scan import scan_files
from dlp_fast.data.scan_answers import REASONS

AT_ONCE = 500  # files of one scan
MOST_PIXELS = 64_000_000
PERTURB = -6  # M_PERTURB of malloc.h
NESTED = (b"meta", b"iprp", b"ipco", b"iinf", b"jp2h", b"moov", b"trak")  # boxes of boxes
COUNTED = {b"meta": 4, b"iinf": 6}  # bytes before the first box in one
EDGES = (0, 1, 2, 7, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def sources() -> list[bytes]:
    y, x = np.mgrid[0:37, 0:41]
    image = Image.fromarray(np.stack([(x * 5) % 256, (y * 6) % 256, (x * y) % 256], -1).astype(np.uint8))
    found = []
    for name, picture, how in (
        ("JPEG", image, {}),
        ("JPEG", image, {"progressive": True}),
        ("JPEG", image.convert("CMYK"), {}),
        ("PNG", image, {}),
        ("PNG", image.quantize(16), {}),
        ("PNG", image.convert("RGBA"), {"compress_level": 1}),
        ("WEBP", image, {}),
        ("WEBP", image, {"lossless": True}),
        ("TIFF", image, {"compression": "tiff_lzw"}),
        ("TIFF", image, {"compression": "tiff_deflate"}),
        ("TIFF", image, {"compression": "packbits"}),
        ("BMP", image, {}),
        ("GIF", image.quantize(32), {}),
        ("PPM", image, {}),
        ("AVIF", image, {}),
        ("AVIF", image.convert("RGBA"), {"speed": 10}),
        ("JPEG2000", image, {}),
        ("JPEG2000", image, {"no_jp2": True}),
        *([("HEIF", image, {}), ("HEIF", image.convert("RGBA"), {})] if heif_missing() is None else []),
    ):
        out = io.BytesIO()
        picture.save(out, name, **how)
        found.append(out.getvalue())
    return found


def flipped(part: bytes, rng: random.Random) -> bytes:
    """Some bytes of `part` set, or a number in it put to an edge of its range."""
    of = bytearray(part)
    if not of:
        return bytes(rng.randrange(1, 9))
    for _ in range(rng.randrange(1, 4)):
        at, size = rng.randrange(len(of)), rng.choice((1, 2, 4))
        value = rng.choice(EDGES) if rng.random() < 0.6 else rng.getrandbits(32)
        of[at : at + size] = (value & ((1 << 8 * size) - 1)).to_bytes(size, rng.choice(("big", "little")))
    return bytes(of)


def shuffled(parts: list[bytes], change: Callable[[bytes], bytes], rng: random.Random) -> list[bytes]:
    """One part changed, doubled, dropped, moved or cut."""
    at, kind = rng.randrange(len(parts)), rng.randrange(8)
    if kind < 4:
        parts[at] = change(parts[at])
    elif kind == 4:
        parts.insert(at, parts[at])
    elif kind == 5:
        del parts[at]
    elif kind == 6:
        parts.insert(rng.randrange(len(parts)), parts.pop(at))
    else:
        parts[at] = parts[at][: rng.randrange(len(parts[at]) + 1)]
    return parts


def png(data: bytes, rng: random.Random) -> bytes:
    parts, at = [], 8
    while at + 8 <= len(data):
        size = struct.unpack(">I", data[at : at + 4])[0]
        parts.append(data[at + 4 : at + 8 + size])
        at += 12 + size
    parts = shuffled(parts, lambda part: part[:4] + flipped(part[4:], rng), rng)
    return data[:8] + b"".join(
        struct.pack(">I", max(len(p) - 4, 0)) + p + struct.pack(">I", zlib.crc32(p)) for p in parts
    )


def jpeg(data: bytes, rng: random.Random) -> bytes:
    parts, at = [], 2
    while data[at] == 0xFF and data[at + 1] != 0xDA:
        size = struct.unpack(">H", data[at + 2 : at + 4])[0]
        parts.append(data[at : at + 2 + size])
        at += 2 + size
    parts.append(data[at:])
    return data[:2] + b"".join(shuffled(parts, lambda part: part[:2] + flipped(part[2:], rng), rng))


def webp(data: bytes, rng: random.Random) -> bytes:
    parts, at = [], 12
    while at + 8 <= len(data):
        size = struct.unpack("<I", data[at + 4 : at + 8])[0]
        parts.append(data[at : at + 8 + size + size % 2])
        at += 8 + size + size % 2
    body = b"".join(shuffled(parts, lambda part: part[:4] + flipped(part[4:], rng), rng))
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def tiff(data: bytes, rng: random.Random) -> bytes:
    """Entries of the first directory: tag, type, count or value."""
    of = bytearray(data)
    start = struct.unpack("<I", data[4:8])[0]
    count = struct.unpack("<H", data[start : start + 2])[0]
    for _ in range(rng.randrange(1, 4)):
        entry = start + 2 + 12 * rng.randrange(count)
        field, size = rng.choice(((0, 2), (2, 2), (4, 4), (8, 4)))
        of[entry + field : entry + field + size] = (rng.choice(EDGES) & ((1 << 8 * size) - 1)).to_bytes(
            size, "little"
        )
    return bytes(of)


def boxes(data: bytes, rng: random.Random, skip: int = 0) -> bytes:
    """Boxes of ISO media files, after `skip` bytes; sizes are put right, but for those that the change is about."""
    parts, at = [], skip
    while at + 8 <= len(data):
        size = struct.unpack(">I", data[at : at + 4])[0] or len(data) - at
        parts.append(data[at + 4 : at + max(size, 8)])
        at += max(size, 8)
    of = [i for i, part in enumerate(parts) if part[:4] in NESTED]
    if of and rng.random() < 0.8:
        i = rng.choice(of)
        kind = parts[i][:4]
        parts[i] = kind + boxes(parts[i][4:], rng, COUNTED.get(kind, 0))
    else:
        parts = shuffled(parts, lambda part: part[:4] + flipped(part[4:], rng), rng)
    return data[:skip] + b"".join(struct.pack(">I", len(part) + 4) + part for part in parts)


def head(data: bytes, rng: random.Random) -> bytes:
    """The first bytes, where the sizes are (BMP, GIF, PPM, a bare JPEG 2000 stream)."""
    return data[:2] + flipped(data[2:60], rng) + data[60:]


def mutated(data: bytes, rng: random.Random) -> bytes:
    for _ in range(rng.randrange(1, 4)):
        try:
            if rng.random() < 0.2:
                data = flipped(data, rng)
            elif data.startswith(b"\x89PNG"):
                data = png(data, rng)
            elif data.startswith(b"\xff\xd8"):
                data = jpeg(data, rng)
            elif data.startswith(b"RIFF"):
                data = webp(data, rng)
            elif data.startswith(b"II*\0"):
                data = tiff(data, rng)
            elif data[4:8] in (b"ftyp", b"jP  "):
                data = boxes(data, rng)
            else:
                data = head(data, rng)
        except (
            IndexError,
            ValueError,
            struct.error,
        ):  # it has lost the structure that a second mutation needs
            data = flipped(data, rng)
    return data or b"\0"


def pixels(data: bytes, fill: int) -> str:
    """SHA-256 of the picture in the bytes of a file, with fresh memory filled by `fill`; or why there is none."""
    ctypes.CDLL(None).mallopt(PERTURB, fill)
    try:
        return hashlib.sha256(decode_image(data, max_pixels=MOST_PIXELS).tobytes()).hexdigest()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    finally:
        ctypes.CDLL(None).mallopt(PERTURB, 0)


def trials(count: int, rng: random.Random, folder: Path) -> Iterator[Trial]:
    from_ = sources()
    for start in range(0, count, AT_ONCE):
        part = folder / str(start)
        part.mkdir()
        paths = [f"{i:05d}" for i in range(min(AT_ONCE, count - start))]
        for i, path in enumerate(paths):
            (part / path).write_bytes(mutated(from_[i % len(from_)], rng))
        once = scan_files(part, paths, timeout_s=20, workers=1)
        again = scan_files(part, paths, timeout_s=20, workers=1)
        first, second = ({one.path: one for one in [*scan[0], *scan[1]]} for scan in (once, again))
        bad = [path for path in paths if path not in first or first[path] != second.get(path)]
        bad += [one.path for one in once[1] if one.reason not in REASONS]
        for path in bad:
            yield Trial(False, f"seed file {start}/{path}: {first.get(path)} then {second.get(path)}")
        for one in once[0]:
            twice = [pixels((part / one.path).read_bytes(), fill) for fill in (0x55, 0xAA)]
            if twice[0] != twice[1] or len(twice[0]) != 64:
                bad.append(one.path)
                yield Trial(False, f"{one.format}, file {start}/{one.path}, decoded: {' then '.join(twice)}")
        yield Trial(
            True, f"{len(once[0])} accepted, {len(once[1])} refused", number=len(paths) - len(set(bad))
        )
        shutil.rmtree(part)


PROMISE = Promise(
    "mutated images",
    "no image file ends the process that reads the folder, and none that is accepted decodes differently twice",
    "JPEG, PNG, WebP, TIFF, BMP, GIF, PPM, AVIF, JPEG 2000 and HEIF mutated along their structure; every file scanned "
    "twice, what is accepted decoded twice more",
    trials,
    full=20_000,
    sample=1_000,
    part=1_000,
)

if __name__ == "__main__":
    main(PROMISE)
