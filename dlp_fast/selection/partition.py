"""From scores to the sets that the stages work on; the same ids for any batch size, worker or rank."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from dlp_fast import ops
from dlp_fast.config import DetectionConfig
from dlp_fast.detection.columns import PIECE, in_order
from dlp_fast.detection.suspicion import Suspicion
from dlp_fast.errors import ConfigError


def _nobody() -> Tensor:
    return torch.empty(0, dtype=torch.int64)


@dataclass(frozen=True)
class Selection:
    """score: fp32 [n], ascending = more suspicious; rank: int64 [n], 0 = most suspicious (ties: smaller id first);
    suspected_poisoned, suspected_clean: int64 ids; to_unlearn: int64 ids, the γ most suspicious, or none; trusted,
    unlabeled: int64 ids, ascending, of the images whose labels stage 3 may use, and of those whose labels it may come
    to use; left_out: int64 ids that a person took out. What is in none of trusted, unlabeled and left_out is suspected.
    named: bool [n], whom the decision or a person names as suspects, rather than a rank alone; posterior: fp32 [n], of
    being poisoned, of images at the edge of a found group; 0: no proposal has one; mislabeled: int64 ids, ascending, of
    images that are likely under a wrong label and not suspected: among the unlabeled, where a class has enough others.
    """

    score: Tensor
    rank: Tensor
    suspected_poisoned: Tensor
    suspected_clean: Tensor
    to_unlearn: Tensor
    trusted: Tensor
    unlabeled: Tensor
    named: Tensor
    left_out: Tensor = field(default_factory=_nobody)
    posterior: Tensor | None = None
    mislabeled: Tensor = field(default_factory=_nobody)

    def with_late(self, late: Tensor) -> Selection:
        """The same with the images `late`, int64 ids that stage 3 gave away, suspected as well and ranked first."""
        if not len(late):
            return self
        inside = torch.zeros(len(self.score), dtype=torch.bool)
        inside[late] = True
        others = self.score[~self.named]
        # whatever the method's scale, and whatever the sign of its scores, they rank first
        above = max(1.0, float(others.max()) * 1.001, float(others.max() - others.min()) * 1.001)
        score = torch.where(inside & ~self.named, self.score - above, self.score)
        rank = ranked(score)
        suspected = inside.clone()
        suspected[self.suspected_poisoned] = True
        clean = self.suspected_clean
        return replace(
            self,
            score=score,
            rank=rank,
            named=self.named | inside,
            suspected_poisoned=in_rank(suspected, rank),
            suspected_clean=clean[~inside[clean]],
            mislabeled=self.mislabeled[~inside[self.mislabeled]],
        )


def places(order: Tensor) -> Tensor:
    """Rank of each id, from the ids in order."""
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order))
    return place


def ranked(score: Tensor, device: torch.device | None = None) -> Tensor:
    """Rank of each id by its fp32 score [n], 0 = lowest, ties: smaller id first; `device`: see `select`.

    Raises NumericError where one is not finite.
    """
    device = device or score.device
    if len(score) <= PIECE or device.type != "cpu":
        return places(ops.select(score.to(device), len(score), check=True).lowest.cpu())
    ops.select(score, 0, check=True)
    rank = torch.empty(len(score), dtype=torch.int64)
    for first, ids in in_order(score.numpy()):  # all at once takes 36 bytes an image
        rank[torch.from_numpy(ids)] = torch.arange(first, first + len(ids))
    return rank


def in_rank(wanted: Tensor, rank: Tensor) -> Tensor:
    """int64 ids of `wanted`, bool [n], in the order of `rank`, int64 [n]."""
    ids = wanted.nonzero().flatten()
    return ids[rank[ids].argsort()]


def counts(n: int, classes: int, config: DetectionConfig) -> tuple[int, int]:
    """(suspected poisoned in all, suspected clean a class): γ of the images, with a least number for small sets.

    Raises ConfigError where nγ images of each class would be more than half of a class.
    """
    poisoned = max(round(config.rate * n), config.min_images)
    if config.clean_of == "class":
        clean = max(round(config.rate * n), config.min_images)
        if clean > n / classes / 2:
            raise ConfigError(
                f"detection.clean_of class asks for {clean} suspected clean images of each class (detection.rate "
                f"{config.rate:g} of {n} images), more than half of a class of {n / classes:.0f}. Lower "
                "detection.rate, or use --detection.clean-of all."
            )
    else:
        clean = max(round(config.rate * n / classes), config.min_images)
    return min(poisoned, n // 2), clean


def select(
    of: Suspicion, labels: Tensor, classes: int, config: DetectionConfig, device: torch.device | None = None
) -> Selection:
    """Lowest `score` are suspected poisoned, highest `clean_score` of each class suspected clean (DLP Eq. 5, γ).

    Where a decision names its suspects, these are suspected, however many; the γ lowest are unlearnt. Where it names
    none and the configuration does not ask for γ all the same, nobody is suspected.

    Args: labels: int64 [n], as given in the image set; device: where the scores are ranked, which changes no id; None:
    the CPU. What comes back is on the CPU.
    An image in both sets (only in tiny classes) counts as suspected poisoned.
    """
    n = len(of.score)
    lowest, per_class = counts(n, classes, config)
    device = device or of.score.device
    rank = ranked(of.score, device)
    named = in_rank(of.suspected, rank)
    if config.method == "learning_curves" and not len(named) and config.nothing_found == "skip":
        lowest = 0
    if len(named):
        lowest = min(lowest, len(named))  # nobody outside of a found group loses a label
    to_unlearn = in_rank(rank < lowest, rank)
    poisoned = named if len(named) else to_unlearn
    eligible = torch.where(of.never_clean, of.clean_score.min() - 1, of.clean_score).to(device)
    best = ops.select(eligible, 0, per_class, labels.to(device), num_classes=classes, check=True).highest
    clean = best.cpu()
    del eligible
    clean = clean[~torch.isin(clean, poisoned) & ~of.never_clean[clean]]
    suspected = torch.zeros(n, dtype=torch.bool)
    suspected[poisoned] = True
    suspected[to_unlearn] = True
    mislabeled = of.wrongly_labeled & ~suspected
    trusted = ~(of.withheld | of.high_loss | mislabeled | suspected)
    _keep_min_images(trusted, of, suspected, labels, classes, config.min_images)
    # at the edge of a suspected group: not suspected, and the network is to say whether the label is right
    unlabeled = (of.high_loss | of.withheld | mislabeled) & ~suspected & ~trusted
    return Selection(
        of.score,
        rank,
        poisoned,
        clean,
        to_unlearn,
        trusted.nonzero().flatten(),
        unlabeled.nonzero().flatten(),
        named=of.suspected,
        posterior=of.posterior,
        mislabeled=mislabeled.nonzero().flatten(),
    )


def _keep_min_images(
    trusted: Tensor, of: Suspicion, suspected: Tensor, labels: Tensor, classes: int, min_images: int
) -> None:
    """Give a class that has fewer than `min_images` trusted images its least suspicious others, in place.

    A class without a label could not be learnt at all; high losses come before withheld and suspected images.
    """
    known = torch.bincount(labels, minlength=classes) - torch.bincount(labels[~trusted], minlength=classes)
    few = (known < min_images).nonzero().flatten().tolist()
    if not few:
        return
    preference = of.score - 2 * (of.withheld | suspected).float()
    for label in few:
        inside = labels == label
        missing = min_images - int(known[label])
        others = (inside & ~trusted).nonzero().flatten()
        if missing > 0 and len(others):
            best = torch.sort(preference[others], descending=True, stable=True).indices[:missing]
            trusted[others[best]] = True
