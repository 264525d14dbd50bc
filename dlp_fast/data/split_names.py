"""What the names of folders say: train, test or validation; in any case, and as words within longer names."""

from __future__ import annotations

import re
from collections.abc import Iterable

from dlp_fast.runs.names import counted

ROLES = {
    "train": ("train", "training", "trn"),
    "test": ("test", "testing", "tst", "eval", "evaluation", "holdout"),
    "validation": ("val", "valid", "validation", "dev"),
}
"""Names of splits, in any case; the first that is there is taken. Validation images are the test set where there is no
test."""
ROLE_OF = {name: role for role, names in ROLES.items() for name in names}
_ENDINGS = re.compile(r"(sets?|data|dataset|images?|imgs?|split|folder|dir)$")


def is_split_name(name: str) -> bool:
    """Whether a folder of this name is taken for a split, where it holds class folders."""
    return name.casefold() in ROLE_OF


def role(name: str) -> str | None:
    """train, test or validation where exactly one word of the name says so, else None."""
    found = [one for one in map(_role_of_word, _words(name)) if one]
    return found[0] if len(found) == 1 else None


def named(names: Iterable[str], role: str) -> str | None:
    """The name of the split that is of `role`, of which the first that is there is taken; None where there is none."""
    there = {name.casefold(): name for name in map(str, names)}
    return next((there[name] for name in ROLES[role] if name in there), None)


def tell_validation(where: str, validation: int, test: int, what: str) -> tuple[str, ...]:
    """What is to be said of `validation` rows, files or images (`what`) of a set that has `test` ones to test with."""
    if not validation:
        return ()
    if test:
        return (
            f"{where}: {counted(validation, f'validation {what}')} not read, since there are test {what}s",
        )
    return (f"{where}: no test {what}s; the validation {what}s are the test set",)


def rest(name: str) -> tuple[str, ...]:
    """The words that say nothing of a role, and more than "images"; numbers are years and places in a list."""
    words = (word for word in _words(name) if not _role_of_word(word) and not word.isdigit())
    return tuple(word for word in words if _ENDINGS.sub("", word))


def _words(name: str) -> list[str]:
    """Its words in lower case: seg_train, segTrain and Seg-Train2017 all have seg and train."""
    return [word.casefold() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name)]


def _role_of_word(word: str) -> str | None:
    return ROLE_OF.get(word) or ROLE_OF.get(_ENDINGS.sub("", word))
