"""One archive on its way into a folder: zip or tar, of class folders or of WebDataset's samples.

An archive is an attacker's: no name in it chooses where a byte goes outside of that folder, links and devices are left
out, and sizes are bounded while they are read, whatever the headers say.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import posixpath
import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from dlp_fast.config import DataConfig
from dlp_fast.data.quarantine import IMAGE_SUFFIXES
from dlp_fast.data.scan import Quarantined
from dlp_fast.data.sources.labels import refuse_unusable_names
from dlp_fast.errors import DataError
from dlp_fast.runs.names import printable

LABEL_KEYS = ("label", "cls", "class", "class_name", "category", "target")  # of a JSON file beside an image
LABEL_SUFFIXES = (".cls", ".label", ".cls.txt", ".label.txt")
GROWTH, ROOM = 100, 1 << 30
"""What is unpacked may be this many times the archive, and this many bytes more; a bomb is a thousand times."""
MOST_MEMBERS = 10_000_000
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Member:
    """One entry of an archive: its name, its size as the archive says, what it is not (None for a plain file), and
    whether the name is a guess, since the archive does not say in which encoding it is.
    """

    name: str
    size: int
    problem: str | None
    guessed: bool = False


class Unpacking:
    """One archive on its way into a folder; its entries are read when it is made.

    members: safe path -> name in the archive; labels: of WebDataset, None elsewhere; refused: what is left out.
    where: what errors call it; None: the archive's path. Raises DataError: damaged, no archive, packed with a password.
    """

    def __init__(self, archive: Path, folder: Path, options: DataConfig, where: str | None = None):
        self.archive, self.folder = archive, folder
        self.where = where or printable(str(archive))
        self.most = int(options.max_megabytes * 1e6)
        self.left = GROWTH * archive.stat().st_size + ROOM
        self.refused: list[Quarantined] = []
        self.warnings: list[str] = []
        with self._errors():
            self.members = self._members()
            labeled = any(name.endswith(LABEL_SUFFIXES) for name in self.members)
            self.labels = self._labels() if labeled else self._labels_of_json() or None

    def run(self, folder: str) -> None:
        """Write the files into `folder` of the folder, "" for itself; where they lie in one of that name, into that."""
        self.folder.mkdir(parents=True, exist_ok=True)
        tops = {path.partition("/")[0].casefold() for path in self.members if "/" in path}
        if folder and self.labels is None and tops == {folder.casefold()}:
            folder = ""
        with self._errors():
            self._write(f"{folder}/" if folder else "")

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
            # the last is zipfile's, of a method of compression that Python has no decoder for
            lines = str(error).splitlines()
            reason = lines[0].rstrip(":") if lines else type(error).__name__
            raise DataError(f"{self.where}: damaged, or no archive ({reason}); copy it again") from None
        except RuntimeError as error:  # zipfile's word for a password
            raise DataError(f"{self.where}: cannot be read ({error}); unpack it yourself") from None

    def _members(self) -> dict[str, str]:
        """Safe path -> name in the archive, of plain files that nobody hides."""
        found: dict[str, str] = {}
        strange = None
        for count, (member, _) in enumerate(_entries(self.archive)):
            if count >= MOST_MEMBERS:
                raise DataError(f"{self.where}: more than {MOST_MEMBERS:,} entries")
            strange = strange or (member.name if member.guessed else None)
            path = safe_path(member.name)
            problem = member.problem or ("its name leads out of the archive" if path is None else None)
            if problem is None and path in found:
                problem = "a second entry of this name"
            if problem:
                self.refused.append(Quarantined(member.name, "not_a_regular_file", problem))
            elif not any(part.startswith(".") or part == "__MACOSX" for part in path.split("/")):
                found[path] = member.name
        if strange:
            self.warnings.append(
                f"{self.where}: the names in it are not in UTF-8, and are guessed, such as {printable(strange)}; "
                "where classes look wrong, unpack it yourself (unzip -O gbk, for example)"
            )
        return found

    def _labels(self) -> dict[str, str]:
        """WebDataset: label by key, which is the path up to the first dot of the name."""
        labels = {}
        for member, content in _entries(self.archive):
            path = safe_path(member.name)
            if path is not None and member.problem is None and path.endswith(LABEL_SUFFIXES):
                text = content().read(4096).decode("utf-8", "replace").strip()
                refuse_unusable_names([text or "."], f"{self.where}, {printable(member.name)}")
                labels[label_key(path)] = text
        return labels

    def _labels_of_json(self) -> dict[str, str]:
        """The same where every image has a JSON file beside it that says its label; empty where that is not so."""
        images = {label_key(path) for path in self.members if path.lower().endswith(IMAGE_SUFFIXES)}
        beside = {label_key(path) for path in self.members if path.endswith(".json")}
        labels: dict[str, str] = {}
        if not images or not images <= beside:
            return labels
        for member, content in _entries(self.archive):
            path = safe_path(member.name)
            if path is None or member.problem or not path.endswith(".json") or label_key(path) not in images:
                continue
            label = _said(content().read(_BLOCK))
            if label is None:
                return {}
            refuse_unusable_names([label or "."], f"{self.where}, {printable(member.name)}")
            labels[label_key(path)] = label
        return labels

    def _write(self, folder: str) -> None:
        wanted = {name: path for path, name in self.members.items()}
        for member, content in _entries(self.archive):
            path = wanted.pop(member.name, None)
            if path is None or member.problem:
                continue
            if self.labels is None:
                path = f"{folder}{path}"
            else:
                if not path.lower().endswith(IMAGE_SUFFIXES):
                    continue
                label = self.labels.get(label_key(path))
                if label is None:
                    self.refused.append(Quarantined(member.name, "unreadable", "no label beside it (.cls)"))
                    continue
                path = f"{label}/{folder}{path}"
            self._write_one(member, content(), self.folder / path)

    def _write_one(self, member: Member, content: IO[bytes], target: Path) -> None:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            twice = target.is_file() and target.parent.is_dir()
            detail = (
                "a file of this name came from another archive"
                if twice
                else "a file and a folder of one name"
            )
            self.refused.append(Quarantined(member.name, "not_a_regular_file", detail))
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


def _said(text: bytes) -> str | None:
    """The label that a JSON record says; None where it says none."""
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        return None
    found = (record[key] for key in LABEL_KEYS if key in record) if isinstance(record, dict) else iter(())
    label = next(found, None)
    return str(label).strip() if isinstance(label, (str, int)) else None


def safe_path(name: str) -> str | None:
    """A path below the folder, or None where a name leads out of it or cannot be one."""
    path = posixpath.normpath(name.replace("\\", "/"))
    parts = path.split("/")
    outside = path.startswith("/") or ".." in parts or path in (".", "") or re.match(r"[A-Za-z]:", path)
    if outside or "\0" in name or any(len(os.fsencode(part)) > 255 for part in parts) or len(parts) > 32:
        return None
    return path


def label_key(path: str) -> str:
    """What a sample of WebDataset and its label have in common: the path up to the first dot of the name."""
    folder, _, name = path.rpartition("/")
    return f"{folder}/{name.partition('.')[0]}"


def _zip_name(info: zipfile.ZipInfo) -> tuple[str, bool]:
    """(name, whether it is a guess): many programs write UTF-8 and do not say so, and zipfile reads that as cp437."""
    if info.flag_bits & 0x800 or info.filename.isascii():
        return info.filename, False
    try:
        return info.filename.encode("cp437").decode("utf-8"), False
    except UnicodeError:
        return info.filename, True


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
                name, guessed = _zip_name(info)
                yield Member(name, info.file_size, problem, guessed), lambda info=info: file.open(info)
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
