"""Image files, good and hostile, made in the tests."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image


def noise(height: int = 24, width: int = 32, channels: int = 3, seed: int = 0) -> np.ndarray:
    """A smooth coloured picture: JPEG keeps it close, and no two seeds are alike."""
    y, x = np.mgrid[0:height, 0:width]
    planes = [
        127 + 80 * np.sin((c + 2) * x / width * 3 + seed) + 40 * np.cos((c + 1) * y / height * 4 + 2 * seed)
        for c in range(channels)
    ]
    return np.clip(np.stack(planes, -1), 0, 255).astype(np.uint8)


def encoded(image: Image.Image | np.ndarray, file_format: str, **options: object) -> bytes:
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def jpeg(seed: int = 0, height: int = 24, width: int = 32) -> bytes:
    return encoded(noise(height, width, seed=seed), "JPEG", quality=90)


def png(seed: int = 0, height: int = 24, width: int = 32) -> bytes:
    return encoded(noise(height, width, seed=seed), "PNG")


def png_chunk(kind: bytes, body: bytes, crc: int | None = None) -> bytes:
    checksum = zlib.crc32(kind + body) if crc is None else crc
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)


def bomb_png(width: int, height: int) -> bytes:
    """A valid 1-bit PNG of these dimensions, all black, in a thousandth of its size."""
    compressor = zlib.compressobj(9)
    row = bytes(1 + (width + 7) // 8)
    body = b"".join(compressor.compress(row) for _ in range(height)) + compressor.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            png_chunk(b"IHDR", header),
            png_chunk(b"IDAT", body),
            png_chunk(b"IEND", b""),
        ]
    )


def lying_png(width: int, height: int) -> bytes:
    """A PNG of a hundred bytes whose header claims these dimensions."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            png_chunk(b"IHDR", header),
            png_chunk(b"IDAT", zlib.compress(b"\x00")),
            png_chunk(b"IEND", b""),
        ]
    )


def bad_crc_png() -> bytes:
    data = png()
    at = data.index(b"IDAT")
    length = struct.unpack(">I", data[at - 4 : at])[0]
    end = at + 4 + length
    return data[:end] + bytes(b ^ 0xFF for b in data[end : end + 4]) + data[end + 4 :]


# The start of a real file: enough to be told by.
AVIF = bytes.fromhex("0000002066747970617669660000000061766966") + b"mif1miafMA1B" + bytes(200)


def write(root: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def two_classes(root: Path, each: int = 2, **size: int) -> Path:
    """`root/cat` and `root/dog` with `each` good images."""
    return write(
        root,
        {
            f"{name}/{i}.jpg": jpeg(seed=10 * k + i, **size)
            for k, name in enumerate(("cat", "dog"))
            for i in range(each)
        },
    )
