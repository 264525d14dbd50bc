"""What results.json says of the clean model without a test set."""

from __future__ import annotations

import torch

from dlp_fast.config import RunConfig
from dlp_fast.pipeline import Defense


def label_agreement(
    config: RunConfig, found: Defense, labels: torch.Tensor, prediction: torch.Tensor
) -> dict[str, float] | None:
    """Share of the trusted images to which a network gives their label: that of stage 1, and the clean model, where
    stage 3 learnt these labels last; else None.

    Args: labels, prediction (of the clean model): int64 [n].
    """
    chosen = found.selection
    # what stage 3 gave away is suspected as well, and a clean model is right to refuse its label
    late = torch.isin(chosen.trusted, chosen.suspected_poisoned)
    trusted = chosen.trusted[~late]
    learnt = config.finetuning.labeled == "trusted" and config.order.endswith("finetuning")
    if not learnt or not len(trusted):
        return None
    return {
        name: float((of[trusted] == labels[trusted]).float().mean())
        for name, of in (("supervised", found.first.prediction), ("clean_model", prediction))
    }


def raised_odds(found: Defense, classes: tuple[str, ...]) -> dict[str, float]:
    """Of the classes that lost labels, how many times stage 3 raised the odds."""
    odds = found.stages["finetuning"].metrics["odds"] if "finetuning" in found.stages else []
    return {name: raised for name, raised in zip(classes, odds, strict=False) if raised > 1}
