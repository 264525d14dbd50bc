"""File names are an attacker's text: how they are shown and how they are written to a CSV file."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

# A cell beginning with one of these is run as a formula by spreadsheet programs.
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")

# Letters, marks and symbols that show nothing: joiner, Hangul fillers, Khmer and Mongolian marks, an empty Braille
# cell, variation selectors.
INVISIBLE = frozenset(
    "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0"
    + "".join(map(chr, [*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)]))
)


def printable(name: str) -> str:
    """`name` on one line of valid UTF-8, so that names that differ in their bytes differ to the eye.

    Backslash escapes stand for control characters, direction marks, characters that show nothing, bytes that are not
    UTF-8, spaces that begin, end or follow another, and accents where the name is not in Unicode's composed form (NFC);
    a backslash becomes two. Letters of two scripts that look alike (Latin and Cyrillic a) still do.
    """
    plain = name.isascii() and name.isprintable() and "\\" not in name and "  " not in name
    if plain and name[:1] != " " and name[-1:] != " ":
        return name
    composed = unicodedata.is_normalized("NFC", name)
    shown = []
    for i, c in enumerate(name):
        before = name[i - 1] if i else ""
        if c == " ":
            alone = before not in ("", " ") and i + 1 < len(name)
            shown.append(c if alone else "\\x20")
        elif not composed and _composes(before, c):
            shown.append(_code(c))
        else:
            shown.append(_escape(c))
    return "".join(shown)


def _composes(before: str, c: str) -> bool:
    """Whether `c` is a mark, or has another form in NFC, alone or after the character `before` it."""
    return unicodedata.combining(c) > 0 or unicodedata.normalize("NFC", before + c) != before + c


def _escape(c: str) -> str:
    if c == "\\":
        return "\\\\"
    if 0xDC80 <= ord(c) <= 0xDCFF:  # os.fsdecode's stand-in for one byte that is not UTF-8
        return f"\\x{ord(c) - 0xDC00:02x}"
    if c in INVISIBLE or unicodedata.category(c)[0] in "CZ":
        return _code(c)
    return c


def _code(c: str) -> str:
    """Its escape: \\n, \\x7f, \\u00a0 (never \\xa0, which is a byte that is not UTF-8)."""
    code = ord(c)
    if 0x20 <= code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if 0x80 <= code < 0x100 else c.encode("unicode_escape").decode("ascii")


def csv_cell(text: str) -> str:
    """`printable(text)`, made harmless to spreadsheet programs by a leading apostrophe where it needs one. A name that
    begins with an apostrophe gets one too, so that different names stay different.
    """
    return ("'" if text.startswith((*FORMULA_STARTS, "'")) else "") + printable(text)


def listing(names: Iterable[str], most: int = 8) -> str:
    """The first `most` names, printable, with commas between them; in quotes where a name has a comma itself."""
    shown = [f'"{one}"' if "," in one else one for one in map(printable, names)]
    more = f" and {len(shown) - most} more" if len(shown) > most else ""
    return ", ".join(shown[:most]) + more


def counted(count: int, what: str) -> str:
    """`1 file`, `2,000 files`."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"
