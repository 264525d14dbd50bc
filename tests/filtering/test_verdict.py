"""What is said of a set, and when nothing can be said."""

from __future__ import annotations

import pytest

from dlp_fast.config import DetectionConfig
from dlp_fast.detection.verdict import CLEAR, NEAR, verdict
from dlp_fast.report.text import verdict_lines

SIZES, CLASSES = [100, 300, 100], ("cat", "dog", "emu\nx")


def found(label=1, **over):
    return {
        "stage": "supervised",
        "label": label,
        "images": 150,
        "separation": 5.0,
        "doubt": 0.01,
        "strength": 2.4,
        **over,
    }


def said(evidence=(), nearest=0.3, sizes=SIZES, epochs=10, **config):
    return verdict(list(evidence), nearest, sizes, CLASSES, epochs, DetectionConfig(**config))


def test_poisoned():
    of = said([found()])
    assert (of.kind, of.score) == ("poisoned", 2.4)
    (target,) = of.targets
    assert (target["class"], target["share_of_class"], target["share_of_all"]) == ("dog", 0.5, 0.3)
    assert "class dog" in of.reasons[0]


def test_names_are_escaped():
    assert said([found(label=2)]).targets[0]["class"] == "emu\\nx"


def test_nothing_found():
    of = said()
    assert (of.kind, of.score, of.targets, of.reasons) == ("nothing found", 0.3, [], [])


@pytest.mark.parametrize(
    ("over", "reason"),
    [
        ({"nearest": NEAR}, "nearly falls into two"),
        ({"sizes": [100, 300, 20]}, "1 of 3 classes have under 40 images"),
        ({"epochs": 1}, "one epoch shows no learning curves"),
        ({"score": "snapshot"}, "the filter snapshot ranks images"),
        ({"score": "spectral_signatures"}, "the filter spectral_signatures ranks images"),
    ],
)
def test_cannot_tell(over, reason):
    of = said(**over)
    assert of.kind == "cannot tell"
    assert reason in " ".join(of.reasons)


def test_what_is_found_outweighs_what_cannot_be_told():
    assert said([found()], nearest=0.9, sizes=[100, 300, 20]).kind == "poisoned"


VOUCHED = {"strength": 1.2, "word": {"suspects": 0.96, "trusted": 0.88}}


def test_a_weak_sign_that_a_network_vouches_for_is_perhaps_harmless():
    of = said([found(**VOUCHED)])
    assert (of.kind, of.score) == ("cannot tell", 1.2)
    assert of.targets[0]["perhaps_harmless"]
    assert "to 96% of them" in of.reasons[0] and "to 88%" in of.reasons[0]
    told = verdict_lines(of.as_json())
    assert "cannot tell" in told[0] and told[1:] == of.reasons


@pytest.mark.parametrize(
    "over",
    [
        {"word": {"suspects": 0.87, "trusted": 0.88}},  # they are harder to name than the others
        {"strength": CLEAR},  # a network that learnt the backdoor would vouch for poison
        {"word": None},
    ],
)
def test_else_it_is_poison(over):
    of = said([found(**VOUCHED | over)])
    assert of.kind == "poisoned" and not of.targets[0]["perhaps_harmless"]


def test_a_harmless_class_beside_a_poisoned_one():
    of = said([found(**VOUCHED), found(label=0)])
    assert of.kind == "poisoned"
    told = verdict_lines(of.as_json())
    assert len(told) == 2
    assert "target class cat" in told[0] and "class dog" in told[1] and "likely harmless" in told[1]
