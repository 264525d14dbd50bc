"""Averaged weights: the decay is warmed up, and buffers come along as they are."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dlp_fast.engine.ema import WeightAverage


def test_average():
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.BatchNorm1d(1))
    nn.init.zeros_(model[0].weight)
    average = WeightAverage(model, 0.5)
    nn.init.ones_(model[0].weight)
    model[1].running_mean.fill_(3)
    average.begin(0)
    average.update()
    assert float(average.model[0].weight.detach()) == pytest.approx(0.9)
    assert float(average.model[1].running_mean) == 3
    average.begin(1000)
    average.update()
    assert float(average.model[0].weight.detach()) == pytest.approx(0.95)
    other = WeightAverage(model, 0.5)
    other.load_state_dict(average.state_dict())
    assert torch.equal(other.model[0].weight, average.model[0].weight)
    assert not any(p.requires_grad for p in average.model.parameters())
