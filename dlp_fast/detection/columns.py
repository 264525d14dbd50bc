"""Columns of large sets a piece at a time, so that no more than a few numbers an image are in memory at once.

What comes out is, to the last bit, what it is of all images at once.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

PIECE = 1 << 22  # images looked at together
SAMPLE = 1 << 16  # values from which borders are chosen


def pieces(n: int, share: int = 1) -> Iterator[slice]:
    """The ids of n images, PIECE after PIECE, or a `share`th of it."""
    size = PIECE // share
    return (slice(first, min(first + size, n)) for first in range(0, n, size))


def mean_over_epochs(values: np.ndarray) -> np.ndarray:
    """float64 [n] of [epochs, n], of any floating type."""
    mean = np.empty(values.shape[1])
    for piece in pieces(len(mean)):
        values[:, piece].mean(0, dtype=np.float64, out=mean[piece])
    return mean


def in_order(values: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """(rank of the first, int64 ids) of parts of `values` [n], the lowest first; equal ones by id, NaN last.

    A part is about a PIECE, or as many as are equal to one another.
    """
    n = len(values)
    borders = np.sort(values[:: max(1, n // SAMPLE)])
    borders = np.unique(borders[:: max(1, len(borders) * PIECE // max(n, 1))][1:])
    part = np.empty(n, dtype=np.min_scalar_type(len(borders)))
    for piece in pieces(n):
        part[piece] = np.searchsorted(borders, values[piece], side="right")
    first = 0
    for number in range(len(borders) + 1):
        ids = np.flatnonzero(part == number)
        yield first, ids[np.argsort(values[ids], kind="stable")]
        first += len(ids)
