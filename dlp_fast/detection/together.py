"""Marks that count together: unclear ones, in so many classes at once that styles of pictures do not explain them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch

from dlp_fast.config import DetectionConfig
from dlp_fast.detection.convict import is_spread, marked_beside_alike
from dlp_fast.detection.groups import Group
from dlp_fast.detection.marks import ABOUNDS, marks_abound
from dlp_fast.detection.propose import Observed
from dlp_fast.detection.propose.beside import ALIKE, apart_from_alike
from dlp_fast.detection.propose.grown import APART, distinct_groups, grown_marks
from dlp_fast.detection.propose.neighbours import strangers
from dlp_fast.detection.rules import (
    CLEARLY,
    acts_as_trigger,
    labels_elsewhere,
    labels_shared,
    labels_wrong,
    unknown_to_network,
)
from dlp_fast.detection.verify import Evidence

FEWEST_CLASSES = 3  # whose marks count together


def grown_among(
    proposed: Sequence[Group],
    seen: Observed,
    config: DetectionConfig,
    kept: Callable[[str, Callable[[], list[Group]]], list[Group]],
) -> list[Group]:
    """Where marks abound, those that groups of `proposed` grow into."""
    if not marks_abound(proposed, seen.classes, config):
        return []

    def grown(begun: Sequence[Group], least: float) -> list[Group]:
        return grown_marks(begun, seen.images, seen.labels, seen.classes, least, config.static_patterns)

    def grow() -> list[Group]:
        of_strangers = grown(strangers(seen.unlike_their_label, seen.labels, seen.classes), 0.0)
        return beside_alike([*grown(proposed, config.min_apart), *of_strangers], seen, config)

    marks = [
        replace(group, statistics=dict(group.statistics) | {ABOUNDS: 1.0})
        for group in kept("grown_marks", grow)
        if ALIKE in group.statistics or _is_far_apart(group, config)
    ]
    return distinct_groups(marks)


def _is_far_apart(group: Group, config: DetectionConfig) -> bool:
    statistics = group.statistics
    return statistics[APART] >= config.min_apart and statistics["purity"] >= config.min_grown_purity


def beside_alike(groups: Sequence[Group], seen: Observed, config: DetectionConfig) -> list[Group]:
    """`groups`, with the statistic ALIKE where their labels are wrong by the pictures that look most like their images,
    and they have a mark of their own beside these.
    """
    inside = np.concatenate([np.zeros(0, dtype=np.int64), *(group.core for group in groups)])
    others = np.setdiff1d(np.arange(len(seen.labels)), inside)
    if not len(groups) or not len(others):
        return list(groups)
    around = seen.surroundings.only(torch.from_numpy(others))
    marked = []
    for group in groups:
        ids = torch.from_numpy(group.core)
        shared, apart = around.of(ids), apart_from_alike(seen.images, ids, around, config.static_patterns)
        wrong = shared and shared.familiar >= 0 and labels_elsewhere(shared.ratio, config)
        if wrong and (apart or 0) >= CLEARLY * config.min_apart_from_alike:
            group = replace(group, statistics=dict(group.statistics) | {ALIKE: apart})
        marked.append(group)
    return marked


def judged_together(
    groups: Sequence[Group], evidence: Sequence[Evidence], classes: int, config: DetectionConfig
) -> list[Evidence]:
    """`evidence` of `groups`, with what grown marks say together, in so many classes, whose labels are unknown to a
    network that was not given them: `together` for such a mark, or `changed` for it and for all other groups that are
    mostly of images with grown marks.

    A style of pictures, all held out, may be unknown as well, in a class or two. A change of some pictures of all
    classes, as of colours turned round, makes pictures that the network does not understand: these it takes for one
    class or two, whatever they show, and relabelled pictures for what they show; or it knows some of them all the same;
    or pictures that look like them have the same labels. Where some are changed, so are groups of learning curves under
    labels that such pictures share, unless what they have in common acts as a trigger.
    """
    grown = [k for k, group in enumerate(groups) if APART in group.statistics]
    unknown = [
        k
        for k in grown
        if evidence[k].taken_for is not None
        and evidence[k].distinct >= config.min_distinct
        and (
            marked_beside_alike(groups[k], evidence[k], config)
            or unknown_to_network(evidence[k], config, True)
        )
    ]
    right = [k for k in unknown if labels_shared(evidence[k], config)]
    wrong = [k for k in unknown if k not in right]

    def in_many(some: list[int]) -> bool:
        return len({groups[k].label for k in some}) >= max(FEWEST_CLASSES, config.min_together * classes)

    if not in_many(wrong):
        changed = right if in_many(right) else []
    elif len(wrong) >= config.min_unknown * len(grown) and is_spread(
        sum(evidence[k].taken_for for k in wrong), config
    ):
        return [replace(told, together=k in wrong) for k, told in enumerate(evidence)]
    else:
        changed = [k for k in unknown if not marked_beside_alike(groups[k], evidence[k], config)]
    if not changed:
        return list(evidence)
    ids = np.concatenate([groups[k].core for k in grown])

    def is_changed(group: Group, told: Evidence) -> bool:
        learnt_together = group.proposal == "learning_curves"
        if learnt_together and labels_shared(told, config) and not acts_as_trigger(told, config):
            return True
        return _is_mostly(group, ids) and not labels_wrong(told, config)

    return [
        replace(told, changed=k in changed or (k not in grown and is_changed(group, told)))
        for k, (group, told) in enumerate(zip(groups, evidence, strict=True))
    ]


def _is_mostly(group: Group, ids: np.ndarray) -> bool:
    return bool(len(group.core)) and bool(np.isin(group.core, ids).mean() > 0.5)
