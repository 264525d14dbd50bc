"""The odds of a class that lost labels to suspicion: logit adjustment (Menon et al. 2021, Eq. 9) after stage 3."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dlp_fast.errors import ConfigError
from dlp_fast.models.registry import classifier_of

LEAST = 1.25  # times; a class that lost less is left alone, and nobody is told of it


def lost_odds(given: Tensor, used: Tensor, most: float) -> Tensor:
    """How many times the odds of each class are to be raised; int64 [classes] twice, fp32 [classes] back, at least 1.

    A network learns how frequent a class is among the labels `used`, and suspicion has taken some of those `given`.
    What it took may be poison under a wrong label, which is not missing, or pictures of the class, which are; labels
    alone do not say which. So a class is taken to have as many images as the median class still has, and no more than
    were given, and its odds are raised `most` times at most, and not at all where that is less than LEAST.
    """
    kept = used.float().clamp(min=1)
    median = kept.sort().values[len(kept) // 2]  # the upper one of two
    wanted = torch.minimum(given.float(), median)
    odds = wanted / kept
    return torch.where(odds < LEAST, 1.0, odds).clamp(1, most)


@torch.no_grad()
def raise_odds(model: nn.Module, odds: Tensor) -> bool:
    """Multiply the odds of each class by `odds`, fp32 [classes]: its logarithm is added to the last bias, in place.
    False, and nothing done, where a network does not end on a linear layer with a bias.
    """
    try:
        last = classifier_of(model)
    except ConfigError:
        return False
    if last.bias is None or last.out_features != len(odds):
        return False
    last.bias += odds.log().to(last.bias)
    return True
