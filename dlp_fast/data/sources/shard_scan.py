"""What lies in one shard, .tar or .parquet: its images, checked as any file is, with split and class; and the rest."""

from __future__ import annotations

import dataclasses
import os
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlp_fast.config import DataConfig
from dlp_fast.data.scan import Quarantined, scan_files
from dlp_fast.data.scan_answers import ScanRecord
from dlp_fast.data.shards import (
    class_names_in,
    file_system,
    group_starts,
    image_bytes,
    open_parquet,
    spoken,
)
from dlp_fast.data.sources.items import image_and_label
from dlp_fast.data.sources.labels import refuse_unusable_names
from dlp_fast.data.sources.unpacking import Unpacking, label_key, safe_path
from dlp_fast.data.split_names import is_split_name, role
from dlp_fast.errors import DataError
from dlp_fast.runs.names import printable


@dataclass(frozen=True)
class Entry:
    """An image in a shard: its record, whose path is shard and name; split: train, test or validation; label: name of
    its class; offset: as in ShardIndex.
    """

    record: ScanRecord
    split: str
    label: str
    offset: int


@dataclass(frozen=True)
class Refused:
    """What is left out of a shard, the split that it was to be in, and its class; None where it has no label."""

    item: Quarantined
    split: str
    label: str | None


def refused_item(path: str, reason: str, detail: str, split: str, label: str | None) -> Refused:
    return Refused(Quarantined(path, reason, detail), split, label)


def scan_tar(shard: str, folder: Path, options: DataConfig) -> tuple[list[Entry], list[Refused]]:
    """Fetched and unpacked into `folder`, which is gone afterwards; checked as any folder is."""
    fs, path = file_system(shard)
    name = path.rpartition("/")[2]
    local = folder / name
    with spoken():
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
        if pack.labels is not None and label is None:
            continue  # it was not unpacked; what lies under its name is another, that has a label
        placed = inside if label is None else f"{label}/{inside}"
        if (folder / "files" / placed).is_file():
            of_file[placed] = inside
    records, rejected = _scanned(folder / "files", list(of_file), options)
    lost = [dataclasses.replace(q, path=of_file[q.path]) for q in rejected] + pack.refused
    refused = [
        refused_item(f"{name}/{q.path}", q.reason, q.detail, *_belongs(q.path, name, pack)) for q in lost
    ]
    entries = []
    for record in records:
        inside = of_file[record.path]
        split, label = _belongs(inside, name, pack)
        if label is None:
            detail = "in no folder, and no label beside it"
            refused.append(refused_item(f"{name}/{inside}", "unreadable", detail, split, None))
            continue
        place = places[pack.members[inside]]
        own = dataclasses.replace(record, path=f"{name}/{inside}", mtime_ns=0)
        entries.append(Entry(own, split, label, place.offset_data))
    return entries, refused


def _belongs(inside: str, shard: str, pack: Unpacking) -> tuple[str, str | None]:
    """(split, class) of what lies at `inside` in the shard of that name; None for a class where it has no label."""
    inside = safe_path(inside) or ""  # as the archive says it, where it was refused
    folders = inside.split("/")[:-1]
    label = pack.labels.get(label_key(inside)) if pack.labels is not None else "".join(folders[-1:])
    split = next((role(part) for part in folders[:-1] if is_split_name(part)), None) or _role(shard)
    return split, label or None


def scan_parquet(shard: str, folder: Path, options: DataConfig) -> tuple[list[Entry], list[Refused]]:
    """Row group by row group."""
    table = open_parquet(shard)
    name = shard.rpartition("/")[2]
    image, label = image_and_label(table.schema_arrow.names, printable(shard))
    words = class_names_in(table.schema_arrow.metadata or {}, label)
    entries, refused = [], []
    for group, start in enumerate(group_starts(table)):
        with spoken():
            columns = table.read_row_group(group, columns=[image, label])
        labels = [_label(value, words, shard) for value in columns.column(label).to_pylist()]
        with tempfile.TemporaryDirectory(dir=folder) as place:
            for k, content in enumerate(map(image_bytes, columns.column(image).to_pylist())):
                (Path(place) / f"{start + k:012d}").write_bytes(content)
            records, rejected = _scanned(Path(place), sorted(os.listdir(place)), options)
        for q in rejected:
            refused.append(
                refused_item(f"{name}/{q.path}", q.reason, q.detail, _role(name), labels[int(q.path) - start])
            )
        for record in records:
            row = int(record.path)
            own = dataclasses.replace(record, path=f"{name}/{record.path}", mtime_ns=0)
            entries.append(Entry(own, _role(name), labels[row - start], row))
    return entries, refused


def _scanned(root: Path, paths: list[str], options: DataConfig) -> tuple[list[ScanRecord], list[Quarantined]]:
    limits = options.model_dump(include={"max_megapixels", "max_megabytes", "workers"})
    return scan_files(root, paths, **limits)


def _label(value: Any, words: list[str] | None, shard: str) -> str:
    known = words is not None and isinstance(value, int) and 0 <= value < len(words)
    text = words[value] if known else "" if value is None else str(value)
    refuse_unusable_names([text or "."], printable(shard))
    return text


def _role(name: str) -> str:
    return role(name.partition(".")[0]) or "train"
