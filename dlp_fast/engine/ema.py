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

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.model.parameters()), list(model.parameters()), 1 - decay)
        for mine, theirs in zip(self.model.buffers(), model.buffers(), strict=True):
            mine.copy_(theirs)

    def state_dict(self) -> dict[str, torch.Tensor]:
        return self.model.state_dict()

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        self.model.load_state_dict(state)
