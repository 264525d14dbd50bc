"""What the folders within the folders say: perhaps another folder is meant, or what is above are no classes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from dlp_fast.data.split_names import role
from dlp_fast.data.walk import is_picture_name, look
from dlp_fast.errors import DataError
from dlp_fast.runs.names import listing, printable

OTHERWISE = "To take every folder for a class, whatever is in it, give --dataset.splits none."


def refuse_hidden_splits(root: str, folders: Sequence[str]) -> list[str]:
    """DataError where the folders of `root` look like splits, sites or folds of one image set by what they hold: the
    same class folders in each; or where each holds splits of its own. Returns warnings where neither is sure.
    """
    if len(folders) < 2:
        return []
    if any(
        _holds_pictures(os.path.join(root, name)) for name in folders
    ):  # first: it ends at the first picture
        return []
    inside = {name: look(os.path.join(root, name)).folders for name in folders}
    if not all(inside.values()):
        return []
    shared = sorted(set.intersection(*map(set, inside.values())), key=os.fsencode)
    every = set.union(*map(set, inside.values()))
    if len(shared) < 2 or 2 * len(shared) < len(every):
        return []
    where, roles = printable(root.rstrip(os.sep) or os.sep), {role(name) for name in shared}
    if "train" in roles and roles & {"test", "validation"}:
        raise DataError(
            f"{where}: {listing(folders, 4)} hold {listing(shared, 4)}, which look like splits; all of them would be "
            f"trained on. Expected the splits above the classes: {where}/train/<class>/<image> and "
            f"{where}/test/<class>/<image>. {OTHERWISE}"
        )
    told = f"{where}: all of {listing(folders, 4)} hold the same folders ({listing(shared, 4)})"
    if all(name.isdigit() or len(name) <= 2 for name in shared):
        return [f"{told}; classes are {listing(folders, 4)}, and not what is in them"]
    raise DataError(
        f"{told}, so these may be the classes, and what is above them splits, sites or folds of one image set. Give "
        f"one of them, such as --data {where}/{printable(folders[0])}, and perhaps another as --dataset.test; "
        f"or move the images into one folder a class. {OTHERWISE}"
    )


def _holds_pictures(folder: str) -> bool:
    try:
        with os.scandir(folder) as entries:
            return any(is_picture_name(entry.name) and not entry.name.startswith(".") for entry in entries)
    except OSError:
        return False  # `look` tells of it


def inner_folder(folder: str, names: Iterable[str]) -> str:
    """` Perhaps --data DIR/NAME is meant.` where the only class of `folder` holds folders itself, else nothing."""
    names = list(names)
    if len(names) != 1:
        return ""
    inside = look(os.path.join(folder, names[0])).folders
    if len(inside) < 2:
        return ""
    shown = printable(os.path.join(folder, names[0]))
    return f". {printable(names[0])} holds the folders {listing(inside)}: perhaps --data {shown} is meant"
