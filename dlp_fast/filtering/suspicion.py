"""How suspicious each image is, from its trajectory through stage 1 (DLP Eq. 5 and what we found beyond it)."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from dlp_fast.config import FilterConfig
from dlp_fast.filtering.curves import Split, found, split_classes


@dataclass(frozen=True)
class Suspicion:
    """score: fp32 [n], ascending = more suspicious of being poisoned; clean_score: fp32 [n], highest = suspected clean,
    negative = never;
    clustered: bool [n], not clearly outside of the deeper-learnt cloud of a class that falls into two; unlearnt:
    bool [n], label not to be trusted because the network never came to agree with it; splits: the evidence, one a
    class; posterior: fp32 [n], of the clustered the probability of being in that cloud, of others 0.
    """

    score: Tensor
    clean_score: Tensor
    clustered: Tensor
    unlearnt: Tensor
    splits: list[Split] = field(default_factory=list)
    posterior: Tensor | None = None

    def found(self, config: FilterConfig) -> list[Split]:
        """Classes that fall into two clouds."""
        return found(self.splits, config.min_separation)


def _share_below(values: np.ndarray) -> np.ndarray:
    """Rank of each value, scaled to [0, 1); ties by id."""
    place = np.empty(len(values))
    place[np.argsort(values, kind="stable")] = np.arange(len(values))
    return place / len(values)


def snapshot(entropy: Tensor) -> Suspicion:
    """As published: the entropy at the last epoch of stage 1, [epochs, n] bits, decides both ends."""
    last = entropy[-1]
    nobody = torch.zeros(len(last), dtype=torch.bool)
    return Suspicion(last, last, nobody, nobody)


def trajectory(
    entropy: Tensor, loss: Tensor, labels: Tensor, classes: int, config: FilterConfig
) -> Suspicion:
    """Cluster the learning curves of each class; poison is a tight cloud of its own.

    Args: entropy (bits), loss (nats): fp32 [epochs, n]; labels: int64 [n] as given in the image set.

    score lies in [0, 1) by the mean entropy over the epochs, and one lower, in [-1, 0), for images in the
    deeper-learnt cloud of a class that falls into two.
    """
    y = labels.numpy()
    splits = split_classes(entropy.numpy(), loss.numpy(), y, classes, config.min_separation)
    mean_entropy = entropy.numpy().mean(0, dtype=np.float64)
    share = _share_below(mean_entropy)
    core = np.zeros(len(y), dtype=bool)
    clustered = np.zeros(len(y), dtype=bool)
    posterior = np.zeros(len(y))
    for split in found(splits, config.min_separation):
        core[split.members] = split.posterior > 0.5
        clustered[split.members] = split.posterior > config.membership
        posterior[split.members] = np.where(split.posterior > config.membership, split.posterior, 0)
    mean_loss = loss.numpy().mean(0, dtype=np.float64)
    unlearnt = ~clustered & (_share_below(mean_loss) >= 1 - config.distrust)
    score = share - core
    clean = np.where(clustered | unlearnt, -1.0, mean_entropy)
    return Suspicion(
        torch.from_numpy(score.astype(np.float32)),
        torch.from_numpy(clean.astype(np.float32)),
        torch.from_numpy(clustered),
        torch.from_numpy(unlearnt),
        splits,
        torch.from_numpy(posterior.astype(np.float32)),
    )
