"""What the learning curves of stage 3 give away, beside the pictures that look most like it.

No network without the labels in question is at hand there. Pictures that look alike are: a group under labels that they
share is typical or hard pictures of its class, which learning curves alone cannot tell from poison; and of a class that
falls into halves, the suspect is the half that looks like a mixture of the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from dlp_fast.config import DetectionConfig
from dlp_fast.detection.decide import Decision
from dlp_fast.detection.findings import Finding
from dlp_fast.detection.groups import Group
from dlp_fast.detection.propose import Observed
from dlp_fast.detection.settle import is_half, which_half
from dlp_fast.detection.told import with_ids
from dlp_fast.detection.verify.sides import other_side


@dataclass(frozen=True)
class Late:
    """findings: of stage 3; groups: their images, by id; shown: findings whose labels are right as far as pictures that
    look like theirs can tell, so that nobody is suspected.
    """

    findings: tuple[Finding, ...] = ()
    groups: tuple[Group, ...] = ()
    shown: tuple[Finding, ...] = ()


def beside_alike(decision: Decision, labeled: Tensor, seen: Observed, config: DetectionConfig) -> Late:
    """What `decision` finds in the curves of the images `labeled`, int64 ids of whose positions its groups are.

    A group found only just (below `clear_score`) under shared labels is shown.
    """
    groups = [_by_id(group, labeled.numpy()) for group in decision.found]
    labels = np.full(len(seen.labels), -1)
    labels[labeled.numpy()] = seen.labels.numpy()[labeled.numpy()]
    findings: list[Finding] = []
    suspected: list[Group] = []
    shown: list[Finding] = []
    for finding, group in zip(decision.findings, groups, strict=True):
        finding, group = _the_mixture(finding, group, labels, seen, config)
        others = labeled[~torch.isin(labeled, _all_of([*groups, group]))]
        near = seen.surroundings.only(others).of(torch.from_numpy(group.core))
        finding = replace(finding, shared_labels=None if near is None else round(near.ratio, 4))
        right = near is not None and near.ratio >= config.min_shared_labels
        if right and finding.score < config.clear_score:
            shown.append(with_ids(replace(finding, unclear=True), group))
        else:
            findings.append(finding)
            suspected.append(group)
    return Late(tuple(findings), tuple(suspected), tuple(shown))


def _the_mixture(
    finding: Finding, group: Group, labels: np.ndarray, seen: Observed, config: DetectionConfig
) -> tuple[Finding, Group]:
    """The half of a class that looks like a mixture of the others, where a group is about half of its class."""
    if not is_half(group, labels, config):
        return finding, group
    variety = which_half(group, labels, seen, config)
    if variety is None:
        return finding, group
    if variety[0] < variety[1]:
        group = other_side(group, labels)
    told = (round(max(variety), 4), round(min(variety), 4))
    return replace(finding, images=len(group.core), foreign=True, variety=told), group


def _by_id(group: Group, labeled: np.ndarray) -> Group:
    return replace(group, ids=labeled[group.ids])


def _all_of(groups: Sequence[Group]) -> Tensor:
    return torch.from_numpy(np.concatenate([group.core for group in groups]))
