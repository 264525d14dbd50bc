"""Which folders of an image set are its splits, by their names; and what looks like splits and is none."""

from __future__ import annotations

import os
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from dlp_fast.data.layouts import refuse_hidden_splits
from dlp_fast.data.near import what_lies_there
from dlp_fast.data.split_names import ROLE_OF, ROLES, rest, role
from dlp_fast.data.walk import Entries, is_picture_name, is_run_folder, look, refused_links
from dlp_fast.errors import ConfigError, DataError
from dlp_fast.runs.names import listing, printable

AS_CLASSES = "To take every folder for a class, whatever its name, give --dataset.splits none."


@dataclass(frozen=True)
class Layout:
    """splits: {"train": folder, "test": folder}, relative to the root, which is ""; test may be missing. left_out:
    names of folders in the root that are no classes. warnings: what a person should know.
    """

    splits: dict[str, str]
    left_out: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def find_splits(
    root: str | Path,
    *,
    splits: str = "auto",
    test_split: str | None = None,
    test: str | Path | None = None,
    follow_links: bool = False,
) -> Layout:
    """The splits of `root`, or `root` itself as the training set where its folders are the classes.

    Args:
        splits: auto: by names; none: every folder is a class.
        test_split: name of the folder that is the test set; None: by names.
        test: another folder that is the test set; where it lies in `root`, it is no class.
        follow_links: whether links to folders count as folders.

    Raises:
        DataError: no such folder; folders that are named like splits and are none, or may be both splits and classes.
        ConfigError: options that contradict each other.
    """
    if test_split is not None and (test is not None or splits == "none"):
        other = "dataset.test" if test is not None else "dataset.splits none"
        raise ConfigError(f"dataset.test_split and {other} contradict each other; give one of them")
    return _Finder(Path(root), test_split, test, follow_links).find(splits)


