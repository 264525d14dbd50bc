"""Holding out: whose labels one more network is trained without, and what it then says of each group's labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from dlp_fast.config import DetectionConfig
from dlp_fast.detection.groups import Group
from dlp_fast.detection.propose import Observed
from dlp_fast.detection.propose.learning_curves import curves
from dlp_fast.detection.verify import Evidence
from dlp_fast.detection.verify.label_support import (
    HeldOut,
    draw_controls,
    gap_p_value,
    label_support,
    least_likeness,
    usual_probability,
)
from dlp_fast.detection.verify.membership import membership_by_both
from dlp_fast.detection.verify.trigger import Predict, spread
from dlp_fast.detection.verify.unmark import WithoutMark, without_mark


@dataclass(frozen=True)
class HeldOutNetwork:
    """A network that was given some labels alone. probability: float64 [n], of the given label of every image; entropy:
    float64 [n], bits; predict: uint8 [b, H, W, 3] -> class int64 [b].
    """

    probability: np.ndarray
    entropy: np.ndarray
    predict: Predict


Train = Callable[[np.ndarray], HeldOutNetwork]
"""int64 ids of the images whose labels may be used -> the network."""

CONTROLS = 0.1  # of the other images of each class
PLACEBO = 0.1  # of its class that a placebo group has at most
MOST = 0.6  # of a class whose labels are held out with groups in question
EDGE = 0.1  # membership from which an image is held out: one that is left in teaches its trigger
SEED = 28


def with_support(
    groups: Sequence[Group],
    evidence: Sequence[Evidence],
    others: Sequence[Group],
    seen: Observed,
    train: Train,
    config: DetectionConfig,
) -> list[Evidence]:
    """`evidence` of each of `groups`, with how well the labels are known to a network that was given none of them.

    Args: others: groups of learning curves of the other classes, one a class, the placebos.
    """
    labels = seen.labels.numpy()
    placebos = [_part(group) for group in others]
    held, asked = _held(groups, labels)
    for placebo in placebos:
        held[placebo.core] = True
    controls = draw_controls(labels, held, CONTROLS, SEED)
    network = train(np.flatnonzero(~held & ~controls))
    probability = network.probability
    entropy, loss = seen.entropy.numpy(), seen.loss.numpy()
    usual = usual_probability(
        lambda some: curves(entropy[:, some], loss[:, some], config.learning_curves), probability, controls
    )
    held_out = HeldOut(probability, controls, usual, least_likeness(seen.images, labels))
    ids = np.flatnonzero(controls)
    spread = float((held_out.usual - probability)[ids].std()) if len(ids) else 1.0
    null = [label_support(seen.images, placebo, labels, held_out).gap for placebo in placebos]
    told = []
    for group, known, fits in zip(groups, evidence, asked, strict=True):
        if not fits:
            told.append(known)
            continue
        support = label_support(seen.images, group, labels, held_out)
        p = gap_p_value(support.gap, null, spread / max(support.distinct, 1) ** 0.5)
        known = replace(known, support=support, gap_p=p)
        if group.proposal.startswith("static_patterns"):
            unmarked = _unmarked(group, seen, ~held, controls, network.predict)
            known = replace(known, without_mark=unmarked, taken_for=_taken_for(group, seen, network.predict))
        else:
            known = replace(known, membership=membership_by_both(group, probability))
        told.append(known)
    return told


def _taken_for(group: Group, seen: Observed, predict: Predict) -> np.ndarray:
    """int64 [classes]: how many of the group's images, evenly spread, the network takes for each class."""
    taken = [predict(seen.images.get(part)).cpu() for part in spread(torch.from_numpy(group.core)).split(64)]
    return torch.bincount(torch.cat(taken), minlength=seen.classes).numpy()


def _unmarked(
    group: Group, seen: Observed, usual: np.ndarray, controls: np.ndarray, predict: Predict
) -> WithoutMark | None:
    """Args: usual, controls: bool [n], images that the mark is told from, and those that are compared."""
    ids = (torch.from_numpy(np.flatnonzero(of)) for of in (usual, controls))
    return without_mark(seen.images, torch.from_numpy(group.core), seen.labels, group.label, *ids, predict)


def _held(groups: Sequence[Group], labels: np.ndarray) -> tuple[np.ndarray, list[bool]]:
    """(bool [n], whose labels are held out with the `groups`; which of the groups). A group with which more
    than MOST of a class would be is not asked about: the network is to know the class. Marks come first, the purest.
    """
    held = np.zeros(len(labels), dtype=bool)
    sizes = np.maximum(np.bincount(labels), 1)
    asked = [False] * len(groups)
    for k in sorted(range(len(groups)), key=lambda k: -groups[k].statistics.get("purity", 0.0)):
        for edge in (EDGE, 0.5):  # a wide edge may be most of the class, the group itself is not
            more = held.copy()
            more[groups[k].ids[groups[k].membership > edge]] = True
            asked[k] = bool((np.bincount(labels[more], minlength=len(sizes)) <= MOST * sizes).all())
            if asked[k]:
                held = more
                break
    return held, asked


def _part(group: Group) -> Group:
    """At most PLACEBO of its class, drawn at random."""
    core, most = group.core, max(10, round(PLACEBO * len(group.ids)))
    drawn = np.sort(np.random.default_rng(SEED).permutation(core)[:most])
    return replace(group, ids=drawn, membership=np.ones(len(drawn)))
