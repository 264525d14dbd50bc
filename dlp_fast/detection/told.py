"""What verification says of a group, written down as a Finding; nothing is decided here."""

from __future__ import annotations

from dataclasses import replace

from dlp_fast.config import DetectionConfig
from dlp_fast.detection.findings import MOST_IDS, Finding
from dlp_fast.detection.groups import Group
from dlp_fast.detection.marks import clearness
from dlp_fast.detection.verify import Evidence

Shown = list[tuple[Finding, Group | None]]  # findings that are shown, and their groups, None for copies


def show_copies(shown: Shown, finding: Finding, evidence: Evidence) -> None:
    """Add a group that is copies to what is shown, once a class: several proposals find the same."""
    if not any(mark.label == finding.label and mark.copies is not None for mark, _ in shown):
        shown.append((replace(with_numbers(finding, evidence), copies=rounded(evidence.copies)), None))


def show_changed(shown: Shown, finding: Finding) -> None:
    """Add a mark that images of many classes have by some change, once a class."""
    if not any(mark.label == finding.label and mark.changed for mark, _ in shown):
        shown.append((replace(finding, changed=True), None))


def with_numbers(finding: Finding, evidence: Evidence) -> Finding:
    """`finding` with what its trigger does, and how well its labels are known."""
    support = evidence.support
    return replace(
        finding,
        attack_success=rounded(evidence.attack_success),
        placebo_success=rounded(evidence.placebo_success),
        label_support=rounded(support.ratio) if support else None,
        unmarked_support=rounded(evidence.without_mark.ratio) if evidence.without_mark else None,
        shared_labels=rounded(evidence.neighbours.ratio) if evidence.neighbours else None,
    )


def mark_found(group: Group, evidence: Evidence, config: DetectionConfig) -> Finding:
    """The Finding of a mark."""
    statistics = group.statistics
    score = clearness(group, config)
    finding = Finding(
        "supervised",
        group.label,
        len(group.core),
        round(statistics.get("separation", 0.0), 3),
        0.0,
        round(score, 4),
        proposal=group.proposal,
        purity=rounded(statistics["purity"]),
    )
    return with_numbers(finding, evidence)


def with_ids(finding: Finding, group: Group) -> Finding:
    """`finding`, which is shown, with the images that it is of."""
    return replace(finding, sample_ids=tuple(group.core[:MOST_IDS].tolist()))


def rounded(value: float | None) -> float | None:
    """`value` as it is written down."""
    return None if value is None else round(value, 4)
