"""A copy of the image set with own triggers planted in it, each with a target class of its own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dlp_fast.attacks import triggers, wanet
from dlp_fast.attacks.changes import Change, ChangedImages, TableChange
from dlp_fast.attacks.randomness import TRAINING
from dlp_fast.engine.batches import TrainingData
from dlp_fast.ops import TriggerTable

RATES = (0.02, 0.01, 0.005, 0.003)  # of all images
FEWEST = 5  # images that a trial plants at least
MOST_OF_CLASS = (
    0.5  # planted images beside the target class's own: more is not what a detector can call a group
)


@dataclass(frozen=True)
class Planted:
    """trigger: its name; rate: share of all images, 0 to 1; target: number of the class; ids: int64, ascending."""

    trigger: str
    rate: float
    target: int
    ids: Tensor


def _patch(size: tuple[int, int], seed: int) -> Change:
    """A 3x3 square of random colours at a place drawn from the seed, the same in all images."""
    cell = max(1, min(size) // 32)
    square = triggers.coloured_square(3, cell, seed, 0)
    generator = torch.Generator().manual_seed(seed + 0x91ACE)
    top, left = (int(torch.randint(n - len(square) + 1, (), generator=generator)) for n in size)
    return TableChange(TriggerTable.patch(square, top, left, size=size))


def _blend(size: tuple[int, int], seed: int) -> Change:
    """One image of uniform noise at opacity 0.2."""
    return TableChange(triggers.blended(size, seed))


def _warp(size: tuple[int, int], seed: int) -> Change:
    """An elastic warp of 4 x 4 grid points that moves pixels by about one, without cover images."""
    return wanet.Warp(wanet.warping_field(size, seed, wanet.STRONG), seed, TRAINING)


TRIGGERS = {"patch": _patch, "blend": _blend, "warp": _warp}


def combinations(
    images: int, triggers: Iterable[str] = TRIGGERS, rates: Sequence[float] = RATES
) -> list[tuple[str, float]]:
    """(trigger, rate) of the trials, in the order in which they are planted; rates that give too few images are left
    out.
    """
    enough = [rate for rate in rates if round(rate * images) >= FEWEST]
    return [(trigger, rate) for rate in enough for trigger in triggers]


def fitting(data: TrainingData, triggers: Iterable[str], rates: Sequence[float]) -> list[tuple[str, float]]:
    """Those of `combinations` that are not too many for the median class of `data`."""
    most = MOST_OF_CLASS * float(torch.bincount(data.labels, minlength=data.classes).median())
    every = combinations(len(data), triggers, rates)
    return [(trigger, rate) for trigger, rate in every if round(rate * len(data)) <= most]


def trials_at_once(classes: int) -> int:
    """How many triggers one copy holds: more than a third of the classes would change what the others are like."""
    return max(1, classes // 3)


def plant(
    data: TrainingData, free: Tensor, targets: Sequence[int], wanted: Sequence[tuple[str, float]], seed: int
) -> tuple[TrainingData, list[Planted]]:
    """A copy of `data` with each of `wanted` (trigger, rate) planted for another class of `targets`, and what was
    planted. A trigger whose images are too many for its target or for what is left is not planted.

    Args: free: bool [n], images that may be changed; seed: of the draw of images, targets and patterns.
    """
    generator = torch.Generator().manual_seed(seed)
    size = (data.images.height, data.images.width)
    sizes = torch.bincount(data.labels, minlength=data.classes)
    order = [targets[i] for i in torch.randperm(len(targets), generator=generator).tolist()]
    left, labels, images, planted = free.clone(), data.labels.clone(), data.images, []
    for number, ((trigger, rate), target) in enumerate(zip(wanted, order)):
        count = round(rate * len(data))
        pool = (left & (data.labels != target)).nonzero().flatten()
        if count > MOST_OF_CLASS * int(sizes[target]) or count > len(pool):
            continue
        ids = pool[torch.randperm(len(pool), generator=generator)[:count]].sort().values
        variant = torch.full((len(data),), -1)
        variant[ids] = 0
        images = ChangedImages(images, variant, TRIGGERS[trigger](size, seed + number))
        labels[ids], left[ids] = target, False
        planted.append(Planted(trigger, rate, target, ids))
    return replace(data, images=images, labels=labels, seed=seed), planted
