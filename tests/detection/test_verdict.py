"""What is said of a set, and when nothing can be said."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dlp_fast.config import DetectionConfig
from dlp_fast.detection.decide import with_held_out
from dlp_fast.detection.findings import Finding, HeldOutAgreement
from dlp_fast.detection.verdict import verdict
from dlp_fast.report.text import verdict_lines

SIZES, CLASSES = [100, 300, 100], ("cat", "dog", "emu\nx")


CONFIG = DetectionConfig()


def finding(label=1, score=2.4, held_out=None):
    """As the decision makes it, with what a network without the suspects' labels says of them."""
    of = Finding("supervised", label, 150, 5.0, 0.01, score)
    (told,) = with_held_out([of], {label: held_out} if held_out else {}, CONFIG)
    return told


def said(findings=(), highest=0.3, sizes=SIZES, epochs=10, **config):
    return verdict(findings, highest, sizes, CLASSES, epochs, DetectionConfig(**config))


def test_poisoned():
    of = said([finding()])
    assert (of.kind, of.score) == ("poisoned", 2.4)
    (target,) = of.targets
    assert (target["class"], target["share_of_class"], target["share_of_all"]) == ("dog", 0.5, 0.3)
    assert "class dog" in of.reasons[0]


def test_names_are_escaped():
    assert said([finding(label=2)]).targets[0]["class"] == "emu\\nx"


def test_nothing_found():
    of = said()
    assert (of.kind, of.score, of.targets, of.reasons) == ("nothing found", 0.3, [], [])


@pytest.mark.parametrize(
    ("over", "reason"),
    [
        ({"highest": CONFIG.near_score}, "nearly falls into two"),
        ({"sizes": [100, 300, 20]}, "1 of 3 classes have under 40 images"),
        ({"epochs": 1}, "one epoch shows no learning curves"),
        (
            {"sizes": [100, 300, 50], "learning_curves": {"min_class_size": 51}},
            "1 of 3 classes have under 51",
        ),
        ({"method": "entropy"}, "the method entropy ranks images"),
        ({"method": "spectral_signatures"}, "the method spectral_signatures ranks images"),
    ],
)
def test_cannot_tell(over, reason):
    of = said(**over)
    assert of.kind == "cannot tell"
    assert reason in " ".join(of.reasons)


def test_what_is_found_outweighs_what_cannot_be_told():
    assert said([finding()], highest=0.9, sizes=[100, 300, 20]).kind == "poisoned"


AGREED = {"score": 1.2, "held_out": HeldOutAgreement(suspects=0.96, others=0.88)}


def test_just_below_what_makes_one_look():
    assert said(highest=CONFIG.near_score - 0.001).kind == "nothing found"


def test_a_weak_finding_that_a_network_agrees_with_is_likely_benign():
    of = said([finding(**AGREED)])
    assert (of.kind, of.score) == ("cannot tell", 1.2)
    assert of.targets[0]["likely_benign"]
    assert "to 96% of them" in of.reasons[0] and "to 88%" in of.reasons[0]
    told = verdict_lines(of.as_json())
    assert "cannot tell" in told[0] and told[1:] == of.reasons


def test_typical_pictures_that_act_as_a_trigger_leave_doubt():
    mark = replace(finding(score=1.1), label_support=1.2, attack_success=0.58, likely_benign=True)
    of = verdict((), 0.3, SIZES, CLASSES, 10, CONFIG, shown=[replace(mark, placebo_success=0.03)])
    assert (
        of.kind == "cannot tell"
        and "as typical pictures are" in of.reasons[0]
        and "sends 58%" in of.reasons[0]
    )
    assert verdict((), 0.3, SIZES, CLASSES, 10, CONFIG, shown=[replace(mark, placebo_success=0.5)]).kind == (
        "nothing found"
    )


@pytest.mark.parametrize(
    "over",
    [
        {"held_out": HeldOutAgreement(0.87, 0.88)},  # they are harder to name than the others
        {"score": CONFIG.clear_score},  # a network that learnt the backdoor would agree with poison
        {"held_out": None},
    ],
)
def test_else_it_is_poison(over):
    of = said([finding(**AGREED | over)])
    assert of.kind == "poisoned" and not of.targets[0]["likely_benign"]


def test_a_harmless_class_beside_a_poisoned_one():
    of = said([finding(**AGREED), finding(label=0)])
    assert of.kind == "poisoned"
    told = verdict_lines(of.as_json())
    assert len(told) == 2
    assert "target class cat" in told[0] and "class dog" in told[1] and "likely harmless" in told[1]


def test_a_mark_is_told_by_all_that_convicts_it():
    mark = replace(finding(), purity=0.93, attack_success=0.9, placebo_success=0.1)
    acts = "it sends 90% of them to this class, that of harmless groups at most 10%"
    unknown = "it knows these 4% as well"
    assert acts in said([mark]).reasons[0] and "gives them other labels" not in said([mark]).reasons[0]
    both = said([replace(mark, label_support=0.04)]).reasons[0]
    assert acts in both and unknown in both
    alone = said([replace(mark, label_support=0.04, attack_success=0.1)]).reasons[0]
    assert unknown in alone and "it sends" not in alone
    known = said([replace(mark, label_support=0.9)]).reasons[0]
    assert "gives them other labels" not in known
