import os
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlp_fast.runs.names import csv_cell, printable


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
        ("no-break\xa0space", "no-break\\xa0space"),
        ("\ud800", "\\ud800"),
        ("\U000e0001", "\\U000e0001"),
    ],
)
def test_printable(name, shown):
    assert printable(name) == shown


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_formula_is_defused(start):
    assert csv_cell(f"{start}cmd|' /C calc'!A0").startswith("'")


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
