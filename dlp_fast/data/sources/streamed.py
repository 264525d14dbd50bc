"""Shards at an address (s3://…, file://…): indexed once, and then read image by image; nothing is unpacked to stay."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import os
import re
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dlp_fast.config import DataConfig
from dlp_fast.data.classes import tell_alike, tell_no_labels
from dlp_fast.data.image_index import image_index
from dlp_fast.data.samples import Look
from dlp_fast.data.scan import Progress, Quarantined, scan_files
from dlp_fast.data.scan_answers import ScanRecord
from dlp_fast.data.shards import (
    IMAGE_KEYS,
    ShardIndex,
    file_system,
    group_starts,
    image_bytes,
    open_parquet,
)
from dlp_fast.data.sources.dataset import Dataset
from dlp_fast.data.sources.indexed import data_set
from dlp_fast.data.sources.items import LABEL_KEYS
from dlp_fast.data.sources.labels import refuse_unusable_names
from dlp_fast.data.sources.unpacking import Unpacking, label_key
from dlp_fast.data.split_names import is_split_name, role, tell_validation
from dlp_fast.errors import DataError, ResourceError
from dlp_fast.runs.cache_folder import cache_folder
from dlp_fast.runs.files import write_atomic
from dlp_fast.runs.names import listing, printable

_VERSION = 1
_SPAN = re.compile(r"(.*)\{(\d+)\.\.(\d+)\}(.*)")
MOST_SHARDS = 100_000


@dataclass(frozen=True)
class Entry:
    """An image in a shard: its record, whose path is shard and name; split: train, test or validation; label: name of
    its class; offset: as in ShardIndex.
    """

    record: ScanRecord
    split: str
    label: str
    offset: int


def load_streamed(
    address: str, options: DataConfig, *, loader: str = "auto", progress: Progress | None = None
) -> Dataset:
    """The images of the .tar or .parquet shards that `address` names, with `*` or `{0000..0003}` for several.

    In a tar, WebDataset's samples have their label beside them (.cls); other images are of the class whose folder they
    lie in. Parquet has columns for image and label. Splits go by folders, or by the names of the shards. Images are
    numbered by class, shard and name. Each shard is read once for the index, in a cache folder of ours, and again where
    it changed.

    Raises DataError: no such shard, one that is compressed or damaged, no usable image of a class; ResourceError: no
    package for the protocol, or no room for a shard.
    """
    addresses = _expand(address)
    entries: dict[str, list[tuple[int, Entry]]] = {}
    quarantine: list[Quarantined] = []
    for number, shard in enumerate(addresses):
        if progress:
            progress("indexing shards", number, len(addresses))
        found, refused = _indexed(shard, options)
        quarantine += refused
        for entry in found:
            entries.setdefault(entry.split, []).append((number, entry))
    if progress:
        progress("indexing shards", len(addresses), len(addresses))
    if "train" not in entries:  # validation images alone are somebody's whole set
        entries = {"train": [one for part in entries.values() for one in part]}
    splits = {"train": entries["train"]}
    validation, test = entries.get("validation", []), entries.get("test", [])
    told = tell_validation(printable(address), len(validation), len(test), "image")
    if test or validation:
        splits["test"] = test or validation
    indices: dict[str, ShardIndex] = {}
    for split, part in splits.items():
        known = indices["train"].classes if indices else None
        indices[split] = _index(address, addresses, part, known, quarantine)
    label_of = {
        entry.record.path: (split, entry.label) for split, part in splits.items() for _, entry in part
    }
    name = re.sub(r"\W+$", "", addresses[0].rpartition("/")[2].partition(".")[0]) or "shards"
    made = data_set(
        printable(name), indices, quarantine, options, class_of=label_of.get, loader=loader, progress=progress
    )
    return dataclasses.replace(made, root=None, warnings=(*told, *made.warnings))


def _expand(address: str) -> tuple[str, ...]:
    """The addresses of all shards, in the order of their names."""
    span = _SPAN.fullmatch(address)
    if span:
        before, first, last, after = span.groups()
        numbers = range(int(first), int(last) + 1)
        if not 0 < len(numbers) <= MOST_SHARDS:
            raise DataError(
                f"{printable(address)}: {{{first}..{last}}} are {len(numbers):,} shards; expected 1 to "
                f"{MOST_SHARDS:,}, from the lower number to the higher"
            )
        return tuple(f"{before}{i:0{len(first)}d}{after}" for i in numbers)
    fs, path = file_system(address)
    if "*" not in path and "?" not in path:
        return (address,)
    try:
        found = sorted(fs.glob(path))
    except OSError as error:
        raise DataError(f"{printable(address)}: cannot be listed ({error})") from None
    if not found:
        raise DataError(
            f"{printable(address)}: no shard of this name; see whether it is spelled as it is there"
        )
    return tuple(fs.unstrip_protocol(one) for one in found)


def _indexed(shard: str, options: DataConfig) -> tuple[list[Entry], list[Quarantined]]:
    """The entries of a shard, and what of it cannot be used: as remembered, where it is as it was."""
    fs, path = file_system(shard)
    limits = [options.max_megapixels, options.max_megabytes]
    try:
        state = fs.ukey(path)
    except OSError as error:
        raise DataError(f"{printable(shard)}: cannot be read ({error})") from None
    key = hashlib.sha256(json.dumps([_VERSION, shard, str(state), limits]).encode()).hexdigest()[:32]
    file = cache_folder() / "shards" / f"{key}.json"
    try:
        kept = json.loads(file.read_text(encoding="ascii"))
        return [_entry(values) for values in kept["entries"]], [Quarantined(*q) for q in kept["refused"]]
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
    scan = _scan_parquet if shard.endswith(".parquet") else scan_tar
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
        "refused": [dataclasses.astuple(item) for item in refused],
    }
    write_atomic(file, json.dumps(kept).encode("ascii"))
    return entries, refused


def _entry(values: list[Any]) -> Entry:
    *record, look, split, label, offset = values
    return Entry(ScanRecord(*record, Look(*look)), split, label, offset)


def scan_tar(shard: str, folder: Path, options: DataConfig) -> tuple[list[Entry], list[Quarantined]]:
    """Fetched and unpacked into `folder`, which is gone afterwards; checked as any folder is."""
    fs, path = file_system(shard)
    name = path.rpartition("/")[2]
    local = folder / name
    fs.get_file(path, str(local))
    pack = Unpacking(local, folder / "files", options, printable(shard))  # tells of a damaged one
    try:
        with tarfile.open(local, "r:") as tar:
            places = {info.name: info for info in reversed(tar.getmembers()) if info.isreg()}
    except tarfile.ReadError:
        raise DataError(
            f"{printable(shard)}: compressed, so that no image in it can be read by itself; unpack it to .tar, or give "
            "a local copy without file://, which is unpacked"
        ) from None
    pack.run("")
    of_file: dict[str, str] = {}
    for inside in pack.members:
        label = pack.labels.get(label_key(inside)) if pack.labels is not None else None
        placed = inside if label is None else f"{label}/{inside}"
        if (folder / "files" / placed).is_file():
            of_file[placed] = inside
    records, rejected = _scanned(folder / "files", list(of_file), options)
    refused = [dataclasses.replace(q, path=f"{name}/{of_file[q.path]}") for q in rejected]
    refused += [dataclasses.replace(q, path=f"{name}/{q.path}") for q in pack.refused]
    entries = []
    for record in records:
        inside = of_file[record.path]
        folders = inside.split("/")[:-1]
        label = pack.labels[label_key(inside)] if pack.labels is not None else (folders or [""])[-1]
        if not label:
            refused.append(
                Quarantined(f"{name}/{inside}", "unreadable", "in no folder, and no label beside it")
            )
            continue
        split = next((role(part) for part in folders[:-1] if is_split_name(part)), None) or _role(name)
        place = places[pack.members[inside]]
        own = dataclasses.replace(record, path=f"{name}/{inside}", mtime_ns=0)
        entries.append(Entry(own, split, label, place.offset_data))
    return entries, refused


def _scan_parquet(shard: str, folder: Path, options: DataConfig) -> tuple[list[Entry], list[Quarantined]]:
    """Row group by row group."""
    table = open_parquet(shard)
    name = shard.rpartition("/")[2]
    names = table.schema_arrow.names
    image = next((one for one in names if one in IMAGE_KEYS), None)
    label = next((one for one in names if one in LABEL_KEYS), None)
    if image is None or label is None:
        raise DataError(
            f"{printable(shard)} has {', '.join(map(printable, names))}; expected an image ({', '.join(IMAGE_KEYS)}) "
            f"and a label ({', '.join(LABEL_KEYS)})"
        )
    words = _label_names(table.schema_arrow.metadata or {}, label)
    entries, refused = [], []
    for group, start in enumerate(group_starts(table)):
        columns = table.read_row_group(group, columns=[image, label])
        labels = [_label(value, words, shard) for value in columns.column(label).to_pylist()]
        with tempfile.TemporaryDirectory(dir=folder) as place:
            for k, content in enumerate(map(image_bytes, columns.column(image).to_pylist())):
                (Path(place) / f"{start + k:012d}").write_bytes(content)
            records, rejected = _scanned(Path(place), sorted(os.listdir(place)), options)
        refused += [dataclasses.replace(q, path=f"{name}/{q.path}") for q in rejected]
        for record in records:
            row = int(record.path)
            own = dataclasses.replace(record, path=f"{name}/{record.path}", mtime_ns=0)
            entries.append(Entry(own, _role(name), labels[row - start], row))
    return entries, refused


def _scanned(root: Path, paths: list[str], options: DataConfig) -> tuple[list[ScanRecord], list[Quarantined]]:
    limits = options.model_dump(include={"max_megapixels", "max_megabytes", "workers"})
    return scan_files(root, paths, **limits)


def _label_names(metadata: dict[bytes, bytes], label: str) -> list[str] | None:
    """Names of the classes that Hugging Face keeps beside whole numbers."""
    try:
        return json.loads(metadata[b"huggingface"])["info"]["features"][label]["names"]
    except (LookupError, ValueError, TypeError):
        return None


def _label(value: Any, words: list[str] | None, shard: str) -> str:
    known = words is not None and isinstance(value, int) and 0 <= value < len(words)
    text = words[value] if known else "" if value is None else str(value)
    refuse_unusable_names([text or "."], printable(shard))
    return text


def _role(name: str) -> str:
    return role(name.partition(".")[0]) or "train"


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
    strange = [name for name in by_class if known is not None and name not in known]
    if strange:
        raise DataError(f"{where}: class {listing(strange)} of the test set is none of those trained on")
    return (*tell_alike(where, by_class), *tell_no_labels(where, by_class))
