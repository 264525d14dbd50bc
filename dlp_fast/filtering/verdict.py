"""What a run says of the image set as a whole, from the data alone: no truth, no test set, no trigger."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from dlp_fast.config import FilterConfig
from dlp_fast.data.names import printable
from dlp_fast.filtering.curves import LEAST

Kind = Literal["poisoned", "nothing found", "cannot tell"]
NEAR = 0.85  # of the strength that counts as found; between the two a person should look (docs/verdict.md)
# Strength that nobody's word takes back: a network that has learnt the backdoor vouches for poison too.
CLEAR = 1.5


@dataclass(frozen=True)
class Verdict:
    """kind: the word; score: strength of the strongest sign, 1 = what counts as found; targets: suspicious classes,
    each with label, images, share of its class and of the set, stage that found it, whether it is perhaps harmless;
    reasons: sentences, one a target where there are any.
    """

    kind: Kind
    score: float
    targets: list[dict[str, Any]] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "score": self.score, "targets": self.targets, "reasons": self.reasons}


def verdict(
    evidence: list[dict[str, Any]],
    nearest: float,
    class_sizes: list[int],
    classes: tuple[str, ...],
    epochs: int,
    config: FilterConfig,
) -> Verdict:
    """The Verdict of a run.

    Args: evidence: for each class that fell into two clouds: stage, label, images, separation, doubt, strength, and the
    `vouching.Word` on it where a network was there to give one;
    nearest: the largest strength among classes that did not; class_sizes: images of each class; epochs: looks that
    stage 1 took.
    """
    classes = tuple(map(printable, classes))  # names are an attacker's text
    total = sum(class_sizes)
    targets = [
        {
            **found,
            "class": classes[found["label"]],
            "share_of_class": found["images"] / class_sizes[found["label"]],
            "share_of_all": found["images"] / total,
            "perhaps_harmless": perhaps_harmless(found),
        }
        for found in evidence
    ]
    if targets:
        reasons = [_reason(t) for t in targets]
        kind: Kind = "cannot tell" if all(t["perhaps_harmless"] for t in targets) else "poisoned"
        return Verdict(kind, max(t["strength"] for t in targets), targets, reasons)
    reasons = []
    if config.score != "trajectory":
        reasons.append(
            f"the filter {config.score} ranks images and says nothing of the set; trajectory does."
        )
    elif epochs < 2:
        reasons.append("one epoch shows no learning curves; train longer.")
    small = [classes[c] for c, size in enumerate(class_sizes) if size < LEAST]
    if small:
        reasons.append(
            f"{len(small)} of {len(classes)} classes have under {LEAST} images, too few to look at."
        )
    if nearest >= NEAR:
        reasons.append(
            f"one class nearly falls into two, or does but no more than others ({nearest:.0%} of what counts "
            "as found); look at its images."
        )
    return Verdict("cannot tell" if reasons else "nothing found", nearest, [], reasons)


def perhaps_harmless(found: dict[str, Any]) -> bool:
    """Whether a sign is weak, and a network that was not given the suspects' labels gives them these labels at least as
    often as it does the class's images whose labels it was given.
    """
    word = found.get("word")
    return word is not None and found["strength"] < CLEAR and word["suspects"] >= word["trusted"]


def _reason(target: dict[str, Any]) -> str:
    said = (
        f"in class {target['class']} the learning curves of {target['images']} images form a cloud of their own, apart "
        f"from the others (separation {target['separation']:.1f}, stage: {target['stage']})"
    )
    if not target["perhaps_harmless"]:
        return said + "."
    word = target["word"]
    return (
        f"{said}, if weakly; and a network that was not given their labels gives them to {word['suspects']:.0%} of "
        f"them (of the class's other images, whose labels it was given, to {word['trusted']:.0%}): likely harmless, "
        "typical pictures of their class or near-duplicates. The clean model was trained without their labels; look at "
        "them, and write keep in samples.csv where they are right."
    )
