"""Which labels stage 3 begins with: the trusted ones, or as published those of the suspected clean."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dlp_fast.config import RunConfig
from dlp_fast.errors import DataError
from dlp_fast.selection.partition import Selection


@dataclass(frozen=True)
class Labels:
    """What stage 3 may learn from, of n images.

    labeled: int64 ids, with their labels; unlabeled: int64 ids, without; suspected: bool [n], images that never get the
    label that came with them; posterior: fp32 [n], of being poisoned, of images at the edge of a suspected group, or
    None. See stages/label_policy.py for what becomes of each.
    """

    labeled: Tensor
    unlabeled: Tensor
    suspected: Tensor
    posterior: Tensor | None = None


def labels_to_use(selection: Selection, config: RunConfig) -> Labels:
    """By `finetuning.labeled`: the suspected clean and the rest, or the trusted and the others.

    Raises DataError where no label is left to learn from.
    """
    everything = torch.ones(len(selection.score), dtype=torch.bool)
    if config.finetuning.labeled == "trusted":
        if not len(selection.trusted):
            raise DataError(
                "no label is trusted, so stage 3 has nothing to learn from. Look at the overrides in the decisions "
                "file, or raise detection.min_images."
            )
        suspected = everything.clone()
        for ids in (selection.trusted, selection.unlabeled, selection.left_out):
            suspected[ids] = False
        unlabeled = selection.unlabeled
        if config.finetuning.suspects == "relabel":
            unlabeled = torch.cat([unlabeled, suspected.nonzero().flatten()]).sort().values
        return Labels(selection.trusted, unlabeled, suspected, selection.posterior)
    if not len(selection.suspected_clean):
        raise DataError(
            f"no image is suspected clean, so stage 3 has no labels: {len(selection.score)} images are too few for "
            f"detection.min_images = {config.detection.min_images}. Lower it, or use --finetuning.labeled trusted."
        )
    everything[selection.suspected_clean] = False  # D'_ur of the paper
    everything[selection.left_out] = False
    nobody = torch.zeros_like(everything)
    return Labels(selection.suspected_clean, everything.nonzero().flatten(), nobody, selection.posterior)


def without(labels: Labels, given_away: Tensor, config: RunConfig) -> Labels:
    """`labels` without those of the images `given_away`, int64 ids, which are suspected from now on."""
    suspected = labels.suspected.clone()
    suspected[given_away] = True
    unlabeled = labels.unlabeled[~torch.isin(labels.unlabeled, given_away)]
    if config.finetuning.suspects == "relabel":
        unlabeled = torch.cat([unlabeled, given_away]).sort().values
    labeled = labels.labeled[~torch.isin(labels.labeled, given_away)]
    return replace(labels, labeled=labeled, unlabeled=unlabeled, suspected=suspected)
