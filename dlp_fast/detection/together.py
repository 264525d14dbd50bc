"""Marks that count together: unclear ones, in so many classes at once that styles of pictures do not explain them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from dlp_fast.config import DetectionConfig
from dlp_fast.detection.convict import is_spread, labels_unknown
from dlp_fast.detection.groups import Group
from dlp_fast.detection.marks import ABOUNDS, marks_abound
from dlp_fast.detection.propose import Observed
from dlp_fast.detection.propose.grown import APART, grown_marks
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

    def grow() -> list[Group]:
        return grown_marks(
            proposed, seen.images, seen.labels, seen.classes, config.min_apart, config.static_patterns
        )

    return [
        replace(group, statistics=dict(group.statistics) | {ABOUNDS: 1.0})
        for group in kept("grown_marks", grow)
        if group.statistics["purity"] >= config.min_grown_purity
    ]


def judged_together(
    groups: Sequence[Group], evidence: Sequence[Evidence], classes: int, config: DetectionConfig
) -> list[Evidence]:
    """`evidence` of `groups`, with what grown marks say together, in so many classes, whose labels are unknown to a
    network that was not given them: `together` for such a mark, or `changed` for it and for all other groups that are
    mostly of images with grown marks.

    A style of pictures, all held out, may be unknown as well, in a class or two. A change of some pictures of all
    classes, as of colours turned round, makes pictures that the network does not understand: these it takes for one
    class or two, whatever they show, and relabelled pictures for what they show; or it knows some of them all the same.
    """
    grown = [k for k, group in enumerate(groups) if APART in group.statistics]
    unknown = [
        k
        for k in grown
        if evidence[k].taken_for is not None
        and evidence[k].distinct >= config.min_distinct
        and labels_unknown(evidence[k], config, abounds=True)
    ]
    marked = {groups[k].label for k in unknown}
    if len(marked) < max(FEWEST_CLASSES, config.min_together * classes):
        return list(evidence)
    spread = is_spread(sum(evidence[k].taken_for for k in unknown), config)
    if spread and len(unknown) >= config.min_unknown * len(grown):
        return [replace(told, together=k in unknown) for k, told in enumerate(evidence)]
    ids = np.concatenate([groups[k].core for k in grown])
    return [
        replace(told, changed=k in unknown or (k not in grown and _is_mostly(groups[k], ids)))
        for k, told in enumerate(evidence)
    ]


def _is_mostly(group: Group, ids: np.ndarray) -> bool:
    return bool(len(group.core)) and bool(np.isin(group.core, ids).mean() > 0.5)
