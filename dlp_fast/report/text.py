"""The sentences that report, terminal, notebook and model card share."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from dlp_fast.detection.findings import Finding
from dlp_fast.detection.verdict import changed_told, doubt_told, typical_told
from dlp_fast.runs.contents import caution, holds_of


def percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.2f} %"


def verdict_lines(verdict: dict[str, Any]) -> list[str]:
    """The verdict of results.json for a terminal."""
    if verdict["kind"] == "poisoned":
        return [
            f"verdict: poisoned, target class {t['class']}, about {t['share_of_all']:.1%} of all images "
            f"({t['images']} images; score {t['score']:.1f}, 1 counts{_attack_success(t)})"
            for t in verdict["targets"]
            if not t["likely_benign"]
        ] + [r for t, r in zip(verdict["targets"], verdict["reasons"], strict=True) if t["likely_benign"]]
    first = "no sign of poisoning found" if verdict["kind"] == "nothing found" else "cannot tell"
    return [f"verdict: {first} (highest score {verdict['score']:.2f}, 1 counts)", *verdict["reasons"]]


def _attack_success(target: dict[str, Any]) -> str:
    """The estimated attack success rate of what the suspects have in common, where it says something."""
    before, after = target.get("attack_success"), target.get("attack_success_after")
    if before is None or before <= (target.get("placebo_success") or 0.0) + 0.05:
        return ""
    return f"; estimated attack success rate {before:.0%} after stage 1" + (
        "" if after is None else f", {after:.0%} after the last stage"
    )


MANY = 4  # marks that are told one by one
BEHIND = 0.5  # of stage 1's agreement: that learns without augmentation, by heart, and no stage 3 comes quite up to it


def notes(results: dict[str, Any]) -> list[str]:
    """What a person must know to read the results: that there is no clean model, their own decisions in
    them, what was found too late, classes whose odds were raised, and a clean model that has learnt too little.
    """
    said = []
    warning = caution(results.get("model", {}).get("holds") or holds_of(results["stages"]))
    if warning:
        said.append(f"the model that the run leaves: {warning}")
    given = {word: count for word, count in results["decisions"].items() if count}
    if given:
        told = ", ".join(f"{count} {word}" for word, count in given.items())
        said.append(
            f"a person's decisions were obeyed ({told}); the verdict is of what was measured with them."
        )
    if results["stage3_detections"]:
        said.append(
            f"{results['stage3_detections']} of the suspected images were found only in the last round of stage 3, "
            "after the model had learnt their labels: raise finetuning.rounds (in another --out)."
        )
    said += _shown(results)
    said += power_lines(results["detection"].get("power", []))
    said += scan_lines(results["detection"].get("power_scans", []))
    for name, odds in results["logit_adjustment"].items():
        said.append(
            f"class {name} lost labels to suspicion; the clean model's odds for it are raised {odds:.1f} times to make "
            "up for them (finetuning.logit_adjustment)."
        )
    agree = results.get("label_agreement")
    if agree and agree["clean_model"] < BEHIND * agree["supervised"]:
        said.append(
            f"the clean model gives {agree['clean_model']:.0%} of the trusted images their label, the network after "
            f"stage 1 {agree['supervised']:.0%}: stage 3 may have been too short for this network. Give it more steps, "
            "finetuning.epochs or finetuning.steps (in another --out)."
        )
    return said


def _shown(results: dict[str, Any]) -> list[str]:
    """What is shown and not suspected, and where it is written which images these are."""
    said = []
    marks = results["detection"].get("marks", [])
    changed = [(mark["images"], mark["class"]) for mark in marks if mark.get("changed")]
    if changed and results["verdict"]["kind"] != "cannot tell":  # whose reasons say so
        said.append(changed_told(changed))
    for mark in marks:
        if mark.get("copies") is not None:
            said.append(
                f"{mark['images']} images of class {mark['class']} were learnt as one, and {mark['copies']:.0%} of "
                "them show the same picture: copies, so they are not suspected. Look at them, and drop those that are "
                "too many."
            )
    typical = [mark for mark in marks if mark.get("likely_benign")]
    told = [typical_told(m["images"], m["class"], m["label_support"], m["attack_success"]) for m in typical]
    said += [line for line in told if line not in results["verdict"]["reasons"]]
    doubtful = [mark for mark in marks if mark.get("alone") or mark.get("unclear")]
    told = [
        doubt_told(Finding.from_json({k: v for k, v in m.items() if k != "class"}), m["class"])
        for m in doubtful
    ]
    said += [line for line in told if line not in results["verdict"]["reasons"]]
    others = [mark for mark in marks if mark not in (*typical, *doubtful) and not mark.get("changed")]
    said += _marks_told([mark for mark in others if mark.get("copies") is None])
    if any(mark.get("sample_ids") for mark in marks):
        said.append(
            "Which images are shown and not suspected: report.html has them under that heading, and results.json their "
            "numbers in the table of images, the sample_ids of its marks."
        )
    return said


def _marks_told(marks: list[dict[str, Any]]) -> list[str]:
    """Marks under right labels: a sentence each, or one for many."""
    ending = "a model can take such a mark as a short cut. Look at them."
    if len(marks) <= MANY:
        return [
            f"{mark['images']} images of class {mark['class']} share a mark at one place or a pattern (purity "
            f"{mark['purity']:.2f}). It does not act as a trigger, and nothing clear speaks against their labels, so "
            f"they are not suspected; {ending}"
            for mark in marks
        ]
    classes = list(dict.fromkeys(mark["class"] for mark in marks))
    named = ", ".join(classes[:5]) + (", …" if len(classes) > 5 else "")
    sizes = [mark["images"] for mark in marks]
    return [
        f"{len(marks)} groups of {min(sizes)} to {max(sizes)} images of {len(classes)} classes ({named}) share a mark "
        "at one place or a pattern each. The marks do not act as triggers, and nothing clear speaks against their "
        f"labels, so they are not suspected; {ending}"
    ]


def power_lines(rows: list[dict[str, Any]]) -> list[str]:
    """What detection would have found in this set, a sentence a trigger."""
    said = []
    for trigger in dict.fromkeys(row["trigger"] for row in rows):
        of = [row for row in rows if row["trigger"] == trigger]
        told = ", ".join(
            f"{row['found']} of {row['trials']} at {row['rate']:.1%} ({row['images']} images)" for row in of
        )
        said.append(
            f"power: of own triggers of the kind {trigger}, planted in copies of this set, found: {told}."
        )
    return said


def scan_lines(rows: list[dict[str, Any]]) -> list[str]:
    """What the scan for marks alone would have seen in this set, one sentence for all triggers."""
    if not rows:
        return []
    told = "; ".join(
        f"a {trigger} in "
        + ", ".join(
            f"{row['found']} of {row['trials']} trials at {row['rate']:.1%} ({row['images']} images)"
            for row in rows
            if row["trigger"] == trigger
        )
        for trigger in dict.fromkeys(row["trigger"] for row in rows)
    )
    return [
        "power of the scan for marks alone: of own triggers, planted in copies of this set, it would have seen "
        f"{told}. No network took part: what learning curves find besides is not counted, and a mark that is seen is "
        "suspected only where a network confirms it."
    ]


def power_table(rows: list[dict[str, Any]]) -> Table:
    """What the scan for marks would have seen, a row a trigger and rate."""
    table = Table(title=None, show_edge=False, pad_edge=False)
    for name in ("planted", "share of all", "images", "seen", "95 % interval"):
        table.add_column(name, justify="left" if name == "planted" else "right")
    for row in rows:
        seen, interval = f"{row['found']} of {row['trials']}", f"{row['low']:.0%} to {row['high']:.0%}"
        table.add_row(row["trigger"], f"{row['rate']:.1%}", str(row["images"]), seen, interval)
    return table


def results_table(results: dict[str, Any]) -> Table:
    """CA and ASR after each stage, with time and rate."""
    table = Table(title=None, show_edge=False, pad_edge=False)
    for name in ("after stage", "clean accuracy", "attack success rate", "seconds", "images/s"):
        table.add_column(name, justify="left" if name == "after stage" else "right")
    for stage, of in results["stages"].items():
        table.add_row(
            stage,
            percent(of["clean_accuracy"]),
            percent(of["attack_success_rate"]),
            f"{of['seconds']:.1f}",
            f"{of['images_per_second']:,.0f}",
        )
    return table
