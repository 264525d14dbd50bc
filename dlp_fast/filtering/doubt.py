"""Further looks: where the curves of one network leave doubt, or a set is small, those of others are averaged in."""

from __future__ import annotations

import torch
from torch import Tensor

from dlp_fast.config import FilterConfig, RunConfig
from dlp_fast.filtering.curves import strengths
from dlp_fast.filtering.suspicion import Suspicion

LEAST = 1e-9  # bits or nats: below, the logarithm of a curve is not looked at
MOST = 5  # networks, where no number was asked for: as many as were measured (docs/filter.md)


def in_doubt(of: Suspicion, config: FilterConfig) -> bool:
    """Whether the sign of any class is one that chance in the training of a single network can make or unmake. A clear
    one beside it does not settle it: that class is suspected or not all the same. Never where the number of networks
    was asked for, nor by a filter that has no signs.
    """
    if config.score != "trajectory" or config.networks is not None:
        return False
    signs = strengths(of.splits, config.min_separation) or [0.0]
    return any(config.doubt_from <= sign < config.doubt_to for sign in signs)


def networks(steps: int, config: RunConfig) -> int:
    """How many networks look, whatever the first one sees, which knew all images after `steps` steps.

    A set of a thousand images is learnt in so few steps that chance decides more of its curves than anything else; but
    then the steps that stage 1 is granted are enough for others.
    """
    if config.filter.score != "trajectory":
        return 1
    return config.filter.networks or max(1, min(MOST, config.supervised.min_steps // steps))


def averaged(looks: list[Tensor]) -> Tensor:
    """Geometric mean of trajectories, fp32 [epochs, n] each, over the epochs that all have.

    Of logarithms, since the clouds are looked for in these: what is common to the networks stays, and what chance did
    to an image in one of them is divided by their number.
    """
    epochs = min(len(of) for of in looks)
    return torch.stack([of[:epochs].clamp_min(LEAST).log() for of in looks]).mean(0).exp()
