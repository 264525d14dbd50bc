"""Which groups of static patterns are marks that images share, and which of them count where marks abound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from dlp_fast.config import DetectionConfig
from dlp_fast.detection.groups import Group
from dlp_fast.detection.propose.beside import ALIKE
from dlp_fast.detection.propose.grown import APART

ABOUNDS = "abounds"  # statistic of a mark in a set where marks abound
OF_MANY = 0.9  # of a mark's images in one of many classes, from which it is that one
MOST_OF_MANY = 0.25  # of whose images are of one class


def is_mark(group: Group, config: DetectionConfig) -> bool:
    """Whether the images of a group of static patterns share a mark, whatever it is."""
    if group.label is None and "nats" not in group.statistics and "excess" in group.statistics:
        return False  # a window that repeats in all classes alike says nothing of labels
    if "nats" in group.statistics:
        return group.statistics["nats"] >= config.min_window_nats
    return group.statistics["purity"] >= config.min_purity


def marks_among(groups: Sequence[Group], classes: int, config: DetectionConfig) -> list[Group]:
    """The groups that are marks. Where `max_marked_classes` of the classes or more have some of their own, pictures of
    one layout are alike by nature, as digits are; then only clear marks count. Smooth marks are told apart: frames and
    borders, which abound in photographs, are none.
    """
    marks = [group for group in groups if is_mark(group, config)]
    smooth = [mark for mark in marks if "smooth" in mark.proposal]
    others = [mark for mark in marks if "smooth" not in mark.proposal]
    return [*_where_rare(others, classes, config), *_where_rare(smooth, classes, config)]


def marks_abound(groups: Sequence[Group], classes: int, config: DetectionConfig) -> bool:
    """Whether so many classes have marks of their own, smooth ones aside, that pictures are alike by nature."""
    marks = [group for group in groups if is_mark(group, config) and "smooth" not in group.proposal]
    return _abound(marks, classes, config)


def _abound(marks: list[Group], classes: int, config: DetectionConfig) -> bool:
    clear = [mark.core for mark in marks if mark.label is None and _is_clear(mark, config)]
    of_all = np.concatenate(clear or [np.zeros(0, np.int64)])
    own = {
        m.label
        for m in marks
        if m.label is not None and np.isin(m.core, of_all).mean() < 0.5 and not is_of_many(m, marks)
    }
    return len(own) >= max(2, config.max_marked_classes * classes)


def is_of_many(mark: Group, marks: Sequence[Group]) -> bool:
    """Whether one mark of images of many classes, no class's own, has nearly all of `mark`, one class's: an attacker
    puts it on others under their right labels too.
    """
    return any(
        of_all.labels is not None
        and np.isin(mark.core, of_all.core).mean() >= OF_MANY
        and (of_all.labels[of_all.membership > 0.5] == mark.label).mean() <= MOST_OF_MANY
        for of_all in marks
        if of_all.label is None
    )


def _where_rare(marks: list[Group], classes: int, config: DetectionConfig) -> list[Group]:
    """`marks`, or the clear ones among them where they abound."""
    if not _abound(marks, classes, config):
        return marks
    return [replace(m, statistics=m.statistics | {ABOUNDS: 1.0}) for m in marks if _is_clear(m, config)]


def _is_clear(mark: Group, config: DetectionConfig) -> bool:
    if "nats" in mark.statistics:
        return mark.statistics["nats"] >= 2 * config.min_window_nats
    return mark.statistics["purity"] >= config.clear_purity


def clearness(mark: Group, config: DetectionConfig) -> float:
    """How clearly a group is a mark: from 1 on it counts as one."""
    if ALIKE in mark.statistics:
        return mark.statistics[ALIKE] / config.min_apart_from_alike
    if APART in mark.statistics:
        return mark.statistics[APART] / config.min_apart
    if "nats" in mark.statistics:
        return mark.statistics["nats"] / config.min_window_nats
    return mark.statistics["purity"] / config.min_purity
