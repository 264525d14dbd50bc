"""What a person may have meant by a folder that is not there, or that holds no classes: advice for errors."""

from __future__ import annotations

import difflib
import os

from dlp_fast.data.quarantine import IMAGE_SUFFIXES
from dlp_fast.errors import DataError
from dlp_fast.runs.names import counted, listing, printable

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet", ".pq")
ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
_OTHER_FILES = {
    (".7z", ".rar", ".zst", ".lz4", ".z", ".dmg", ".iso", ".egg"): "unpack it, and give the folder",
    (
        ".txt",
        ".lst",
        ".list",
    ): "save a list of paths and labels as CSV, with a header line such as path,label",
    (".xlsx", ".xls", ".ods"): "save its table as CSV, with columns path and label",
    (".csv.gz", ".csv.zip", ".csv.xz", ".csv.bz2"): "unpack it, and give the CSV file",
    (
        ".npz",
        ".npy",
        ".h5",
        ".hdf5",
        ".pt",
        ".pth",
        ".pkl",
        ".mat",
    ): "load it in Python, and give the arrays to dlp_fast.defend(images, labels)",
    ("-ubyte", "-ubyte.gz"): "load it in Python, and give the arrays to dlp_fast.defend(images, labels)",
    (".tfrecord", ".arrow", ".lmdb", ".rec", ".db"): "save the pictures as files, one folder a class",
}
"""Endings of files that people have image sets in and that are not read, and the way from there."""
SEEN = 10_000  # entries of a folder that are looked at for advice


_STARTS = (
    (b"PK\x03\x04", ".zip"),
    (b"\x1f\x8b", ".tar.gz"),
    (b"BZh", ".tar.bz2"),
    (b"\xfd7zXZ\0", ".tar.xz"),
)
"""First bytes of archives, and what their names end in."""


def other_file(name: str) -> str:
    """What to do with a file that is no source, by its ending or its first bytes; "" where nothing is known."""
    folded = name.lower()
    if folded.endswith(IMAGE_SUFFIXES):
        return "it is one image; give the folder that holds the class folders"
    advice = next((advice for endings, advice in _OTHER_FILES.items() if folded.endswith(endings)), "")
    if advice:
        return advice
    try:
        with open(name, "rb") as file:
            start = file.read(512)
    except OSError:
        return ""
    ending = (
        ".tar" if start[257:262] == b"ustar" else next((e for s, e in _STARTS if start.startswith(s)), "")
    )
    return f"it looks like an archive: give it a name that ends in {ending}" if ending else ""


def nearest_path(path: str) -> str | None:
    """A folder or file that is there and may be meant by `path`, which is not: without quotes or spaces around it, in
    another case, or with a slip of the finger in its last name.
    """
    folder, name = os.path.split(path.rstrip(os.sep))
    for other in (path.strip(), path.strip().strip("'\"")):
        if other != path and other and os.path.exists(other):
            return other
    try:
        with os.scandir(folder or ".") as entries:
            there = [entry.name for _, entry in zip(range(SEEN), entries) if not entry.name.startswith(".")]
    except OSError:
        return None
    folded = {one.casefold(): one for one in there}
    wanted = name.strip().strip("'\"").casefold()
    near = [wanted] if wanted in folded else difflib.get_close_matches(wanted, folded, n=1, cutoff=0.8)
    return os.path.join(folder, folded[near[0]]) if near and wanted else None


def told_of_pattern(path: str) -> str:
    """`; sentence` where `path`, which is not there, has * or another sign of a pattern in it; else ""."""
    if not any(sign in path for sign in "*?["):
        return ""
    return "; it reads like a pattern: give the folder itself"


def no_folder(path: str) -> DataError:
    """What to say where `path` is not a folder of images."""
    shown = printable(str(path))
    if os.path.exists(path):
        return DataError(f"{shown}: not a folder; give a folder of images, one folder a class")
    near = nearest_path(str(path))
    meant = f"; perhaps {printable(near)} is meant" if near else told_of_pattern(str(path))
    return DataError(f"{shown}: no such folder{meant}; give `digits`, `cifar10` or a folder of images")


def what_lies_there(path: str) -> str:
    """` (sentence)`s on what a folder without classes holds, and on what to give instead; "" where nothing is known."""
    try:
        with os.scandir(path) as entries:
            names = sorted(
                entry.name
                for _, entry in zip(range(SEEN), entries)
                if not entry.name.startswith(".") and entry.is_file()
            )
    except OSError:
        return ""
    told = []
    images, tables, archives = (
        [name for name in names if name.lower().endswith(endings)]
        for endings in (IMAGE_SUFFIXES, TABLE_SUFFIXES, ARCHIVE_SUFFIXES)
    )
    where = printable(path.rstrip(os.sep))
    if any(name.startswith("data_batch") for name in names):
        return f". It holds CIFAR-10's own files: give --data cifar10:{printable(os.path.dirname(path.rstrip(os.sep)))}"
    if images:
        lie = "lies" if len(images) == 1 else "lie"
        told.append(f"{counted(len(images), 'image')} {lie} in it directly")
    if tables:
        told.append(f"for a table of paths and labels, give --data {where}/{printable(tables[0])}")
    elif archives:
        told.append(f"it holds {listing(archives, 3)}: give that as --data, or unpack it")
    elif images:
        told.append("where it is one class among others, give the folder above it")
    else:
        other = next((name for name in names if other_file(name)), None)
        if other:
            told.append(f"it holds {printable(other)}: {other_file(other)}")
    text = "; ".join(told)
    return f". {text[0].upper()}{text[1:]}" if told else ""
