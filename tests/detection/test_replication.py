"""Learning curves averaged over an ensemble."""

from __future__ import annotations

import pytest
import torch

from dlp_fast.config import RunConfig
from dlp_fast.detection.verify.replication import averaged, ensemble_size


def test_geometric_mean_over_the_epochs_of_both():
    one, two = torch.tensor([[4.0, 0.0], [1.0, 2.0], [9.0, 9.0]]), torch.tensor([[1.0, 1.0], [16.0, 2.0]])
    found = averaged([one, two])
    torch.testing.assert_close(found, torch.tensor([[2.0, 1e-9**0.5], [4.0, 2.0]]))


def test_averaging_with_itself_changes_nothing():
    one = torch.rand(3, 50) + 1e-6
    torch.testing.assert_close(averaged([one, one]), one)


def test_each_network_counts_the_same():
    curves = [torch.rand(3, 50) + 1e-6 for _ in range(3)]
    torch.testing.assert_close(averaged(curves), (curves[0] * curves[1] * curves[2]) ** (1 / 3))
    torch.testing.assert_close(averaged(curves[::-1]), averaged(curves))


@pytest.mark.parametrize(("steps", "expected"), [(1, 5), (110, 5), (250, 4), (500, 2), (501, 1), (4000, 1)])
def test_as_many_networks_as_the_steps_that_stage_1_is_granted(steps, expected):
    assert ensemble_size(steps, RunConfig()) == expected
    assert ensemble_size(steps, RunConfig(detection={"networks": 3})) == 3
    assert ensemble_size(steps, RunConfig(detection={"method": "loss", "networks": 3})) == 1
    assert ensemble_size(steps, RunConfig(supervised={"min_steps": 0})) == 1
