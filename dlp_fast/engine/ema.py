"""Exponential moving average of the weights (FixMatch evaluates it)."""

from __future__ import annotations

import copy

import torch
from torch import nn


class WeightAverage:
    """Average of a network's parameters; buffers (batch-norm statistics) are copied as they are.

    The decay is warmed up as min(decay, (1 + k) / (10 + k)), so that a short run does not end on its first weights.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.model = copy.deepcopy(model).requires_grad_(False)
        self.decay = decay
        self._pairs = [list(of.parameters()) for of in (self.model, model)]
        self._buffers = [list(of.buffers()) for of in (self.model, model)]
        # of the model in the next update, in device memory: a captured step reads it anew
        self._share = torch.zeros((), device=self._pairs[1][0].device)

    def begin(self, step: int) -> None:
        """Set the share with which step number `step` enters; before `update`."""
        self._share.fill_(1 - min(self.decay, (1 + step) / (10 + step)))

    @torch.no_grad()
    def update(self) -> None:
        """Let the weights of the model enter the average."""
        mine, theirs = self._pairs
        step = torch._foreach_sub(theirs, mine)
        torch._foreach_mul_(step, self._share)
        torch._foreach_add_(mine, step)
        for kept, now in zip(*self._buffers, strict=True):
            kept.copy_(now)

    def state_dict(self) -> dict[str, torch.Tensor]:
        return self.model.state_dict()

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        self.model.load_state_dict(state)
