"""Names of classes that are the same to a reader, and not to the file system."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Sequence

from dlp_fast.runs.names import listing, printable

_FORMS: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("in their Unicode form (NFC or NFD)", lambda name: unicodedata.normalize("NFC", name)),
    ("in upper and lower case", lambda name: unicodedata.normalize("NFC", name.casefold())),
    ("in spaces, signs and upper and lower case", lambda name: "".join(filter(str.isalnum, _plain(name)))),
)
"""How two names may differ and mean the same, least first: words, and what makes them equal."""


def _plain(name: str) -> str:
    return unicodedata.normalize("NFKC", name).casefold()


def difference(a: str, b: str) -> str | None:
    """In what alone two names differ, in words ("in upper and lower case"); None where they differ in more."""
    for words, form in _FORMS:
        if form(a) == form(b) != "":
            return words
    return None


def match_names(where: str, names: Iterable[str], known: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """({name: known name}, a warning of each): names that differ from a known one in their Unicode form alone, as those
    of an archive from a Mac do. Never where the known name is there itself, or where two would become the same.
    """
    names = list(names)
    there, trained_on = frozenset(names), frozenset(known)
    form = _FORMS[0][1]
    by_form: dict[str, list[str]] = {}
    for name in (*known, *(name for name in names if name not in trained_on)):
        by_form.setdefault(form(name), []).append(name)
    matched, warnings = {}, []
    for name in names:
        alike = by_form[form(name)]
        if name in trained_on or len(alike) != 2:
            continue
        if alike[0] in trained_on and alike[0] not in there:
            matched[name] = alike[0]
            warnings.append(
                f"{where}: class {printable(name)} is taken as class {printable(alike[0])} of the training images; the "
                f"names differ {_FORMS[0][0]} alone"
            )
    return matched, warnings


def near_name(strange: Sequence[str], known: Sequence[str]) -> str:
    """` (Cats and cats differ in upper and lower case alone)` where a strange class is nearly a known one, else ""."""
    for name in strange:
        for other in known:
            words = difference(name, other)
            if words:
                return f" ({printable(name)} and {printable(other)} differ {words} alone)"
    return ""


def tell_alike(where: str, names: Iterable[str]) -> tuple[str, ...]:
    """A warning of each two classes whose names a reader would take for the same."""
    seen: dict[str, str] = {}
    told = []
    for name in names:
        key = _FORMS[1][1](name).strip()
        if key in seen:
            how = difference(name, seen[key]) or "in spaces"
            told.append(
                f"{where}: {printable(seen[key])} and {printable(name)} are two classes, whose names differ {how} alone"
            )
        seen.setdefault(key, name)
    return tuple(told)


NO_LABELS = frozenset(
    {
        "unlabeled", "unlabelled", "not labeled", "not labelled", "no label", "nolabel", "unsup", "unsupervised",
        "unsorted", "unclassified", "unannotated", "todo", "nan", "none", "null", "na", "n/a", "-1", "?",
    }
)  # fmt: skip
"""What people and programs call images without a label, in lower case, with spaces for signs."""


def tell_no_labels(where: str, names: Iterable[str]) -> tuple[str, ...]:
    """A warning of classes whose names say that their images have no label: they are learnt as any other class."""
    found = [name for name in names if " ".join(name.casefold().replace("_", " ").split()) in NO_LABELS]
    if not found:
        return ()
    return (
        f"{where}: {listing(found)} is taken for a class like any other; where it holds images without a label, take "
        "them out, since the network learns them as one class",
    )
