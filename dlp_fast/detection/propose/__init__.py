"""Proposals: each looks for groups of images that may be poison. Recall matters here; precision is for the decision.

A new proposal is one file with a function that returns Groups, and one line in PROPOSALS.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dlp_fast.config import DetectionConfig
from dlp_fast.detection.groups import Group
from dlp_fast.detection.propose.learning_curves import learning_curves


@dataclass(frozen=True)
class Observed:
    """What stage 1 has seen: entropy (bits), loss (nats): [epochs, n] after each epoch; labels: int64 [n], as given;
    classes: how many.
    """

    entropy: np.ndarray
    loss: np.ndarray
    labels: np.ndarray
    classes: int


PROPOSALS: dict[str, Callable[[Observed, DetectionConfig], list[Group]]] = {
    "learning_curves": lambda seen, config: learning_curves(
        seen.entropy, seen.loss, seen.labels, seen.classes, config.learning_curves
    ),
}


def propose(seen: Observed, config: DetectionConfig) -> list[Group]:
    """The groups of every proposal, in the order of PROPOSALS."""
    return [group for proposal in PROPOSALS.values() for group in proposal(seen, config)]
