"""From a folder to an index of its usable images: which files belong to which class, and what is left out."""

from __future__ import annotations

import csv
import io
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from dlp_fast.data.classes import match_names, near_name, tell_alike, tell_no_labels
from dlp_fast.data.formats import NAMES
from dlp_fast.data.image_index import ImageIndex, image_index
from dlp_fast.data.layouts import inner_folder
from dlp_fast.data.near import no_folder, what_lies_there
from dlp_fast.data.quarantine import is_text_name, reasons_and_remedy
from dlp_fast.data.scan import Progress, Quarantined, ScanRecord, scan_files
from dlp_fast.data.walk import Walk, join, look, under
from dlp_fast.errors import DataError
from dlp_fast.runs.files import write_atomic
from dlp_fast.runs.names import counted, csv_cell, listing, printable


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
    follow_links: bool = False,
) -> tuple[ImageIndex, list[Quarantined]]:
    """Index the one split `root/<class>/...`: scan every file, give ids in the order of (class, path bytes).

    With `classes` the labels are positions in that tuple, and class folders may be missing; without, the
    folders are the classes, and each that holds files must hold a usable image. Other arguments are those of
    `scan_files`.

    Raises:
        DataError: no such folder, no image, one class, a class whose files all cannot be used, a class that is a link
            and not to be followed, a folder that is not in `classes`.
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
        follow_links=follow_links,
    )
    return splits[""], quarantine


def index_splits(
    root: str | Path,
    splits: dict[str, str],
    *,
    classes: Sequence[str] | None = None,
    left_out: Iterable[str] = (),
    follow_links: bool = False,
    **scanning: object,
) -> tuple[dict[str, ImageIndex], list[Quarantined]]:
    """Index several splits of one folder with one scan, so that one cache and one progress bar serve them.

    `splits` maps a name to a folder within `root` ("" for `root` itself), see `find_splits`. The first one sets the
    classes unless `classes` is given; the classes of the others must be among them. `left_out`: names of folders that
    are no classes; `follow_links`: whether links count as what they lead to. Paths are relative to `root`. Arguments
    and errors as in `index_folder`.
    """
    if not Path(root).is_dir():
        raise no_folder(str(root))
    real = os.path.realpath(root)
    walk = Walk(real, follow_links)
    found = {name: walk.classes(folder, left_out) for name, folder in splits.items()}
    walk.follow()
    for name, folder in splits.items():
        if not found[name]:
            top = under(real, folder)
            shown = printable(top)
            raise _error(
                f"{shown}: no class folders; expected {shown}/<class>/<image>{what_lies_there(top)}",
                walk.quarantine,
            )
    warnings = [note for folder in splits.values() for note in _loose_files(real, folder)] + walk.notes()

    paths = [path for split in found.values() for files in split.values() for path in files]
    records, rejected = scan_files(real, paths, follow_links=follow_links, **scanning)
    quarantine = sorted(walk.quarantine + rejected, key=lambda item: os.fsencode(item.path))
    usable = {record.path: record for record in records}

    known = None if classes is None else tuple(classes)
    indices = {}
    for name, folder in splits.items():
        index = _index_split(real, folder, found[name], usable, known, quarantine)
        indices[name] = replace(index, warnings=(*warnings, *index.warnings), follow_links=follow_links)
        warnings = []
        known = known or index.classes
    return indices, quarantine


def _index_split(
    root: str,
    folder: str,
    found: dict[str, list[str]],
    usable: dict[str, ScanRecord],
    known: tuple[str, ...] | None,
    quarantine: list[Quarantined],
) -> ImageIndex:
    """One split; `known` is None where the split itself sets the classes."""
    where = printable(under(root, folder))
    by_class = {
        name: [usable[p] for p in sorted(paths, key=os.fsencode) if p in usable]
        for name, paths in sorted(found.items(), key=lambda item: os.fsencode(item[0]))
    }
    if not any(by_class.values()):
        raise _error(
            f"{where}: no usable image in it{_because(folder, found, quarantine)}; give a folder of "
            f"{NAMES} files, one folder a class{inner_folder(os.path.join(root, folder), found)}",
            quarantine,
        )
    if known is None:
        by_class, warnings = _own_classes(root, folder, by_class, quarantine)
    else:
        by_class, warnings = _known_classes(where, by_class, known, quarantine)
    return image_index(root, by_class, known or tuple(by_class), warnings)


Classes = dict[str, list[ScanRecord]]


def _own_classes(
    root: str, folder: str, by_class: Classes, quarantine: list[Quarantined]
) -> tuple[Classes, tuple[str, ...]]:
    """The classes of a split that sets them, without empty folders, and warnings; DataError where there are fewer than
    two, or no file of one can be used.
    """
    top = under(root, folder)
    where = printable(top)
    lost = [name for name, records in by_class.items() if not records]
    empty = [name for name in lost if not _lost(folder, [name], quarantine)]
    texts = [name for name in lost if name not in empty and _only_texts(_lost(folder, [name], quarantine))]
    lost = [name for name in lost if name not in (*empty, *texts)]
    if lost:
        raise _error(
            f"{where}: no usable image in class {listing(lost)}"
            f"{_because(folder, lost, quarantine)}; mend the files, or remove the folder",
            quarantine,
        )
    by_class = {name: records for name, records in by_class.items() if name not in (*empty, *texts)}
    left_out = [f"{where}: no file in {listing(empty)}, so that it is no class"] if empty else []
    left_out += [f"{where}: texts and no image in {listing(texts)}, so that it is no class"] if texts else []
    if len(by_class) < 2:
        raise _error(
            f"{where}: one class ({listing(by_class)}); expected at least two class folders: "
            f"{where}/<class>/<image>{inner_folder(top, by_class)}"
            + (f" ({'; '.join(left_out)})" if left_out else ""),
            quarantine,
        )
    single = [name for name, records in by_class.items() if len(records) == 1]
    told = (f"{where}: only one image in class {listing(single)}",) if single else ()
    return by_class, (*left_out, *tell_alike(where, by_class), *tell_no_labels(where, by_class), *told)


def _known_classes(
    where: str, by_class: Classes, known: tuple[str, ...], quarantine: list[Quarantined]
) -> tuple[Classes, tuple[str, ...]]:
    """The classes of a split that are given, under their given names, and warnings; DataError where it has images of
    another one.
    """
    names, warnings = match_names(where, by_class, known)
    by_class = {names.get(name, name): records for name, records in by_class.items()}
    trained_on = frozenset(known)
    strange = [name for name, records in by_class.items() if name not in trained_on and records]
    if strange:
        raise _error(
            f"{where}: class {listing(strange)} is not among the {len(known)} classes trained on "
            f"({listing(known)}); rename or remove the folder{near_name(strange, known)}",
            quarantine,
        )
    empty = [name for name, records in by_class.items() if not records]
    if empty:
        warnings.append(f"{where}: no usable image in class {listing(empty)}")
    missing = [name for name in known if name not in by_class]
    if missing:
        warnings.append(f"{where}: no folder for class {listing(missing)}")
    return by_class, tuple(warnings)


def find_conflicts(sha256: Sequence[str], labels: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """Groups of ids whose bytes are the same and whose labels are not: mistakes, or a sign of poison."""
    groups: dict[str, list[int]] = defaultdict(list)
    for i, digest in enumerate(sha256):
        groups[digest].append(i)
    return tuple(
        tuple(ids) for ids in groups.values() if len(ids) > 1 and len({int(labels[i]) for i in ids}) > 1
    )


def write_quarantine(path: str | Path, quarantine: Iterable[Quarantined]) -> None:
    """Write `path,reason,detail`, whole or not at all; names are escaped by `names.csv_cell`.

    Raises ResourceError: the file cannot be written.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", "reason", "detail"])
    for item in quarantine:
        writer.writerow([csv_cell(item.path), item.reason, csv_cell(item.detail)])
    write_atomic(Path(path), text.getvalue().encode("utf-8"))


def _loose_files(root: str, folder: str) -> list[str]:
    """One warning where files lie beside the class folders."""
    top = under(root, folder)
    loose = look(top).loose
    return [f"{printable(top)}: {counted(loose, 'file')} outside of class folders not read"] if loose else []


def _lost(folder: str, classes: Iterable[str], quarantine: list[Quarantined]) -> list[Quarantined]:
    """The files of these classes that were left out."""
    inside = tuple(f"{join(folder, name)}/" for name in classes)
    return [item for item in quarantine if f"{item.path}/".startswith(inside)]


def _only_texts(lost: list[Quarantined]) -> bool:
    """Whether files that were left out are all named like texts, as annotations and a readme are."""
    return all(item.reason in ("not_an_image", "empty") and is_text_name(item.path) for item in lost)


def _because(folder: str, classes: Iterable[str], quarantine: list[Quarantined]) -> str:
    """` (3 files: 2 truncated, 1 empty)`: what became of the files of these classes."""
    lost = _lost(folder, classes, quarantine)
    return f" ({reasons_and_remedy(lost)})" if lost else " (no file)"


def _error(message: str, quarantine: list[Quarantined]) -> DataError:
    error = DataError(message)
    error.quarantine = quarantine
    return error
