"""What the scan says of one file, and the form in which its child processes send it."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

from dlp_fast.data.samples import Look

REASONS = (
    "truncated",
    "empty",
    "not_an_image",
    "too_large",
    "unsupported_format",
    "unreadable",
    "link_leaves_folder",
    "not_a_regular_file",
    "decoder_crashed",
    "timeout",
)

LINK_OUT = "a link leads out of the folder"
"""Detail of `link_leaves_folder` where a link does it, and no path in a table."""
NO_LOOK = Look()


@dataclass(frozen=True, slots=True)
class ScanRecord:
    """One usable image file. `width` and `height` are in pixels after EXIF orientation; `mode` is Pillow's
    name of the file's own pixel layout; `sha256` is of the file's bytes; `look` says what the picture looks like."""

    path: str
    width: int
    height: int
    format: str
    mode: str
    bytes: int
    mtime_ns: int
    sha256: str
    look: Look = NO_LOOK


@dataclass(frozen=True, slots=True)
class Quarantined:
    """One file that is left out: its path relative to the root, a reason from `REASONS`, and a detail."""

    path: str
    reason: str
    detail: str


def parse(path: str, answer: list) -> ScanRecord | Quarantined:
    """What an answer that `is_answer` says of the file at `path`."""
    if answer[0] == "ok":
        return ScanRecord(path, *answer[1:8], Look(*answer[9]))
    return Quarantined(path, answer[1], answer[2])


def from_json(line: bytes) -> object:
    """The value of one line, None where it is no JSON."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def is_answer(answer: object) -> bool:
    """Whether it has the form that `scan_worker.examine` promises."""
    if not isinstance(answer, list):
        return False
    if answer[:1] == ["no"]:
        return len(answer) == 3 and answer[1] in REASONS and isinstance(answer[2], str)
    kinds = (str, int, int, str, str, int, int, str, int, list)
    if not (answer[:1] == ["ok"] and len(answer) == 10 and all(map(isinstance, answer, kinds))):
        return False
    _, width, height, _, _, size, mtime_ns, _, _, look = answer
    sizes = 0 < width < 1 << 31 and 0 < height < 1 << 31 and 0 < size < 1 << 63 and abs(mtime_ns) < 1 << 63
    return sizes and _is_look(look)


def _is_look(look: list) -> bool:
    if len(look) != 4 or not all(isinstance(v, int | float) and math.isfinite(v) for v in look):
        return False
    peak, mean, deviation, transparent = look
    bounded = 0 <= mean < 1 << 16 and 0 <= deviation < 1 << 16 and 0 <= transparent <= 1
    return isinstance(peak, int) and -1 <= peak < 1 << 16 and bounded
