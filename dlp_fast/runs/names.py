"""File names are an attacker's text: how they are shown and how they are written to a CSV file."""

from __future__ import annotations

import unicodedata

# A cell beginning with one of these is run as a formula by spreadsheet programs.
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def printable(name: str) -> str:
    """`name` on one line of valid UTF-8: control characters, direction marks and bytes that are not UTF-8
    become backslash escapes, a backslash becomes two, so that different names never look the same.
    """
    if name.isascii() and name.isprintable() and "\\" not in name:
        return name
    return "".join(_escape(c) for c in name)


def _escape(c: str) -> str:
    code = ord(c)
    if c == "\\":
        return "\\\\"
    if 0xDC80 <= code <= 0xDCFF:  # os.fsdecode's stand-in for one byte that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    if c == " " or unicodedata.category(c)[0] not in "CZ":
        return c
    return c.encode("unicode_escape").decode("ascii") if code > 0x7F or code < 0x20 else f"\\x{code:02x}"


def csv_cell(text: str) -> str:
    """`printable(text)`, made harmless to spreadsheet programs by a leading apostrophe where it needs one. A name that
    begins with an apostrophe gets one too, so that different names stay different.
    """
    return ("'" if text.startswith((*FORMULA_STARTS, "'")) else "") + printable(text)
