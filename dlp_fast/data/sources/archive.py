"""Zip and tar files of class folders, and WebDataset's tar shards: unpacked once, into a cache folder of ours.

An archive is an attacker's: no name in it chooses where a byte goes outside of that folder, links and devices are left
out, and sizes are bounded while they are read, whatever the headers say.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import io
import json
import os
import posixpath
import re
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from dlp_fast.config import DataConfig
from dlp_fast.data.quarantine import IMAGE_SUFFIXES
from dlp_fast.data.scan import Progress, Quarantined
from dlp_fast.data.sources.dataset import Dataset
from dlp_fast.data.sources.folder import load_folder
from dlp_fast.data.sources.labels import refuse_unusable_names
from dlp_fast.data.splits import is_split_name
from dlp_fast.data.walk import look
from dlp_fast.errors import DataError, ResourceError
from dlp_fast.runs.names import printable

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
LABEL_SUFFIXES = (".cls", ".label", ".cls.txt", ".label.txt")
GROWTH, ROOM = 100, 1 << 30
"""What is unpacked may be this many times the archive, and this many bytes more; a bomb is a thousand times."""
MOST_MEMBERS = 10_000_000
_BLOCK = 1 << 20
_VERSION = 1
_DONE = "unpacked.json"


@dataclass(frozen=True)
class Member:
    """One entry of an archive: its name, its size as the archive says, what it is not (None for a plain file)."""

    name: str
    size: int
    problem: str | None


def shards(data: str) -> list[Path]:
    """The archives that `data` names: a file, a pattern with `*` or `{0000..0003}`, or a folder of nothing but tars."""
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
    span = re.fullmatch(r"(.*)\{(\d+)\.\.(\d+)\}(.*)", data)
    if span:
        before, first, last, after = span.groups()
        return [
            Path(f"{before}{i:0{len(first)}d}{after}") for i in range(int(first), min(int(last), 99_999) + 1)
        ]
    return sorted(map(Path, glob.glob(data)))


def load_archives(
    archives: list[Path],
    options: DataConfig,
    *,
    loader: str = "auto",
    cache: str | Path | None = None,
    progress: Progress | None = None,
) -> Dataset:
    """The images of one archive, or of shards of one set. Arguments and errors as in `load`."""
    place = _place(archives)
    if not (place / _DONE).is_file():
        _unpack_all(archives, place, options, progress)
    refused = [Quarantined(*item) for item in json.loads((place / _DONE).read_text())]
    root = _inner(place / "files")
    try:
        dataset = load_folder(str(root), options, loader=loader, cache=cache, progress=progress)
    except DataError as error:
        told = DataError(f"{printable(str(archives[0]))}, unpacked into {place}: {error}")
        told.quarantine = [*refused, *getattr(error, "quarantine", [])]
        raise told from None
    name = printable(archives[0].name.partition(".")[0]) or "archive"
    return replace(dataset, name=name, quarantine=(*refused, *dataset.quarantine))


def _place(archives: list[Path]) -> Path:
    """The cache folder of these files as they are now."""
    identity: list[object] = [_VERSION]
    for archive in archives:
        try:
            status = archive.stat()
        except OSError as error:
            raise DataError(f"{printable(str(archive))}: cannot be read ({error.strerror})") from None
        identity.append([os.path.realpath(archive), status.st_size, status.st_mtime_ns])
    digest = hashlib.sha256(json.dumps(identity).encode("ascii")).hexdigest()[:24]
    return cache_folder() / "archives" / digest


def cache_folder() -> Path:
    """Where archives are unpacked: $DLP_FAST_CACHE, else dlp_fast in the cache folder of the user."""
    own = os.environ.get("DLP_FAST_CACHE")
    if own:
        return Path(own).absolute()
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "dlp_fast"


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
        refused: list[Quarantined] = []
        sharded = len(archives) > 1
        for done, archive in enumerate(archives):
            if progress:
                progress("unpacking archives", done, len(archives))
            refused += Unpacking(archive, draft / "files", options, inside=sharded).run()
        if progress:
            progress("unpacking archives", len(archives), len(archives))
        listed = [[item.path, item.reason, item.detail] for item in refused]
        (draft / _DONE).write_text(json.dumps(listed))
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


class Unpacking:
    """One archive on its way into a folder. `inside`: WebDataset samples of several shards go into a folder a shard."""

    def __init__(self, archive: Path, folder: Path, options: DataConfig, *, inside: bool):
        self.archive, self.folder, self.inside = archive, folder, inside
        self.where = printable(str(archive))
        self.most = int(options.max_megabytes * 1e6)
        self.left = GROWTH * archive.stat().st_size + ROOM
        self.refused: list[Quarantined] = []

    def run(self) -> list[Quarantined]:
        """Write the files; returns what was left out."""
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            members = self._members()
            labels = self._labels() if any(name.endswith(LABEL_SUFFIXES) for name in members) else None
            self._write(members, labels)
        except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise DataError(f"{self.where}: damaged, or no archive ({reason}); copy it again") from None
        except RuntimeError as error:  # zipfile's word for a password
            raise DataError(f"{self.where}: cannot be read ({error}); unpack it yourself") from None
        return self.refused

    def _members(self) -> dict[str, str]:
        """Safe path -> name in the archive, of plain files that nobody hides."""
        found: dict[str, str] = {}
        for count, (member, _) in enumerate(_entries(self.archive)):
            if count >= MOST_MEMBERS:
                raise DataError(f"{self.where}: more than {MOST_MEMBERS:,} entries")
            path = safe_path(member.name)
            problem = member.problem or ("its name leads out of the archive" if path is None else None)
            if problem is None and path in found:
                problem = "a second entry of this name"
            if problem:
                self.refused.append(Quarantined(member.name, "not_a_regular_file", problem))
            elif not any(part.startswith(".") or part == "__MACOSX" for part in path.split("/")):
                found[path] = member.name
        return found

    def _labels(self) -> dict[str, str]:
        """WebDataset: label by key, which is the path up to the first dot of the name."""
        labels = {}
        for member, content in _entries(self.archive):
            path = safe_path(member.name)
            if path is not None and member.problem is None and path.endswith(LABEL_SUFFIXES):
                text = content().read(4096).decode("utf-8", "replace").strip()
                refuse_unusable_names([text or "."], f"{self.where}, {printable(member.name)}")
                labels[_key(path)] = text
        return labels

    def _write(self, members: dict[str, str], labels: dict[str, str] | None) -> None:
        wanted = {name: path for path, name in members.items()}
        for member, content in _entries(self.archive):
            path = wanted.pop(member.name, None)
            if path is None or member.problem:
                continue
            if labels is not None:
                if not path.lower().endswith(IMAGE_SUFFIXES):
                    continue
                label = labels.get(_key(path))
                if label is None:
                    self.refused.append(Quarantined(member.name, "unreadable", "no label beside it (.cls)"))
                    continue
                shard = f"{self.archive.name.partition('.')[0]}/" if self.inside else ""
                path = f"{label}/{shard}{path}"
            self._write_one(member, content(), self.folder / path)

    def _write_one(self, member: Member, content: IO[bytes], target: Path) -> None:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            self.refused.append(
                Quarantined(member.name, "not_a_regular_file", "a file and a folder of one name")
            )
            return
        size = 0
        with open(handle, "wb") as file:
            while block := content.read(_BLOCK):
                size += len(block)
                self.left -= len(block)
                if self.left < 0:
                    raise DataError(
                        f"{self.where}: unpacks to more than {GROWTH} times its size; that is a bomb, or "
                        "unpack it yourself"
                    )
                if size > self.most:
                    break
                file.write(block)
        if size > self.most:
            target.unlink()
            detail = f"more than {self.most} bytes (--dataset.max-megabytes)"
            self.refused.append(Quarantined(member.name, "too_large", detail))


def safe_path(name: str) -> str | None:
    """A path below the folder, or None where a name leads out of it or cannot be one."""
    path = posixpath.normpath(name.replace("\\", "/"))
    parts = path.split("/")
    outside = path.startswith("/") or ".." in parts or path in (".", "") or re.match(r"[A-Za-z]:", path)
    if outside or "\0" in name or any(len(os.fsencode(part)) > 255 for part in parts) or len(parts) > 32:
        return None
    return path


def _key(path: str) -> str:
    folder, _, name = path.rpartition("/")
    return f"{folder}/{name.partition('.')[0]}"


def _entries(archive: Path) -> Iterator[tuple[Member, object]]:
    """(member, how to open it) of all that are no folders, in the order of the archive."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as file:
            for info in file.infolist():
                if info.is_dir():
                    continue
                mode = info.external_attr >> 16
                link = (mode & 0o170000) not in (0, 0o100000)
                problem = "a link, or no plain file" if link else None
                yield Member(info.filename, info.file_size, problem), lambda info=info: file.open(info)
        return
    with tarfile.open(archive, "r:*") as file:
        for info in file:
            file.members = []  # or a million entries stay in memory
            if info.isdir():
                continue
            problem = None if info.isreg() and not info.issparse() else "a link, or no plain file"
            yield (
                Member(info.name, info.size, problem),
                lambda info=info: file.extractfile(info) or io.BytesIO(),
            )
