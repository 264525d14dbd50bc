"""Image files that a person names: found, listed in one order, and what was said of them kept until all is done."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlp_fast.config import DataConfig
from dlp_fast.data.near import TABLE_SUFFIXES, nearest_path, told_of_pattern
from dlp_fast.data.scan import Quarantined
from dlp_fast.data.sources.archive import shards, unpacked
from dlp_fast.data.sources.table import there
from dlp_fast.data.sources.table_text import read_paths
from dlp_fast.data.walk import Walk
from dlp_fast.errors import ConfigError, DataError, ResourceError
from dlp_fast.runs.names import printable

FORMAT = 1  # of what is kept while a command works


def find_files(places: Iterable[Path], options: DataConfig) -> tuple[dict[str, str], list[Quarantined]]:
    """Paths of all files in `places`, each with how it is shown to people, and what cannot be used, by its path shown.

    A place is a file, a folder, an archive of files (shown as ARCHIVE/name) or a table with a column of paths, which
    start from its own folder. Folders are searched with all below them, in the order of the bytes of the names;
    names with a dot are hidden, and links that lead out of a folder are refused. `options`: limits of archives.

    Raises DataError where a place does not exist, holds no file, or is a damaged archive or table.
    """
    found: dict[str, str] = {}
    refused: list[Quarantined] = []
    for place in places:
        shown, name = printable(str(place)), str(place).lower()
        if place.is_dir():
            _search(place, place, found, refused)
        elif not os.path.lexists(place):
            near = nearest_path(str(place))
            meant = f"; perhaps {printable(near)} is meant" if near else told_of_pattern(str(place))
            raise DataError(f"{shown}: no such file or folder{meant}")
        elif name.endswith(TABLE_SUFFIXES):
            root = str(place.parent)
            paths = (os.path.join(root, there(root, path)) for path in read_paths(place, shown))
            found |= {path: path for path in paths}
        elif archives := shards(str(place)):
            of = unpacked(archives, options)
            refused += [Quarantined(f"{place}/{one.path}", one.reason, one.detail) for one in of.refused]
            _search(of.root, place, found, refused)
        else:
            found[str(place)] = str(place)
    if not found and not refused:
        raise DataError(f"{', '.join(printable(str(place)) for place in places)}: no file in it")
    return found, refused


def _search(folder: Path, shown: Path, found: dict[str, str], refused: list[Quarantined]) -> None:
    """Add what lies in `folder`, which people know as `shown`."""
    walk = Walk(os.path.realpath(folder))
    found |= {os.path.join(folder, name): os.path.join(shown, name) for name in walk.files()}
    refused += [
        Quarantined(os.path.join(shown, one.path.removeprefix("./")), one.reason, one.detail)
        for one in walk.quarantine
    ]


@dataclass(frozen=True)
class Key:
    """A file as it was when something was said of it."""

    path: str
    size: int
    mtime_ns: int


def key_of(path: str) -> Key:
    """Size and time are -1 where the file cannot be looked at."""
    try:
        status = os.stat(path)
    except OSError:
        return Key(path, -1, -1)
    return Key(path, status.st_size, status.st_mtime_ns)


class Kept:
    """Answers by file, a JSON line each, in `OUT.part`; a command that was killed goes on from there.

    Args: out: the file that the command makes; of: what the answers depend on (a hash of the model, ...).
    Raises ConfigError where `out` exists already, or the answers were made by something else.
    """

    def __init__(self, out: Path, of: dict[str, Any]):
        self.path = out.with_name(out.name + ".part")
        self.answers: dict[Key, Any] = {}
        if os.path.lexists(out):
            raise ConfigError(f"{out} exists; nothing is overwritten. Choose another --out, or remove it.")
        header = {"dlp_fast": FORMAT, **of}
        try:
            lines = self.path.read_bytes().splitlines() if self.path.exists() else []
            if lines:
                self._read(lines, header)
            else:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("ab")
            self._write(b"" if lines else json.dumps(header).encode("ascii"))
        except OSError as error:
            raise ResourceError(
                f"{self.path} cannot be written: {error.strerror}. Choose another --out."
            ) from None

    def _read(self, lines: list[bytes], header: dict[str, Any]) -> None:
        if _parsed(lines[0]) != header:
            raise ConfigError(
                f"{self.path} was begun by another model or other options. Remove it, or choose another --out."
            )
        for line in lines[1:]:
            entry = _parsed(line)  # None: a line that a kill cut short
            if isinstance(entry, list) and len(entry) == 4:
                self.answers[Key(*entry[:3])] = entry[3]

    def keep(self, answers: dict[Key, Any]) -> None:
        """Write `answers` down, on the disk when this returns."""
        self.answers |= answers
        lines = [json.dumps([key.path, key.size, key.mtime_ns, value]) for key, value in answers.items()]
        self._write("\n".join(lines).encode("ascii"))

    def _write(self, content: bytes) -> None:
        try:
            self._file.write(content + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise ResourceError(
                f"no room to write {self.path} ({error.strerror}). What was written is kept: free some space and run "
                "the same command again."
            ) from None

    def done(self) -> None:
        """All is in the final file: take the answers away."""
        self._file.close()
        self.path.unlink(missing_ok=True)


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None
