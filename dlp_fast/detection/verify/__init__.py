"""Verification: what each proposed group does, beside placebo groups that are treated alike.

A new verification is one file with a function, one field of Evidence, and its rule in convict.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from dlp_fast.detection.groups import Group
from dlp_fast.detection.propose import Observed
from dlp_fast.detection.propose.neighbours import Neighbours, Surroundings
from dlp_fast.detection.verify.label_support import (
    LabelSupport,
    distinct_pictures,
    least_likeness,
    share_of_copies,
)
from dlp_fast.detection.verify.trigger import Predict, enough_of_class, estimated_attack_success
from dlp_fast.detection.verify.unmark import WithoutMark

PLACEBOS = 5  # classes, the largest first, that a placebo is made of
FEWEST = 10  # images of a placebo, where the group in question has as many


@dataclass(frozen=True)
class Evidence:
    """attack_success: estimated attack success rate of what the group's images have in common, 0 to 1, None for groups
    of several classes; placebo_success: the highest of the placebos, None without any; distinct: how many different
    pictures they are; copies: share, 0 to 1, of the images that are near-duplicates; support: of the labels, None where
    no network was asked; gap_p: probability of its gap by chance, by the placebo groups; without_mark: what the network
    without the labels in question says once the mark is off, of static patterns that it was asked about; taken_for:
    int64 [classes], how many of their images it takes for each class; membership: float64 [k], of the group's ids, by
    what it says as well, of learning curves; neighbours: whether the pictures that
    look most like them have their labels; together, changed: see together.py.
    """

    attack_success: float | None
    placebo_success: float | None
    distinct: int
    support: LabelSupport | None = None
    gap_p: float = 1.0
    copies: float = 0.0
    without_mark: WithoutMark | None = None
    taken_for: np.ndarray | None = None
    membership: np.ndarray | None = None
    neighbours: Neighbours | None = None
    together: bool = False
    changed: bool = False


def try_triggers(groups: Sequence[Group], seen: Observed, predict: Predict) -> list[Evidence]:
    """What the trigger of each of `groups` does, and that of placebos.

    Args: predict: the network of stage 1, uint8 [b, H, W, 3] -> class int64 [b].
    """
    in_question = {group.label for group in groups}
    suspicious = np.zeros(len(seen.labels), dtype=bool)
    for group in groups:
        suspicious[group.core] = True
    unsuspicious = torch.from_numpy(np.flatnonzero(~suspicious))
    likeness = least_likeness(seen.images, seen.labels.numpy()) if groups else 1.0
    around = seen.surroundings.only(unsuspicious) if groups else None
    return [_tried(group, seen, predict, unsuspicious, in_question, likeness, around) for group in groups]


def _tried(
    group: Group,
    seen: Observed,
    predict: Predict,
    unsuspicious: torch.Tensor,
    in_question: set[int | None],
    likeness: float,
    around: Surroundings,
) -> Evidence:
    distinct = int(distinct_pictures(seen.images, group.core, likeness).max(initial=-1)) + 1
    known = Evidence(None, None, distinct, neighbours=around.of(torch.from_numpy(group.core)))
    if group.label is None or not len(group.core):
        return known

    known = replace(known, copies=share_of_copies(seen.images, group.core, likeness))
    beside = _placebos(len(group.core), seen, unsuspicious, in_question)
    within = enough_of_class(len(group.core), seen.labels, group.label, unsuspicious)

    def success(ids: np.ndarray, label: int) -> float:
        return estimated_attack_success(
            seen.images, torch.from_numpy(ids), seen.labels, label, unsuspicious, predict, within
        )

    placebos = [success(ids, label) for label, ids in beside]
    own = success(group.core, group.label)
    return replace(known, attack_success=own, placebo_success=max(placebos) if placebos else None)


def _placebos(
    size: int, seen: Observed, unsuspicious: torch.Tensor, in_question: set[int | None]
) -> list[tuple[int, np.ndarray]]:
    """(label, ids) of groups as large as the one in question, or half of their class, the best learnt images of
    unsuspicious classes.
    """
    ids = unsuspicious.numpy()
    y, late = seen.labels.numpy()[ids], seen.loss[-1].numpy()[ids]
    sizes = np.bincount(y, minlength=seen.classes)
    chosen = []
    for label in np.argsort(-sizes, kind="stable"):
        count = min(size, int(sizes[label]) // 2)
        if int(label) in in_question or count < min(size, FEWEST) or len(chosen) == PLACEBOS:
            continue
        inside = np.flatnonzero(y == label)
        best = inside[np.argsort(late[inside], kind="stable")[:count]]
        chosen.append((int(label), np.sort(ids[best])))
    return chosen
