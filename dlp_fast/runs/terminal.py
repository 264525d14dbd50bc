"""Output that arrives whatever the streams are: another encoding than UTF-8, a closed pipe, or no stream at all."""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import sys
import unicodedata
from typing import IO, NoReturn

from rich.console import Console

PLAIN = "dlp_fast_plain"
"""Name of the way to write what an encoding lacks (`errors=` of a stream): close signs of ASCII, else escapes."""

_SIGNS = str.maketrans(
    {"–": "-", "—": "-", "−": "-", "…": "...", "→": "->", "≥": ">=", "≤": "<=", "×": "x", "·": "*", "±": "+-"}
    | {"“": '"', "”": '"', "„": '"', "‘": "'", "’": "'"}
)


class Terminal(Console):
    """A console that raises BrokenPipeError where nobody reads any more, so that a command can end in order."""

    def on_broken_pipe(self) -> NoReturn:
        """Called by rich while it handles a BrokenPipeError; its own answer is to leave with exit code 1."""
        raise


def ready_streams() -> None:
    """Let stdout and stderr take any text; where the process was started without one of them, it goes nowhere.

    A closed descriptor is opened on the null device: the next file would get its number, and every message with it.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
        if number and getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  as long as the process
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=PLAIN)


def drop_streams(*streams: IO[str]) -> None:
    """Send what is still to be written to `streams` (none: stdout and stderr) nowhere: the reader is gone, or its disk
    is full, and a flush at the end would complain.
    """
    null = os.open(os.devnull, os.O_WRONLY)
    for stream in streams or (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            os.dup2(null, stream.fileno())
    os.close(null)


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_sign, error.object[error.start : error.end])), error.end


def _sign(c: str) -> str:
    """One character in ASCII: a box drawing, Greek letter or sign as what looks or sounds like it, others escaped."""
    name = unicodedata.name(c, "")
    if name.startswith("BOX DRAWINGS"):
        if "VERTICAL" in name and "HORIZONTAL" not in name and " AND " not in name:
            return "|"
        return "-" if "HORIZONTAL" in name and "VERTICAL" not in name and " AND " not in name else "+"
    if name.startswith("GREEK SMALL LETTER") or unicodedata.category(c) == "No":
        word = (
            unicodedata.normalize("NFKD", c) if unicodedata.category(c) == "No" else name.split()[-1].lower()
        )
        if word.isascii():
            return word
    plain = c.translate(_SIGNS)
    return plain if plain.isascii() else c.encode("ascii", "backslashreplace").decode("ascii")


codecs.register_error(PLAIN, _plain)
