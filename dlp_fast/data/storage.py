"""Images by id, wherever they lie: the same interface for a tensor on the device and for files on a disk.

Both classes give uint8 [b, height, width, 3] (RGB) for any ids in any order, and the same pixels for an id
whatever batch it is asked for in.
"""

from __future__ import annotations

import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch

from dlp_fast.data.decode import ImageRejected, decode_picture, fit, read_regular
from dlp_fast.data.image_index import ImageIndex
from dlp_fast.data.scan import available_cores
from dlp_fast.errors import DataError
from dlp_fast.runs.names import printable

# Pillow's remarks about damaged metadata: the scan has seen these files, and the pixels are what counts.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.TiffImagePlugin")


MOST_EXPECTED = 4  # batches that are decoded ahead
Pending = Callable[[], torch.Tensor]


def _key(ids: torch.Tensor) -> bytes:
    return ids.cpu().numpy().tobytes()


class ResidentImages:
    """Images that are held as one uint8 tensor [n, height, width, 3] on one device."""

    def __init__(self, pixels: torch.Tensor):
        if pixels.dtype != torch.uint8 or pixels.ndim != 4 or pixels.shape[3] != 3:
            raise DataError(
                f"pixels: expected uint8 [n, height, width, 3], got {pixels.dtype} {list(pixels.shape)}"
            )
        self.pixels = pixels.contiguous()

    def __len__(self) -> int:
        return self.pixels.shape[0]

    @property
    def height(self) -> int:
        return self.pixels.shape[1]

    @property
    def width(self) -> int:
        return self.pixels.shape[2]

    @property
    def device(self) -> torch.device:
        return self.pixels.device

    def get(self, ids: torch.Tensor) -> torch.Tensor:
        """uint8 [b, height, width, 3] on `device`, for int64 ids [b] on any device."""
        # pageable memory is staged before the call returns, so that nothing waits for the GPU and nothing is lost
        return self.pixels.index_select(0, ids.to(self.pixels.device, non_blocking=True))

    def expect(self, ids: torch.Tensor) -> None:
        """Nothing to prepare: all images are at hand."""

    def to(self, device: torch.device | str) -> ResidentImages:
        """The same images on `device`; itself where they are there already."""
        pixels = self.pixels.to(device)
        return self if pixels is self.pixels else ResidentImages(pixels)

    def prefetch(self, batches: Iterable[torch.Tensor]) -> Iterator[torch.Tensor]:
        """`get` for each of `batches`."""
        for ids in batches:
            yield self.get(ids)


