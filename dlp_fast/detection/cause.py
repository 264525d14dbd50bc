"""Whether what is found has a cause of its own: a trigger, or a mark, that teaches the label. Wrong labels have none.

Where a network knows its images by heart, as it does few, or alike ones, it learns those with wrong labels late, and so
together: their learning curves are a group, and a 3 among the 8s has the look of a mark. What tells such labels from
poison is that nothing is in common to these images beside the pictures that look most like them, and that half of them
does not teach a network the labels of the other half.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from dlp_fast.config import DetectionConfig
from dlp_fast.detection.decide import Decision, likely_benign
from dlp_fast.detection.findings import Finding
from dlp_fast.detection.groups import Group
from dlp_fast.detection.propose import Observed
from dlp_fast.detection.propose.beside import ALIKE, apart_from_alike
from dlp_fast.detection.propose.grown import APART
from dlp_fast.detection.propose.neighbours import Surroundings
from dlp_fast.detection.propose.windows import WINDOWS
from dlp_fast.detection.rules import CLEARLY, acts_as_trigger, labels_elsewhere, labels_known, labels_shared
from dlp_fast.detection.verify import Evidence
from dlp_fast.detection.verify.hold_out import CONTROLS, SEED, HeldOutNetwork
from dlp_fast.detection.verify.label_support import draw_controls

FEWEST = 4  # images of each half
EXPLAINED = 0.5  # of a group that are probably mislabeled, above which that explains it
STANDS_OUT = 4.0  # times as large a share of images unlike their label as in the other classes
CERTAIN = 10.0  # Ashman's D of a mark and the rest of its class, from which it is plain who bears it


@dataclass(frozen=True)
class _Halves:
    """Of a group's images whose labels no picture like them has: int64 ids, of which one half teaches the other."""

    teach: np.ndarray
    asked: np.ndarray


def with_causes(
    decision: Decision, seen: Observed, train: Callable[[np.ndarray], HeldOutNetwork], config: DetectionConfig
) -> tuple[Decision, np.ndarray]:
    """(`decision` without the groups of images under wrong labels that have no cause, int64 ids of these images). A
    large group of a kind that nothing else is like may be the class itself: without a cause it is shown. So is a group
    under labels that pictures like it share, or share in part: a style is known by few. Where images of other classes
    are shown as changed, it is shown with them.

    One more network is trained where a group is found that nothing else can tell of.
    """
    suspicious = np.zeros(len(seen.labels), dtype=bool)
    for group in decision.found:
        suspicious[group.core] = True
    if not decision.found or suspicious.all():
        return decision, np.zeros(0, dtype=np.int64)
    around = seen.surroundings.only(torch.from_numpy(np.flatnonzero(~suspicious)))
    changed = any(mark.changed for mark in decision.marks)
    findings, groups, halves = [], [], {}
    for k, (finding, group) in enumerate(zip(decision.findings, decision.found, strict=True)):
        finding = _looked_at(finding, group, around, seen, config)
        if finding.shared_labels is not None and not _has_cause(finding, config):
            if finding.shared_labels >= config.min_shared_labels:
                unclear = not changed and likely_benign(finding, config)
                finding = replace(finding, unclear=unclear, changed=changed)
            elif not labels_elsewhere(finding.shared_labels, config):
                finding = replace(finding, unclear=True)
            elif not finding.alone and not _is_a_mixture_alone(finding, seen, config):
                halves[k] = _halves(around.disagree(torch.from_numpy(group.core)).numpy())
        elif ALIKE in group.statistics and not finding.alone:
            group = _with_strangers(group, decision, seen.unlike_their_label.numpy(), config)
            finding = replace(finding, images=len(group.core))
        findings.append(finding)
        groups.append(group)
    for k, taught in _taught(halves, seen, suspicious, train).items():
        findings[k] = replace(findings[k], taught=round(taught, 4))
    dismissed = [k for k, finding in enumerate(findings) if _nobody_taught(finding, config)]
    shown = [
        k
        for k, finding in enumerate(findings)
        if finding.changed or finding.unclear or (finding.alone and not _has_cause(finding, config))
    ]
    left = [k for k in range(len(findings)) if k not in (*dismissed, *shown)]
    wrong = [np.concatenate([halves[k].teach, halves[k].asked]) for k in dismissed]
    decision = replace(
        decision,
        findings=tuple(findings[k] for k in left),
        groups=tuple(groups[k] for k in left),
        marks=(*decision.marks, *(findings[k] for k in shown)),
        of_marks=(*decision.of_marks, *(groups[k] for k in shown)),
    )
    return decision, np.sort(np.concatenate([np.zeros(0, dtype=np.int64), *wrong]))


def acquitted(groups: Sequence[Group], evidence: Sequence[Evidence], config: DetectionConfig) -> list[Group]:
    """Those of `groups` whose labels pictures like them share, or a network knows that was not given them, and whose
    images have nothing in common that acts as a trigger.
    """
    return [
        group
        for group, told in zip(groups, evidence, strict=True)
        if (labels_known(told, config) or labels_shared(told, config)) and not acts_as_trigger(told, config)
    ]


