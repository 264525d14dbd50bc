"""What an image set is: every usable image once, with its id, its label and what its file looked like."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dlp_fast.data.samples import Look
from dlp_fast.data.scan_answers import ScanRecord


@dataclass(frozen=True, eq=False)
class ImageIndex:
    """The usable images of one split; position is id. Arrays are read-only and as long as `paths`.

    Attributes:
        root: real path of the folder that `paths` are relative to.
        paths: POSIX paths; bytes that are not UTF-8 are held by surrogate escapes (`os.fsencode` gives them).
        labels: int64, positions in `classes`.
        widths, heights: int32, pixels, after EXIF orientation.
        formats, modes: Pillow's names of the file's format and pixel layout.
        byte_sizes, mtimes_ns: int64, of the file when it was scanned.
        sha256: hex digest of the file's bytes.
        looks: float32 [n, 4], the fields of `samples.Look`.
        classes: names of the class folders, in the order of their bytes.
        warnings: what a person should know about the set.
        follow_links: whether files may lie outside of `root`, where links lead to them.
    """

    root: str
    paths: tuple[str, ...]
    labels: np.ndarray
    widths: np.ndarray
    heights: np.ndarray
    formats: tuple[str, ...]
    modes: tuple[str, ...]
    byte_sizes: np.ndarray
    mtimes_ns: np.ndarray
    sha256: tuple[str, ...]
    looks: np.ndarray
    classes: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    follow_links: bool = False

    def __len__(self) -> int:
        return len(self.paths)


def image_index(
    root: str, by_class: dict[str, list[ScanRecord]], classes: tuple[str, ...], warnings: tuple[str, ...]
) -> ImageIndex:
    """The index of records by class, in their order; `classes` say which label each name has."""
    position = {name: i for i, name in enumerate(classes)}
    records = [record for group in by_class.values() for record in group]
    labels = [position[name] for name, group in by_class.items() for _ in group]
    return ImageIndex(
        root=root,
        paths=tuple(r.path for r in records),
        labels=_frozen(labels, np.int64),
        widths=_frozen([r.width for r in records], np.int32),
        heights=_frozen([r.height for r in records], np.int32),
        formats=tuple(r.format for r in records),
        modes=tuple(r.mode for r in records),
        byte_sizes=_frozen([r.bytes for r in records], np.int64),
        mtimes_ns=_frozen([r.mtime_ns for r in records], np.int64),
        sha256=tuple(r.sha256 for r in records),
        looks=_frozen([r.look for r in records], np.float32).reshape(len(records), len(Look._fields)),
        classes=classes,
        warnings=warnings,
    )


def _frozen(values: list, dtype: type) -> np.ndarray:
    array = np.array(values, dtype=dtype)
    array.flags.writeable = False
    return array
