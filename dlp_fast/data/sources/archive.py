"""Zip and tar files of folders, and WebDataset's tar shards: unpacked once, into a cache folder of ours."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from dlp_fast.config import DataConfig
from dlp_fast.data.near import ARCHIVE_SUFFIXES as SUFFIXES
from dlp_fast.data.scan import Progress, Quarantined
from dlp_fast.data.sources.shard_names import expanded
from dlp_fast.data.sources.unpacking import Unpacking
from dlp_fast.data.split_names import is_split_name
from dlp_fast.data.walk import look
from dlp_fast.errors import DataError, ResourceError
from dlp_fast.runs.cache_folder import cache_folder
from dlp_fast.runs.names import listing, printable

_VERSION = 2
_DONE = "unpacked.json"


def shards(data: str) -> list[Path]:
    """The archives that `data` names: a file, a pattern with `*` or `{0000..0003}`, or a folder of nothing but tars.

    Raises DataError: a pattern of too many, see `expanded`.
    """
    if os.path.isfile(data):
        return [Path(data)] if data.lower().endswith(SUFFIXES) else []
    if os.path.isdir(data):
        with os.scandir(data) as entries:
            seen = [entry for entry in entries if not entry.name.startswith(".")]
        if any(entry.is_dir() for entry in seen):
            return []
        return sorted(Path(entry.path) for entry in seen if entry.name.lower().endswith(SUFFIXES))
    if not data.lower().endswith(SUFFIXES):
        return []
    names = expanded(data)
    return sorted(map(Path, glob.glob(data))) if names is None else [Path(name) for name in names]


@dataclass(frozen=True)
class Unpacked:
    """What archives hold. root: the folder that it lies in now; labeled: whether the folders are classes, made of
    labels beside the images (WebDataset); refused: entries that were left out; warnings: what is to be said, a sentence
    each.
    """

    root: Path
    labeled: bool
    refused: tuple[Quarantined, ...]
    warnings: tuple[str, ...]


def unpacked(archives: list[Path], options: DataConfig, progress: Progress | None = None) -> Unpacked:
    """The content of `archives`, unpacked into the cache where it is not there yet.

    Raises DataError: damaged, no archive, a bomb; ResourceError: the cache folder cannot be written.
    """
    place = _place(archives, options)
    if not (place / _DONE).is_file():
        _unpack_all(archives, place, options, progress)
    found = json.loads((place / _DONE).read_text())
    root = _inner(place / "files")
    _refuse_archives(archives[0], root)
    refused = tuple(Quarantined(*item) for item in found["refused"])
    return Unpacked(root, found["labeled"], refused, tuple(found["warnings"]))


def _refuse_archives(archive: Path, root: Path) -> None:
    """DataError where what was unpacked are archives again: each has bounds of its own, and bombs are made of them."""
    folders = look(str(root)).folders
    for place in (root, *(root / one for one in folders if len(folders) == 1)):
        inner = shards(str(place))
        if inner:
            raise DataError(
                f"{printable(str(archive))}: it holds archives, {listing([one.name for one in inner], 4)}; they were "
                f"unpacked into {place}: give --data {place}"
            )


def _place(archives: list[Path], options: DataConfig) -> Path:
    """The cache folder of these files as they are now, and of what is left out of them for its size."""
    identity: list[object] = [_VERSION, options.max_megabytes]
    for archive in archives:
        try:
            status = archive.stat()
        except OSError as error:
            raise DataError(f"{printable(str(archive))}: cannot be read ({error.strerror})") from None
        identity.append([os.path.realpath(archive), status.st_size, status.st_mtime_ns])
    digest = hashlib.sha256(json.dumps(identity).encode("ascii")).hexdigest()[:24]
    return cache_folder() / "archives" / digest


def _unpack_all(archives: list[Path], place: Path, options: DataConfig, progress: Progress | None) -> None:
    """Unpack into a folder beside `place` and give it that name when it is whole."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix="part-", dir=place.parent))
    except OSError as error:
        raise ResourceError(
            f"{place.parent}: archives are unpacked there, and it cannot be written ({error.strerror}); set "
            "DLP_FAST_CACHE "
            "to a folder that can"
        ) from None
    try:
        packs = [Unpacking(archive, draft / "files", options) for archive in archives]
        folders, warnings = _folders_of(packs)
        for done, (pack, folder) in enumerate(zip(packs, folders, strict=True)):
            if progress:
                progress("unpacking archives", done, len(archives))
            pack.run(folder)
        if progress:
            progress("unpacking archives", len(archives), len(archives))
        found = {
            "refused": [[item.path, item.reason, item.detail] for pack in packs for item in pack.refused],
            "warnings": [*warnings, *(told for pack in packs for told in pack.warnings)],
            "labeled": any(pack.labels is not None for pack in packs),
        }
        (draft / _DONE).write_text(json.dumps(found))
        with contextlib.suppress(OSError):  # another process was first
            draft.rename(place)
    except OSError as error:
        raise ResourceError(
            f"{printable(str(archives[0]))} cannot be unpacked into {place.parent} "
            f"({error.strerror or error}); free some "
            "space, or set DLP_FAST_CACHE"
        ) from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _inner(root: Path) -> Path:
    """The folder that holds the class folders or splits: archives often have one folder around them."""
    while True:
        entries = look(str(root))
        if len(entries.folders) != 1 or entries.loose or is_split_name(entries.folders[0]):
            return root
        inner = root / entries.folders[0]
        if not look(str(inner)).folders:
            return root
        root = inner


def _folders_of(packs: list[Unpacking]) -> tuple[list[str], list[str]]:
    """The folder that the files of each archive go into, and what is to be said of it.

    Shards of WebDataset get one each, below their class. train.zip and test.zip are splits, and archives of images
    without folders, as ImageNet's are, one class each: their own names. What is in all others goes together.
    """
    stems = [pack.archive.name.partition(".")[0] for pack in packs]
    if len(packs) == 1 or any(pack.labels is not None for pack in packs):
        return (stems if len(packs) > 1 else [""]), []
    shown = f"{printable(str(packs[0].archive.parent))}: {listing([pack.archive.name for pack in packs], 4)}"
    if all(map(is_split_name, stems)):
        return stems, [f"{shown} are taken for splits"]
    if all("/" not in path for pack in packs for path in pack.members):
        return stems, [f"{shown} hold no folders, and are taken for a class each"]
    return [""] * len(packs), []
