"""The last question of detection: whether a group that is about half of its class is the suspect, or the class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from dlp_fast.config import DetectionConfig
from dlp_fast.detection.decide import Decision
from dlp_fast.detection.findings import Finding
from dlp_fast.detection.groups import Group
from dlp_fast.detection.propose import Observed
from dlp_fast.detection.verify.hold_out import CONTROLS, SEED, HeldOutNetwork
from dlp_fast.detection.verify.label_support import draw_controls
from dlp_fast.detection.verify.sides import Sides, look_success, other_side, sides_of
from dlp_fast.detection.verify.trigger import Predict, estimated_attack_success

FEWEST_CLASSES = 2  # that a network without the classes in question tells apart


def settled(
    decision: Decision,
    seen: Observed,
    predict: Predict,
    train: Callable[[np.ndarray], HeldOutNetwork],
    config: DetectionConfig,
) -> Decision:
    """`decision`, with the other half of a class in place of a group that turns out to be the class itself.

    The pictures most like either half are asked first. Where they do not tell, one more network is trained, without any
    label of the classes in question. Marks that are shown are asked about too: one is suspected where it, or the rest
    of its class, is taken for other classes.
    """
    labels = seen.labels.numpy()
    entries = [
        *zip(decision.findings, decision.found, strict=True),
        *zip(decision.marks, decision.of_marks, strict=True),
    ]
    disputed = [k for k, entry in enumerate(entries) if _may_be_the_class(*entry, labels, config)]
    unsuspicious = _unsuspicious(decision, seen)
    disputed = _no_clear_triggers(disputed, entries, decision, seen, unsuspicious, predict, config)
    by_pictures = {
        k: variety for k in disputed if (variety := which_half(entries[k][1], labels, seen, config))
    }
    disputed = _as_leave_classes([k for k in disputed if k not in by_pictures], entries, labels)
    held = np.isin(labels, [entries[k][1].label for k in disputed])
    controls = draw_controls(labels, held, CONTROLS, SEED)
    disputed = disputed if controls.any() else []
    if not disputed and not by_pictures:
        return decision
    network = train(np.flatnonzero(~held & ~controls)) if disputed else None
    suspected: list[tuple[Finding, Group]] = []
    shown: list[tuple[Finding, Group | None]] = []
    for k, (finding, group) in enumerate(entries):
        was_found = k < len(decision.findings)
        if k in disputed:
            sides = sides_of(group, labels, network.entropy, controls)
            told = (round(sides.group, 4), round(sides.rest, 4), round(sides.controls, 4))
            finding = replace(finding, sides=told, foreign=_is_foreign(sides.foreign, sides, config))
            if _is_foreign(-sides.foreign, sides, config):
                group = other_side(group, labels)
                finding = _of_other_side(finding, group, seen, unsuspicious, predict)
            was_found |= finding.foreign
        elif k in by_pictures:
            own, rest = by_pictures[k]
            if own < rest:
                group = other_side(group, labels)
                finding = _of_other_side(finding, group, seen, unsuspicious, predict)
            variety = (round(max(own, rest), 4), round(min(own, rest), 4))
            finding, was_found = replace(finding, foreign=True, variety=variety), True
        if not was_found:
            shown.append((finding, group))
        elif not any(other.has_most_of(group) for _, other in suspected):  # two marks may have one other side
            suspected.append((finding, group))
    classes = {finding.label for finding, _ in suspected}
    shown = [entry for entry in shown if entry[0].label not in classes]
    (findings, found), (marks, of) = (
        tuple(zip(*pairs, strict=True)) or ((), ()) for pairs in (suspected, shown)
    )
    return Decision(decision.scored, findings, found, marks, of)


def _may_be_the_class(
    finding: Finding, group: Group | None, labels: np.ndarray, config: DetectionConfig
) -> bool:
    if group is None or finding.stage != "supervised" or finding.label_gap is not None:
        return False
    return is_half(group, labels, config)


def is_half(group: Group, labels: np.ndarray, config: DetectionConfig) -> bool:
    """Whether a group is about half of its class. Args: labels: int64 [n]."""
    share = len(group.core) / max(int((labels == group.label).sum()), 1)
    return config.half_from <= share <= 1 - config.half_from


def which_half(
    group: Group, labels: np.ndarray, seen: Observed, config: DetectionConfig
) -> tuple[float, float] | None:
    """Variety of the pictures most like `group`, and of those most like the rest of its class, where one half is a
    mixture of pictures of the other classes, under a label that is not theirs, and the other is not; else None.
    Args: labels: int64 [n], -1 of images that are not asked about.
    """
    inside = np.isin(np.arange(len(labels)), group.core)
    sides = [torch.from_numpy(np.flatnonzero(side)) for side in (inside, (labels == group.label) & ~inside)]
    beside = [
        torch.from_numpy(np.flatnonzero((labels >= 0) & ~np.isin(np.arange(len(labels)), ids)))
        for ids in sides
    ]
    around = [seen.surroundings.only(ids) for ids in beside]
    own, rest = (of.variety(ids) for of, ids in zip(around, sides, strict=True))
    if max(own, rest) < config.min_variety or abs(own - rest) < 1 - config.min_variety:
        return None
    mixed = 0 if own > rest else 1
    near = around[mixed].of(sides[mixed])
    tells = near is not None and near.familiar >= 0 and near.ratio < config.min_shared_labels
    return (own, rest) if tells else None


def _as_leave_classes(
    disputed: list[int], entries: list[tuple[Finding, Group]], labels: np.ndarray
) -> list[int]:
    """The clearest of `disputed`, as many as leave FEWEST_CLASSES classes that are not."""
    most = len(np.unique(labels)) - FEWEST_CLASSES
    classes: list[int] = []
    for k in sorted(disputed, key=lambda k: -entries[k][0].score):
        label = entries[k][1].label
        if label not in classes and len(classes) < most:
            classes.append(label)
    return [k for k in disputed if entries[k][1].label in classes]


def _no_clear_triggers(
    disputed: list[int],
    entries: list[tuple[Finding, Group]],
    decision: Decision,
    seen: Observed,
    unsuspicious: np.ndarray,
    predict: Predict,
    config: DetectionConfig,
) -> list[int]:
    """Those of `disputed` whose trigger does not act, or where what classes look like, tried as one, acts too."""
    taken = {group.label for group in decision.found}
    left = []
    for k in disputed:
        acts = entries[k][0].attack_success or 0.0
        looks = look_success(len(entries[k][1].core), seen, unsuspicious, predict, taken) if acts else 1.0
        if (
            acts < max(config.min_attack_success, looks + config.min_lead)
            or looks >= config.min_attack_success
        ):
            left.append(k)
    return left


def _unsuspicious(decision: Decision, seen: Observed) -> np.ndarray:
    suspicious = np.zeros(len(seen.labels), dtype=bool)
    for group in decision.found:
        suspicious[group.core] = True
    return np.flatnonzero(~suspicious)


def _is_foreign(share: float, sides: Sides, config: DetectionConfig) -> bool:
    return share >= config.min_foreign and sides.p <= config.max_support_p


def _of_other_side(
    finding: Finding, group: Group, seen: Observed, unsuspicious: np.ndarray, predict: Predict
) -> Finding:
    """`finding`, of the other half: what its images have in common beside the half that was taken for it before."""
    tried_on = torch.from_numpy(np.setdiff1d(unsuspicious, group.core))
    acts = estimated_attack_success(
        seen.images,
        torch.from_numpy(group.core),
        seen.labels,
        group.label,
        tried_on,
        predict,
        within_class=False,
    )
    sides = finding.sides and (finding.sides[1], finding.sides[0], finding.sides[2])
    return replace(
        finding,
        images=len(group.core),
        attack_success=round(acts, 4),
        placebo_success=None,
        label_support=None,
        unmarked_support=None,
        sides=sides,
        foreign=True,
    )
