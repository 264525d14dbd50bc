"""From a folder to an index of its usable images: which files belong to which class, and what is left out."""

from __future__ import annotations

import csv
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from dlp_fast.data.formats import NAMES
from dlp_fast.data.image_index import ImageIndex, image_index
from dlp_fast.data.quarantine import reasons_told
from dlp_fast.data.scan import Progress, Quarantined, ScanRecord, list_files, scan_files
from dlp_fast.errors import DataError, ResourceError
from dlp_fast.runs.names import csv_cell, printable

_SPLIT_NAMES = frozenset({"train", "test", "val", "valid", "validation"})


def index_folder(
    root: str | Path,
    *,
    classes: Sequence[str] | None = None,
    max_megapixels: float = 64,
    max_megabytes: float = 64,
    timeout_s: float = 30.0,
    workers: int | None = None,
    cache: str | Path | None = None,
    progress: Progress | None = None,
) -> tuple[ImageIndex, list[Quarantined]]:
    """Index the one split `root/<class>/...`: scan every file, give ids in the order of (class, path bytes).

    With `classes` the labels are positions in that tuple, and class folders may be missing; without, the
    folders are the classes, and each must hold a usable image. Other arguments are those of `scan_files`.

    Raises:
        DataError: no such folder, no image, one class, an empty class, a folder that is not in `classes`.
            Files that had been quarantined by then are in its attribute `quarantine`.
    """
    splits, quarantine = index_splits(
        root,
        {"": ""},
        classes=classes,
        max_megapixels=max_megapixels,
        max_megabytes=max_megabytes,
        timeout_s=timeout_s,
        workers=workers,
        cache=cache,
        progress=progress,
    )
    return splits[""], quarantine


def find_splits(root: str | Path) -> dict[str, str]:
    """`{"train": "train", "test": "test"}`, without test where there is none, or `{"train": ""}` where the
    class folders lie in `root` itself.

    Raises:
        DataError: no such folder, or folders named like splits that hold no class folders.
    """
    root = Path(root)
    folders = _subfolders(root)
    if "train" in folders and _subfolders(root / "train"):
        if "test" in folders and _subfolders(root / "test"):
            return {"train": "train", "test": "test"}
        return {"train": "train"}
    if folders and _SPLIT_NAMES.issuperset(folders):
        raise DataError(
            f"{printable(str(root))}: {_listing(folders)} hold no class folders; "
            f"expected {printable(str(root))}/train/<class>/... (and test/<class>/...)"
        )
    return {"train": ""}


def index_splits(
    root: str | Path,
    splits: dict[str, str],
    *,
    classes: Sequence[str] | None = None,
    **scanning: object,
) -> tuple[dict[str, ImageIndex], list[Quarantined]]:
    """Index several splits of one folder with one scan, so that one cache and one progress bar serve them.

    `splits` maps a name to a folder within `root` ("" for `root` itself). The first one sets the classes
    unless `classes` is given; the classes of the others must be among them. Paths are relative to `root`.
    Arguments and errors as in `index_folder`.
    """
    if not Path(root).is_dir():
        raise DataError(_no_folder(Path(root)))
    real = os.path.realpath(root)
    quarantine: list[Quarantined] = []
    found: dict[str, dict[str, list[str]]] = {}
    warnings: list[str] = []
    for name, folder in splits.items():
        top = Path(real, folder)
        found[name] = {}
        for class_name in _subfolders(top):
            files, refused = list_files(real, _join(folder, class_name))
            found[name][class_name] = files
            quarantine += refused
        quarantine += _refused_at_top(real, top, folder)
        loose = _loose_files(top)
        if loose:
            plural = "s" * (loose > 1)
            warnings.append(f"{printable(str(top))}: {loose} file{plural} outside of class folders not read")
        if not found[name]:
            raise _error(
                f"{printable(str(top))}: no class folders; expected {printable(str(top))}/<class>/<image>",
                quarantine,
            )
    unread = sorted(set(_subfolders(Path(real))) - set(splits.values())) if "" not in splits.values() else []
    if unread:
        warnings.append(f"{printable(str(real))}: beside the splits, not read: {_listing(unread)}")

    paths = [path for split in found.values() for files in split.values() for path in files]
    records, rejected = scan_files(real, paths, **scanning)
    quarantine = sorted(quarantine + rejected, key=lambda item: os.fsencode(item.path))
    usable = {record.path: record for record in records}

    known = None if classes is None else tuple(classes)
    indices = {}
    for name, folder in splits.items():
        indices[name] = _index_split(real, folder, found[name], usable, known, quarantine, tuple(warnings))
        warnings = []
        known = known or indices[name].classes
    return indices, quarantine


def _index_split(
    root: str,
    folder: str,
    found: dict[str, list[str]],
    usable: dict[str, ScanRecord],
    known: tuple[str, ...] | None,
    quarantine: list[Quarantined],
    warnings: tuple[str, ...],
) -> ImageIndex:
    """One split; `known` is None where the split itself sets the classes."""
    where = printable(str(Path(root, folder)))
    by_class = {
        name: [usable[p] for p in sorted(paths, key=os.fsencode) if p in usable]
        for name, paths in sorted(found.items(), key=lambda item: os.fsencode(item[0]))
    }
    if not any(by_class.values()):
        raise _error(
            f"{where}: no usable image in it{_because(folder, found, quarantine)}; give a folder of "
            f"{NAMES} files, one folder a class",
            quarantine,
        )
    if known is None:
        warnings += _check_own_classes(where, folder, by_class, quarantine)
    else:
        warnings += _check_known_classes(where, by_class, known, quarantine)
    return image_index(root, by_class, known or tuple(by_class), warnings)


