"""The one place that decides whether a class is poisoned; every threshold it uses stands in config.DetectionConfig."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from dlp_fast.config import DetectionConfig
from dlp_fast.detection.findings import Finding, HeldOutAgreement, Stage
from dlp_fast.detection.groups import Group


@dataclass(frozen=True)
class Scored:
    """The clearest group of one class, with its separation score: from 1 on it counts as found."""

    group: Group
    score: float


@dataclass(frozen=True)
class Decision:
    """scored: the clearest group of learning curves of each class that had one; findings: what is suspected, those of
    learning curves first; groups: those whose images are suspected, one for each finding, in the same order, None where
    they are the scored ones; marks: shown and not suspected, images with right labels that share a mark which does not
    act as a trigger; of_marks: their groups, in the same order, None for copies.
    """

    scored: tuple[Scored, ...]
    findings: tuple[Finding, ...]
    groups: tuple[Group, ...] | None = None
    marks: tuple[Finding, ...] = ()
    of_marks: tuple[Group | None, ...] = ()

    @property
    def found(self) -> list[Group]:
        """The groups whose images are suspected."""
        if self.groups is not None:
            return list(self.groups)
        return [entry.group for entry in self.scored if entry.score >= 1]

    @property
    def max_subthreshold_score(self) -> float:
        """Of the classes that are not found, the score of the clearest: 0 to 1."""
        return max((entry.score for entry in self.scored if entry.score < 1), default=0.0)

    def in_question(self, config: DetectionConfig) -> list[Group]:
        """The groups of the classes that are not found but could be poison that is hard to learn, the likeliest first;
        each class has one at most.
        """
        asked = [entry for entry in self.scored if config.verify_from <= entry.score < 1]
        asked = [entry for entry in asked if _can_be_minority(entry.group, config)]
        return [entry.group for entry in sorted(asked, key=lambda entry: -entry.score)]

    def placebos(self, taken: set[int | None], config: DetectionConfig) -> list[Group]:
        """The groups of the classes that nobody asks about (not in `taken`): what such a group does by nature."""
        return [
            entry.group
            for entry in self.scored
            if entry.group.label not in taken and _can_be_minority(entry.group, config)
        ]

    def in_ensemble_band(self, config: DetectionConfig) -> bool:
        """Whether a score is one that chance in the training of a single network can make or unmake. A clear finding
        beside it does not settle it: that class is suspected or not all the same.
        """
        scores = [entry.score for entry in self.scored] or [0.0]
        return any(config.ensemble_from <= score < config.ensemble_to for score in scores)


def decide(
    groups: Sequence[Group], config: DetectionConfig, stage: Stage = "supervised", found_before: bool = False
) -> Decision:
    """Which classes are poisoned, by their groups.

    Args: stage: whose learning curves; found_before: with stage "finetuning", whether stage 1 has found a class, which
    leaves less reason to look for more.
    """
    if stage == "supervised":
        groups = [_the_smaller_side(group, config) for group in groups]
    one_each = [_clearest(of_class, config) for of_class in _by_class(groups)]
    scores = _beside_each_other(np.array([separation_score(group, config) for group in one_each]), config)
    if stage == "finetuning":
        scores = [
            _late_score(group, score, config, found_before)
            for group, score in zip(one_each, scores, strict=True)
        ]
    scored = tuple(Scored(group, score) for group, score in zip(one_each, scores, strict=True))
    return Decision(scored, tuple(finding_of(entry, stage) for entry in scored if entry.score >= 1))


def separation_score(group: Group, config: DetectionConfig) -> float:
    """How clearly a class has two components rather than one cut in two: from 1 on by itself it counts as found."""
    count = int((group.membership > 0.5).sum())
    share = count / len(group.ids)
    if count < config.min_group or share > config.max_share:
        return 0.0
    ratio = group.statistics["separation"] / config.min_separation
    if not group.statistics["rare"]:
        return ratio
    if share > config.rare_max_share:
        return 0.0
    return ratio / (config.rare_base + config.rare_each / count)


def nearly_found(score: float, config: DetectionConfig) -> bool:
    """Whether the highest score of a set in which nothing is found is one that a person should look at."""
    return score >= config.near_score


def shown_acts(mark: Finding, config: DetectionConfig) -> bool:
    """Whether what the images of a shown mark have in common sends images of other classes to its class."""
    success, placebo = mark.attack_success or 0.0, mark.placebo_success or 0.0
    return success >= config.min_attack_success and success - placebo >= config.min_lead


def is_withheld(membership: np.ndarray, config: DetectionConfig) -> np.ndarray:
    """bool [k]: which images of a found group, by their membership, are not clearly outside of it."""
    return membership > config.membership


def likely_benign(finding: Finding, config: DetectionConfig) -> bool:
    """Whether the images of a finding of learning curves share nothing that acts as a trigger, and their labels are
    right: pictures that look like them have these; or, of a weak finding, a network that was not given these labels
    gives them at least as often as it does those of the class's images whose labels it was given.
    """
    heard = finding.held_out
    marked = finding.purity is not None or finding.proposal != "learning_curves"
    if (finding.attack_success or 0.0) >= config.min_attack_success or finding.part_success or marked:
        return False
    if finding.shared_labels is not None and finding.shared_labels >= config.min_shared_labels:
        return finding.placebo_success is not None
    return finding.score < config.clear_score and heard is not None and heard.suspects >= heard.others


def with_held_out(
    findings: Sequence[Finding], heard: dict[int, HeldOutAgreement], config: DetectionConfig
) -> tuple[Finding, ...]:
    """The findings of stage 1 with what a network without the suspects' labels says of them, by class."""
    told = []
    for finding in findings:
        if finding.stage == "supervised" and finding.label in heard:
            finding = replace(finding, held_out=heard[finding.label])
            finding = replace(finding, likely_benign=likely_benign(finding, config))
        told.append(finding)
    return tuple(told)


