"""Images that came after a run, scored by what the run kept: the clean model and stage 1's network.

Stage 1's network has learnt all labels, those of poisoned images with them, so it knows a mark that the run found; the
clean model has not. A picture that carries the mark is where the two part: stage 1's network gives it the attacker's
class, and the clean model what is to be seen. Nothing is trained, and no threshold is fitted: a score is the product of
two probabilities, and from one half on it is told.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

COPY = "copy of a suspect"
MARK = "mark"
MARK_RIGHT_LABEL = "mark, label plausible"
LABEL = "label"
NOTHING = ""
REASONS = (COPY, MARK, MARK_RIGHT_LABEL, LABEL)
TOLD = 0.5  # of a score
DOUBT = (
    0.9  # of 1 - probability of the label: an honest model is wrong now and then, and seldom so sure of it
)


@dataclass(frozen=True)
class NewScores:
    """Of n images, on the CPU.

    reason: one of REASONS, or NOTHING; score: fp32 [n], 0 to 1, what the reason rests on; order: int64 [n], ids, the
    most suspicious first: by reason, then by score.
    """

    reason: list[str]
    score: Tensor
    order: Tensor


def score_new(
    clean: Tensor, first: Tensor, labels: Tensor, targets: Sequence[int], copies: Tensor | None = None
) -> NewScores:
    """Score images by the class probabilities fp32 [n, classes] of the clean model and of stage 1's network.

    MARK: the label is a class that the run found poisoned, stage 1's network gives it and the clean model does not:
    P1(label) (1 - Pc(label)). MARK_RIGHT_LABEL: the same for another class than the label: whoever marked the picture
    left its label alone. LABEL: the clean model is sure that the label is wrong, 1 - Pc(label), mark or not. COPY: as
    `copies` says, with score 1.

    Args: labels: int64 [n]; targets: classes that the run found poisoned; without any, no mark is told; copies: bool
    [n], images with the same bytes as one that the run suspects.
    """
    rows = torch.arange(len(labels))
    parted = first * (1 - clean)
    aimed = torch.zeros(clean.shape[1], dtype=torch.bool)
    aimed[list(targets)] = True
    parted = torch.where(aimed, parted, torch.zeros(()))
    under_label = parted[rows, labels]
    others = parted.clone()
    others[rows, labels] = 0
    elsewhere = others.max(1).values if clean.shape[1] else torch.zeros(len(labels))
    doubt = 1 - clean[rows, labels]
    level = torch.zeros(len(labels), dtype=torch.int64)
    level[doubt >= DOUBT] = 1
    level[(elsewhere >= TOLD) & (level < 1)] = 2
    level[under_label >= TOLD] = 3
    if copies is not None:
        level[copies] = 4
    score = torch.stack([doubt, doubt, elsewhere, under_label, torch.ones(len(labels))])[level, rows]
    reason = [(NOTHING, LABEL, MARK_RIGHT_LABEL, MARK, COPY)[one] for one in level.tolist()]
    order = torch.argsort(level + score.clamp(0, 1) * 0.999, descending=True, stable=True)
    return NewScores(reason, score, order)
