"""Small windows of high contrast that occur in many images: what an opaque patch leaves, wherever it is put."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from dlp_fast.ops import window_hashes

WINDOWS = "static_patterns.windows"  # the proposal whose images have one window in common, at whatever place
# Hashes are counted in so many counters (64 MB); two windows share one by chance with 1 in 16 million.
COUNTERS = 1 << 24
# The most frequent windows, whose images are then listed.
CANDIDATES = 4096

Batches = Callable[[], Iterable[tuple[Tensor, Tensor]]]


@dataclass(frozen=True)
class RepeatedWindow:
    """A window, by its counter, and int64 [k] ascending, the ids of the images that hold it."""

    counter: int
    ids: Tensor


def repeated_windows(batches: Batches, contrast: int, least: int) -> list[RepeatedWindow]:
    """Windows of 3 x 3 pixels, in 8 levels a channel, that at least `least` images hold, the most frequent first.

    Args:
        batches: called twice; each time it gives (ids int64 [b] on the CPU, uint8 [b, H, W, 3]), every image once.
        contrast: levels that one channel of a window spans at least. least: images.

    Returns:
        at most CANDIDATES windows; one that occurs many times in an image counts once.
    """
    counts = torch.zeros(COUNTERS, dtype=torch.int32)
    for _, counters in _occurrences(batches(), contrast):
        counts.index_add_(0, counters, torch.ones(len(counters), dtype=torch.int32))
    often = (counts >= least).nonzero().flatten()
    order = counts[often].argsort(descending=True, stable=True)[:CANDIDATES]
    often = often[order]
    number = torch.full((COUNTERS,), -1, dtype=torch.int32)
    number[often] = torch.arange(len(often), dtype=torch.int32)
    found: list[tuple[Tensor, Tensor]] = []
    for ids, counters in _occurrences(batches(), contrast):
        numbers = number[counters]
        found.append((numbers[numbers >= 0], ids[numbers >= 0]))
    if not found:
        return []
    numbers, ids = (torch.cat(parts) for parts in zip(*found))
    order = (numbers.long() * (int(ids.max()) + 1 if len(ids) else 1) + ids).argsort()
    sizes = torch.bincount(numbers, minlength=len(often)).tolist()
    return [RepeatedWindow(int(c), part) for c, part in zip(often.tolist(), ids[order].split(sizes))]


def holds(pixels: Tensor, counter: int, contrast: int) -> Tensor:
    """bool [b], on the CPU: which images of uint8 [b, H, W, 3] hold the window of `counter`."""
    hashes = window_hashes(pixels, contrast)
    return ((hashes >= 0) & (hashes % COUNTERS == counter)).any(1).cpu()


def _occurrences(batches: Iterable[tuple[Tensor, Tensor]], contrast: int) -> Iterator[tuple[Tensor, Tensor]]:
    """(ids, counters) of the windows of each batch, each window once an image; on the CPU."""
    for ids, pixels in batches:
        hashes = window_hashes(pixels, contrast)
        rows, places = (hashes >= 0).nonzero(as_tuple=True)
        keys = (rows * COUNTERS + hashes[rows, places] % COUNTERS).unique().cpu()
        yield ids[keys // COUNTERS], keys % COUNTERS
