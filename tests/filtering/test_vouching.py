"""What a network that was not given the suspects' labels says of them."""

from __future__ import annotations

import torch

from dlp_fast.detection.verify.held_out import words

LABELS = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1, 2, 2])
SURE, LOST = 0.1, 3.0  # nats


def test_shares_of_each_class():
    loss = torch.tensor([SURE, LOST, SURE, SURE, LOST, LOST, SURE, LOST, SURE, SURE])
    told = words(loss, LABELS, torch.tensor([0, 1, 4, 5]), torch.tensor([2, 3, 6, 7, 8]))
    assert told == {0: {"suspects": 0.5, "trusted": 1.0}, 1: {"suspects": 0.0, "trusted": 0.5}}


def test_even_odds_are_no_word():
    """Of two classes it may be either."""
    loss = torch.full((10,), 0.6931472)
    assert words(loss, LABELS, torch.tensor([0]), torch.tensor([1]))[0] == {"suspects": 0.0, "trusted": 0.0}


def test_a_class_without_trusted_images_has_none():
    assert words(torch.zeros(10), LABELS, torch.tensor([8, 9, 0]), torch.tensor([1, 2])) == {
        0: {"suspects": 1.0, "trusted": 1.0}
    }


def test_nobody():
    assert words(torch.zeros(10), LABELS, torch.tensor([], dtype=torch.int64), torch.arange(10)) == {}
