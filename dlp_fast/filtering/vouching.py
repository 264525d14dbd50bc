"""What a network that was not given the suspects' labels says of them: whether a weak sign may be harmless."""

from __future__ import annotations

import math
from typing import TypedDict

import torch
from torch import Tensor

MORE_LIKELY_THAN_NOT = math.log(2)  # nats


class Word(TypedDict):
    """suspects: share of a class's suspects that get their label from a network that was not given it; trusted: share
    of the class's other images, whose labels it was given, at the same moment.
    """

    suspects: float
    trusted: float


def words(loss: Tensor, labels: Tensor, suspects: Tensor, trusted: Tensor) -> dict[int, Word]:
    """{label: Word} for each class that has suspects and trusted images.

    A picture whose label the attacker changed shows another class, and one that keeps its label carries something that
    misleads. What is learnt fast for its own sake, the typical view of an easy class or a batch of near-duplicates,
    shows its class better than the other images do.

    Args: loss: fp32 [n], nats, of each image under the label it came with, by that network; labels: int64 [n];
    suspects, trusted: int64 ids.
    """
    right = loss < MORE_LIKELY_THAN_NOT

    def share(ids: Tensor, label: int) -> float:
        of_class = ids[labels[ids] == label]
        return round(float(right[of_class].double().mean()), 4) if len(of_class) else math.nan

    told = {}
    for label in torch.unique(labels[suspects]).tolist():
        of = Word(suspects=share(suspects, label), trusted=share(trusted, label))
        if not math.isnan(of["trusted"]):
            told[label] = of
    return told
