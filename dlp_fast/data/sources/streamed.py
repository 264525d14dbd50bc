"""Shards at an address (s3://…, file://…): indexed once, and then read image by image; nothing is unpacked to stay."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import os
import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from dlp_fast.config import DataConfig
from dlp_fast.data.classes import tell_alike, tell_no_labels
from dlp_fast.data.image_index import image_index
from dlp_fast.data.quarantine import is_loss
from dlp_fast.data.samples import Look
from dlp_fast.data.scan import Progress, Quarantined
from dlp_fast.data.scan_answers import ScanRecord
from dlp_fast.data.shards import ShardIndex, file_system, spoken
from dlp_fast.data.sources.dataset import Dataset
from dlp_fast.data.sources.indexed import data_set
from dlp_fast.data.sources.shard_names import expanded
from dlp_fast.data.sources.shard_scan import Entry, Refused, refused_item, scan_parquet, scan_tar
from dlp_fast.data.split_names import tell_validation
from dlp_fast.errors import DataError, ResourceError
from dlp_fast.runs.cache_folder import cache_folder
from dlp_fast.runs.files import write_atomic
from dlp_fast.runs.names import listing, printable

_VERSION = 2


def load_streamed(
    address: str, options: DataConfig, *, loader: str = "auto", progress: Progress | None = None
) -> Dataset:
    """The images of the .tar or .parquet shards that `address` names, with `*` or `{0000..0003}` for several.

    In a tar, WebDataset's samples have their label beside them (.cls); other images are of the class whose folder they
    lie in. Parquet has columns for image and label. Splits go by folders, or by the names of the shards. Images are
    numbered by class, shard and name. Each shard is read once for the index, in a cache folder of ours, and again where
    it changed.

    Raises DataError: no such shard, one that is compressed or damaged, no usable image of a class or for training;
    ResourceError: no package for the protocol, or no room for a shard.
    """
    addresses = _expand(address)
    entries: dict[str, list[tuple[int, Entry]]] = {}
    left_out: list[Refused] = []
    for number, shard in enumerate(addresses):
        if progress:
            progress("indexing shards", number, len(addresses))
        found, refused = _indexed(shard, options)
        left_out += refused
        for entry in found:
            entries.setdefault(entry.split, []).append((number, entry))
    if progress:
        progress("indexing shards", len(addresses), len(addresses))
    quarantine = [one.item for one in left_out]
    splits, used_as, told = _splits(printable(address), entries, left_out)
    indices: dict[str, ShardIndex] = {}
    for split, part in splits.items():
        known = indices["train"].classes if indices else None
        indices[split] = _index(address, addresses, part, known, quarantine)
    class_of = {
        one.item.path: (used_as[one.split], one.label)
        for one in left_out
        if one.label is not None and one.split in used_as
    }
    name = re.sub(r"\W+$", "", addresses[0].rpartition("/")[2].partition(".")[0]) or "shards"
    made = data_set(
        printable(name), indices, quarantine, options, class_of=class_of.get, loader=loader, progress=progress
    )
    return dataclasses.replace(made, root=None, warnings=(*told, *made.warnings))


def _splits(
    where: str, entries: dict[str, list[tuple[int, Entry]]], left_out: list[Refused]
) -> tuple[dict[str, list[tuple[int, Entry]]], dict[str, str], tuple[str, ...]]:
    """(images to train and to test with, what images of each split are used as, what is to be said of it).

    DataError where several splits are there, and no usable image of train.
    """
    seen = {*entries, *(one.split for one in left_out if one.label is not None and is_loss(one.item))}
    if "train" not in entries:
        if len(seen) > 1:
            error = DataError(
                f"{where}: no usable image of split train; there are images of {listing(sorted(seen))}. Name the "
                "shards of training images train-…, or give those of one split alone"
            )
            error.quarantine = [one.item for one in left_out]
            raise error
        told = tuple(
            f"{where}: all images are of split {split}, and they are trained on" for split in entries
        )
        # those of one split alone are somebody's whole set
        return (
            {"train": [one for part in entries.values() for one in part]},
            dict.fromkeys(seen, "train"),
            told,
        )
    validation, test = entries.get("validation", []), entries.get("test", [])
    told = tell_validation(where, len(validation), len(test), "image")
    if not test and not validation:
        return {"train": entries["train"]}, {"train": "train"}, told
    used_as = {"train": "train", ("test" if test else "validation"): "test"}
    return {"train": entries["train"], "test": test or validation}, used_as, told


def _expand(address: str) -> tuple[str, ...]:
    """The addresses of all shards, in the order of their names."""
    names = expanded(address)
    if names is not None:
        return names
    fs, path = file_system(address)
    if "*" not in path and "?" not in path:
        return (address,)
    try:
        with spoken():
            found = sorted(fs.glob(path))
    except OSError as error:
        raise DataError(f"{printable(address)}: cannot be listed ({error})") from None
    if not found:
        raise DataError(
            f"{printable(address)}: no shard of this name; see whether it is spelled as it is there"
        )
    return tuple(fs.unstrip_protocol(one) for one in found)


def _indexed(shard: str, options: DataConfig) -> tuple[list[Entry], list[Refused]]:
    """The entries of a shard, and what of it cannot be used: as remembered, where it is as it was."""
    fs, path = file_system(shard)
    limits = [options.max_megapixels, options.max_megabytes]
    try:
        with spoken():
            state = fs.ukey(path)
    except OSError as error:
        raise DataError(f"{printable(shard)}: cannot be read ({error})") from None
    key = hashlib.sha256(json.dumps([_VERSION, shard, str(state), limits]).encode()).hexdigest()[:32]
    file = cache_folder() / "shards" / f"{key}.json"
    try:
        kept = json.loads(file.read_text(encoding="ascii"))
        return [_entry(values) for values in kept["entries"]], [refused_item(*of) for of in kept["refused"]]
    except (OSError, ValueError, LookupError, TypeError):
        pass  # not there, or of another form: made anew
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        place = tempfile.TemporaryDirectory(prefix="part-", dir=file.parent)
    except OSError as error:
        raise ResourceError(
            f"{file.parent}: shards are indexed there, and it cannot be written ({error.strerror}); set DLP_FAST_CACHE "
            "to another folder"
        ) from None
    scan = scan_parquet if shard.endswith(".parquet") else scan_tar
    try:
        with place as folder:
            entries, refused = scan(shard, Path(folder), options)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ResourceError(
                f"{printable(shard)}: no room for it in {file.parent}; free some space, or set DLP_FAST_CACHE to "
                "another folder"
            ) from None
        raise DataError(
            f"{printable(shard)}: cannot be fetched ({error}); see whether it can be reached, and run the same command "
            "again"
        ) from None
    kept = {
        "entries": [[*dataclasses.astuple(e.record), e.split, e.label, e.offset] for e in entries],
        "refused": [[*dataclasses.astuple(one.item), one.split, one.label] for one in refused],
    }
    write_atomic(file, json.dumps(kept).encode("ascii"))
    return entries, refused


def _entry(values: list[Any]) -> Entry:
    *record, look, split, label, offset = values
    return Entry(ScanRecord(*record, Look(*look)), split, label, offset)


def _index(
    address: str,
    addresses: tuple[str, ...],
    part: list[tuple[int, Entry]],
    known: tuple[str, ...] | None,
    quarantine: list[Quarantined],
) -> ShardIndex:
    """One split; `known`: the classes, where the training set has set them."""
    by_class: dict[str, list[ScanRecord]] = {}
    places: dict[str, tuple[int, int]] = {}
    for number, entry in sorted(part, key=lambda one: os.fsencode(one[1].record.path)):
        by_class.setdefault(entry.label, []).append(entry.record)
        if entry.record.path in places:
            raise DataError(
                f"{printable(address)}: two shards called {printable(entry.record.path.split('/')[0])}"
            )
        places[entry.record.path] = number, entry.offset
    by_class = dict(sorted(by_class.items(), key=lambda item: os.fsencode(item[0])))
    warnings = _told_of_classes(printable(address), by_class, known, quarantine)
    index = image_index(address, by_class, known or tuple(by_class), warnings)
    where = np.array([places[path] for path in index.paths], dtype=np.int64).reshape(-1, 2)
    return ShardIndex(
        **vars(index), shards=addresses, shard=where[:, 0].astype(np.int32), offsets=where[:, 1].copy()
    )


def _told_of_classes(
    where: str, by_class: dict[str, Any], known: tuple[str, ...] | None, quarantine: list[Quarantined]
) -> tuple[str, ...]:
    """What is to be said of the classes of a split; DataError where they cannot be used."""
    if known is None and len(by_class) < 2:
        error = DataError(
            f"{where}: {'one class (' + listing(by_class) + ')' if by_class else 'no usable image'}; expected images "
            "in folders of their class, or labels beside them (.cls), of two classes at least"
        )
        error.quarantine = quarantine
        raise error
    trained_on = frozenset(by_class if known is None else known)
    strange = [name for name in by_class if name not in trained_on]
    if strange:
        raise DataError(f"{where}: class {listing(strange)} of the test set is none of those trained on")
    return (*tell_alike(where, by_class), *tell_no_labels(where, by_class))
