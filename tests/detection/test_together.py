"""Marks that count together, and images that were changed in one way in many classes."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from dlp_fast.config import DetectionConfig
from dlp_fast.data.storage import ResidentImages
from dlp_fast.detection.convict import ask_held_out, is_spread, with_evidence
from dlp_fast.detection.decide import Decision, Scored, finding_of
from dlp_fast.detection.findings import Finding
from dlp_fast.detection.groups import Group
from dlp_fast.detection.propose import Observed
from dlp_fast.detection.propose.beside import ALIKE
from dlp_fast.detection.propose.grown import APART, GROWN
from dlp_fast.detection.propose.neighbours import Neighbours
from dlp_fast.detection.together import beside_alike, grown_among, judged_together
from dlp_fast.detection.verdict import verdict
from dlp_fast.detection.verify import Evidence
from dlp_fast.detection.verify.hold_out import HeldOutNetwork, with_support
from dlp_fast.detection.verify.label_support import LabelSupport
from dlp_fast.report.text import notes

CLASSES = 10
CONFIG = DetectionConfig()
SPREAD = np.ones(CLASSES, dtype=np.int64)
ONE = np.eye(CLASSES, dtype=np.int64)[4] * CLASSES


def grown(label: int, count: int = 10) -> Group:
    ids = label * 100 + np.arange(count)
    numbers = {"purity": 0.9, APART: 12.0, "abounds": 1.0, "share": 0.1}
    return Group(GROWN, label, ids, np.ones(count), numbers)


def told(taken_for: np.ndarray | None, ratio: float = 0.1, distinct: int = 10, success: float = 0.0):
    support = LabelSupport(ratio * 0.9, 0.9, 0.9, 1e-5, distinct)
    return Evidence(success, 0.0, distinct, support, taken_for=taken_for)


def judged(classes: list[int], evidence: list[Evidence], config=CONFIG):
    return judged_together([grown(c) for c in classes], evidence, CLASSES, config)


class TestJudged:
    def test_unknown_labels_in_many_classes_count_together(self):
        said = judged([0, 1, 2], [told(SPREAD)] * 3)
        assert [of.together for of in said] == [True] * 3 and not any(of.changed for of in said)

    @pytest.mark.parametrize(
        ("classes", "evidence"),
        [
            ([0, 1], [told(SPREAD)] * 2),  # two classes: styles of pictures
            ([0, 1, 1], [told(SPREAD)] * 3),
            ([0, 1, 2], [told(SPREAD), told(SPREAD), told(SPREAD, ratio=0.4)]),  # one is known
            ([0, 1, 2], [told(SPREAD), told(SPREAD), told(SPREAD, distinct=4)]),
            ([0, 1, 2], [told(SPREAD), told(SPREAD), told(None)]),  # not asked
        ],
    )
    def test_fewer_do_not(self, classes, evidence):
        assert not any(of.together or of.changed for of in judged(classes, evidence))

    def test_of_many_classes_a_share(self):
        groups = [grown(c) for c in range(5)]
        said = judged_together(groups, [told(SPREAD)] * 5, 20, CONFIG)
        assert not any(of.together for of in said)
        assert all(of.together for of in judged_together([*groups, grown(5)], [told(SPREAD)] * 6, 20, CONFIG))

    def test_of_few_classes_three(self):
        """Two of four are more than a share of 0.3, and may still be styles."""
        groups, evidence = [grown(0), grown(1), grown(2)], [told(SPREAD[:4])] * 3
        assert not any(of.together for of in judged_together(groups[:2], evidence[:2], 4, CONFIG))
        assert all(of.together for of in judged_together(groups, evidence, 4, CONFIG))

    def test_known_ones_do_not_come_along(self):
        said = judged([0, 1, 2, 3], [told(SPREAD)] * 3 + [told(SPREAD, ratio=0.9)])
        assert [of.together for of in said] == [True, True, True, False]

    @pytest.mark.parametrize(
        ("taken_for", "spread"),
        [
            ([5, 5, 0, 0, 0, 0], False),  # two classes: an unknown picture looks like this or that
            ([5, 4, 1, 1, 1, 0], True),
            ([5, 4, 1, 0, 0, 0], False),
            ([4, 4, 2, 0], True),  # of four classes, two are many
            ([3, 3, 3], True),
            ([6, 1, 1, 1, 1], False),
        ],
    )
    def test_what_spreads(self, taken_for, spread):
        assert is_spread(np.array(taken_for), CONFIG) == spread

    def test_where_many_are_known_they_were_changed(self):
        known = told(SPREAD, ratio=0.9)
        curves = Group("learning_curves", 4, np.arange(400, 412), np.ones(12), {})
        groups = [*(grown(c) for c in range(5)), curves]
        said = judged_together(
            groups, [*[told(SPREAD)] * 3, known, known, Evidence(0.0, 0.0, 9)], CLASSES, CONFIG
        )
        assert [of.changed for of in said] == [True, True, True, False, False, True]
        assert not any(of.together for of in said)

    def test_images_that_are_taken_for_one_class_were_changed(self):
        curves = Group("learning_curves", 1, np.arange(100, 120), np.ones(20), {})
        other = Group("learning_curves", 7, np.arange(700, 720), np.ones(20), {})
        large = Group(
            "learning_curves", 2, np.arange(200, 240), np.ones(40), {}
        )  # a quarter of it was changed
        groups = [grown(0), grown(1, 15), grown(2), curves, other, large]
        said = judged_together(groups, [told(ONE)] * 3 + [Evidence(0.9, 0.0, 9)] * 3, CLASSES, CONFIG)
        assert [of.changed for of in said] == [True, True, True, True, False, False]
        assert not any(of.together for of in said)


WRONG, RIGHT = Neighbours(0.02, 0.95, 0.01), Neighbours(0.9, 0.95, 0.01)
ALONE = replace(WRONG, familiar=-0.3)  # nothing else is of their kind


class TestNeighbours:
    """What the pictures that look most like them say beside the network."""

    def test_unknown_labels_that_are_right_were_changed(self):
        curves = Group("learning_curves", 1, np.arange(100, 112), np.ones(12), {})
        groups = [*(grown(c) for c in range(3)), curves]
        evidence = [replace(told(SPREAD), neighbours=RIGHT)] * 3 + [Evidence(0.9, 0.0, 9)]
        said = judged_together(groups, evidence, CLASSES, CONFIG)
        assert all(of.changed for of in said) and not any(of.together for of in said)
        # the poison of an attack whose covers are under right labels
        evidence[-1] = replace(evidence[-1], neighbours=WRONG)
        assert not judged_together(groups, evidence, CLASSES, CONFIG)[-1].changed

    @pytest.mark.parametrize(
        ("neighbours", "success", "placebo", "changed"),
        [
            (RIGHT, 0.0, 0.1, True),
            (RIGHT, 0.8, None, True),
            (RIGHT, 0.8, 0.1, False),
            (WRONG, 0.0, 0.1, False),
        ],
    )
    def test_beside_changed_pictures(self, neighbours, success, placebo, changed):
        """A group of learning curves that has hardly any of their marks."""
        ids = np.arange(700, 720)
        of = [
            Group(name, 7, ids, np.ones(20), {}) for name in ("learning_curves", "static_patterns.principal")
        ]
        evidence = [replace(told(SPREAD), neighbours=RIGHT)] * 3
        evidence += [Evidence(success, placebo, 20, neighbours=neighbours)] * 2
        said = judged_together([*(grown(c) for c in range(3)), *of], evidence, CLASSES, CONFIG)
        assert [told.changed for told in said] == [True, True, True, changed, False]

    def test_a_changed_mark_of_several_classes_is_shown_class_by_class(self):
        of = replace(grown(0, 30), label=None, labels=np.arange(30) % 3)
        decision = with_evidence(Decision((), ()), [of], [replace(told(SPREAD), changed=True)], CONFIG)
        assert not decision.findings
        assert [(mark.label, mark.images, mark.changed) for mark in decision.marks] == [
            (label, 10, True) for label in range(3)
        ]

    def test_wrong_ones_count_together(self):
        said = judged(
            [0, 1, 2, 3], [replace(told(SPREAD), neighbours=n) for n in (WRONG, WRONG, WRONG, RIGHT)]
        )
        assert [of.together for of in said] == [True, True, True, False]
        few = judged([0, 1, 2], [replace(told(SPREAD), neighbours=n) for n in (WRONG, WRONG, RIGHT)])
        assert not any(of.together or of.changed for of in few)

    @pytest.mark.parametrize(
        ("neighbours", "apart", "beside"),
        [
            (WRONG, 9.0, True),
            (WRONG, 7.5, False),
            (WRONG, None, False),
            (RIGHT, 9.0, False),
            (ALONE, 9.0, False),
        ],
    )
    def test_which_marks_are_beside_alike_pictures(self, monkeypatch, neighbours, apart, beside):
        monkeypatch.setattr("dlp_fast.detection.together.apart_from_alike", lambda *_: apart)
        around = SimpleNamespace(of=lambda ids: neighbours)
        around.only = lambda ids: around
        seen = SimpleNamespace(labels=torch.zeros(1000), images=None, surroundings=around)
        (group,) = beside_alike([grown(2)], seen, CONFIG)
        assert group.statistics.get(ALIKE) == (apart if beside else None)

    def test_marks_beside_alike_pictures_were_not_changed(self):
        """Though a network knows most of the grown marks, or takes the others for one class."""
        marks = [replace(grown(c), statistics=grown(c).statistics | {ALIKE: 12.0}) for c in range(3)]
        groups = [*marks, grown(3), grown(4)]
        wrong, known = replace(told(SPREAD), neighbours=WRONG), told(SPREAD, ratio=0.9)
        said = judged_together(groups, [wrong] * 3 + [known] * 2, CLASSES, CONFIG)
        assert not any(of.changed for of in said)
        assert not any(of.changed for of in judged_together(marks, [told(ONE)] * 3, CLASSES, CONFIG))

    def test_a_mark_beside_alike_pictures_is_suspected_by_itself(self):
        mark = replace(grown(0), statistics=grown(0).statistics | {ALIKE: 12.0})
        nobody = Decision((), ())
        assert with_evidence(nobody, [mark], [told(ONE)], CONFIG).findings[0].score == pytest.approx(2.0)
        assert with_evidence(nobody, [mark], [Evidence(0.0, 0.0, 10)], CONFIG).findings  # nobody was asked
        assert not with_evidence(nobody, [mark], [told(ONE, ratio=0.7)], CONFIG).findings
        assert not with_evidence(nobody, [grown(0)], [told(ONE)], CONFIG).findings

    @pytest.mark.parametrize(("taken_for", "suspected"), [(SPREAD, True), (ONE, False), (None, False)])
    def test_unknown_labels_of_one_other_class_may_be_a_style(self, taken_for, suspected):
        """7s of one hand under label 1: a network takes all of them for 7s."""
        said = with_evidence(Decision((), ()), [grown(0, 30)], [told(taken_for, distinct=30)], CONFIG)
        assert len(said.findings) == suspected

    def test_right_labels_are_not_convicted_by_a_network_that_does_not_know_them(self):
        mark = Group(
            "static_patterns.skewness", 0, np.arange(30), np.ones(30), {"purity": 0.9, "separation": 9.0}
        )
        nobody, unknown = Decision((), ()), told(SPREAD, distinct=30)
        assert with_evidence(nobody, [mark], [replace(unknown, neighbours=WRONG)], CONFIG).findings
        assert not with_evidence(nobody, [mark], [replace(unknown, neighbours=RIGHT)], CONFIG).findings


class TestDecided:
    def decide(self, evidence: list[Evidence], curves: Group | None = None):
        found = [curves] if curves else []
        sized = [
            Scored(
                Group("learning_curves", c, np.arange(c * 100, c * 100 + 100), np.zeros(100), NUMBERS),
                0.1,
            )
            for c in range(CLASSES)
        ]
        findings = tuple(finding_of(Scored(group, 1.2), "supervised") for group in found)
        decision = Decision(tuple(sized), findings, tuple(found))
        marks = [grown(c) for c in (0, 1, 2)]
        evidence = judged_together([*found, *marks], evidence, CLASSES, CONFIG)
        return with_evidence(decision, marks, evidence, CONFIG)

    def test_together_they_are_suspected(self):
        decision = self.decide([told(SPREAD)] * 3)
        assert [finding.label for finding in decision.findings] == [0, 1, 2]
        assert all(finding.score == pytest.approx(12 / CONFIG.min_apart) for finding in decision.findings)
        assert [len(group.core) for group in decision.found] == [10] * 3

    def test_alone_they_are_shown(self):
        decision = self.decide([told(SPREAD), told(SPREAD, ratio=0.9), told(SPREAD, ratio=0.9)])
        assert not decision.findings
        assert [mark.label for mark in decision.marks] == [0, 1, 2]

    def test_one_alone_has_to_act_and_to_show_several_classes(self):
        known = told(SPREAD, ratio=0.9)
        acts = self.decide([told(SPREAD, success=0.9), known, known])
        assert [finding.label for finding in acts.findings] == [0]
        assert not self.decide([told(ONE, success=0.9), known, known]).findings  # the look of a style
        assert not self.decide([told(SPREAD, success=0.9, ratio=0.4), known, known]).findings

    def test_a_grown_mark_is_more_exact_than_curves(self):
        curves = Group("learning_curves", 0, np.arange(0, 14), np.ones(14), NUMBERS)
        decision = self.decide([Evidence(0.9, 0.0, 9), *[told(SPREAD)] * 3], curves)
        assert [len(group.core) for group in decision.found] == [10, 10, 10]
        assert decision.findings[0].images == 10
        larger = Group("learning_curves", 0, np.arange(0, 60), np.ones(60), NUMBERS)
        decision = self.decide([Evidence(0.9, 0.0, 9), *[told(SPREAD)] * 3], larger)
        assert len(decision.found[0].core) == 60  # of which it is a part

    def test_changed_images_are_shown_and_nobody_is_suspected(self):
        curves = Group("learning_curves", 1, np.arange(100, 112), np.ones(12), NUMBERS)
        decision = self.decide([Evidence(0.9, 0.0, 9), *[told(ONE, success=0.9)] * 3], curves)
        assert not decision.findings and not decision.found
        assert [(mark.label, mark.changed) for mark in decision.marks] == [(0, True), (1, True), (2, True)]
        classes = tuple("abcdefghij")
        said = verdict([], 0.2, [100] * CLASSES, classes, 10, CONFIG, shown=decision.marks)
        assert said.kind == "cannot tell"
        assert "30 images of 3 classes (a, b, c) look changed" in said.reasons[0]

    def test_alone_it_is_no_more_exact_than_curves(self):
        curves = Group("learning_curves", 0, np.arange(0, 14), np.ones(14), NUMBERS)
        known = told(SPREAD, ratio=0.9)
        decision = self.decide([Evidence(0.9, 0.0, 9), told(SPREAD, success=0.9), known, known], curves)
        assert [len(group.core) for group in decision.found] == [14]

    def test_changed_groups_of_curves_are_not_convicted_by_their_gap(self):
        ids = np.arange(100, 200)
        asked = Scored(Group("learning_curves", 1, ids, (ids < 112).astype(float), NUMBERS), 0.6)
        gap = LabelSupport(0.1, 0.9, 0.9, 1e-5, 12)
        changed = Evidence(0.0, 0.0, 12, gap, gap_p=1e-6, changed=True)
        decision = Decision((asked,), ())
        assert not with_evidence(decision, [], [changed], CONFIG).findings
        assert with_evidence(decision, [], [replace(changed, changed=False)], CONFIG).findings

    def test_a_class_is_shown_as_changed_once(self):
        marks = [grown(0), grown(0, 5), grown(1), grown(2)]
        evidence = [replace(told(ONE), changed=True)] * 4
        decision = with_evidence(Decision((), ()), marks, evidence, CONFIG)
        assert [mark.label for mark in decision.marks] == [0, 1, 2]

    def test_a_network_is_asked_about_grown_marks_that_act(self):
        acts = told(None, success=0.9)
        assert ask_held_out(Decision((), ()), [grown(0)], [acts], CONFIG)
        assert not ask_held_out(
            Decision((), ()), [replace(grown(0), statistics={"purity": 0.9})], [acts], CONFIG
        )

    def test_changed_images_are_told_beside_a_finding(self):
        mark = replace(self.decide([told(ONE)] * 3).marks[0])
        results = {
            "verdict": {"kind": "poisoned"},
            "model": {"holds": "clean"},
            "stages": {},
            "decisions": {},
            "stage3_detections": 0,
            "logit_adjustment": {},
            "detection": {"marks": [mark.as_json() | {"class": "a"}]},
        }
        (sentence,) = notes(results)
        assert sentence.startswith("10 images of 1 classes (a) look changed")


def test_many_marks_are_told_in_one_sentence():
    """And few, one by one: thirty sentences are not read."""
    marks = [
        Finding("supervised", 0, 5 + k, 0.0, 0.0, 1.0, purity=0.9).as_json() | {"class": "abcdef"[k]}
        for k in range(6)
    ]
    results = {
        "verdict": {"kind": "nothing found"},
        "model": {"holds": "clean"},
        "stages": {},
        "decisions": {},
        "stage3_detections": 0,
        "logit_adjustment": {},
    }
    assert len(notes(results | {"detection": {"marks": marks[:4]}})) == 4
    (sentence,) = notes(results | {"detection": {"marks": marks}})
    assert sentence.startswith("6 groups of 5 to 10 images of 6 classes (a, b, c, d, e, …) share a mark")


NUMBERS = {"separation": 2.5, "posterior_entropy": 0.0, "rare": 0.0}


def test_marks_grow_only_where_they_abound(monkeypatch):
    """And what an earlier process has grown is taken."""

    def mark(label: int, purity: float) -> Group:
        ids = label * 30 + np.arange(6)
        return Group("static_patterns.skewness", label, ids, np.ones(6), {"purity": purity})

    labels = torch.arange(300) // 30
    seen = Observed(None, labels, CLASSES, torch.zeros(2, 300), torch.zeros(2, 300))
    asked: list[str] = []

    def kept(name, _make):
        asked.append(name)
        pure, impure = replace(grown(0), statistics={"purity": 0.9, APART: 9.0}), grown(1)
        return [pure, replace(impure, statistics={"purity": 0.7, APART: 9.0})]

    assert grown_among([mark(c, 0.6) for c in range(4)], seen, CONFIG, kept) == [] and not asked
    (one,) = grown_among([mark(c, 0.6) for c in range(5)], seen, CONFIG, kept)
    assert asked == ["grown_marks"] and one.label == 0 and one.statistics["abounds"] == 1.0


def test_what_the_network_takes_them_for_is_counted():
    """Of each mark, on all of its images; of learning curves nothing is asked."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (300, 8, 8, 3), generator=generator).to(torch.uint8)
    labels = torch.arange(300) % 3
    pixels[:, 0, 0, 0] = (torch.arange(300) * 7 % 3).to(torch.uint8)  # what is shown
    entropy, loss = (torch.rand(9, 300, generator=generator) for _ in range(2))
    seen = Observed(ResidentImages(pixels), labels, 3, entropy, loss)
    ids = np.arange(0, 60, 3)
    groups = [
        Group(GROWN, 0, ids, np.ones(20), {"purity": 0.9, APART: 9.0}),
        Group("learning_curves", 1, np.arange(1, 61, 3), np.ones(20), NUMBERS),
    ]

    def train(_):
        known = np.full(300, 0.5)
        return HeldOutNetwork(known, known, lambda x: x[:, 0, 0, 0].long())

    evidence = [Evidence(0.0, 0.0, 20)] * 2
    mark, curves = with_support(groups, evidence, [], seen, train, CONFIG)
    expected = np.bincount(ids * 7 % 3, minlength=3)
    assert mark.taken_for.tolist() == expected.tolist() and curves.taken_for is None
