"""Images in tar and Parquet shards, wherever fsspec finds these: read where they lie, by shard and offset."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dlp_fast.data.image_index import ImageIndex
from dlp_fast.data.storage import FileImages
from dlp_fast.errors import DataError, DlpError, ResourceError
from dlp_fast.runs.install import advice
from dlp_fast.runs.names import printable

GROUPS_HELD = 2  # row groups of Parquet files
TABLES_HELD = 16  # Parquet files that are open
IMAGE_KEYS = ("image", "img", "picture", "jpg", "png")
"""What columns of pictures are called; the first that is there is taken."""


@dataclass(frozen=True, eq=False)
class ShardIndex(ImageIndex):
    """An ImageIndex whose images lie in shards.

    Attributes:
        shards: addresses; shard: int32 [n], position in them; offsets: int64 [n], bytes into a tar file, or row of a
        Parquet file. `byte_sizes` are those of the image in it; paths are shard and name in it; root: the address.
    """

    shards: tuple[str, ...] = ()
    shard: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))
    offsets: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))


def file_system(address: str) -> tuple[Any, str]:
    """(fsspec's file system, path in it) of an address.

    Raises ResourceError where the package that speaks its protocol is missing, or cannot be used.
    """
    import fsspec  # comes with torch

    try:
        return fsspec.core.url_to_fs(address)
    except ImportError as error:
        hint = advice("s3") if address.startswith("s3://") else f"install what fsspec asks for ({error})"
        raise ResourceError(f"{printable(address)}: its protocol needs one more package: {hint}") from None
    except ValueError as error:
        raise DataError(f"{printable(address)}: {error}") from None


@contextlib.contextmanager
def spoken() -> Iterator[None]:
    """What speaks a protocol raises what it likes, such as botocore's own errors without credentials: as OSError."""
    try:
        yield
    except (OSError, DlpError):
        raise
    except Exception as error:
        raise OSError(f"{type(error).__name__}: {error}") from error


class Shards:
    """The bytes of images by shard and offset, from any thread."""

    def __init__(self, addresses: tuple[str, ...]):
        self.addresses = addresses
        self._lock = threading.Lock()
        self._groups: OrderedDict[tuple[int, int], list[bytes]] = OrderedDict()
        self._tables: OrderedDict[int, tuple[Any, list[int], str]] = OrderedDict()

    def read(self, shard: int, offset: int, size: int) -> bytes:
        """`size` bytes of a tar file from `offset` on, or the image in row `offset` of a Parquet file."""
        address = self.addresses[shard]
        if not address.endswith(".parquet"):
            fs, path = file_system(address)
            return fs.cat_file(path, start=offset, end=offset + size)
        with self._lock:  # a group is read once, whoever asks for it
            table, starts, column = self._table(shard)
            group = bisect_right(starts, offset) - 1
            if (shard, group) not in self._groups:
                cells = table.read_row_group(group, columns=[column]).column(0).to_pylist()
                self._groups[shard, group] = [image_bytes(cell) for cell in cells]
                while len(self._groups) > GROUPS_HELD:
                    self._groups.popitem(last=False)
            self._groups.move_to_end((shard, group))
            return self._groups[shard, group][offset - starts[group]]

    def _table(self, shard: int) -> tuple[Any, list[int], str]:
        if shard not in self._tables:
            table = open_parquet(self.addresses[shard])
            column = next(name for name in table.schema_arrow.names if name in IMAGE_KEYS)
            self._tables[shard] = table, group_starts(table), column
            while len(self._tables) > TABLES_HELD:
                self._tables.popitem(last=False)[1][0].close(force=True)  # force: the file was opened here
        self._tables.move_to_end(shard)
        return self._tables[shard]


def open_parquet(address: str) -> Any:
    """pyarrow's ParquetFile of an address. Raises ResourceError without pyarrow, DataError where it is none."""
    try:
        import pyarrow
        from pyarrow.parquet import ParquetFile
    except ModuleNotFoundError:
        raise ResourceError(
            f"{printable(address)}: Parquet needs the package pyarrow: {advice('parquet')}"
        ) from None
    fs, path = file_system(address)
    with spoken():
        file = fs.open(path)
    try:
        return ParquetFile(file)
    except pyarrow.ArrowException as error:
        raise DataError(f"{printable(address)}: no Parquet file, or damaged ({error})") from None


def group_starts(table: Any) -> list[int]:
    """First row of each row group."""
    sizes = [table.metadata.row_group(k).num_rows for k in range(table.num_row_groups)]
    return [sum(sizes[:k]) for k in range(len(sizes))]


def class_names_in(metadata: Mapping[bytes, bytes], label: str) -> list[str] | None:
    """The names that Hugging Face keeps in a Parquet file's `metadata` for the numbers of its column `label`."""
    try:
        names = json.loads(metadata[b"huggingface"])["info"]["features"][label]["names"]
        return [str(name) for name in names]
    except (LookupError, TypeError, ValueError, RecursionError):
        return None


def image_bytes(cell: Any) -> bytes:
    """The file in a cell: bytes, or a struct with `bytes` as Hugging Face writes it; b"" where there is none."""
    content = cell.get("bytes") if isinstance(cell, dict) else cell
    return content if isinstance(content, bytes) else b""


class ShardImages(FileImages):
    """FileImages of a ShardIndex. What is read has to have the SHA-256 that the index has."""

    index: ShardIndex

    def _checked(self, i: int, use: Callable[[bytes], Any]) -> Any:
        if not hasattr(self, "_shards"):
            self._shards = Shards(self.index.shards)
        where = f"{printable(self.index.shards[self.index.shard[i]])}, {printable(self.index.paths[i])}"
        try:
            with spoken():  # of a Parquet file that another has taken the place of, ours are among them
                data = self._shards.read(
                    int(self.index.shard[i]), int(self.index.offsets[i]), int(self.index.byte_sizes[i])
                )
        except OSError as error:
            raise DataError(
                f"{where}: cannot be read any more ({error}); see whether the shard is there, and run the same command "
                "again"
            ) from None
        if hashlib.sha256(data).hexdigest() != self.index.sha256[i]:
            raise DataError(f"{where}: the shard has changed since it was checked; start a new run with it")
        return use(data)
