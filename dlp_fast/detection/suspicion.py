"""How suspicious each image is, and which images a decision concerns: what the partition into sets is made from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dlp_fast.config import DetectionConfig
from dlp_fast.detection.decide import is_withheld
from dlp_fast.detection.groups import Group


@dataclass(frozen=True)
class Suspicion:
    """Of n images:

    score: fp32, ascending = more suspicious of being poisoned; clean_score: fp32, the highest are suspected clean;
    suspected: bool, in a group that is found; withheld: bool, not clearly outside of such a group; high_loss: bool,
    label not to be trusted because the network never came to agree with it; posterior: fp32, of the withheld the
    probability of being in the group, of others 0, or None where no proposal gave one; mislabeled: bool, likely under a
    wrong label without a common cause, or None where nobody has looked.
    """

    score: Tensor
    clean_score: Tensor
    suspected: Tensor
    withheld: Tensor
    high_loss: Tensor
    posterior: Tensor | None = None
    mislabeled: Tensor | None = None

    @property
    def never_clean(self) -> Tensor:
        """bool [n]: not to be among the suspected clean, whatever the score."""
        return self.withheld | self.high_loss | self.wrongly_labeled

    @property
    def wrongly_labeled(self) -> Tensor:
        """bool: mislabeled, and not suspected of being poisoned."""
        nobody = torch.zeros_like(self.suspected)
        return nobody if self.mislabeled is None else self.mislabeled & ~self.suspected


def by_score(score: Tensor, clean_score: Tensor | None = None) -> Suspicion:
    """A Suspicion that only ranks: fp32 [n], ascending = more suspicious."""
    nobody = torch.zeros(len(score), dtype=torch.bool)
    return Suspicion(score, score if clean_score is None else clean_score, nobody, nobody, nobody)


def by_groups(found: Sequence[Group], entropy: Tensor, loss: Tensor, config: DetectionConfig) -> Suspicion:
    """The Suspicion that the `found` groups make; entropy (bits), loss (nats): fp32 [epochs, n].

    score lies in [0, 1) by the mean entropy over the epochs, and one lower, in [-1, 0), for suspected images.
    """
    mean_entropy = entropy.numpy().mean(0, dtype=np.float64)
    n = len(mean_entropy)
    suspected = np.zeros(n, dtype=bool)
    withheld = np.zeros(n, dtype=bool)
    posterior = np.zeros(n)
    for group in found:
        inside = is_withheld(group.membership, config)
        suspected[group.ids] |= group.membership > 0.5
        withheld[group.ids] |= inside
        posterior[group.ids] = np.maximum(posterior[group.ids], np.where(inside, group.membership, 0))
    mean_loss = loss.numpy().mean(0, dtype=np.float64)
    high_loss = ~withheld & (_share_below(mean_loss) >= 1 - config.high_loss_fraction)
    score = _share_below(mean_entropy) - suspected
    return Suspicion(
        torch.from_numpy(score.astype(np.float32)),
        torch.from_numpy(mean_entropy.astype(np.float32)),
        torch.from_numpy(suspected),
        torch.from_numpy(withheld),
        torch.from_numpy(high_loss),
        torch.from_numpy(posterior.astype(np.float32)),
    )


def _share_below(values: np.ndarray) -> np.ndarray:
    """Rank of each value, scaled to [0, 1); ties by id."""
    place = np.empty(len(values))
    place[np.argsort(values, kind="stable")] = np.arange(len(values))
    return place / len(values)
