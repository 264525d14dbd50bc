"""What verification adds to the decision: which groups and marks it convicts; thresholds: config.DetectionConfig."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from dlp_fast.config import DetectionConfig
from dlp_fast.detection.decide import Decision, Scored, finding_of
from dlp_fast.detection.findings import Finding
from dlp_fast.detection.groups import Group
from dlp_fast.detection.marks import ABOUNDS, clearness, is_of_many
from dlp_fast.detection.propose.beside import ALIKE
from dlp_fast.detection.propose.grown import APART
from dlp_fast.detection.propose.windows import WINDOWS
from dlp_fast.detection.rules import (
    acts_as_trigger,
    labels_known,
    labels_outlast_mark,
    labels_shared,
    labels_unknown,
)
from dlp_fast.detection.told import (
    Shown,
    mark_found,
    rounded,
    show_changed,
    show_copies,
    with_numbers,
)
from dlp_fast.detection.verify import Evidence

FEW_CLASSES = 4  # of so few, two are half of them


def ask_held_out(
    decision: Decision, marks: Sequence[Group], evidence: Sequence[Evidence], config: DetectionConfig
) -> bool:
    """Whether a network that is given none of the labels in question has something to settle: a group of learning
    curves that does not count as found, or only just, or a mark whose trigger does not act, unless its images are found
    already by what acts.

    Args: evidence: of the found groups, of those in question, of `marks`.
    """
    of_found = zip(decision.findings, decision.found, strict=True)
    if decision.in_question(config) or any(_may_be_typical(*one, marks, config) for one in of_found):
        return True
    found = [
        group.core
        for group, told in zip(decision.found, evidence, strict=False)
        if acts_as_trigger(told, config)
    ]
    settled = np.concatenate(found or [np.zeros(0, dtype=np.int64)])
    return any(
        (APART in group.statistics or not acts_as_trigger(told, config))
        and not np.isin(group.core, settled).all()
        and (is_apart(group, config) or any(group.has_most_of(other) for other in decision.found))
        for group, told in zip(marks, evidence[len(evidence) - len(marks) :], strict=True)
    )


def with_evidence(
    decision: Decision,
    marks: Sequence[Group],
    evidence: Sequence[Evidence],
    config: DetectionConfig,
) -> Decision:
    """`decision`, of learning curves, with what verification says of its groups, with the groups in question and the
    `marks` that verification convicts.

    Args: evidence: of each of `decision.found`, of each of `decision.in_question(config)`, then of each of `marks`.
    """
    asked = decision.in_question(config)
    of_found = evidence[: len(decision.found)]
    of_asked = evidence[len(decision.found) : len(decision.found) + len(asked)]
    of_marks = evidence[len(decision.found) + len(asked) :]
    convicted: list[tuple[Group, Evidence]] = []
    shown: Shown = []
    harmless: list[Group] = []
    for group, told in zip(marks, of_marks, strict=True):
        if told.distinct < config.min_distinct:
            continue  # copies of one picture
        if are_copies(told, config):
            show_copies(shown, mark_found(group, told, config), told)
            continue
        if told.changed:
            for part in _of_each_class(group):
                show_changed(shown, mark_found(part, told, config))
        elif is_convicted(group, told, config) and not _is_cover(group, told, marks, config):
            convicted.append((group, told))
        elif group.label is not None:
            harmless += [group] if labels_outlast_mark(told, config) else []
            _show_mark(shown, group, told, decision, config)
    convicted = _without_the_rest(convicted, decision, config)
    kept = []
    for finding, group, told in zip(decision.findings, decision.found, of_found, strict=True):
        if told.changed or any(_contradicts(mark, group) for mark, _ in convicted):
            continue
        if are_copies(told, config):
            show_copies(shown, finding, told)
        elif labels_known(told, config) and _may_be_typical(finding, group, marks, config):
            shown.append((replace(with_numbers(finding, told), likely_benign=True), None))
        elif _is_unclear(told, len(asked), config) and _may_be_typical(finding, group, marks, config):
            shown.append((replace(with_numbers(finding, told), unclear=True), group))
        elif acts_as_trigger(told, config) or not any(mark.has_most_of(group) for mark in harmless):
            kept.append((with_numbers(finding, told), group))
    for group, told in zip(asked, of_asked, strict=True):
        if not told.changed and taught_by_itself(told, len(asked), config):
            finding = _by_gap(group, told, config)
            if are_copies(told, config):
                show_copies(shown, finding, told)
            else:
                group = _by_both(group, told)
                kept.append((replace(finding, images=len(group.core)), group))
    for group, told in convicted:
        _add_mark(kept, group, told, config)
    # of a class that is found, the rest has something in common as well: what the class looks like
    classes = {finding.label for finding, _ in kept}
    shown = [entry for entry in shown if entry[0].label not in classes]
    (findings, found), (told, of) = (tuple(zip(*pairs, strict=True)) or ((), ()) for pairs in (kept, shown))
    return Decision(decision.scored, findings, found, told, of)


def is_convicted(mark: Group, evidence: Evidence, config: DetectionConfig) -> bool:
    """Whether a mark is suspected by itself, or with others: always where its images have it beside pictures that look
    like them and have other labels; by unknown labels only where it is apart, and where it is not, as a trigger only
    under labels that are not known: green acts as a tench. What a grown one has in common may be a style's, of wrong
    labels too, and acts as well; then its labels have to be unknown, and its images taken for several classes. A few
    pictures with a look in common act too, so that what few images do counts only where their mark is clear.
    """
    unsupported = _is_unsupported(mark, evidence, config)
    if marked_beside_alike(mark, evidence, config) or evidence.together:
        return True
    acts = acts_as_trigger(evidence, config)
    if APART in mark.statistics:
        acts = acts and labels_unknown(evidence, config, abounds=True)
        return (acts or unsupported) and is_spread(evidence.taken_for, config)
    clear = mark.proposal == WINDOWS or mark.statistics["purity"] >= config.clear_purity
    acts = acts and (clear or len(mark.core) >= config.min_group)
    if not is_apart(mark, config):
        return acts and not labels_known(evidence, config)
    return acts or unsupported


def _is_cover(mark: Group, evidence: Evidence, marks: Sequence[Group], config: DetectionConfig) -> bool:
    """Whether a mark is on images of many classes, and on these under right labels: it acts by chance, of any class."""
    known = labels_shared(evidence, config) or labels_outlast_mark(evidence, config)
    return known and is_of_many(mark, marks)


def _is_unsupported(mark: Group, evidence: Evidence, config: DetectionConfig) -> bool:
    """`labels_unknown`, for `mark`. Where marks abound, a few images of a rare style are not known either when all of
    them are held out; one that lies as far apart as no style does is no style.
    """
    abounds, statistics = ABOUNDS in mark.statistics, mark.statistics
    apart = max(statistics.get("separation", 0.0), statistics.get(APART, 0.0)) >= config.min_apart
    style = abounds and not (apart and statistics.get("purity", 0.0) >= config.clear_purity)
    many = evidence.support is not None and evidence.support.distinct >= config.min_abounding
    return labels_unknown(evidence, config, style) and (many or not abounds)


def marked_beside_alike(mark: Group, evidence: Evidence, config: DetectionConfig) -> bool:
    """Whether images have a mark beside pictures that look like them and have other labels, and a network that was not
    given their labels does not know these either.
    """
    support = evidence.support
    return ALIKE in mark.statistics and (support is None or support.ratio <= config.max_label_support)


def is_apart(mark: Group, config: DetectionConfig) -> bool:
    """Whether images with a mark lie farther from the others of their class than pictures of a class vary: some have
    a sky and some have none, in halves that run into one another, and a network that was shown none of the one knows
    them badly. A window is there or it is not, and a grown mark is apart.
    """
    return mark.statistics.get("separation", config.min_mark_apart) >= config.min_mark_apart


def is_spread(taken_for: np.ndarray | None, config: DetectionConfig) -> bool:
    """Whether images that a network takes for each class so many times, int64 [classes], show several classes: neither
    one takes most of them, nor two, of more than FEW_CLASSES, half as many again.
    """
    if taken_for is None:
        return False
    most = config.max_taken_for_one * taken_for.sum()
    first, second = np.sort(taken_for)[:-3:-1]
    return bool(first <= most and (len(taken_for) <= FEW_CLASSES or first + second <= 1.5 * most))


def are_copies(evidence: Evidence, config: DetectionConfig) -> bool:
    """Whether most of a group shows one picture. That it acts as a trigger says nothing: what copies have in common is
    the whole picture.
    """
    return evidence.copies > config.max_copies


def taught_by_itself(evidence: Evidence, tests: int, config: DetectionConfig) -> bool:
    """Whether the labels of a group, well learnt, are known by nothing but the group itself: less than those of images
    that were learnt alike, by more than placebo groups differ. `tests`: groups of the set that are asked this.
    """
    support = evidence.support
    return (
        support is not None
        and support.gap >= config.min_gap
        and support.ratio <= config.max_gap_support
        and not labels_shared(evidence, config)
        and evidence.gap_p <= config.false_alarm_rate / max(tests, 1)
    )


def _without_the_rest(
    convicted: Sequence[tuple[Group, Evidence]], decision: Decision, config: DetectionConfig
) -> list[tuple[Group, Evidence]]:
    """`convicted`, the clearest first, without marks that are what a class looks like, or what the rest of it does once
    others of its marks are taken away: with them, next to nothing of the class would be left.
    """
    sizes = {entry.group.label: len(entry.group.ids) for entry in decision.scored}
    taken: dict[int | None, np.ndarray] = {}
    chosen = []
    for mark, told in sorted(convicted, key=lambda entry: -clearness(entry[0], config)):
        before = taken.get(mark.label, np.zeros(0, dtype=np.int64))
        both, size = np.union1d(before, mark.core), sizes.get(mark.label)
        most = config.max_share if len(before) else config.main_share
        if mark.label is None or size is None or len(both) <= most * size:
            chosen.append((mark, told))
            taken[mark.label] = both
    return chosen


def _may_be_typical(finding: Finding, group: Group, marks: Sequence[Group], config: DetectionConfig) -> bool:
    """Whether a found group of learning curves may be typical pictures of its class: it is found only just, and no mark
    has most of it. That what its images have in common acts says little then: a trigger that can be reconstructed is
    a mark, and what typical pictures have in common is the look of their class.
    """
    return finding.score < config.clear_score and not any(
        np.isin(group.core, mark.core).mean() > 0.5 for mark in marks
    )


def _is_unclear(evidence: Evidence, tests: int, config: DetectionConfig) -> bool:
    """Whether a group that is found only just may as well be hard pictures: what its images have in common does not act
    as a trigger, their labels may be learnt from others, and where no picture is known by those like it, these say
    nothing of labels.
    """
    return (
        evidence.neighbours is None
        and not acts_as_trigger(evidence, config)
        and not taught_by_itself(evidence, tests + 1, config)
    )


def _by_both(group: Group, evidence: Evidence) -> Group:
    """`group` with its membership by what the network without the labels says as well, where that leaves anybody."""
    if evidence.membership is None or not (evidence.membership > 0.5).any():
        return group
    return replace(group, membership=evidence.membership)


def _contradicts(mark: Group, group: Group) -> bool:
    """Whether a convicted mark shows that learning curves took the wrong side of its class."""
    return mark.label == group.label and np.isin(mark.core, group.core).mean() < 0.5


def _add_mark(
    kept: list[tuple[Finding, Group]], mark: Group, evidence: Evidence, config: DetectionConfig
) -> None:
    """Add a convicted mark to what is found, class by class; where a group that has most of it is found already, that
    group grows by the rest, or is the mark, where that counts together with others and most of either is in the other.
    That its images repeat a window, or some share a mark that acts as a trigger, stays known: what all of them have in
    common need not tell it again.
    """
    for part in _of_each_class(mark):
        inside = [np.isin(part.core, group.core).mean() for _, group in kept]
        first = next((k for k, share in enumerate(inside) if share > 0.5), None)
        if first is None:
            kept.append((mark_found(part, evidence, config), part))
            continue
        finding, group = kept[first]
        exact = evidence.together and part.has_most_of(group)
        group = part if exact else _union(group, part)
        if part.proposal == WINDOWS:
            finding = replace(finding, proposal=WINDOWS)
        if acts_as_trigger(evidence, config):
            success = max(finding.part_success or 0.0, evidence.attack_success)
            finding = replace(finding, part_success=rounded(success))
        kept[first] = replace(finding, images=len(group.core)), group


def _union(group: Group, other: Group) -> Group:
    ids = np.union1d(group.ids, other.ids)
    membership = np.zeros(len(ids))
    for of in (group, other):
        at = np.searchsorted(ids, of.ids)
        membership[at] = np.maximum(membership[at], of.membership)
    return replace(group, ids=ids, membership=membership)


def _of_each_class(mark: Group) -> list[Group]:
    """`mark` as one group a class."""
    if mark.label is not None or mark.labels is None:
        return [mark]
    parts = []
    for label in np.unique(mark.labels):
        own = mark.labels == label
        ids, membership = mark.ids[own], mark.membership[own]
        if (membership > 0.5).any():
            parts.append(replace(mark, label=int(label), ids=ids, membership=membership, labels=None))
    return parts


def _show_mark(
    shown: Shown,
    group: Group,
    evidence: Evidence,
    decision: Decision,
    config: DetectionConfig,
) -> None:
    """Add a mark that is not convicted to what is shown, once, where it is apart or explains a group of curves."""
    known = any(other is not None and other.has_most_of(group) for _, other in shown)
    explains = labels_outlast_mark(evidence, config) and any(
        group.has_most_of(other) for other in decision.found
    )
    if not known and (explains or is_apart(group, config)):
        shown.append((mark_found(group, evidence, config), group))


def _by_gap(group: Group, evidence: Evidence, config: DetectionConfig) -> Finding:
    """Of a group whose curves alone do not tell, and whose labels nothing but itself teaches."""
    finding = finding_of(Scored(group, evidence.support.gap / config.min_gap), "supervised")
    finding = replace(finding, label_gap=rounded(evidence.support.gap), gap_p=evidence.gap_p)
    return with_numbers(finding, evidence)
