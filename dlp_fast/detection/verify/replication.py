"""Replication: learning curves averaged over an ensemble, where one network leaves doubt or a set is small."""

from __future__ import annotations

import torch
from torch import Tensor

from dlp_fast.config import RunConfig

LEAST = 1e-9  # bits or nats: below, the logarithm of a curve says nothing more
MOST_MEMBERS = 5  # where no number was asked for: as many as were measured (docs/decisions)


def ensemble_size(steps: int, config: RunConfig) -> int:
    """How many networks stage 1 trains whatever the first one sees, which knew all images after `steps` steps.

    A set of a thousand images is learnt in so few steps that chance decides more of its curves than anything else; but
    then the steps that stage 1 is granted are enough for others.
    """
    if config.detection.method != "learning_curves":
        return 1
    return config.detection.networks or max(1, min(MOST_MEMBERS, config.supervised.min_steps // steps))


def averaged(curves: list[Tensor]) -> Tensor:
    """Geometric mean of trajectories, fp32 [epochs, n] each, over the epochs that all have.

    Of logarithms, since components are looked for in these: what is common to the networks stays, and what chance did
    to an image in one of them is divided by their number.
    """
    epochs = min(len(of_one) for of_one in curves)
    mean = torch.empty_like(curves[0][:epochs])
    for epoch in range(epochs):
        logs = [of_one[epoch].float().clamp_min(LEAST).log() for of_one in curves]
        mean[epoch] = torch.stack(logs).mean(0).exp()
    return mean
