"""Which classes are poisoned: the score of each group, beside those of the other classes, in stage 1 and in stage 3."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from made_curves import group, two_components

from dlp_fast.config import DetectionConfig
from dlp_fast.detection.decide import (
    Decision,
    Scored,
    clearest,
    decide,
    likely_benign,
    separation_score,
    with_held_out,
)
from dlp_fast.detection.detect import look_at_curves
from dlp_fast.detection.findings import Finding, HeldOutAgreement
from dlp_fast.detection.propose import Observed, by_curves
from dlp_fast.detection.propose.learning_curves import learning_curves

CONFIG = DetectionConfig()
FROM_TWO = DetectionConfig(min_separation=2.0)


def scores(groups, config=FROM_TWO, *others):
    return [entry.score for entry in decide(groups, config, *others).scored]


class TestSeparationScore:
    def test_small_groups_must_be_clearer(self):
        """Chance makes small ones; a large one found from a tail is the plain fit's to find."""

        def score(count, rare=True):
            return separation_score(group(4.2, count, size=1000, rare=rare), CONFIG)

        assert score(400) == 0
        assert score(250) == pytest.approx(2 / 1.22)
        assert score(100) == pytest.approx(2 / 1.4)
        assert score(20) == pytest.approx(2 / 2.6)
        assert score(9) == 0
        assert score(400, rare=False) == score(20, rare=False) == 2.0

    def test_outliers_and_nearly_whole_classes_are_none(self):
        assert [separation_score(group(4.2, count), CONFIG) for count in (9, 10, 90, 91)] == [0, 2, 2, 0]

    def test_every_threshold_is_an_option(self):
        rare = group(4.2, 20, size=1000, rare=True)
        other = DetectionConfig(min_separation=1.05, rare_base=1.0, rare_each=20)
        assert separation_score(rare, other) == pytest.approx(4 / 2)
        assert separation_score(rare, DetectionConfig(rare_max_share=0.01)) == 0
        assert separation_score(rare, DetectionConfig(min_group=21)) == 0
        assert separation_score(group(4.2, 40), DetectionConfig(max_share=0.3)) == 0


class TestClearest:
    def test_where_the_whole_class_falls_into_two_the_tails_have_no_say(self):
        plain, rare = group(2.2), group(40.0, 20, rare=True)
        assert decide([plain, rare], FROM_TWO).scored[0].group is plain

    @pytest.mark.parametrize("plain", [group(2.2), group(1.0), group(1.5, 80), group(3.0, 95)])
    def test_the_others_of_a_class_need_not_be_kept(self, plain):
        """A large set is decided class by class: each group has a number an image."""
        groups = [plain, group(40.0, 20, rare=True), group(30.0, 25, rare=True)]
        others = [group(1.1, label=1)]
        kept = clearest(groups, FROM_TWO)
        assert len(kept) == 1 and any(kept[0] is one for one in groups)
        assert clearest([], FROM_TWO) == []
        of_all, of_kept = decide(groups + others, FROM_TWO), decide(kept + others, FROM_TWO)
        assert of_kept.findings == of_all.findings
        for one, two in zip(of_kept.scored, of_all.scored, strict=True):
            assert one.score == two.score and one.group.core.tolist() == two.group.core.tolist()

    def test_of_curves_one_group_a_class_is_kept(self):
        entropy, loss = (torch.from_numpy(np.tile(of, 2)) for of in two_components())
        labels = torch.arange(2).repeat_interleave(360)
        seen, config = Observed(None, labels, 2, entropy, loss), DetectionConfig()
        every = by_curves(seen, config)
        decision = look_at_curves(seen, config)
        assert len(every) > len(decision.scored) == 2
        for one, two in zip(decision.scored, decide(every, config).scored, strict=True):
            assert one.score == two.score and one.group.core.tolist() == two.group.core.tolist()
        assert len(by_curves(seen, config, partial(clearest, config=config))) == 2

    def test_else_it_is_the_one_of_the_highest_score(self):
        plain, small, large = group(1.9), group(6.0, 12, rare=True), group(6.0, 30, rare=True)
        assert decide([plain, small, large], FROM_TWO).scored[0].group is large
        assert decide([plain, small], FROM_TWO).scored[0].group is plain  # 0.95, and 3 / 3.6

    def test_one_a_class(self):
        groups = [group(1.0, label=k, rare=rare) for k in range(3) for rare in (False, True)]
        assert [entry.group.label for entry in decide(groups, FROM_TWO).scored] == [0, 1, 2]


class TestBesideOtherClasses:
    """Every class may fall into labels known by heart and not yet: poison stands out."""

    @pytest.mark.parametrize(
        ("poisoned", "found"), [({2}, {2}), ({1, 4}, {1, 4}), (set(), set()), ({0, 1, 2, 3, 5}, set())]
    )
    def test_classes_that_stand_out(self, poisoned, found):
        made = [two_components(k) if k in poisoned else two_components(k, 360, 0) for k in range(6)]
        entropy, loss = (np.concatenate(curves, axis=1) for curves in zip(*made, strict=True))
        labels = np.arange(6).repeat(360)
        groups = learning_curves(entropy, loss, labels, 6, CONFIG.learning_curves, rare=False)
        decision = decide(groups, CONFIG)
        assert {finding.label for finding in decision.findings} == found
        assert {one.label for one in decision.found} == found

    @pytest.mark.parametrize("stage", ["supervised", "finetuning"])
    def test_values(self, stage):
        def beside(*separations):
            return scores([group(s, label=k) for k, s in enumerate(separations)], FROM_TWO, stage)

        assert beside(6.0, 1.0, 0.5, 0.5) == [3.0, 0.5, 0.25, 0.25]
        assert beside(6.0, 2.0, 2.0) == [1.5, 0.9, 0.9]
        assert beside(6.0, 4.0, 4.0) == [0.9, 0.9, 0.9]  # not found, and nothing to be sure of
        assert beside(6.0, 1.8, 0.4) == pytest.approx([3 / 1.1, 0.9 / 3.2, 0.2 / 3.9])
        assert beside(6.0) == [3.0]
        assert beside() == []

    def test_how_far_is_an_option(self):
        other = DetectionConfig(min_separation=2.0, stands_out=4.0, unclear_score=0.5)
        assert scores([group(s, label=k) for k, s in enumerate((6.0, 2.0, 2.0))], other) == [0.75, 0.5, 0.5]


