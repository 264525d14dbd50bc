"""What earlier scans found, kept in a file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

from dlp_fast.data.formats import readers
from dlp_fast.data.scan_answers import Quarantined, ScanRecord, from_json, is_answer, parse
from dlp_fast.errors import ResourceError

_CACHE_VERSION = 2
# What may be different at the next try is not remembered.
_PASSING = frozenset({"unreadable", "decoder_crashed", "timeout", "link_leaves_folder", "not_a_regular_file"})


class ScanCache:
    """Answers of earlier scans in a JSON-lines file; a line that cannot be used is a file scanned again."""

    def __init__(self, path: str | Path | None, root: str, limits: tuple[int, ...]):
        self.path = None if path is None else Path(path)
        self.root = root
        self.header = {
            "dlp_fast_scan_cache": _CACHE_VERSION,
            "root": root,
            "limits": list(limits),
            "readers": readers(),
        }
        self.file = None

    def __enter__(self) -> ScanCache:
        self.answers: dict[tuple, list] = {}
        if self.path is None:
            return self
        try:
            lines = self.path.read_bytes().splitlines() if self.path.exists() else []
            if lines and from_json(lines[0]) == self.header:
                for line in lines[1:]:
                    entry = from_json(line)
                    if _is_entry(entry):
                        self.answers[tuple(entry[:4])] = entry[4]
                self.file = self.path.open("ab")
                self.file.write(b"\n")  # closes a line that a kill cut short
            else:
                self.file = self.path.open("wb")
                self.file.write(json.dumps(self.header).encode("ascii") + b"\n")
        except OSError as error:
            raise ResourceError(
                f"the scan cache {self.path} cannot be used ({error.strerror}); name another"
            ) from error
        return self

    def __exit__(self, *_: object) -> None:
        if self.file is not None:
            self.file.close()

    def lookup(self, paths: Iterable[str]) -> dict[str, ScanRecord | Quarantined]:
        """Those of `paths` whose files are as they were."""
        known = {}
        if self.answers:
            for path in paths:
                key = self._key(path)
                if key in self.answers:
                    known[path] = parse(path, self.answers[key])
        return known

    def remember(self, path: str, answer: list) -> None:
        """Write an answer down, unless it may be another the next time."""
        if self.file is None or (answer[0] == "no" and answer[1] in _PASSING):
            return
        if answer[0] == "ok":
            key = (path, answer[5], answer[6], answer[8])
        else:
            key = self._key(path)
        if key is not None:
            self.file.write(json.dumps([*key, answer]).encode("ascii") + b"\n")

    def _key(self, path: str) -> tuple | None:
        try:
            status = os.stat(os.path.join(self.root, path))
        except OSError:
            return None
        return path, status.st_size, status.st_mtime_ns, status.st_ino


def _is_entry(entry: object) -> bool:
    if not (isinstance(entry, list) and len(entry) == 5):
        return False
    path, size, mtime_ns, inode, answer = entry
    if not isinstance(path, str) or not all(isinstance(v, int) for v in (size, mtime_ns, inode)):
        return False
    return is_answer(answer)
