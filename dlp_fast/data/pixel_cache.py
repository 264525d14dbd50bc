"""Pictures that were decoded once, kept on the disk: the same pixels at the next pass and in the next run."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import threading
import warnings
import weakref
import zlib
from pathlib import Path

import numpy as np
import torch

from dlp_fast.data.formats import readers
from dlp_fast.data.storage import FileImages
from dlp_fast.errors import ResourceError

VERSION = 1
THERE = 1 << 32  # in the checksum of a picture: without it none was kept
SPARE = 1 << 30  # bytes that are left free on the disk


class PixelCache:
    """Uint8 pictures of one size by number, in a folder: `pixels`, one after another, and `sums`, a CRC-32 of each. A
    picture that was cut short, by a kill or a full disk, is one that is not there. Threads and processes may share it.
    """

    def __init__(self, folder: Path, count: int, height: int, width: int):
        """Raises ResourceError: the folder cannot be written, or the disk has no room for `count` pictures."""
        self.folder, self.bytes = folder, height * width * 3
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._check_room(count * self.bytes)
            self._pixels, self._sums = (
                os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                for name in ("pixels", "sums")
            )
        except OSError as error:
            raise ResourceError(
                f"--loader cached: {folder} cannot be used ({error.strerror}); set DLP_FAST_CACHE to a folder on "
                "another disk, or give --loader auto"
            ) from error
        weakref.finalize(self, _close, self._pixels, self._sums)
        self._lock = threading.Lock()
        self._full = False

    def _check_room(self, needed: int) -> None:
        kept = self.folder / "pixels"
        there = kept.stat().st_blocks * 512 if kept.exists() else 0
        free = shutil.disk_usage(self.folder).free
        if needed - there > free - SPARE:
            raise ResourceError(
                f"--loader cached: {(needed - there) / 2**30:,.1f} GiB of pixels do not fit into {self.folder}, where "
                f"{free / 2**30:,.1f} GiB are free; set DLP_FAST_CACHE to a folder on another disk, or give --loader "
                "auto, which decodes the files in every pass"
            )

    def read_into(self, row: np.ndarray, number: int) -> bool:
        """Fill `row`, uint8 [height, width, 3], with picture `number`; False where it is not there or damaged."""
        known = os.pread(self._sums, 8, 8 * number)
        if len(known) < 8 or not int.from_bytes(known, "little") & THERE:
            return False
        if os.preadv(self._pixels, [row.reshape(-1)], number * self.bytes) < self.bytes:
            return False
        return zlib.crc32(row) | THERE == int.from_bytes(known, "little")

    def keep(self, row: np.ndarray, number: int) -> None:
        """Keep `row` as picture `number`; where the disk is full, once a warning, and then nothing more is kept."""
        if self._full:
            return
        try:
            _write(self._pixels, row, number * self.bytes)
            _write(self._sums, (zlib.crc32(row) | THERE).to_bytes(8, "little"), 8 * number)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            with self._lock:
                if not self._full:
                    self._full = True
                    warnings.warn(
                        f"{self.folder} is full: pictures that are not in it yet are decoded in every pass",
                        RuntimeWarning,
                        stacklevel=2,
                    )


class CachedImages(FileImages):
    """The images of `files`, each decoded once and then read from a PixelCache below `place`; else as FileImages."""

    def __init__(self, files: FileImages, place: Path, cache: PixelCache | None = None):
        super().__init__(
            files.index,
            (files.height, files.width),
            files.workers,
            device=files.device,
            fit=files.fit,
            bits=files.bits,
        )
        self.files, self.place = files, place
        self.cache = cache or PixelCache(place / _key(files), len(files), files.height, files.width)

    def decode_into(self, rows: np.ndarray, ids: list[int]) -> None:
        for row, i in zip(rows, ids, strict=True):
            if not self.cache.read_into(row, i):
                self.files.decode_into(row[None], [i])
                self.cache.keep(row, i)

    def to(self, device: torch.device | str) -> CachedImages:
        """The same pictures, with batches on `device`."""
        files = self.files.to(device)
        return self if files is self.files else CachedImages(files, self.place, self.cache)


def _key(files: FileImages) -> str:
    """Of the bytes of the files, in their order, and of all that decides what becomes of them."""
    how = [VERSION, readers(), files.height, files.width, files.fit, files.bits]
    digest = hashlib.sha256(json.dumps(how).encode())
    for of in files.index.sha256:
        digest.update(of.encode())
    return digest.hexdigest()[:32]


def _write(fd: int, data: bytes | np.ndarray, offset: int) -> None:
    view = memoryview(data).cast("B")
    while view:
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written


def _close(*fds: int) -> None:
    for fd in fds:
        os.close(fd)
