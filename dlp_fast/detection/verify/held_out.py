"""Held-out label agreement: what a network that was given no label of the suspects says of them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dlp_fast.detection.findings import HeldOutAgreement

MORE_LIKELY_THAN_NOT = math.log(2)  # nats


def held_out_agreement(
    loss: Tensor, labels: Tensor, suspects: Tensor, trusted: Tensor
) -> dict[int, HeldOutAgreement]:
    """{label: HeldOutAgreement} for each class that has suspects and trusted images.

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

    heard = {}
    for label in torch.unique(labels[suspects]).tolist():
        agreement = HeldOutAgreement(suspects=share(suspects, label), others=share(trusted, label))
        if not math.isnan(agreement.others):
            heard[label] = agreement
    return heard
