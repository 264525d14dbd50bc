import io

import pytest
from rich.table import Table

from dlp_fast.runs.terminal import PLAIN, Terminal


def written(text: str, encoding: str) -> str:
    raw = io.BytesIO()
    with io.TextIOWrapper(raw, encoding=encoding, errors=PLAIN) as stream:
        stream.write(text)
        stream.flush()
        return raw.getvalue().decode(encoding)


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("1 – 2 — 3…", "1 - 2 - 3..."),
        ("2²⁰ steps, μ ≥ 1, τ", "220 steps, mu >= 1, tau"),
        ("╭─╮│┃━╇", "+-+||-+"),
        ("猫", "\\u732b"),
        ("plain", "plain"),
    ],
)
def test_signs_of_ascii(text, plain):
    assert written(text, "ascii") == plain


def test_what_the_encoding_has_stays():
    assert written("café – ²", "latin-1") == "café - ²"
    assert written("café – 猫", "utf-8") == "café – 猫"


def test_different_names_stay_different():
    assert written("é", "ascii") != written("e", "ascii")


def test_a_table():
    raw = io.BytesIO()
    with io.TextIOWrapper(raw, encoding="latin-1", errors=PLAIN) as stream:
        table = Table("after stage", "CA")
        table.add_row("supervised", "–")
        Terminal(file=stream).print(table)
        stream.flush()
        said = raw.getvalue().decode("latin-1")
    assert "supervised" in said and "-" in said


def test_a_closed_pipe_is_an_error_that_the_caller_sees():
    class Closed(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        Terminal(file=Closed()).print("x")
