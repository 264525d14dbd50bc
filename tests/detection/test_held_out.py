"""What a network that was not given the suspects' labels says of them."""

from __future__ import annotations

import torch

from dlp_fast.detection.findings import HeldOutAgreement
from dlp_fast.detection.verify.held_out import held_out_agreement

LABELS = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1, 2, 2])
SURE, LOST = 0.1, 3.0  # nats


def test_shares_of_each_class():
    loss = torch.tensor([SURE, LOST, SURE, SURE, LOST, LOST, SURE, LOST, SURE, SURE])
    heard = held_out_agreement(loss, LABELS, torch.tensor([0, 1, 4, 5]), torch.tensor([2, 3, 6, 7, 8]))
    assert heard == {0: HeldOutAgreement(suspects=0.5, others=1.0), 1: HeldOutAgreement(0.0, 0.5)}


def test_even_odds_are_no_agreement():
    """Of two classes it may be either."""
    loss = torch.full((10,), 0.6931472)
    heard = held_out_agreement(loss, LABELS, torch.tensor([0]), torch.tensor([1]))
    assert heard == {0: HeldOutAgreement(0.0, 0.0)}


def test_a_class_without_trusted_images_has_none():
    heard = held_out_agreement(torch.zeros(10), LABELS, torch.tensor([8, 9, 0]), torch.tensor([1, 2]))
    assert heard == {0: HeldOutAgreement(1.0, 1.0)}


def test_nobody():
    none = torch.tensor([], dtype=torch.int64)
    assert held_out_agreement(torch.zeros(10), LABELS, none, torch.arange(10)) == {}
