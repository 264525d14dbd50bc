"""What lies in a folder of images: class folders and files; and what is no image of anybody's, links, run folders."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field

from dlp_fast.data.near import no_folder
from dlp_fast.data.quarantine import IMAGE_SUFFIXES
from dlp_fast.data.scan_answers import LINK_OUT, Quarantined
from dlp_fast.errors import DataError
from dlp_fast.runs.names import listing, printable

SYSTEM_NAMES = frozenset(
    {
        "@eadir", "@recycle", "@recently-snapshot", "@sharesnap", "@tmp", "#recycle", "#snapshot", "__macosx",
        "lost+found", "$recycle.bin", "recycler", "recycled", "system volume information", "network trash folder",
        "temporary items", "thumbs.db", "thumbs.db:encryptable", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini",
        "icon\r", "picasa.ini", "zbthumbnail.info", "__pycache__",
    }
)  # fmt: skip
"""Folders and files that operating systems and network storage put beside people's own, in lower case."""
SYSTEM_ENDINGS = ("@synoeastream", "@synoresource")
UNREMARKABLE = frozenset(
    {
        ".git", ".svn", ".hg", ".dvc", ".cache", ".ipynb_checkpoints", ".venv", ".idea", ".vscode", ".trash",
        ".trashes", ".spotlight-v100", ".fseventsd", ".appledouble", ".temporaryitems", ".@__thumb", ".thumbnails",
        ".snapshot", ".snapshots", ".zfs",
    }
)  # fmt: skip
"""Hidden folders that nobody would expect to be a class."""

_FETCHED = {"/annex/objects/": "git annex get", "/.dvc/cache/": "dvc pull"}
"""Where links of programs lead that keep large files elsewhere, and the command that brings such a file."""


def is_system(name: str) -> bool:
    """Whether a file or folder of this name is one of an operating system or a network storage."""
    folded = name.casefold()
    return folded in SYSTEM_NAMES or folded.endswith(SYSTEM_ENDINGS)


def is_run_folder(path: str) -> bool:
    """Whether dlp_fast wrote the folder `path` as the folder of a run."""
    if not os.path.isfile(os.path.join(path, "config.resolved.yaml")):
        return False
    also = ("results.json", "metrics.jsonl", "checkpoints", ".lock", "data.sha256")
    return any(os.path.lexists(os.path.join(path, name)) for name in also)


def _holds_only_runs(path: str) -> bool:
    """Whether `path` has run folders, and no other folder and no picture beside them."""
    found = False
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir(follow_symlinks=False) and is_run_folder(entry.path):
                    found = True
                elif entry.is_dir() or is_picture_name(entry.name):
                    return False
    except OSError:
        return False
    return found


def is_picture_name(name: str) -> bool:
    """Whether a file of this name is likely to be a picture; only what is in it decides whether it is one."""
    return name.lower().endswith(IMAGE_SUFFIXES)


def join(folder: str, name: str) -> str:
    """`folder/name`; `name` where `folder` is the root itself, ""."""
    return f"{folder}/{name}" if folder else name


def under(root: str, folder: str) -> str:
    """The path of `folder` in `root`, without a slash at its end; `root` itself where it is ""."""
    return os.path.join(root, folder).rstrip(os.sep) or os.sep


@dataclass
class Entries:
    """What lies directly in one folder; names in the order of their bytes.

    folders: may be classes or splits; links: to folders; broken: links that lead nowhere; loose: number of files;
    system, hidden, runs: folders and files that are left out, each for its reason.
    """

    folders: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    loose: int = 0
    system: list[str] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)
    runs: list[str] = field(default_factory=list)


def _is_folder(entry: os.DirEntry) -> bool:
    """Whether it is a folder, or a link to one; a link that leads to itself is none."""
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir(follow_symlinks=False)


def look(path: str) -> Entries:
    """What lies directly in `path`; DataError where it is no folder or cannot be read."""
    try:
        with os.scandir(path) as listed:
            entries = sorted(listed, key=lambda entry: os.fsencode(entry.name))
    except (FileNotFoundError, NotADirectoryError):
        raise no_folder(path) from None
    except OSError as error:
        raise DataError(f"{printable(str(path))}: cannot be read ({error.strerror})") from None
    found = Entries()
    for entry in entries:
        folder = _is_folder(entry)
        if entry.name.startswith("."):
            if folder and entry.name.casefold() not in UNREMARKABLE:
                found.hidden.append(entry.name)
        elif is_system(entry.name):
            found.system.append(entry.name)
        elif entry.is_symlink():
            if folder:
                found.links.append(entry.name)
            elif os.path.exists(entry.path):
                found.loose += 1
            else:
                found.broken.append(entry.name)
        elif not folder:
            found.loose += entry.is_file(follow_symlinks=False)
        elif is_run_folder(entry.path) or _holds_only_runs(entry.path):
            found.runs.append(entry.name)
        else:
            found.folders.append(entry.name)
    return found