def explained(decision: Decision, mislabeled: np.ndarray, known: Sequence[Group] = ()) -> Decision:
    """`decision` without scores, below what counts as found, of groups that are mostly wrong labels, bool [n], or that
    are `known`, as `acquitted` has them: nothing is left to doubt in them.
    """

    def is_explained(group: Group) -> bool:
        if any(group is other for other in known):
            return True
        return bool(len(group.core)) and bool(mislabeled[group.core].mean() > EXPLAINED)

    scored = [
        replace(entry, score=0.0) if entry.score < 1 and is_explained(entry.group) else entry
        for entry in decision.scored
    ]
    return replace(decision, scored=tuple(scored), groups=tuple(decision.found))


def _with_strangers(group: Group, decision: Decision, strange: np.ndarray, config: DetectionConfig) -> Group:
    """`group`, which has a mark, with those of its class that were learnt together and are unlike their label, too; not
    where the mark is so far apart that nobody is in doubt.
    """
    if group.statistics.get(APART, 0.0) >= CERTAIN:
        return group
    more = np.setdiff1d(_learnt_together(group, decision, config), group.core)
    more = np.intersect1d(more, strange)
    if not len(more):
        return group
    ids = np.union1d(group.ids, more)
    membership = np.zeros(len(ids))
    membership[np.searchsorted(ids, group.ids)] = group.membership
    membership[np.searchsorted(ids, more)] = 1.0
    return replace(group, ids=ids, membership=membership)


def _learnt_together(group: Group, decision: Decision, config: DetectionConfig) -> np.ndarray:
    """int64 ids of the class of `group` that learning curves show as a group that has most of it, if not as a clear
    one; either component of the class may be it.
    """
    for entry in decision.scored:
        if entry.group.label == group.label and entry.score >= config.verify_from:
            ids, core = entry.group.ids, entry.group.core
            return core if np.isin(group.core, core).mean() > 0.5 else np.setdiff1d(ids, core)
    return np.zeros(0, dtype=np.int64)


def _looked_at(
    finding: Finding, group: Group, around: Surroundings, seen: Observed, config: DetectionConfig
) -> Finding:
    ids = torch.from_numpy(group.core)
    shared = around.of(ids)
    if shared is None:
        return finding
    apart = apart_from_alike(seen.images, ids, around, config.static_patterns) or 0.0
    apart = max(apart, group.statistics.get(ALIKE, 0.0))
    of_class = max(int((seen.labels == group.label).sum()), 1)
    alone = (
        finding.variety is None
        and shared.familiar < config.min_familiar
        and shared.ratio < config.min_shared_labels
        and len(group.core) >= config.half_from * of_class
    )
    return replace(
        finding, shared_labels=round(shared.ratio, 4), apart_from_alike=round(apart, 2), alone=alone
    )


def _is_a_mixture_alone(finding: Finding, seen: Observed, config: DetectionConfig) -> bool:
    """Whether images of a class come from all others, and pictures like them say so of many in this class and of few
    in others: labels that are wrong by chance are so everywhere. Half of a faint trigger may be too few to teach it.
    """
    strange, own = torch.zeros(len(seen.labels)), seen.labels == finding.label
    strange[seen.unlike_their_label] = 1
    share, elsewhere = float(strange[own].mean()), float(strange[~own].mean())
    return finding.variety is not None and share >= max(config.half_from, STANDS_OUT * elsewhere)


def _has_cause(finding: Finding, config: DetectionConfig) -> bool:
    told = Evidence(finding.attack_success, finding.placebo_success, 0)
    if acts_as_trigger(told, config) or finding.part_success is not None or finding.proposal == WINDOWS:
        return True
    apart = (finding.apart_from_alike or 0.0) / config.min_apart_from_alike
    elsewhere = labels_elsewhere(finding.shared_labels, config)
    # where some of them have the mark under right labels; a style that was learnt together is far apart as well
    partly = finding.purity is not None and finding.shared_labels < config.min_shared_labels
    return not finding.alone and ((apart >= 1 and elsewhere) or (apart >= CLEARLY and partly))


def _nobody_taught(finding: Finding, config: DetectionConfig) -> bool:
    return finding.taught is not None and finding.taught < config.min_taught


def _halves(ids: np.ndarray) -> _Halves:
    drawn = np.random.default_rng(SEED).permutation(ids)
    return _Halves(drawn[: len(ids) // 2], drawn[len(ids) // 2 :])


def _taught(
    halves: dict[int, _Halves],
    seen: Observed,
    suspicious: np.ndarray,
    train: Callable[[np.ndarray], HeldOutNetwork],
) -> dict[int, float]:
    """How well a network that is given one half of each group knows the labels of the other, as a share of how well it
    knows held-out labels of the same class; 0 for groups that are too small to ask.
    """
    labels = seen.labels.numpy()
    told = dict.fromkeys(halves, 0.0)
    halves = {k: of for k, of in halves.items() if min(len(of.teach), len(of.asked)) >= FEWEST}
    if not halves:
        return told
    controls = draw_controls(labels, suspicious, CONTROLS, SEED)
    used = ~controls
    for of in halves.values():
        used[of.asked] = False
    known = train(np.flatnonzero(used)).probability
    for k, of in halves.items():
        usual = known[controls & (labels == labels[of.asked[0]])]
        told[k] = float(known[of.asked].mean() / max(usual.mean(), 1e-6)) if len(usual) else 1.0
    return told
