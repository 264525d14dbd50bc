"""Which labels come back in stage 3: the filter's word on an image, and that of a network that has not learnt it."""

from __future__ import annotations

import torch
from torch import Tensor


def needed_probability(posterior: Tensor, readmit: float, edge: float) -> Tensor:
    """The probability that the network must give the label of each image for the label to count again; fp32 [n].

    `posterior`, fp32 [n]: of being poisoned, by the filter; 0 where it has none, and then `readmit` is asked for.

    Else: a picture of what its label says gets that label from the network with its probability p; poison has the
    attacker's label whatever it shows. By Bayes' rule the label is right with probability
    p (1 - posterior) / (p (1 - posterior) + posterior), and this is to reach `edge`. Above 1: never.
    """
    odds = torch.tensor(edge) / torch.tensor(1 - edge)  # inf at 1
    return torch.where(posterior > 0, odds * posterior / (1 - posterior), readmit)
