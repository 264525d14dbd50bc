"""Two witnesses of who belongs to a group: learning curves, and a network without the labels."""

from __future__ import annotations

import numpy as np

from dlp_fast.detection.groups import Group
from dlp_fast.detection.verify.membership import membership_by_both

N = 1000
POISON = np.arange(N) < 400


def case(seed: int = 0) -> tuple[Group, np.ndarray]:
    """Curves that take a fifth of each side for the other one, and labels of which only the clean ones are known."""
    rng = np.random.default_rng(seed)
    membership = np.where(POISON, rng.beta(4, 2, N), rng.beta(2, 4, N))
    probability = np.where(POISON, rng.beta(1, 12, N), rng.beta(2, 1.5, N))
    return Group("learning_curves", 0, np.arange(N), membership, {}), probability


def agreement(membership: np.ndarray) -> float:
    return float(((membership > 0.5) == POISON).mean())


def test_both_know_more_than_one():
    group, probability = case()
    both = agreement(membership_by_both(group, probability))
    assert agreement(group.membership) < 0.85 < 0.93 < both


def test_a_network_that_knows_nothing_changes_nothing():
    group, _ = case()
    after = membership_by_both(group, np.full(N, 0.3))
    np.testing.assert_allclose(after, group.membership, atol=2e-3)


def test_ids_are_those_of_the_group():
    group, probability = case()
    moved = Group("learning_curves", 0, group.ids + 7, group.membership, {})
    shifted = np.concatenate([np.full(7, 0.99), probability])
    np.testing.assert_array_equal(membership_by_both(moved, shifted), membership_by_both(group, probability))


def test_what_is_sure_stays_between_0_and_1():
    group = Group("learning_curves", 0, np.arange(4), np.array([0.0, 1.0, 0.0, 1.0]), {})
    after = membership_by_both(group, np.array([0.0, 1.0, 1.0, 0.0]))
    assert np.isfinite(after).all() and (after >= 0).all() and (after <= 1).all()
    assert (after > 0.5).tolist() == [False, True, False, True]
