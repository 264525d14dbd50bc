"""The selection of ``select`` over rows that lie in several shards.

Each shard counts the digits of its own scores; the counts are summed, so that all shards find the same
threshold, and each picks its own winners. What they exchange is three histograms of 2048 counters a class and a few
counts: independent of the number of rows and of how many are chosen. The ids are the same, bit for bit, for
any number of shards.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence

import torch
from torch import Tensor

from dlp_fast.ops.entropy_rank import Ranking, select
from dlp_fast.ops.library import native_on

__all__ = ["select_shards"]

_BITS = (11, 11, 10)
_BINS = 2048

# A step asks for what only all shards together know: ("sum", t) or ("gather", t), answered by the sum over
# the shards, or by the shards' tensors stacked in order.
_Step = tuple[str, Tensor]


def select_shards(
    scores: Sequence[Tensor],
    lowest: int,
    highest_per_class: int = 0,
    labels: Sequence[Tensor] | None = None,
    num_classes: int | None = None,
) -> list[Ranking]:
    """``select`` over shards in this process: one Ranking each, its own winners under global ids.

    Shard s holds the rows behind those of shard s - 1. Arguments and errors are those of ``select``, with
    ``scores`` and ``labels`` by shard; ``lowest`` counts over all shards, ``counts`` of a Ranking are those
    of its shard.
    """
    labels = [None] * len(scores) if labels is None else labels
    if len(labels) != len(scores) or not scores:
        raise ValueError(
            f"labels must have one tensor for each of the {len(scores)} shards, got {len(labels)}"
        )
    runs = [
        _shard(s, lowest, highest_per_class, shard_labels, num_classes, number)
        for number, (s, shard_labels) in enumerate(zip(scores, labels))
    ]
    asked = [next(run) for run in runs]
    while True:
        kind, parts = asked[0][0], torch.stack([tensor for _, tensor in asked])
        answer = parts.sum(0) if kind == "sum" else parts
        asked, done = [], []
        for run in runs:
            try:
                asked.append(run.send(answer))
            except StopIteration as end:
                done.append(end.value)
        if done:
            return done


def digit_histogram_reference(
    scores: Tensor, labels: Tensor | None, groups: int, largest: bool, level: int, prefix: Tensor
) -> Tensor:
    """Counts [groups, 2048] of one digit (11, 11, 10 bits) of the scores with ``prefix`` above it."""
    bits = (scores + 0.0).view(torch.int32).long() & 0xFFFFFFFF
    key = torch.where(bits >= 1 << 31, 0xFFFFFFFF - bits, bits + (1 << 31))
    key = 0xFFFFFFFF - key if largest else key
    group = torch.zeros_like(key) if labels is None else labels.long()
    below = sum(_BITS[level + 1 :])
    keep = (group >= 0) & (group < groups)
    group, key = group[keep], key[keep]
    if level > 0:
        same = key >> (below + _BITS[level]) == prefix[group]
        group, key = group[same], key[same]
    digit = (key >> below) & ((1 << _BITS[level]) - 1)
    return torch.bincount(group * _BINS + digit, minlength=groups * _BINS).view(groups, _BINS)


def _shard(
    scores: Tensor,
    lowest: int,
    highest_per_class: int,
    labels: Tensor | None,
    num_classes: int | None,
    number: int,
) -> Generator[_Step, Tensor, Ranking]:
    checked = select(
        scores, 0, 0, labels, num_classes, check=True
    )  # arguments and numbers, before anything travels
    if highest_per_class and labels is None:
        raise ValueError(f"highest_per_class = {highest_per_class} needs labels, got none")
    rows = yield "gather", torch.tensor([scores.shape[0]], device=scores.device)
    total, offset = int(rows.sum()), int(rows[:number].sum())
    if not 0 <= lowest <= total:
        raise ValueError(f"lowest must be from 0 to the number of rows, {total}, got {lowest}")
    mine = yield from _share(scores, None, 1, False, lowest, number)
    low = select(scores, int(mine), check=False).lowest + offset
    if not highest_per_class:
        return Ranking(scores, low, checked.highest, checked.counts)
    counts = yield from _share(scores, labels, num_classes, True, highest_per_class, number)
    most = int(counts.max())
    best = select(scores, 0, most, labels, num_classes, check=True)
    of_class = torch.repeat_interleave(best.counts)
    place = (
        torch.arange(len(of_class), device=scores.device) - (best.counts.cumsum(0) - best.counts)[of_class]
    )
    return Ranking(scores, low, best.highest[place < counts[of_class]] + offset, counts)


def _share(
    scores: Tensor, labels: Tensor | None, groups: int, largest: bool, count: int, number: int
) -> Generator[_Step, Tensor, Tensor]:
    """How many of each group's ``count`` best rows lie in this shard."""
    native = native_on(scores.device)
    histogram = torch.ops.dlp_fast.digit_histogram if native else digit_histogram_reference
    prefix = torch.zeros(groups, dtype=torch.int64, device=scores.device)
    sure = torch.zeros_like(prefix)
    wanted = prefix
    for level, bits in enumerate(_BITS):
        mine = histogram(scores, labels, groups, largest, level, prefix)
        hist = yield "sum", mine
        if level == 0:
            wanted = hist.sum(1).clamp(max=count)
        reached = hist.cumsum(1)
        digit = (reached < wanted[:, None]).sum(1).clamp(max=(1 << bits) - 1)[:, None]
        wanted = wanted - (reached - hist).gather(1, digit)[:, 0]
        sure = sure + (mine.cumsum(1) - mine).gather(1, digit)[:, 0]
        ties = mine.gather(1, digit)[:, 0]
        prefix = prefix << bits | digit[:, 0]
    # equal scores: the shards before this one go first
    before = yield "gather", ties
    return sure + torch.minimum(ties, (wanted - before[:number].sum(0)).clamp(min=0))
