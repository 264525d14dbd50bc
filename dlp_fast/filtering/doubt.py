"""A second look: where the curves of one network leave doubt, those of another are averaged in."""

from __future__ import annotations

import torch
from torch import Tensor

from dlp_fast.config import FilterConfig
from dlp_fast.filtering.curves import strengths
from dlp_fast.filtering.suspicion import Suspicion

LEAST = 1e-9  # bits or nats: below, the logarithm of a curve is not looked at


def in_doubt(of: Suspicion, config: FilterConfig) -> bool:
    """Whether the sign of any class is one that chance in the training of a single network can make or unmake. A clear
    one beside it does not settle it: that class is suspected or not all the same.
    """
    signs = strengths(of.splits, config.min_separation) or [0.0]
    return any(config.doubt_from <= sign < config.doubt_to for sign in signs)


def averaged(one: Tensor, two: Tensor) -> Tensor:
    """Geometric mean of two trajectories, fp32 [epochs, n] each, over the epochs that both have.

    Of logarithms, since the clouds are looked for in these: what is common to both networks stays, and what chance did
    to an image in one of them is halved.
    """
    epochs = min(len(one), len(two))
    logs = [of[:epochs].clamp_min(LEAST).log() for of in (one, two)]
    return torch.stack(logs).mean(0).exp()
