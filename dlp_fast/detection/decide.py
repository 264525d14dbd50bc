"""The one place that decides whether a class is poisoned; every threshold it uses stands in config.DetectionConfig."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from dlp_fast.config import DetectionConfig
from dlp_fast.detection.findings import Finding, HeldOutAgreement, Stage
from dlp_fast.detection.groups import Group
from dlp_fast.detection.verify import Evidence


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
    act as a trigger.
    """

    scored: tuple[Scored, ...]
    findings: tuple[Finding, ...]
    groups: tuple[Group, ...] | None = None
    marks: tuple[Finding, ...] = ()

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
    clearest = [_clearest(of_class, config) for of_class in _by_class(groups)]
    scores = _beside_each_other(np.array([separation_score(group, config) for group in clearest]), config)
    if stage == "finetuning":
        scores = [
            _late_score(group, score, config, found_before)
            for group, score in zip(clearest, scores, strict=True)
        ]
    scored = tuple(Scored(group, score) for group, score in zip(clearest, scores, strict=True))
    return Decision(scored, tuple(_finding(entry, stage) for entry in scored if entry.score >= 1))


def is_mark(group: Group, config: DetectionConfig) -> bool:
    """Whether the images of a group of static patterns share a mark, whatever it is."""
    if group.label is None and "nats" not in group.statistics and "excess" in group.statistics:
        return False  # a window that repeats in all classes alike says nothing of labels
    if "nats" in group.statistics:
        return group.statistics["nats"] >= config.min_window_nats
    return group.statistics["purity"] >= config.min_purity


def with_evidence(
    decision: Decision, marks: Sequence[Group], evidence: Sequence[Evidence], config: DetectionConfig
) -> Decision:
    """`decision`, of learning curves, with what verification says of its groups, and with the groups of `marks` that
    verification convicts.

    Args: evidence: of each of `decision.found`, then of each of `marks`.
    """
    convicted: list[tuple[Group, Evidence]] = []
    shown: list[Finding] = []
    for group, told in zip(marks, evidence[len(decision.found) :], strict=True):
        if told.support.distinct < config.min_distinct:
            continue  # copies of one picture
        if acts_as_trigger(told, config) or labels_unsupported(told, config):
            convicted.append((group, told))
        elif group.label is not None:
            shown.append(_mark(group, told, config))
    kept = [
        (_with_numbers(finding, told), group)
        for finding, group, told in zip(decision.findings, decision.found, evidence, strict=False)
        if not any(_contradicts(mark, group) for mark, _ in convicted)
    ]
    taken = np.concatenate([group.core for _, group in kept] or [np.zeros(0, dtype=np.int64)])
    for group, told in convicted:
        for part in _of_each_class(group, taken):
            kept.append((_mark(part, told, config), part))
            taken = np.concatenate([taken, part.core])
    findings, found = tuple(finding for finding, _ in kept), tuple(group for _, group in kept)
    return Decision(decision.scored, findings, found, tuple(shown))


def acts_as_trigger(evidence: Evidence, config: DetectionConfig) -> bool:
    """Whether what a group's images have in common sends other images to its class, and that of placebos does not."""
    if evidence.attack_success is None:
        return False
    lead = evidence.attack_success - (evidence.placebo_success or 0.0)
    return evidence.attack_success >= config.min_attack_success and lead >= config.min_lead


def labels_unsupported(evidence: Evidence, config: DetectionConfig) -> bool:
    """Whether the images of a group are harder than their class by more than chance, as under wrong labels."""
    support = evidence.support
    return support.loss_rank >= config.min_loss_rank and support.p <= config.max_loss_rank_p


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


def is_withheld(membership: np.ndarray, config: DetectionConfig) -> np.ndarray:
    """bool [k]: which images of a found group, by their membership, are not clearly outside of it."""
    return membership > config.membership


def likely_benign(finding: Finding, config: DetectionConfig) -> bool:
    """Whether a finding of learning curves is weak, its images share nothing that acts as a trigger, and a network that
    was not given their labels gives them these labels at least as often as it does the class's images whose labels it
    was given.
    """
    heard = finding.held_out
    if (finding.attack_success or 0.0) >= config.min_attack_success or finding.purity is not None:
        return False
    return heard is not None and finding.score < config.clear_score and heard.suspects >= heard.others


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


def _contradicts(mark: Group, group: Group) -> bool:
    """Whether a convicted mark shows that learning curves took the wrong side of its class."""
    return mark.label == group.label and np.isin(mark.core, group.core).mean() < 0.5


def _of_each_class(mark: Group, taken: np.ndarray) -> list[Group]:
    """`mark` as one group a class, without images that are suspected already where it is of several classes."""
    if mark.label is not None:
        return [mark]
    parts = []
    for label in np.unique(mark.labels):
        own = (mark.labels == label) & ~np.isin(mark.ids, taken)
        if own.any():
            parts.append(
                replace(
                    mark, label=int(label), ids=mark.ids[own], membership=mark.membership[own], labels=None
                )
            )
    return parts


def _by_class(groups: Sequence[Group]) -> list[list[Group]]:
    by_label: dict[int | None, list[Group]] = {}
    for group in groups:
        by_label.setdefault(group.label, []).append(group)
    return list(by_label.values())


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


def _with_numbers(finding: Finding, evidence: Evidence) -> Finding:
    return replace(
        finding,
        attack_success=_rounded(evidence.attack_success),
        placebo_success=_rounded(evidence.placebo_success),
        loss_rank=_rounded(evidence.support.loss_rank),
    )


def _mark(group: Group, evidence: Evidence, config: DetectionConfig) -> Finding:
    statistics = group.statistics
    by_window = "nats" in statistics
    score = (
        statistics["nats"] / config.min_window_nats if by_window else statistics["purity"] / config.min_purity
    )
    finding = Finding(
        "supervised",
        group.label,
        len(group.core),
        round(statistics.get("separation", 0.0), 3),
        0.0,
        round(score, 4),
        proposal=group.proposal,
        purity=_rounded(statistics["purity"]),
    )
    return _with_numbers(finding, evidence)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _finding(entry: Scored, stage: Stage) -> Finding:
    statistics = entry.group.statistics
    return Finding(
        stage,
        entry.group.label,
        len(entry.group.core),
        round(statistics["separation"], 3),
        round(statistics["posterior_entropy"], 4),
        round(entry.score, 4),
    )