def _check_own_classes(
    where: str, folder: str, by_class: dict[str, list[ScanRecord]], quarantine: list[Quarantined]
) -> tuple[str, ...]:
    """Warnings about a split that sets the classes; DataError where there are fewer than two, or one is empty."""
    if len(by_class) < 2:
        raise _error(
            f"{where}: one class ({_listing(by_class)}); expected at least two class folders: "
            f"{where}/<class>/<image>",
            quarantine,
        )
    empty = [name for name, records in by_class.items() if not records]
    if empty:
        raise _error(
            f"{where}: no usable image in class {_listing(empty)}"
            f"{_because(folder, empty, quarantine)}; mend the files, or remove the folder",
            quarantine,
        )
    single = [name for name, records in by_class.items() if len(records) == 1]
    return (f"{where}: only one image in class {_listing(single)}",) if single else ()


def _check_known_classes(
    where: str, by_class: dict[str, list[ScanRecord]], known: tuple[str, ...], quarantine: list[Quarantined]
) -> tuple[str, ...]:
    """Warnings about a split whose classes are given; DataError where it has images of another one."""
    strange = [name for name, records in by_class.items() if name not in known and records]
    if strange:
        raise _error(
            f"{where}: class {_listing(strange)} is not among the {len(known)} classes trained on "
            f"({_listing(known)}); rename or remove the folder",
            quarantine,
        )
    warnings = []
    empty = [name for name, records in by_class.items() if not records]
    if empty:
        warnings.append(f"{where}: no usable image in class {_listing(empty)}")
    missing = [name for name in known if name not in by_class]
    if missing:
        warnings.append(f"{where}: no folder for class {_listing(missing)}")
    return tuple(warnings)


def find_conflicts(sha256: Sequence[str], labels: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """Groups of ids whose bytes are the same and whose labels are not: mistakes, or a sign of poison."""
    groups: dict[str, list[int]] = defaultdict(list)
    for i, digest in enumerate(sha256):
        groups[digest].append(i)
    return tuple(
        tuple(ids) for ids in groups.values() if len(ids) > 1 and len({int(labels[i]) for i in ids}) > 1
    )


def write_quarantine(path: str | Path, quarantine: Iterable[Quarantined]) -> None:
    """Write `path,reason,detail`, whole or not at all; names are escaped by `names.csv_cell`."""
    path = Path(path)
    draft = path.with_name(path.name + ".tmp")
    try:
        with draft.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["path", "reason", "detail"])
            for item in quarantine:
                writer.writerow([csv_cell(item.path), item.reason, csv_cell(item.detail)])
        os.replace(draft, path)
    except OSError as error:
        raise ResourceError(f"cannot write {printable(str(path))}: {error.strerror}") from error


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _no_folder(path: Path) -> str:
    if path.exists():
        return f"{printable(str(path))}: not a folder; give a folder of images, one folder a class"
    return f"{printable(str(path))}: no such folder; give `digits`, `cifar10` or a folder of images"


def _subfolders(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            names = [
                e.name for e in entries if not e.name.startswith(".") and e.is_dir(follow_symlinks=False)
            ]
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(_no_folder(folder)) from None
    except OSError as error:
        raise DataError(f"{printable(str(folder))}: cannot be read ({error.strerror})") from None
    return sorted(names, key=os.fsencode)


def _refused_at_top(root: str, top: Path, folder: str) -> list[Quarantined]:
    """Links among the class folders: a whole class may be behind one, so it is told, not passed over."""
    refused = []
    inside = root.rstrip(os.sep) + os.sep
    for entry in os.scandir(top):
        if entry.name.startswith(".") or not entry.is_symlink():
            continue
        relative = _join(folder, entry.name)
        if not f"{os.path.realpath(entry.path)}/".startswith(inside):
            refused.append(Quarantined(relative, "link_leaves_folder", "a link leads out of the folder"))
        elif entry.is_dir():
            refused.append(
                Quarantined(relative, "not_a_regular_file", "a link to a folder; such links are not followed")
            )
    return refused


def _loose_files(top: Path) -> int:
    with os.scandir(top) as entries:
        return sum(e.is_file(follow_symlinks=False) and not e.name.startswith(".") for e in entries)


def _because(folder: str, classes: Iterable[str], quarantine: list[Quarantined]) -> str:
    """` (3 files: 2 truncated, 1 empty)`: what became of the files of these classes."""
    inside = tuple(f"{_join(folder, name)}/" for name in classes)
    lost = [item for item in quarantine if f"{item.path}/".startswith(inside)]
    return f" ({reasons_told(lost)})" if lost else " (no file)"


def _error(message: str, quarantine: list[Quarantined]) -> DataError:
    error = DataError(message)
    error.quarantine = quarantine
    return error


def _listing(names: Iterable[str], most: int = 8) -> str:
    names = [printable(name) for name in names]
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