class FileImages:
    """Images that are decoded from their files when they are asked for, by threads (Pillow works without
    the GIL), and resized.

    A file whose size or mtime is not what the index says is an error: what was checked is what is trained on.

    Args:
        index: the files.
        size: side of the square, or (height, width), in pixels.
        workers: threads; None: one a core.
        max_megapixels: a bound for a file that grew since the scan, in millions of pixels.
        device: where batches go.
        fit: how pictures of another shape get to `size`, one of `fitting.FITS`.
        bits: that the samples of 16-bit files use, see `decode_picture`.
    """

    def __init__(
        self,
        index: ImageIndex,
        size: int | tuple[int, int],
        workers: int | None = None,
        *,
        max_megapixels: float = 64,
        device: torch.device | str = "cpu",
        fit: str = "squash",
        bits: int = 16,
    ):
        self.fit, self.bits = fit, bits
        self.index = index
        self.height, self.width = (size, size) if isinstance(size, int) else size
        self.workers = workers or available_cores()
        self.device = torch.device(device)
        self._max_pixels = int(max_megapixels * 1e6)
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._expected: dict[bytes, Pending] = {}

    def __len__(self) -> int:
        return len(self.index)

    def get(self, ids: torch.Tensor) -> torch.Tensor:
        """uint8 [b, height, width, 3] on `device`, for int64 ids [b].

        Raises:
            DataError: a file has changed, vanished, or cannot be decoded any more.
        """
        begun = self._expected.pop(_key(ids), None)
        return (begun or self._begin(ids))()

    def expect(self, ids: torch.Tensor) -> None:
        """Begin to decode the batch that `get` will be asked for soon, while the network works on another."""
        key = _key(ids)
        if key in self._expected:
            return
        while len(self._expected) >= MOST_EXPECTED:  # what nobody came for
            del self._expected[next(iter(self._expected))]
        self._expected[key] = self._begin(ids)

    def to(self, device: torch.device | str) -> FileImages:
        """The same files, with batches on `device`."""
        device = torch.device(device)
        if device == self.device:
            return self
        size = (self.height, self.width)
        return type(self)(
            self.index,
            size,
            self.workers,
            max_megapixels=self._max_pixels / 1e6,
            device=device,
            fit=self.fit,
            bits=self.bits,
        )

    def prefetch(self, batches: Iterable[torch.Tensor], depth: int = 2) -> Iterator[torch.Tensor]:
        """`get` for each of `batches`, with the next `depth` batches being decoded meanwhile."""
        waiting: deque[Pending] = deque()
        for ids in batches:
            waiting.append(self._begin(ids))
            if len(waiting) > depth:
                yield waiting.popleft()()
        while waiting:
            yield waiting.popleft()()

    def _wanted(self, ids: torch.Tensor) -> list[int]:
        wanted = ids.tolist()
        bad = [i for i in wanted if not 0 <= i < len(self)]
        if bad:
            raise IndexError(f"ids: expected 0 to {len(self) - 1}, got {bad[0]}")
        return wanted

    def _begin(self, ids: torch.Tensor) -> Pending:
        wanted = self._wanted(ids)
        pinned = self.device.type == "cuda"
        batch = torch.empty((len(wanted), self.height, self.width, 3), dtype=torch.uint8, pin_memory=pinned)
        rows = batch.numpy()
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self.workers, thread_name_prefix="decode")
        # A few images a task: a future costs as much as decoding a thumbnail.
        step = max(1, min(32, len(wanted) // (2 * self.workers)))
        futures = [
            self._pool.submit(self.decode_into, rows[i : i + step], wanted[i : i + step])
            for i in range(0, len(wanted), step)
        ]
        return lambda: self._finish(batch, futures)

    def _finish(self, batch: torch.Tensor, futures: list[Future]) -> torch.Tensor:
        try:
            for future in futures:
                future.result()
        except BaseException:
            for future in futures:
                future.cancel()
            raise
        return batch.to(self.device, non_blocking=True)

    def decode_into(self, rows: np.ndarray, ids: list[int]) -> None:
        """Fill `rows`, uint8 [k, height, width, 3], with the pictures of `ids`, in this thread."""
        for row, i in zip(rows, ids):
            row[...] = np.asarray(fit(self._picture(i), self.height, self.width, self.fit))

    def _picture(self, i: int):  # a Pillow image
        return self._checked(
            i, lambda data: decode_picture(data, max_pixels=self._max_pixels, bits=self.bits).image
        )

    def _checked(self, i: int, use: Callable[[bytes], Any]) -> Any:
        """`use` on the bytes of file `i`, which are those that were scanned."""
        path, size = self.index.paths[i], int(self.index.byte_sizes[i])
        where = printable(f"{self.index.root}/{path}")
        try:
            data, status = read_regular(
                self.index.root, path, max_bytes=size, follow_links=self.index.follow_links
            )
            if status.st_size == size and status.st_mtime_ns == int(self.index.mtimes_ns[i]):
                return use(data)
        except ImageRejected as rejected:
            if rejected.reason not in ("too_large", "empty"):  # then it has changed, too
                raise DataError(
                    f"{where}: cannot be read any more ({rejected.detail}); put the file back as it was, or "
                    "start a new run without it"
                ) from None
        raise DataError(
            f"{where}: the file has changed since it was checked; leave the folder alone during a run, and "
            "start a new run for the folder as it is now"
        )
