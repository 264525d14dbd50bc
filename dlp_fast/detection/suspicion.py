"""How suspicious each image is, and which images a decision concerns: what the partition into sets is made from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dlp_fast.config import DetectionConfig
from dlp_fast.detection.columns import in_order, mean_over_epochs
from dlp_fast.detection.decide import is_withheld
from dlp_fast.detection.groups import Group


@dataclass(frozen=True)
class Suspicion:
    """Of n images:

    score: fp32, ascending = more suspicious of being poisoned; clean_score: fp32, the highest are suspected clean;
    suspected: bool, in a group that is found; withheld: bool, not clearly outside of such a group, or in an
    unclear one; high_loss: bool,
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


DOUBT = 0.5  # posterior of images of an unclear group: as likely poison as not


def by_groups(
    found: Sequence[Group],
    entropy: Tensor,
    loss: Tensor,
    config: DetectionConfig,
    unclear: Sequence[Group] = (),
) -> Suspicion:
    """The Suspicion that the `found` groups make; entropy (bits), loss (nats): fp32 [epochs, n]. Of `unclear` groups
    nobody is suspected, and labels are withheld.

    score lies in [0, 1) by the mean entropy over the epochs, and one lower, in [-1, 0), for suspected images.
    """
    n = entropy.shape[1]
    suspected, withheld = np.zeros(n, dtype=bool), np.zeros(n, dtype=bool)
    posterior = np.zeros(n, dtype=np.float32)
    for group in found:
        inside = is_withheld(group.membership, config)
        suspected[group.ids] |= group.membership > 0.5
        withheld[group.ids] |= inside
        known = np.where(inside, group.membership, 0).astype(np.float32)
        posterior[group.ids] = np.maximum(posterior[group.ids], known)
    for group in unclear:
        withheld[group.core] = True
        posterior[group.core] = np.maximum(posterior[group.core], DOUBT)
    high_loss = np.zeros(n, dtype=bool)
    if config.high_loss_fraction:
        for ids, share in _shares_below(mean_over_epochs(loss.numpy())):
            high_loss[ids] = share >= 1 - config.high_loss_fraction
        high_loss &= ~withheld
    mean, score = mean_over_epochs(entropy.numpy()), np.empty(n, dtype=np.float32)
    for ids, share in _shares_below(mean):
        score[ids] = share - suspected[ids]
    of_all = (score, mean.astype(np.float32), suspected, withheld, high_loss, posterior)
    return Suspicion(*map(torch.from_numpy, of_all))


def _shares_below(values: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Some ids, and the rank of each value, scaled to [0, 1); ties by id."""
    for first, ids in in_order(values):
        yield ids, np.arange(first, first + len(ids)) / len(values)