@dataclass
class _Link:
    """A link to a folder that waits to be followed: its path, and the class that its files belong to."""

    path: str
    classes: dict[str, list[str]]
    name: str
    whole: bool = False  # whether the class is nothing but this link


class Walk:
    """All files of some splits of one folder, `classes` for each and then `follow`; what was left out is in `notes`.

    Args: root: a real path; follow_links: whether links to files and folders count as what they lead to. Else links to
    files within `root` count as files, and links to folders are never followed.
    """

    def __init__(self, root: str, follow_links: bool = False):
        self.root, self.follow_links = root, follow_links
        self.quarantine: list[Quarantined] = []
        self._inside = root.rstrip(os.sep) + os.sep
        self._seen: set[tuple[int, int]] = set()
        self._waiting: list[_Link] = []
        self._left: dict[str, list[str]] = {}  # by reason

    def classes(self, folder: str, left_out: Iterable[str] = ()) -> dict[str, list[str]]:
        """{class: paths of its files relative to `root`} of one split, "" for `root` itself; a class that is a link to
        a folder has its files after `follow`. `left_out`: names that are no classes.

        Raises DataError: the folder cannot be read, a class is a link that is not to be followed, or the whole split
        was read already.
        """
        top = os.path.join(self.root, folder)
        entries = look(top)
        if self.follow_links and not self._is_new(top):
            raise DataError(
                f"{printable(under(self.root, folder))}: a link to a folder that is read already; remove the link, or "
                "let it lead elsewhere"
            )
        for reason in ("system", "hidden", "runs", "broken"):
            self._leave(reason, *(join(folder, name) for name in getattr(entries, reason)))
        found: dict[str, list[str]] = {}
        for name in entries.folders:
            if name not in left_out:
                found[name] = []
                self._tree(join(folder, name), found, name)
        for name in entries.links:
            if name in left_out:
                continue
            if self.follow_links:
                found[name] = []
                self._waiting.append(_Link(join(folder, name), found, name, whole=True))
        if not self.follow_links:
            self._refuse(folder, [name for name in entries.links if name not in left_out], list(found))
        return found

    def files(self) -> list[str]:
        """Paths of all files below `root`, whatever folder they lie in, relative to it, in the order of their bytes."""
        found: dict[str, list[str]] = {"": []}
        self._tree(".", found, "")
        return sorted((path.removeprefix("./") for path in found[""]), key=os.fsencode)

    def follow(self) -> None:
        """Read what links to folders lead to, each folder once: real folders came first, then links by their names."""
        while self._waiting:
            self._waiting.sort(key=lambda link: os.fsencode(link.path), reverse=True)
            link = self._waiting.pop()
            path = os.path.join(self.root, link.path)
            if not self._is_repeated(path):
                self._tree(link.path, link.classes, link.name)
                continue
            self._leave("repeated", link.path)
            if link.whole:
                del link.classes[link.name]

    def notes(self) -> list[str]:
        """One sentence for each reason for which folders were left out."""
        said = {
            "system": "left out, as files of the operating system or of a network storage: {}",
            "runs": "left out, as run folders of dlp_fast: {}",
            "hidden": "left out, since the name begins with a dot: {}",
            "broken": "left out, as links that lead nowhere: {}",
            "linked": "links to folders are not followed, and so left out: {}; to read them give "
            "--dataset.follow-links, or copy them with cp -rL",
            "repeated": "each folder is read once; left out, as links to what is read already or to what they lie "
            "in: {}",
        }
        where = printable(self.root)
        return [
            f"{where}: {said[reason].format(listing(self._left[reason]))}"
            for reason in said
            if reason in self._left
        ]

    def _leave(self, reason: str, *paths: str) -> None:
        if paths:
            self._left.setdefault(reason, []).extend(paths)

    def _is_new(self, path: str) -> bool:
        """Whether no other way led to the folder `path` before; from now on, one has."""
        status = os.stat(path)
        before = len(self._seen)
        self._seen.add((status.st_dev, status.st_ino))
        return len(self._seen) > before

    def _is_repeated(self, path: str) -> bool:
        """Whether the link `path` leads to a folder that was read, or that it lies in itself."""
        target = os.path.realpath(path).rstrip(os.sep) + os.sep
        lies_in = os.path.realpath(os.path.dirname(path)) + os.sep
        if lies_in.startswith(target) or self._inside.startswith(target):
            return True
        try:
            status = os.stat(path)
        except OSError:
            return False
        return (status.st_dev, status.st_ino) in self._seen

    def _tree(self, folder: str, classes: dict[str, list[str]], name: str) -> None:
        """Add all files under `root/folder` to `classes[name]`; links to folders wait, or are told."""
        folders = [folder]
        while folders:
            here = folders.pop()
            try:
                with os.scandir(os.path.join(self.root, here)) as listed:
                    entries = [entry for entry in listed if not entry.name.startswith(".")]
                if self.follow_links and not self._is_new(os.path.join(self.root, here)):
                    self._leave("repeated", here)
                    continue
            except OSError as error:
                self.quarantine.append(Quarantined(here, "unreadable", error.strerror or str(error)))
                continue
            for entry in sorted(entries, key=lambda entry: os.fsencode(entry.name)):
                path = f"{here}/{entry.name}"
                if is_system(entry.name):
                    self._leave("system", path)
                elif entry.is_symlink():
                    self._link(entry, path, classes, name)
                elif entry.is_dir(follow_symlinks=False):
                    if is_run_folder(entry.path):
                        self._leave("runs", path)
                    else:
                        folders.append(path)
                elif entry.is_file(follow_symlinks=False):
                    classes[name].append(path)
                else:
                    self.quarantine.append(
                        Quarantined(path, "not_a_regular_file", "a FIFO, socket or device")
                    )

    def _link(self, entry: os.DirEntry, path: str, classes: dict[str, list[str]], name: str) -> None:
        if _is_folder(entry):
            if self.follow_links:
                self._waiting.append(_Link(path, classes, name))
                return
            self._leave("linked", path)
        problem = self._problem(entry.path)
        if problem:
            self.quarantine.append(Quarantined(path, *problem))
        else:
            classes[name].append(path)

    def _problem(self, path: str) -> tuple[str, str] | None:
        """(reason, detail) where the link `path` cannot count as a file."""
        target = os.path.realpath(path)
        try:
            os.stat(path)
        except OSError as error:
            fetch = next((f"; {how} fetches it" for where, how in _FETCHED.items() if where in target), "")
            return "unreadable", f"a link that leads nowhere ({error.strerror or error}){fetch}"
        if not self.follow_links and not f"{target}/".startswith(self._inside):
            return "link_leaves_folder", LINK_OUT
        if os.path.isdir(target):
            return "not_a_regular_file", "a link to a folder; such links are not followed"
        if not os.path.isfile(target):
            return "not_a_regular_file", "a link to something that is not a regular file"
        return None

    def _refuse(self, folder: str, links: list[str], read: list[str]) -> None:
        """DataError where a link among the classes hides images that are not read; a note where they are."""
        tops = [os.path.join(self.root, folder, name) + os.sep for name in read]
        lost = []
        for name in links:
            target = os.path.realpath(os.path.join(self.root, folder, name)) + os.sep
            if any(target.startswith(top) for top in tops):
                self._leave("repeated", join(folder, name))
            else:
                lost.append(name)
        if lost:
            raise refused_links(os.path.join(self.root, folder), lost, "class")


def refused_links(folder: str, names: list[str], what: str) -> DataError:
    """What to say of links in `folder` that would be a whole `what`: class, or split."""
    targets = {name: os.path.realpath(os.path.join(folder, name)) for name in names}
    broken = [name for name in names if not os.path.exists(targets[name])]
    told, where = broken or names, printable(folder.rstrip(os.sep))
    one = len(told) == 1
    plural = what if one else what + ("es" if what.endswith("s") else "s")
    begins = f"{where}: {plural} {listing(told)} {'is a link' if one else 'are links'} to "
    target = ("" if one else "other folders, such as ") + printable(targets[told[0]])
    if broken:
        return DataError(f"{begins}{target}, which does not exist; mend the link, or remove it")
    return DataError(
        f"{begins}{target}, and links to folders are not followed unasked. Give --dataset.follow-links, or copy the "
        f"images (cp -rL), or remove the link{'' if one else 's'}"
    )
