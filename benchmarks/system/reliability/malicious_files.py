"""Files made to do harm: code in pickles, archives that unpack to anywhere or to everything, headers that lie.

    python -m benchmarks.system.reliability.malicious_files

Each is given where an image set or a model is expected. Harmless means: nothing ran (no folder `pwned` appears),
nothing was written outside of the cache, it took less than a minute, and it ended in a message or in quarantine.
"""

from __future__ import annotations

import io
import os
import pickle
import random
import struct
import tarfile
import time
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from benchmarks.system.reliability.promise import Promise, Trial, main
from benchmarks.system.reliability.tiny_run import image_folder
from dlp_fast.config import DataConfig
from dlp_fast.config.reading import build, read_yaml
from dlp_fast.data import load
from dlp_fast.errors import DlpError
from dlp_fast.models.classifier import read_model

PNG = b"\x89PNG\r\n\x1a\n"


class Code:
    """A pickle of it makes the folder `pwned` in the working directory of whoever loads it."""

    def __reduce__(self):
        return os.mkdir, ("pwned",)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def header(width: int, height: int, bits: int = 8, colour: int = 2) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))


def zeros(count: int) -> bytes:
    of = zlib.compressobj(9)
    return b"".join([*(of.compress(bytes(1 << 20)) for _ in range(count >> 20)), of.flush()])


def tiff(*tags: tuple[int, int, int, int]) -> bytes:
    """A TIFF of one directory; each tag: number, type, count, value or offset."""
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + struct.pack("<I", 8)


def pictures() -> dict[str, bytes]:
    """Files under the names of images."""
    code = pickle.dumps(Code())
    huge = [
        (256, 4, 1, 2**31 - 1),
        (257, 4, 1, 2**31 - 1),
        (258, 3, 1, 8),
        (259, 3, 1, 1),
        (273, 4, 1, 8),
        (279, 4, 1, 9),
    ]
    return {
        "pickle.png": code,
        "pickle_behind_png.png": PNG + header(8, 8) + code,
        "bomb.png": PNG + header(30_000, 30_000) + chunk(b"IDAT", zeros(64 << 20)) + chunk(b"IEND", b""),
        "text_bomb.png": PNG
        + header(8, 8)
        + chunk(b"zTXt", b"a\0\0" + zeros(512 << 20))
        + chunk(b"IEND", b""),
        "profile_bomb.png": PNG
        + header(8, 8)
        + chunk(b"iCCP", b"a\0\0" + zeros(512 << 20))
        + chunk(b"IEND", b""),
        "lie.png": PNG + header(2**31 - 1, 2**31 - 1) + chunk(b"IDAT", zlib.compress(b"\0")),
        "no_width.png": PNG + header(0, 0) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b""),
        "long_chunk.png": PNG + header(8, 8) + struct.pack(">I", 2**31 - 1) + b"IDAT",
        "huge.tiff": tiff(*huge),
        "loop.tiff": tiff(*huge[:2]),
        "many.tiff": tiff(*[(i, 4, 2**30, 0) for i in range(256, 300)]),
        "huge.bmp": b"BM"
        + struct.pack("<IHHIIiiHHIIiiII", 99, 0, 0, 54, 40, 2**30, 2**30, 1, 24, 0, 0, 0, 0, 0, 0),
        "negative.bmp": b"BM"
        + struct.pack("<IHHIIiiHHIIiiII", 99, 0, 0, 54, 40, -8, -(2**31), 1, 24, 0, 0, 0, 0, 0, 0),
        "huge.gif": b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0x80, 0, 0) + bytes(6) + b",",
        "huge.ppm": b"P6 999999999 999999999 255\n",
        "huge.jpg": b"\xff\xd8\xff\xc0\0\x11\x08\xff\xff\xff\xff\x03\x01\x22\0\x02\x11\x01\x03\x11\x01\xff\xda",
        "script.svg": b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
        "svg_named.png": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/hostname"/></svg>',
        "postscript.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n(pwned) (w) file\n",
        "webp_lie.webp": b"RIFF\xff\xff\xff\x7fWEBPVP8X\x0a\0\0\0\0\0\0\0\xff\xff\xff\xff\xff\xff",
        "zip_named.png": zipped({"a.png": b"x"}),
    }