class _Finder:
    """One question to one folder; errors and warnings begin with its name."""

    def __init__(self, root: Path, test_split: str | None, test: str | Path | None, follow_links: bool):
        self.root, self.test_split, self.follow_links = root, test_split, follow_links
        self.where = printable(str(root))
        entries = look(str(root))
        if is_run_folder(str(root)):
            raise DataError(f"{self.where}: a run folder of dlp_fast; give the folder of the images instead")
        self.links = entries.links
        self.folders = [*entries.folders, *(entries.links if follow_links else [])]
        self.folders.sort(key=os.fsencode)
        self.broken = entries.broken
        self.outside = None if test is None else os.path.realpath(test)
        own = [
            name for name in self.folders if self.outside and self.outside == os.path.realpath(root / name)
        ]
        self.left_out = tuple(own)
        self.folders = [name for name in self.folders if name not in own]

    def find(self, splits: str) -> Layout:
        if splits == "none":
            return self._checked(Layout({"train": ""}, self.left_out))
        self._refuse_linked_splits()
        train = [name for name in self._of("train") if self._holds_classes(name)]
        if len(train) > 1:
            raise DataError(
                f"{self.where}: {listing(train)} may each be the training set; give the folder of one as --data, or "
                f"rename the others. {AS_CLASSES}"
            )
        return self._checked(self._split(train[0]) if train else self._classes())

    def _of(self, *roles: str) -> list[str]:
        """Folders of these roles, the most usual name first."""
        order = [name for one in roles for name in ROLES[one]]
        found = [name for name in self.folders if name.casefold() in order]
        return sorted(found, key=lambda name: (order.index(name.casefold()), os.fsencode(name)))

    def _entries(self, name: str) -> Entries:
        return look(str(self.root / name))

    def _holds_classes(self, name: str) -> bool:
        entries = self._entries(name)
        return bool(entries.folders or entries.links)

    def _refuse_linked_splits(self) -> None:
        """DataError where a split that would be read is a link that is not followed, or leads nowhere."""
        roles = {"train"}
        if self.outside is None and self.test_split is None:
            roles |= {"test"} if self._of("test") else {"test", "validation"}
        links = self.broken if self.follow_links else [*self.broken, *self.links]
        linked = [name for name in links if ROLE_OF.get(name.casefold()) in roles or name == self.test_split]
        if linked:
            raise refused_links(str(self.root), linked, "split")

    def _split(self, train: str) -> Layout:
        """`train` holds class folders: the other folders are splits, or the question is what they are."""
        warnings: list[str] = []
        test = self._test_split(train, warnings)
        others = [name for name in (*self.folders, *self.left_out) if name not in (train, test)]
        others += [] if self.follow_links else self.links
        strange = [name for name in others if role(name) is None and self._holds_pictures(name)]
        if strange and test is None and self.outside is None:
            raise DataError(
                f"{self.where}: {train} holds class folders, so it may be the training set, but {listing(strange)} "
                f"beside it {'holds' if len(strange) == 1 else 'hold'} images too, so it may be a class. To train on "
                f"what is in {train}, give --data {self.where}/{train} (and --dataset.test). {AS_CLASSES}"
            )
        unread = sorted(set(others) - set(self.left_out), key=os.fsencode)
        if unread:
            warnings.append(f"{self.where}: beside the splits, not read: {listing(unread)}")
        return Layout({"train": train} | ({"test": test} if test else {}), (), tuple(warnings))

    def _test_split(self, train: str, warnings: list[str]) -> str | None:
        if self.outside is not None:
            return None
        if self.test_split is not None:
            return self._named_test(train)
        found = self._of("test", "validation")
        usable = [name for name in found if self._holds_classes(name)]
        flat = [name for name in found if name not in usable and role(name) == "test"]
        test = usable[0] if usable else None
        twins = [name for name in usable if test and name.casefold() == test.casefold()]
        if len(twins) > 1:
            raise DataError(
                f"{self.where}: {listing(twins)} may each be the test set; choose one by --dataset.test-split"
            )
        if flat:
            warnings.append(
                f"{self.where}: {listing(flat)} holds no class folders, so that it cannot be the test set; expected "
                f"{flat[0]}/<class>/<image>"
            )
        if test and role(test) == "validation":
            warnings.append(f"{self.where}: there is no test split, so {test} is taken as the test set")
        if test is None:
            alike = [
                name for name in self.folders if name not in found and role(name) in ("test", "validation")
            ]
            alike = [name for name in alike if self._holds_classes(name)]
            if alike:
                warnings.append(
                    f"{self.where}: no test set; {listing(alike)} may be one: --dataset.test-split "
                    f"{printable(alike[0])}"
                )
        return test

    def _named_test(self, train: str) -> str:
        name = str(self.test_split).rstrip("/")
        found = [f for f in self.folders if f == name] or [
            f for f in self.folders if f.casefold() == name.casefold()
        ]
        others = [folder for folder in self.folders if folder != train]
        if len(found) != 1 or found[0] == train:
            raise DataError(
                f"{self.where}: dataset.test_split {printable(name)}: no such folder beside {train}; there "
                + (f"are: {listing(others)}" if others else "is no other")
            )
        if not self._holds_classes(found[0]):
            raise DataError(
                f"{self.where}: dataset.test_split {printable(name)}: it holds no class folders; expected "
                f"{found[0]}/<class>/<image>"
            )
        return found[0]

    def _classes(self) -> Layout:
        """No training split with class folders: the folders are classes, unless they look like splits."""
        if self.test_split is not None:
            raise DataError(
                f"{self.where}: dataset.test_split {printable(self.test_split)}: there is no folder train with class "
                "folders beside it; give the test set as --dataset.test DIR"
            )
        exact = [name for name in self.folders if name.casefold() in ROLE_OF]
        if exact and len(exact) == len(self.folders) and not self.left_out:
            raise DataError(self._only_splits(exact))
        alike = self._look_alikes()
        if alike:
            first = {one: next(name for name in alike if role(name) == one) for one in map(role, alike)}
            test = first.get("test", first.get("validation"))
            raise DataError(
                f"{self.where}: {listing(alike)} look like splits of one image set, but would be taken for classes. "
                f"Give --data {self.where}/{printable(first['train'])} --dataset.test {self.where}/{printable(test)}, "
                f"or name them train and test, with a folder a class in each. {AS_CLASSES}"
            )
        told = self._split_named_classes(exact) + refuse_hidden_splits(str(self.root), self.folders)
        return Layout({"train": ""}, self.left_out, tuple(told))

    def _only_splits(self, exact: list[str]) -> str:
        holding = [name for name in exact if self._holds_classes(name)]
        if holding:
            return (
                f"{self.where}: {listing(holding)} {'holds' if len(holding) == 1 else 'hold'} class folders, but there "
                f"is no training split. Name it train, or give {self.where}/{printable(holding[0])} as --data to train "
                "on that one"
            )
        return (
            f"{self.where}: {listing(exact)} {'holds' if len(exact) == 1 else 'hold'} no class folders; expected "
            f"{self.where}/train/<class>/... (and test/<class>/...){self._lies_there(exact)}. {AS_CLASSES}"
        )

    def _lies_there(self, exact: list[str]) -> str:
        """What to give instead, by what lies in the folder or in one of its splits."""
        places = [self.root, *(self.root / name for name in exact)]
        told = [what_lies_there(str(place)) for place in places]
        return next((one for one in told if "--data" in one), "")

    def _look_alikes(self) -> list[str]:
        """Folders whose names differ in the role alone, such as Train2017 and Test2017."""
        groups: dict[tuple[str, ...], list[str]] = {}
        for name in self.folders:
            if role(name):
                groups.setdefault(rest(name), []).append(name)
        groups = {
            words: names
            for words, names in groups.items()
            if "train" in map(role, names) and {"test", "validation"} & set(map(role, names))
        }
        return sorted({name for names in groups.values() for name in names}, key=os.fsencode)

    def _split_named_classes(self, exact: list[str]) -> list[str]:
        """Warnings of classes that are named like a split; DataError where one holds the classes beside it again."""
        warnings = []
        for name in exact:
            inside = set(self._entries(name).folders) & (set(self.folders) - {name})
            if inside:
                raise DataError(
                    f"{self.where}: {printable(name)} holds folders named like the classes beside it "
                    f"({listing(sorted(inside))}). If it is the test set, give --dataset.test "
                    f"{self.where}/{printable(name)}. {AS_CLASSES}"
                )
            warnings.append(
                f"{self.where}: {printable(name)} is taken for a class, since there is no other split"
            )
        return warnings

    def _checked(self, layout: Layout) -> Layout:
        """DataError where the other test set lies in what is trained on, or holds it."""
        if self.outside is None or self.left_out:
            return layout
        top = os.path.realpath(self.root / layout.splits["train"])
        shown = printable(self.outside)
        if self.outside == top:
            raise DataError(f"dataset.test {shown}: this is the training set; give other images")
        if self.outside.startswith(top + os.sep):
            raise DataError(
                f"dataset.test {shown}: it lies in the training set {printable(top)}, below one of its classes; move "
                "it out, or up beside the classes"
            )
        return layout

    def _holds_pictures(self, name: str) -> bool:
        """Whether one of the first thousand files below the folder is named like a picture."""
        files = (file for _, _, files in os.walk(self.root / name) for file in files)
        return any(is_picture_name(file) and not file.startswith(".") for file in islice(files, 1000))
