"""Which images of a class belong to a group, by its learning curves and by what a network without the labels says.

Two witnesses that err on different images: some clean images are learnt as the poisoned ones are, but their labels are
known without having been given; some poisoned ones are learnt as the others are, but their labels are known to nobody.
"""

from __future__ import annotations

import numpy as np

from dlp_fast.detection.groups import Group

EDGES = (
    0.0,
    0.02,
    0.05,
    0.1,
    0.2,
    0.3,
    0.4,
    0.5,
    0.6,
    0.7,
    0.8,
    0.9,
    1.0,
)  # bins of the probability, finer where low
SURE = 1e-6  # no curve is surer than this
ROUNDS = 10


def membership_by_both(group: Group, probability: np.ndarray) -> np.ndarray:
    """float64 [k]: membership of each of `group.ids` by Bayes' rule, where its membership by learning curves is the
    prior, and the two distributions of `probability` (float64 [n], held out) are estimated along with it.
    """
    prior = np.clip(group.membership, SURE, 1 - SURE)
    bins = np.digitize(probability[group.ids], EDGES[1:-1])
    belongs = prior
    for _ in range(ROUNDS):
        inside, outside = (_shares(bins, weights) for weights in (belongs, 1 - belongs))
        odds = prior / (1 - prior) * inside[bins] / outside[bins]
        belongs = odds / (1 + odds)
    return belongs


def _shares(bins: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """float64 [bins]: share of the weight in each, as if one more image lay in every bin."""
    counts = np.bincount(bins, weights, minlength=len(EDGES) - 1) + 1
    return counts / counts.sum()
