"""Names of shards as people write them: `train-{0000..0003}.tar` for four."""

from __future__ import annotations

import re

from dlp_fast.errors import DataError
from dlp_fast.runs.names import printable

_SPAN = re.compile(r"(.*)\{(\d{1,18})\.\.(\d{1,18})\}(.*)")
MOST_SHARDS = 100_000


def expanded(name: str) -> tuple[str, ...] | None:
    """All names that `{0000..0003}` in `name` stands for, in their order; None where there is none in it.

    Raises DataError: more than MOST_SHARDS, or from the higher number to the lower.
    """
    span = _SPAN.fullmatch(name)
    if span is None:
        return None
    before, first, last, after = span.groups()
    count = int(last) - int(first) + 1
    if not 0 < count <= MOST_SHARDS:
        raise DataError(
            f"{printable(name)}: {{{first}..{last}}} are {count:,} shards; expected 1 to {MOST_SHARDS:,}, from the "
            "lower number to the higher"
        )
    return tuple(f"{before}{i:0{len(first)}d}{after}" for i in range(int(first), int(last) + 1))
