import os
import string
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlp_fast.runs.names import counted, csv_cell, listing, printable


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("cat/1.jpg", "cat/1.jpg"),
        ("Müller 猫.jpg", "Müller 猫.jpg"),
        ("a\nb\tc\rd", "a\\nb\\tc\\rd"),
        (os.fsdecode(b"\xff\xfe.jpg"), "\\xff\\xfe.jpg"),
        ("back\\slash", "back\\\\slash"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("\x7f", "\\x7f"),
        ("right\u202eto left", "right\\u202eto left"),
        ("\u2028", "\\u2028"),
        ("no-break\xa0space", "no-break\\u00a0space"),  # \\xa0 is a byte that is not UTF-8
        (os.fsdecode(b"no-break\xa0space"), "no-break\\xa0space"),
        ("trailing ", "trailing\\x20"),
        (" leading", "\\x20leading"),
        ("two  three   spaces", "two \\x20three \\x20\\x20spaces"),
        ("caf\u00e9", "caf\u00e9"),
        ("cafe\u0301", "cafe\\u0301"),
        ("\u212b", "\\u212b"),  # the sign of the ångström, which is composed to a letter
        ("\uac00", "\uac00"),
        ("\u1100\u1161", "\u1100\\u1161"),  # the same syllable as two letters
        ("\u0e01\u0e48", "\u0e01\u0e48"),  # a tone mark has no composed form
        ("\u2764\ufe0f", "\u2764\\ufe0f"),
        ("a\u3164b", "a\\u3164b"),
        ("a\u200bb", "a\\u200bb"),
        ("\ud800", "\\ud800"),
        ("\U000e0001", "\\U000e0001"),
    ],
)
def test_printable(name, shown):
    assert printable(name) == shown


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_formula_is_defused(start):
    assert csv_cell(f"{start}cmd|' /C calc'!A0").startswith("'")


@given(st.text(max_size=8, alphabet="ae\u00e9\u0301\u0300\u0323 \ufe0f\u1100\u1161\u11a8\uac00\u212bA\u030a"))
def test_shown_names_are_composed_and_stay_different(name):
    """What is shown has no other form, so that names that look the same are the same."""
    shown = printable(name)
    assert unicodedata.is_normalized("NFC", shown)
    other = unicodedata.normalize("NFD", name)
    assert (printable(other) == shown) == (other == name)


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        (["a", "b"], "a, b"),
        (["a,b", "c"], '"a,b", c'),
        (list("abcdefghij"), "a, b, c, d, e, f, g, h and 2 more"),
    ],
)
def test_listing(names, shown):
    assert listing(names) == shown


@pytest.mark.parametrize(("count", "shown"), [(0, "0 files"), (1, "1 file"), (2000, "2,000 files")])
def test_counted(count, shown):
    assert counted(count, "file") == shown


def test_plain_cell_is_left_alone():
    assert csv_cell("cat/=1.jpg") == "cat/=1.jpg"


@given(st.binary(max_size=40), st.binary(max_size=40))
def test_different_names_never_look_the_same(a, b):
    shown = [printable(os.fsdecode(name)) for name in (a, b)]
    assert (shown[0] == shown[1]) == (a == b)
    assert (csv_cell(os.fsdecode(a)) == csv_cell(os.fsdecode(b))) == (a == b)
    for text in shown:
        assert text.encode("utf-8") is not None
        assert not set(text) & set(string.whitespace.replace(" ", ""))
