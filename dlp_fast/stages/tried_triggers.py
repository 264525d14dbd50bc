"""After the last stage: what the images of stage 1's findings have in common does to the final model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from dlp_fast.config import RunConfig
from dlp_fast.detection.findings import Finding
from dlp_fast.detection.verify.demonstration import Demonstration, demonstrate
from dlp_fast.detection.verify.trigger import estimated_attack_success
from dlp_fast.engine.batches import TrainingData
from dlp_fast.engine.inference import features, predict
from dlp_fast.engine.session import Session
from dlp_fast.models.registry import new_model
from dlp_fast.selection.partition import Selection

MOST_SHOWN = 12  # findings, the first, of which a trigger is kept to be looked at


def attack_success_after(
    model: nn.Module,
    findings: Sequence[Finding],
    members: Sequence[Tensor],
    selection: Selection,
    data: TrainingData,
) -> tuple[Finding, ...]:
    """The findings, with the estimated attack success rate on the final `model` of those of stage 1, which come first:
    `members` are their int64 ids, in the same order.
    """
    unsuspicious = not_suspected(selection)
    told = list(findings)
    for number, ids in enumerate(members):
        after = estimated_attack_success(
            data.images,
            ids,
            data.labels,
            told[number].label,
            unsuspicious,
            lambda images: predict(model, images, data),
        )
        told[number] = replace(told[number], attack_success_after=round(after, 4))
    return tuple(told)


def demonstrations(
    session: Session,
    first_weights: dict[str, Tensor],
    model: nn.Module,
    findings: Sequence[Finding],
    members: Sequence[Tensor],
    selection: Selection,
    data: TrainingData,
    config: RunConfig,
) -> tuple[Demonstration, ...]:
    """What the images of the findings of stage 1 have in common does to a few others, for a person to see.

    Args: first_weights: of the network after stage 1; model: the final one; the others as above.
    """
    if not members:
        return ()
    first = new_model(config.model, data, data.seed)
    first.load_state_dict(first_weights)
    unsuspicious = not_suspected(selection)
    trusted = selection.trusted[torch.isin(selection.trusted, unsuspicious)]
    shown = (
        demonstrate(
            number,
            ids,
            findings[number].label,
            data.images,
            data.labels,
            unsuspicious,
            trusted if len(trusted) else unsuspicious,
            (lambda images: predict(first, images, data), lambda images: predict(model, images, data)),
            lambda some: features(session, model, data, some),
        )
        for number, ids in enumerate(members[:MOST_SHOWN])
    )
    return tuple(one for one in shown if one is not None)


def not_suspected(selection: Selection) -> Tensor:
    """int64 ids, ascending."""
    suspected = torch.zeros(len(selection.score), dtype=torch.bool)
    suspected[selection.suspected_poisoned] = True
    return (~suspected).nonzero().flatten()
