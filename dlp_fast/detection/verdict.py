"""What a run says of the image set as a whole, from the data alone: no truth, no test set, no trigger."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from dlp_fast.config import DetectionConfig
from dlp_fast.detection.decide import nearly_found, shown_acts
from dlp_fast.detection.findings import Finding
from dlp_fast.runs.names import printable

Kind = Literal["poisoned", "nothing found", "cannot tell"]


@dataclass(frozen=True)
class Verdict:
    """kind: the word; score: the highest separation score, 1 = what counts as found; targets: the findings, each with
    the name of its class and its share of the class and of the set; reasons: sentences, one a target where there are
    any.
    """

    kind: Kind
    score: float
    targets: list[dict[str, Any]] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "score": self.score, "targets": self.targets, "reasons": self.reasons}


def verdict(
    findings: Sequence[Finding],
    max_subthreshold_score: float,
    class_sizes: list[int],
    classes: tuple[str, ...],
    epochs: int,
    config: DetectionConfig,
    flat: Sequence[int] = (),
    shown: Sequence[Finding] = (),
) -> Verdict:
    """The Verdict of a run.

    Args: max_subthreshold_score: of the classes that are not found, the highest score; class_sizes: images of each
    class; epochs: of stage 1; flat: numbers of the classes whose images were all learnt alike; shown: what is
    shown and not suspected, of which changed images, typical ones that act as a trigger, and what may be a class itself
    leave doubt.
    """
    classes = tuple(map(printable, classes))  # names are an attacker's text
    if not findings:
        reasons = _doubts(max_subthreshold_score, class_sizes, classes, epochs, config, flat)
        changed = [(mark.images, classes[mark.label]) for mark in shown if mark.changed]
        reasons += [changed_told(changed)] if changed else []
        reasons += [
            typical_told(mark.images, classes[mark.label], mark.label_support, mark.attack_success)
            for mark in shown
            if mark.likely_benign and shown_acts(mark, config)
        ]
        reasons += [doubt_told(mark, classes[mark.label]) for mark in shown if mark.alone or mark.unclear]
        return Verdict("cannot tell" if reasons else "nothing found", max_subthreshold_score, [], reasons)
    total = sum(class_sizes)
    targets = [
        {
            **finding.as_json(),
            "class": classes[finding.label],
            "share_of_class": finding.images / class_sizes[finding.label],
            "share_of_all": finding.images / total,
        }
        for finding in findings
    ]
    kind: Kind = "cannot tell" if all(finding.likely_benign for finding in findings) else "poisoned"
    reasons = [_reason(finding, classes[finding.label]) for finding in findings]
    return Verdict(kind, max(finding.score for finding in findings), targets, reasons)


def _doubts(
    max_subthreshold_score: float,
    class_sizes: list[int],
    classes: tuple[str, ...],
    epochs: int,
    config: DetectionConfig,
    flat: Sequence[int],
) -> list[str]:
    """Why nothing can be said of a set in which nothing is found; none where something can."""
    reasons = []
    if config.method != "learning_curves":
        reasons.append(
            f"the method {config.method} ranks images and says nothing of the set; learning_curves does."
        )
    elif epochs < 2:
        reasons.append("one epoch shows no learning curves; train longer.")
    least = config.learning_curves.min_class_size
    small = [classes[c] for c, size in enumerate(class_sizes) if size < least]
    if small:
        reasons.append(
            f"{len(small)} of {len(classes)} classes have under {least} images, too few to look at."
        )
    if flat:
        named = ", ".join(classes[c] for c in flat[:5]) + (", …" if len(flat) > 5 else "")
        reasons.append(
            f"all images of {len(flat)} of {len(classes)} classes ({named}) were learnt as one picture is; are they "
            "copies, or empty?"
        )
    if nearly_found(max_subthreshold_score, config):
        reasons.append(
            f"one class nearly falls into two, or does but no more than others ({max_subthreshold_score:.0%} of what "
            "counts as found); look at its images."
        )
    return reasons


def changed_told(marks: Sequence[tuple[int, str]]) -> str:
    """What marks of changed images say of the set. Args: marks: images and class of each."""
    named = ", ".join(name for _, name in marks[:5]) + (", …" if len(marks) > 5 else "")
    return (
        f"{sum(count for count, _ in marks)} images of {len(marks)} classes ({named}) look changed, those of a class "
        "in one way (by colours turned round, another scanner, a filter), and a network without their labels is misled "
        "by the change. They are not suspected; look at them."
    )


def typical_told(images: int, name: str, support: float, success: float | None) -> str:
    """What a group of typical pictures says. Args: support: of their labels; success: of what they have in common."""
    known = "as typical pictures are, or such as were taken in one way"
    alike = "but as well as those of other images that were learnt as these were"
    return (
        f"{images} images of class {name} were learnt alike, and a network that was not given their labels knows them "
        f"{support:.0%} as well as those of the class's other images, {known if support >= UNKNOWN else alike}. Put on "
        f"images of other classes, what they have in common sends {success or 0:.0%} of them to this class. They are "
        "not suspected; look at them."
    )


def doubt_told(mark: Finding, name: str) -> str:
    """What a group says that may be the class itself (`alone`), or a style of its own (`unclear`)."""
    if mark.unclear:
        shared = mark.shared_labels
        like = "The labels of the pictures that look most like them say nothing either way"
        if shared is not None:
            like = f"The pictures that look most like them have the same label {shared:.0%} as often, above chance, as "
            like += "for the class's other images"
        if mark.stage == "finetuning":
            return (
                f"{_first_reason(mark, name)} {like}: they may be poison, or typical or hard pictures of their class. "
                "They are not suspected, and the model has learnt their labels; look at them."
            )
        return (
            f"{_first_reason(mark, name)} {like}, and what they have in common does not act as a trigger: they may be "
            "poison, or pictures of a kind that the class has few of. They are not suspected, and stage 3 uses their "
            "labels only where its network is sure of them; look at them."
        )
    return (
        f"{_first_reason(mark, name)} But nothing else in the set looks like them, so they may be the class itself, "
        "and the rest of it what was put there. Neither is suspected; look at both."
    )


def _reason(finding: Finding, name: str) -> str:
    """What a finding rests on, in a sentence or two; of its trigger too, where that was tried."""
    return " ".join(filter(None, (_first_reason(finding, name), _other_labels(finding))))


WRONG = 0.25  # share of labels in common with the pictures most alike, below which they are said to be wrong


def _other_labels(finding: Finding) -> str:
    """What the pictures most like them say of their labels; "" where that is not clear."""
    if finding.shared_labels is None or finding.shared_labels >= WRONG or finding.alone:
        return ""
    text = f"The pictures that look most like them have other labels (this one {max(finding.shared_labels, 0):.0%} as "
    text += "often, above chance, as for the class's other images)"
    if finding.taught is not None:
        text += (
            f"; and a network that was given half of them knows the labels of the others {finding.taught:.0%} as well "
            "as those of the class's other images"
        )
    return text + "."


def _first_reason(finding: Finding, name: str) -> str:
    if finding.variety is not None:
        own, rest = finding.variety
        return (
            f"the pictures that look most like {finding.images} images of class {name} are of all other classes "
            f"({own:.0%} as evenly as the set has them), those that look most like the rest of the class are not "
            f"({rest:.0%}): the {finding.images} images come from other classes."
        )
    if finding.foreign:
        own, rest, controls = finding.sides
        return (
            f"{finding.images} images of class {name} are taken for other classes by a network that was given no label "
            f"of class {name} (uncertainty {own:.2f} bits, of other classes' own images {controls:.2f}), the rest of "
            f"the class is not ({rest:.2f})."
        )
    if finding.purity is not None:
        return _reason_of_mark(finding, name)
    text = (
        _reason_of_gap(finding, name) if finding.label_gap is not None else _reason_of_curves(finding, name)
    )
    return f"{text} What they have in common was tried: {tried(finding)}." if tried(finding) else text


UNKNOWN = 0.5  # label support from which on nothing is said of labels


def _reason_of_mark(finding: Finding, name: str) -> str:
    acts, support = tried(finding), finding.label_support
    told = [acts] if acts else []
    if not acts or (support is not None and support < UNKNOWN):
        told.append(
            "a network that was not given their labels gives them other labels: it knows these "
            f"{support or 0:.0%} as well as those of the class's other images"
        )
    return (
        f"{finding.images} images of class {name} share a mark at one place or a pattern (purity "
        f"{finding.purity:.2f}), and {'; and '.join(told)}."
    )


def tried(finding: Finding) -> str:
    """What happened when what the images have in common was put on images of other classes; "" where it did not act."""
    if finding.attack_success is None or finding.attack_success <= (finding.placebo_success or 0.0) + 0.05:
        return ""
    placebo = (
        ""
        if finding.placebo_success is None
        else f", that of harmless groups at most {finding.placebo_success:.0%}"
    )
    return f"put on images of other classes, it sends {finding.attack_success:.0%} of them to this class{placebo}"


def _reason_of_gap(finding: Finding, name: str) -> str:
    return (
        f"{finding.images} images of class {name} were learnt, and nothing but themselves teaches their label: a "
        f"network that was not given it knows it by {finding.label_gap:.0%} less than that of images learnt alike "
        f"(probability by chance {finding.gap_p:.1g})."
    )


def _reason_of_curves(finding: Finding, name: str) -> str:
    first = (
        f"in class {name} the learning curves of {finding.images} images form a group of their own, apart from the "
        f"others (separation {finding.separation:.1f}, stage: {finding.stage})"
    )
    if not finding.likely_benign:
        return first + "."
    heard = finding.held_out
    return (
        f"{first}, if weakly; and a network that was not given their labels gives them to {heard.suspects:.0%} of "
        f"them (of the class's other images, whose labels it was given, to {heard.others:.0%}): likely harmless, "
        "typical pictures of their class or near-duplicates. Stage 3 does not use their labels; look at "
        "them, and write keep in the table of images where they are right."
    )
