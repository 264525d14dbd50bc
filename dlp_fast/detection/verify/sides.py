"""Which of two halves of a class is the class: what a network says that was given no label of it at all.

A tenth of a set of ten classes, relabelled, is half of its new class. Then the class's own images are a group of their
own as well, and what they have in common, pasted on others, makes images of the class. But a network that knows the
other classes alone takes relabelled images for what they show, as surely as held-out images of these classes; images of
a class that it has never seen it takes for this and that.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import mannwhitneyu

from dlp_fast.detection.groups import Group
from dlp_fast.detection.propose import Observed
from dlp_fast.detection.verify.trigger import Predict, estimated_attack_success

LOOKS = 5  # classes, the largest, whose look is tried as a trigger
SEED = 29


@dataclass(frozen=True)
class Sides:
    """Mean entropy, bits, of a network without the class: group, rest: of the images of a group, and of its class's
    others; controls: of held-out images of other classes; p: probability that group and rest differ so much by chance.
    """

    group: float
    rest: float
    controls: float
    p: float

    @property
    def foreign(self) -> float:
        """How much surer the network is of the group than of the rest, as a share of how much surer it is of controls:
        1 where the group is as well known as images of other classes are, -1 where the rest is.
        """
        higher = max(self.group, self.rest)
        return (self.rest - self.group) / max(higher - self.controls, abs(self.rest - self.group), 1e-9)


def sides_of(group: Group, labels: np.ndarray, entropy: np.ndarray, controls: np.ndarray) -> Sides:
    """The Sides of `group`. Args: labels: int64 [n]; entropy: float64 [n], bits; controls: bool [n]."""
    of_class = labels == group.label
    inside = np.zeros(len(labels), dtype=bool)
    inside[group.core] = True
    own, rest = entropy[inside], entropy[of_class & ~inside]
    p = float(mannwhitneyu(own, rest).pvalue) if len(own) and len(rest) else 1.0
    return Sides(float(own.mean()), float(rest.mean()), float(entropy[controls].mean()), p)


def other_side(group: Group, labels: np.ndarray) -> Group:
    """What `group` leaves of its class."""
    ids = np.flatnonzero(labels == group.label)
    membership = np.zeros(len(labels))
    membership[group.ids] = group.membership
    return Group(group.proposal, group.label, ids, 1 - membership[ids], group.statistics)


def look_success(
    size: int, seen: Observed, unsuspicious: np.ndarray, predict: Predict, without: set[int]
) -> float:
    """Highest share, 0 to 1, of images of other classes that `size` images of a class, drawn at random, turn into that
    class, by what they have in common: what a class looks like, and no trigger.

    Args: unsuspicious: int64 ids; without: classes that are not asked.
    """
    labels = seen.labels.numpy()[unsuspicious]
    generator = np.random.default_rng(SEED)
    largest = [
        c for c in np.argsort(-np.bincount(labels, minlength=seen.classes), kind="stable") if c not in without
    ]
    tried_on = torch.from_numpy(unsuspicious)
    found = [0.0]
    for label in largest[:LOOKS]:
        drawn = np.sort(generator.permutation(unsuspicious[labels == label])[:size])
        found.append(
            estimated_attack_success(
                seen.images,
                torch.from_numpy(drawn),
                seen.labels,
                int(label),
                tried_on,
                predict,
                within_class=False,
            )
        )
    return max(found)