def _the_smaller_side(group: Group, config: DetectionConfig) -> Group:
    """The group, or what it leaves of its class where it is most of it: most of a class is what the class is."""
    share = (group.membership > 0.5).mean()
    if group.statistics["rare"] or not config.main_share < share <= config.max_share:
        return group
    return replace(group, membership=1 - group.membership)


def _can_be_minority(group: Group, config: DetectionConfig) -> bool:
    count = len(group.core)
    return config.min_group <= count <= config.main_share * len(group.ids)


def _by_class(groups: Sequence[Group]) -> list[list[Group]]:
    by_label: dict[int | None, list[Group]] = {}
    for group in groups:
        by_label.setdefault(group.label, []).append(group)
    return list(by_label.values())


def clearest(groups: Sequence[Group], config: DetectionConfig) -> list[Group]:
    """Of one class's groups of stage 1, the one that `decide` goes by; none of none."""
    sides = [_the_smaller_side(group, config) for group in groups]
    chosen = _clearest(sides, config) if sides else None
    return [group for group, side in zip(groups, sides, strict=True) if side is chosen]


def _clearest(groups: list[Group], config: DetectionConfig) -> Group:
    """Of one class's groups: the fit to the whole class where it is found, else the one of the highest score."""
    if separation_score(groups[0], config) >= 1:
        return groups[0]
    return max(groups, key=lambda group: separation_score(group, config))


def _beside_each_other(scores: np.ndarray, config: DetectionConfig) -> list[float]:
    """Scores lowered where the other classes fall apart too.

    A large network that knows few images by heart swings from class to class, and most classes fall into two by it;
    poison is in one class or few.
    """
    lowered = []
    for k, own in enumerate(scores):
        others = float(np.median(np.delete(scores, k))) if len(scores) > 1 else 0.0
        score = own / max(1.0, config.stands_out * others)
        lowered.append(float(max(score, config.unclear_score) if own >= 1 else score))
    return lowered


def _late_score(group: Group, score: float, config: DetectionConfig, found_before: bool) -> float:
    """In stage 3's curves, a component of most of its class is the images already known, which stage 1 would have
    learnt.
    """
    if (group.membership > 0.5).mean() > config.late_max_share:
        return 0.0
    return score / (config.late_beside if found_before else 1.0)


def finding_of(entry: Scored, stage: Stage) -> Finding:
    """The Finding of a group of learning curves."""
    statistics = entry.group.statistics
    return Finding(
        stage,
        entry.group.label,
        len(entry.group.core),
        round(statistics["separation"], 3),
        round(statistics["posterior_entropy"], 4),
        round(entry.score, 4),
    )