class TestStage3:
    def test_a_group_of_most_of_its_class_is_what_is_known_already(self):
        assert scores([group(4.0, 50)], FROM_TWO, "finetuning") == [2.0]
        for count in (51, 88):
            assert scores([group(4.0, count)], FROM_TWO, "finetuning") == [0.0]
            assert scores([group(4.0, count)]) == [2.0]  # in stage 1 it counts

    @pytest.mark.parametrize(
        ("separation", "beside", "alone"), [(2.0, 0.5, 1.0), (4.0, 1.0, 2.0), (8.0, 2.0, 4.0)]
    )
    def test_beside_a_class_of_stage_1_it_counts_from_twice(self, separation, beside, alone):
        assert scores([group(separation, 30)], FROM_TWO, "finetuning", True) == [beside]
        assert scores([group(separation, 30)], FROM_TWO, "finetuning", False) == [alone]

    def test_the_finding_names_its_stage(self):
        (finding,) = decide([group(4.0)], FROM_TWO, "finetuning").findings
        assert finding.stage == "finetuning"


class TestDecision:
    def test_finding(self):
        decision = decide([group(4.20049, 30, label=3, first=500), group(1.0, label=4)], CONFIG)
        assert decision.findings == (Finding("supervised", 3, 30, 4.2, 0.0, 2.0002),)
        (found,) = decision.found
        assert found.core.tolist() == list(range(500, 530))
        assert decision.max_subthreshold_score == decision.scored[1].score < 0.5

    def test_nothing(self):
        decision = decide([], CONFIG)
        assert decision == Decision((), ())
        assert (decision.found, decision.max_subthreshold_score) == ([], 0.0)

    def test_findings_are_kept_as_json(self):
        for held_out in (None, HeldOutAgreement(0.9, 0.8)):
            finding = Finding("supervised", 3, 30, 4.2, 0.01, 2.0, held_out, True)
            assert Finding.from_json(finding.as_json()) == finding


@pytest.mark.parametrize("cause", [{}, {"part_success": 0.7}, {"proposal": "static_patterns.windows"}])
def test_what_has_a_cause_is_not_made_benign_in_stage_3(cause):
    """A patch at random places under right labels: what all images have in common need not act."""
    numbers = {"attack_success": 0.3, "placebo_success": 0.1, "shared_labels": 0.9}
    finding = replace(Finding("supervised", 3, 30, 4.2, 0.01, 2.0), **numbers, **cause)
    (told,) = with_held_out([finding], {3: HeldOutAgreement(0.9, 0.8)}, CONFIG)
    assert told.likely_benign == (not cause)


class TestEnsembleBand:
    @pytest.mark.parametrize(
        ("score", "inside"),
        [(0.0, False), (0.99, False), (1.0, True), (2.99, True), (3.0, False)],
    )
    @pytest.mark.parametrize("clear", [0.2, 5.0])
    def test_of_any_class_whatever_another_shows(self, score, inside, clear):
        decision = Decision(tuple(Scored(group(1.0), each) for each in (0.1, score, clear)), ())
        assert decision.in_ensemble_band(CONFIG) == inside
        assert not decision.in_ensemble_band(DetectionConfig(ensemble_to=0.0))

    def test_classes_too_small_for_groups_leave_no_doubt(self):
        assert not Decision((), ()).in_ensemble_band(CONFIG)
        assert Decision((), ()).in_ensemble_band(DetectionConfig(ensemble_from=0.0))


class TestHeldOut:
    def finding(self, score=1.2, stage="supervised", label=1):
        return Finding(stage, label, 30, 3.0, 0.01, score)

    @pytest.mark.parametrize(
        ("score", "suspects", "others", "benign"),
        [
            (1.2, 0.96, 0.88, True),
            (1.2, 0.88, 0.88, True),
            (1.2, 0.87, 0.88, False),  # they are harder to name than the others
            (
                CONFIG.clear_score,
                0.96,
                0.88,
                False,
            ),  # a network that learnt the backdoor would agree with poison
        ],
    )
    def test_a_weak_finding_that_a_network_agrees_with(self, score, suspects, others, benign):
        heard = HeldOutAgreement(suspects, others)
        (told,) = with_held_out([self.finding(score)], {1: heard}, CONFIG)
        assert (told.held_out, told.likely_benign) == (heard, benign)
        assert likely_benign(told, CONFIG) == benign

    def test_nobody_was_asked(self):
        assert not likely_benign(self.finding(), CONFIG)
        assert with_held_out([self.finding()], {}, CONFIG) == (self.finding(),)

    def test_each_class_of_stage_1_by_its_own(self):
        given = [self.finding(label=0), self.finding(label=1), self.finding(stage="finetuning", label=0)]
        told = with_held_out(given, {0: HeldOutAgreement(1.0, 0.5), 7: HeldOutAgreement(1.0, 0.5)}, CONFIG)
        assert [finding.likely_benign for finding in told] == [True, False, False]
        assert told[1:] == tuple(given[1:])
