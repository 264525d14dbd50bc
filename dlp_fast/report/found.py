"""What a report tells of each finding: its trigger as pictures, and what that does to other images."""

from __future__ import annotations

from typing import Any

from dlp_fast.detection.findings import Finding
from dlp_fast.detection.verdict import tried
from dlp_fast.report.exhibits import Exhibits
from dlp_fast.report.thumbnails import source


def findings_shown(
    findings: list[dict[str, Any]], of: Exhibits, classes: list[str], labels: list[str], final: str
) -> list[dict[str, Any]]:
    """For each finding of results.json, what the template shows of it.

    Args: labels: of all images, by id; final: what the model of the run is called.
    """
    places = {number: place for place, number in enumerate(of.triggers.finding.tolist())}
    return [
        {
            "title": title(values, classes),
            "likely_benign": values["likely_benign"],
            "sentence": sentence(Finding.from_json(values)),
            "rates": rates(values, final),
            "trigger": _trigger(of, places[number], classes, labels) if number in places else None,
            "no_trigger": why_none(values, len(places)),
        }
        for number, values in enumerate(findings)
    ]


def title(values: dict[str, Any], classes: list[str]) -> str:
    by = values["proposal"].replace("_", " ")
    late = " of stage 3" if values["stage"] == "finetuning" else ""
    return f"class {classes[values['label']]}, {values['images']:,} images, by {by}{late}"


def sentence(finding: Finding) -> str:
    """What happened when what its images have in common was tried."""
    if finding.attack_success is None:
        return "What its images have in common was not tried on the network of stage 1."
    acts = tried(finding)
    if acts:
        return f"Its images share what acts as a trigger: {acts}."
    return (
        f"No trigger that acts was reconstructed: put on images of other classes, what its images have in common sends "
        f"{finding.attack_success:.0%} of them to this class, about as many as that of harmless groups does."
    )


def rates(values: dict[str, Any], final: str) -> list[tuple[str, float | None]]:
    """The estimated attack success rates of a finding, before and after; none where none was measured. `final`: what
    the model of the run is called.
    """
    if values.get("attack_success") is None and values.get("attack_success_after") is None:
        return []
    part = values.get("part_success")
    return [
        ("network after stage 1", values.get("attack_success")),
        *([("the same, a mark that some of the images share", part)] if part is not None else []),
        (final, values.get("attack_success_after")),
        ("highest of harmless groups, after stage 1", values.get("placebo_success")),
    ]


def why_none(values: dict[str, Any], kept: int) -> str:
    """Why a finding has no picture of its trigger."""
    if values["stage"] == "finetuning":
        return "No trigger is reconstructed for what the learning curves of stage 3 find."
    if kept:
        return f"Pictures of triggers are kept for the first {kept} findings."
    return "No trigger was reconstructed: there are no unsuspicious images of other classes to try it on."


def _trigger(of: Exhibits, place: int, classes: list[str], labels: list[str]) -> dict[str, Any]:
    kept = of.triggers
    victims = []
    for k in (kept.victim_of == place).nonzero().flatten().tolist():
        said = [classes[c] for c in kept.said[k].tolist()]
        victims.append(
            {
                "id": int(kept.victims[k]),
                "label": labels[int(kept.victims[k])],
                "plain": source(kept.plain[k].numpy()),
                "marked": source(kept.marked[k].numpy()),
                "first": said[:2],
                "clean": said[2:],
            }
        )
    suspects = [
        {
            "id": int(kept.suspects[k]),
            "label": labels[int(kept.suspects[k])],
            "picture": source(kept.suspect_pictures[k].numpy()),
            "nearest": int(kept.nearest[k]),
            "nearest_label": labels[int(kept.nearest[k])],
            "nearest_picture": source(kept.nearest_pictures[k].numpy()),
        }
        for k in (kept.suspect_of == place).nonzero().flatten().tolist()
    ]
    return {
        "mask": source(kept.mask[place].numpy()),
        "widest": float(kept.widest[place]),
        "pattern": source(kept.pattern[place].numpy()),
        "victims": victims,
        "suspects": suspects,
    }