def zipped(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as into:
        for name, content in members.items():
            into.writestr(name, content)
    return out.getvalue()


def tarred(members: list[tuple[str, bytes, str]]) -> bytes:
    """(name, kind, where a link leads or what a file holds)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as into:
        for name, kind, of in members:
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, "" if kind == tarfile.REGTYPE else of
            body = of.encode() if kind == tarfile.REGTYPE else b""
            entry.size = len(body)
            into.addfile(entry, io.BytesIO(body))
    return out.getvalue()


def archives() -> dict[str, bytes]:
    """Files that are given as the image set itself."""
    link, file = tarfile.SYMTYPE, tarfile.REGTYPE
    return {
        "out.zip": zipped({"../../pwned/a.png": b"x", "cat/a.png": b"x"}),
        "absolute.zip": zipped({"/tmp/pwned/a.png": b"x", "C:\\pwned\\a.png": b"x"}),
        "bomb.zip": zipped({"cat/a.png": bytes(300_000_000), "dog/a.png": bytes(300_000_000)}),
        "links.tar": tarred(
            [("cat", link, "/etc"), ("cat/a.png", file, "x"), ("dog/a.png", link, "/etc/hostname")]
        ),
        "hard.tar": tarred([("cat/a.png", tarfile.LNKTYPE, "/etc/hostname"), ("dog/a.png", file, "x")]),
        "devices.tar": tarred([("cat/a.png", tarfile.CHRTYPE, ""), ("dog/a.png", tarfile.FIFOTYPE, "")]),
        "out.tar": tarred([("../pwned/a.png", file, "x"), ("cat/../../pwned/b.png", file, "x")]),
        "pickle.csv": pickle.dumps(Code()),
        "pickle.parquet": pickle.dumps(Code()),
    }


def tried(what: str, folder: Path, action) -> Trial:
    began, here = time.monotonic(), os.getcwd()
    work = folder / "work"
    work.mkdir(exist_ok=True)
    os.chdir(work)
    try:
        end = action()
    except DlpError as error:
        end = f"told: {str(error)[:100]}"
    except Exception as error:
        return Trial(False, f"{what}: {type(error).__name__}: {error}")
    finally:
        os.chdir(here)
    took = time.monotonic() - began
    ran = any(path.name == "pwned" for path in folder.rglob("*"))
    return Trial(not ran and took < 60 and end is not None, f"{what}: {end} in {took:.1f} s, ran: {ran}")


def trials(count: int, _: random.Random, folder: Path) -> Iterator[Trial]:
    os.environ["DLP_FAST_CACHE"] = str(folder / "cache")
    for name, content in list(pictures().items())[:count]:
        root = image_folder(folder / "images" / name, each=2)
        (root / "cat" / name).write_bytes(content)

        def scanned(root: Path = root, name: str = name) -> str | None:
            refused = {one.path: one.reason for one in load(root, DataConfig(workers=1)).quarantine}
            suffix_unknown = not (name.endswith((".svg",)) and f"cat/{name}" not in refused)
            return refused.get(f"cat/{name}") or (
                None if suffix_unknown else "no image by its name: left out"
            )

        yield tried(name, folder, scanned)
    for name, content in list(archives().items())[: max(0, count - len(pictures()))]:
        (folder / name).write_bytes(content)
        yield tried(
            name, folder, lambda name=name: str(load(folder / name, DataConfig(workers=1)).quarantine)
        )
    cifar = folder / "cifar/cifar-10-batches-py"
    cifar.mkdir(parents=True)
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta"):
        (cifar / name).write_bytes(pickle.dumps(Code()))
    yield tried(
        "CIFAR batches with code", folder, lambda: load(f"cifar10:{cifar.parent}", DataConfig()) and None
    )
    (folder / "model").mkdir()
    (folder / "model/classes.json").write_text('{"model": "wrn-10-1", "classes": ["a", "b"], "size": [8, 8]}')
    (folder / "model/model.safetensors").write_bytes(pickle.dumps(Code()))
    yield tried("a model that is a pickle", folder, lambda: read_model(folder / "model") and None)
    (folder / "c.yaml").write_text("data: !!python/object/apply:os.mkdir [pwned]")
    yield tried(
        "a configuration with code", folder, lambda: build(read_yaml(folder / "c.yaml"), "c") and None
    )


PROMISE = Promise(
    "malicious files",
    "no file runs code, writes outside of the cache, or takes the machine with it",
    "pickles in place of images, batches, tables and models; bombs, lying headers, links and paths that lead out",
    trials,
    full=30,
    sample=30,
)

if __name__ == "__main__":
    main(PROMISE)
