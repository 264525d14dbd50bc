"""Proposals: each looks for groups of images that may be poison. Recall matters here; precision is for the decision.

A new proposal is one file with a function that returns Groups, one line in PROPOSALS, and its name in the option
`detection.proposals`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from dlp_fast.config import DetectionConfig
from dlp_fast.detection.groups import Group
from dlp_fast.detection.propose.learning_curves import learning_curves
from dlp_fast.detection.propose.neighbours import Surroundings, unlike_their_label
from dlp_fast.detection.propose.static_patterns import static_patterns
from dlp_fast.detection.propose.views import Images


@dataclass(frozen=True)
class Observed:
    """What proposals look at: the images by id; labels: int64 [n], as given; classes: how many; and what stage 1 has
    seen, entropy (bits), loss (nats): fp32 [epochs, n] after each epoch; other_loss: the same with another label of
    each image, drawn by its id, other_labels: int64 [n].
    """

    images: Images
    labels: Tensor
    classes: int
    entropy: Tensor
    loss: Tensor
    other_loss: Tensor | None = None
    other_labels: Tensor | None = None

    @cached_property
    def surroundings(self) -> Surroundings:
        """Of all images, made once: their pictures are not read again."""
        return Surroundings(self.images, self.labels, torch.arange(len(self.labels)))

    @cached_property
    def unlike_their_label(self) -> Tensor:
        """int64 ids: see neighbours.unlike_their_label."""
        return unlike_their_label(self.surroundings)


def by_curves(
    seen: Observed, config: DetectionConfig, kept: Callable[[list[Group]], list[Group]] = list
) -> list[Group]:
    """`learning_curves` of what stage 1 has seen; `kept`: of those of a class."""
    entropy, loss, labels = (values.numpy() for values in (seen.entropy, seen.loss, seen.labels))
    threads = torch.get_num_threads()
    return learning_curves(
        entropy, loss, labels, seen.classes, config.learning_curves, threads=threads, kept=kept
    )


def _static_patterns(seen: Observed, config: DetectionConfig) -> list[Group]:
    return static_patterns(seen.images, seen.labels, seen.classes, config.static_patterns)


PROPOSALS: dict[str, Callable[[Observed, DetectionConfig], list[Group]]] = {
    "learning_curves": by_curves,
    "static_patterns": _static_patterns,
}
