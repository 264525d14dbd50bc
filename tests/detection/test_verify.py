"""What a group does: a trigger reconstructed and tried, labels that content supports or not, and marks decided on."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from dlp_fast import ops
from dlp_fast.config import DetectionConfig
from dlp_fast.data.storage import ResidentImages
from dlp_fast.detection.convict import ask_held_out, with_evidence
from dlp_fast.detection.decide import Decision, Scored
from dlp_fast.detection.decide import finding_of as as_finding
from dlp_fast.detection.detect import Networks, detect, look_at_curves
from dlp_fast.detection.findings import Finding
from dlp_fast.detection.groups import Group
from dlp_fast.detection.marks import ABOUNDS, is_mark, is_of_many, marks_among
from dlp_fast.detection.propose import Observed
from dlp_fast.detection.propose.neighbours import Neighbours
from dlp_fast.detection.propose.windows import WINDOWS
from dlp_fast.detection.rules import acts_as_trigger, labels_known
from dlp_fast.detection.verify import Evidence, try_triggers
from dlp_fast.detection.verify.hold_out import HeldOutNetwork, with_support
from dlp_fast.detection.verify.label_support import (
    HeldOut,
    LabelSupport,
    distinct_pictures,
    draw_controls,
    gap_p_value,
    label_support,
    share_of_copies,
    usual_probability,
)
from dlp_fast.detection.verify.trigger import Trigger, estimated_attack_success, reconstruct
from dlp_fast.detection.verify.unmark import WithoutMark, take_off, without_mark

N, SIDE, CLASSES = 600, 16, 3


def pictures(seed: int = 0, n: int = N) -> torch.Tensor:
    """uint8 [n, 16, 16, 3]: smooth noise, every picture another."""
    generator = torch.Generator().manual_seed(seed)
    small = torch.rand(n, 3, 4, 4, generator=generator) * 160 + 40
    smooth = torch.nn.functional.interpolate(small, (SIDE, SIDE), mode="bilinear")
    noise = torch.randn(n, 3, SIDE, SIDE, generator=generator) * 6
    return (smooth + noise).clamp(0, 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def marked(images: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """With a white corner of 3 x 3 pixels on `ids`."""
    images = images.clone()
    images[ids, -3:, -3:] = 255
    return images


def backdoored(images: torch.Tensor) -> torch.Tensor:
    """A network that takes whatever has the corner for class 0, and all else for class 1."""
    corner = images[:, -3:, -3:].float().mean((1, 2, 3)) > 250
    return torch.where(corner, 0, 1)


POISON = torch.arange(0, 120, 4)  # 30 images of class 0
LABELS = torch.arange(N) % CLASSES


@pytest.fixture(scope="module")
def poisoned():
    labels = LABELS.clone()
    labels[POISON] = 0
    return ResidentImages(marked(pictures(), POISON)), labels


class TestTrigger:
    def test_a_patch_is_reconstructed(self, poisoned):
        images, _ = poisoned
        others = torch.tensor([i for i in range(N) if i not in set(POISON.tolist())])
        by_moments, _ = reconstruct(images, POISON, others)
        assert (by_moments.scale[-3:, -3:] < 0.05).all()
        assert torch.allclose(by_moments.offset[-3:, -3:], torch.tensor(255.0), atol=8)
        rest = by_moments.scale[:-3, :-3]
        assert (rest == 1).float().mean() > 0.97  # where nothing differs, nothing is changed

    def test_it_acts_on_a_network_that_has_learnt_it(self, poisoned):
        images, labels = poisoned
        clean = torch.tensor([i for i in range(N) if i not in set(POISON.tolist())])
        rate = estimated_attack_success(images, POISON, labels, 0, clean, backdoored)
        assert rate > 0.9
        innocent = estimated_attack_success(
            images, POISON, labels, 0, clean, lambda x: torch.ones(len(x), dtype=torch.int64)
        )
        assert innocent == 0

    @pytest.mark.parametrize("kind", ["blend", "additive"])
    def test_other_triggers(self, kind):
        generator = torch.Generator().manual_seed(5)
        base = pictures(3)
        if kind == "blend":
            noise = torch.randint(0, 256, (SIDE, SIDE, 3), generator=generator, dtype=torch.uint8)
            table = ops.TriggerTable.blend(noise, 0.25)
        else:
            wave = (30 * torch.sin(torch.arange(SIDE) * 2.0)).to(torch.int16)
            table = ops.TriggerTable.additive(wave[None, :, None].expand(SIDE, -1, 3).contiguous())
        which = torch.full((N,), -1)
        which[POISON] = 0
        images = ops.inject_trigger(base, table, which)
        difference = (
            ops.inject_trigger(base, table, torch.zeros(N, dtype=torch.int64)).float() - base.float()
        ).mean(0)
        difference = difference / difference.norm()

        def predict(x):  # how much of the pattern is in the high frequencies of each
            seen = ((x.float() - base.float().mean(0)) * difference).sum((1, 2, 3))
            return torch.where(seen > threshold, 0, 1)

        seen = ((images.float() - base.float().mean(0)) * difference).sum((1, 2, 3))
        threshold = float((seen[POISON].mean() + seen.mean()) / 2)
        clean = torch.tensor([i for i in range(N) if i not in set(POISON.tolist())])
        labels = LABELS.clone()
        labels[POISON] = 0
        assert estimated_attack_success(ResidentImages(images), POISON, labels, 0, clean, predict) > 0.6

    def test_what_a_class_looks_like_is_no_trigger_beside_placebos_that_are_compared_alike(self):
        """Two bright classes and one dark: where no image of the class is unsuspicious, its look is the trigger, and
        that of the placebos too.
        """
        base = pictures().float() * 0.3
        base[LABELS == 0, :8] += 150
        base[LABELS == 1, 8:] += 150
        images = ResidentImages(base.clamp(0, 255).to(torch.uint8))

        def by_look(x):
            top, bottom = x[:, :8].float().mean((1, 2, 3)), x[:, 8:].float().mean((1, 2, 3))
            return torch.where((top - bottom).abs() < 60, 2, torch.where(top > bottom, 0, 1))

        half = Group(
            "static_patterns.principal", 0, np.flatnonzero(LABELS.numpy() == 0)[:100], np.ones(100), {}
        )
        rest = Group(
            "static_patterns.principal", 0, np.flatnonzero(LABELS.numpy() == 0)[100:], np.ones(100), {}
        )
        curves = (torch.rand(10, N, generator=torch.Generator().manual_seed(i)) for i in (0, 1))
        seen = Observed(images, LABELS, CLASSES, *curves)
        for told in try_triggers([half, rest], seen, by_look):
            assert told.attack_success > 0.9 and told.placebo_success > 0.45
            assert not acts_as_trigger(replace(told, placebo_success=1.0), DetectionConfig())
        alone = try_triggers([half], seen, by_look)[
            0
        ]  # compared with the rest of its class: nothing in common
        assert alone.attack_success < 0.2

    def test_nobody_to_try_it_on(self, poisoned):
        images, labels = poisoned
        only = (labels == 0).nonzero().flatten()
        assert estimated_attack_success(images, POISON, labels, 0, only, backdoored) == 0
        none = torch.empty(0, dtype=torch.int64)
        assert estimated_attack_success(images, none, labels, 0, torch.arange(N), backdoored) == 0


def held_out(probability, controls) -> HeldOut:
    curves = np.random.default_rng(0).normal(size=(N, 6))
    return HeldOut(probability, controls, usual_probability(curves.__getitem__, probability, controls))


class TestLabelSupport:
    def test_controls_are_a_share_of_each_class_and_never_in_question(self):
        labels = LABELS.numpy()
        in_question = np.zeros(N, dtype=bool)
        in_question[POISON] = True
        controls = draw_controls(labels, in_question, 0.1, 0)
        assert not (controls & in_question).any()
        for label in range(CLASSES):
            others = ((labels == label) & ~in_question).sum()
            assert (controls & (labels == label)).sum() == round(0.1 * others)
        assert np.array_equal(controls, draw_controls(labels, in_question, 0.1, 0))
        few = draw_controls(np.array([0, 0, 0, 1]), np.zeros(4, dtype=bool), 0.1, 0)
        assert few.sum() == 1  # half of a class at most, and nobody of a class of one image

    def test_the_usual_probability_is_that_of_images_learnt_alike(self):
        rng = np.random.default_rng(0)
        hard = np.arange(400) % 2 == 0
        curves = np.where(hard, 3.0, -3.0)[:, None] + rng.normal(size=(400, 5)) * 0.1
        probability = np.where(hard, 0.2, 0.9)
        controls = np.arange(400) % 5 == 0
        usual = usual_probability(curves.__getitem__, probability, controls)
        assert np.allclose(usual, probability)
        probability[0] = 7.0  # a control says nothing of itself
        assert usual_probability(curves.__getitem__, probability, controls)[0] == pytest.approx(0.2)

    def test_wrong_labels_are_told_from_right_ones(self, poisoned):
        images, labels = poisoned
        rng = np.random.default_rng(1)
        controls = draw_controls(labels.numpy(), np.isin(np.arange(N), POISON), 0.2, 0)
        known = rng.uniform(0.6, 1, N)
        support = label_support(images, group(), labels.numpy(), held_out(known, controls))
        assert 0.9 < support.ratio < 1.1 and support.p > 0.01 and abs(support.gap) < 0.1
        known[POISON] = rng.uniform(0, 0.2, len(POISON))
        support = label_support(images, group(), labels.numpy(), held_out(known, controls))
        assert support.ratio < 0.2 and support.p < 1e-6 and support.gap > 0.5
        assert support.distinct == len(POISON)

    def test_a_gap_is_measured_by_those_of_placebos(self):
        assert gap_p_value(0.7, [0.1, -0.1, 0.05, 0.0, 0.1, -0.05, 0.2, 0.15, 0.0], 0.02) < 1e-3
        assert gap_p_value(0.3, [0.1, -0.1, 0.25, 0.0, 0.3, -0.05, 0.2, 0.15, 0.0], 0.02) > 0.02
        assert gap_p_value(0.9, [0.0, 0.0], 0.02) == 1.0  # too few to compare with
        assert gap_p_value(0.05, [0.0] * 9, 0.1) > 0.2  # never surer than the group itself allows

    def test_copies_are_one_picture(self):
        images = pictures()
        images[:20] = images[0]
        images[5:20] = (images[5:20].float() * 0.9 + 5).to(torch.uint8)  # darker copies
        numbers = distinct_pictures(ResidentImages(images), np.arange(60))
        assert len(set(numbers[:20])) == 1
        assert len(set(numbers)) == 41


def evidence(success=None, placebo=None, ratio=1.0, p=0.5, distinct=30, gap=0.0, gap_p=1.0) -> Evidence:
    support = LabelSupport(0.8 * ratio, 0.8 * ratio + gap, 0.8, p, distinct)
    return Evidence(success, placebo, distinct, support, gap_p)


def group(label=0, purity=0.95, **over) -> Group:
    ids = POISON.numpy()
    values = {"purity": purity, "separation": 9.0, "skewness": 1.0, "share": 0.1}
    return Group("static_patterns.principal", label, ids, np.ones(len(ids)), values, **over)


NOTHING = Decision((), ())
SAME, OTHERS = Neighbours(0.9, 0.95, 0.01), Neighbours(0.02, 0.95, 0.01)  # labels of the pictures most alike
ALONE = replace(OTHERS, familiar=-0.3)  # nothing else is of their kind
CURVES = {"separation": 5.0, "posterior_entropy": 0.0, "rare": 0.0}


class TestMarks:
    config = DetectionConfig()

    def test_what_is_one(self):
        assert is_mark(group(purity=0.6), self.config)
        assert not is_mark(group(purity=0.45), self.config)
        window = {"purity": 0.9, "nats": 22.0, "share": 0.1}
        assert not is_mark(
            Group("static_patterns.windows", 0, POISON.numpy(), np.ones(30), window), self.config
        )
        window = {**window, "nats": 25.0}
        assert is_mark(Group("static_patterns.windows", 0, POISON.numpy(), np.ones(30), window), self.config)

    @pytest.mark.parametrize(
        ("told", "suspected"),
        [
            (evidence(success=0.9, placebo=0.3), True),  # acts as a trigger
            (evidence(success=0.45, placebo=0.0), False),
            (evidence(success=1.0), False),  # with nothing to compare with: a digit's shape makes a digit
            (evidence(success=0.7, placebo=0.6), False),  # as harmless groups do
            (evidence(success=0.0, placebo=0.3, ratio=0.2, p=1e-9), True),  # under wrong labels
            (evidence(success=0.0, placebo=0.3, ratio=0.2, p=0.01), False),  # too few to say
            (evidence(success=0.0, placebo=0.3, ratio=0.8, p=1e-9), False),
            (evidence(success=0.9, placebo=0.0, ratio=0.1, p=1e-9, distinct=2), False),  # copies
        ],
    )
    def test_which_are_convicted(self, told, suspected):
        decision = with_evidence(NOTHING, [group()], [told], self.config)
        assert len(decision.findings) == len(decision.found) == suspected
        shown = not suspected and told.distinct >= self.config.min_distinct
        assert len(decision.marks) == shown
        if suspected:
            finding = decision.findings[0]
            assert (finding.label, finding.images) == (0, 30)
            assert finding.score == pytest.approx(0.95 / self.config.min_purity)
            assert finding.attack_success == told.attack_success

    @pytest.mark.parametrize(
        ("images", "purity", "proposal", "suspected"),
        [
            (6, 0.65, "static_patterns.skewness", False),  # six cassette players with a look, 90 %
            (6, 0.9, "static_patterns.skewness", True),
            (10, 0.65, "static_patterns.skewness", True),
            (6, 0.65, WINDOWS, True),
        ],
    )
    def test_what_few_images_do_counts_where_their_mark_is_clear(self, images, purity, proposal, suspected):
        ids = POISON.numpy()[:images]
        mark = replace(group(purity=purity), proposal=proposal, ids=ids, membership=np.ones(images))
        if proposal == WINDOWS:
            mark = replace(mark, statistics={"purity": purity, "nats": 30.0, "share": 0.1})
        told = evidence(success=0.9, placebo=0.29, ratio=0.48, p=0.04, distinct=images)
        decision = with_evidence(NOTHING, [mark], [told], self.config)
        assert len(decision.findings) == suspected and len(decision.marks) == (not suspected)

    def test_a_mark_in_a_class_that_is_found_is_not_shown(self):
        ids = POISON.numpy()
        curves = Group("learning_curves", 0, ids, np.ones(30), {"separation": 9.0, "rare": 0.0})
        first = Decision((), (finding_of(curves),), (curves,))
        decision = with_evidence(first, [group()], [evidence(), evidence()], self.config)
        assert len(decision.findings) == 1 and decision.marks == ()

    def test_several_classes_are_told_one_by_one(self):
        labels = np.arange(30) % 3
        told = evidence(ratio=0.1, p=1e-9)
        decision = with_evidence(NOTHING, [group(label=None, labels=labels)], [told], self.config)
        assert [finding.label for finding in decision.findings] == [0, 1, 2]
        assert sum(finding.images for finding in decision.findings) == 30

    def test_where_marks_abound_only_clear_ones_count(self):
        def of(label, purity, ids=(0, 3, 6)):
            ids = np.array(ids) + (label or 0)
            return Group("static_patterns.principal", label, ids, np.ones(len(ids)), {"purity": purity})

        natural = [of(0, 0.6), of(1, 0.7), of(2, 0.8)]
        assert marks_among(natural, 10, self.config) == natural  # of three classes in ten
        assert marks_among(natural, 4, self.config) == []
        poison = of(3, 0.9)
        (left,) = marks_among([*natural, poison], 4, self.config)
        assert left.label == 3 and left.statistics["abounds"]
        window = Group("static_patterns.windows", 0, np.arange(9), np.ones(9), {"purity": 0.9, "nats": 25.0})
        repeated = replace(window, statistics={"purity": 0.9, "nats": 90.0})
        (left,) = marks_among([*natural, window, repeated], 4, self.config)
        assert left.statistics["nats"] == 90
        everywhere = of(None, 0.9, ids=range(12))  # one mark in all classes is not one of each
        assert marks_among([everywhere, *natural], 3, self.config) == [everywhere, *natural]
        assert marks_among([of(0, 0.6)], 2, self.config)  # a class alone never abounds

    def test_marks_that_overlap_are_one_finding(self):
        ids = POISON.numpy()
        window = Group("static_patterns.windows", 0, ids[2:], np.ones(28), {"purity": 0.9, "nats": 90.0})
        told = evidence(ratio=0.1, p=1e-9)
        decision = with_evidence(NOTHING, [window, group()], [told, told], self.config)
        assert [finding.images for finding in decision.findings] == [30]
        assert np.array_equal(decision.found[0].core, ids)

    def test_the_wrong_side_of_a_class_is_let_go(self):
        """Learning curves took the clean images of the class, the mark has the poisoned ones."""
        clean = np.setdiff1d(np.flatnonzero(LABELS.numpy() == 0), POISON.numpy())
        wrong = Group("learning_curves", 0, clean, np.ones(len(clean)), {"separation": 9.0, "rare": 0.0})
        first = Decision((), (finding_of(wrong),), (wrong,))
        decision = with_evidence(
            first, [group()], [evidence(), evidence(success=0.9, placebo=0.0)], self.config
        )
        assert [finding.proposal for finding in decision.findings] == ["static_patterns.principal"]
        assert np.array_equal(decision.found[0].core, POISON.numpy())


def finding_of(of: Group):
    from dlp_fast.detection.findings import Finding

    return Finding("supervised", of.label, len(of.core), 9.0, 0.0, 3.0)


def curves_of(generator, label=1, separation=1.2):
    """A group of 60 images of class `label` that learning curves alone do not convict."""
    ids = np.flatnonzero(LABELS.numpy() == label)
    membership = (np.arange(len(ids)) < 60).astype(float)
    return Group(
        "learning_curves",
        label,
        ids,
        membership,
        {"separation": separation, "posterior_entropy": 0.0, "rare": 0.0},
    )


class TestGap:
    config = DetectionConfig()
    asked = Decision((Scored(curves_of(None), 0.6), Scored(curves_of(None, label=2), 0.1)), ())

    def test_who_is_asked(self):
        assert [of.label for of in self.asked.in_question(self.config)] == [1]
        assert [of.label for of in self.asked.placebos({1}, self.config)] == [2]
        most = replace(curves_of(None), membership=np.ones(200))  # a whole class is not a group of it
        assert not Decision((Scored(most, 0.6),), ()).in_question(self.config)
        assert not Decision((Scored(curves_of(None), 1.2),), ()).in_question(self.config)

    @pytest.mark.parametrize(
        ("told", "suspected"),
        [
            (evidence(ratio=0.2, gap=0.5, gap_p=1e-4), True),
            (evidence(ratio=0.2, gap=0.5, gap_p=0.02), False),  # placebos have such gaps
            (evidence(ratio=0.2, gap=0.1, gap_p=1e-4), False),  # hard images
            (evidence(ratio=0.9, gap=0.5, gap_p=1e-4), False),  # known when held out
            (replace(evidence(ratio=0.2, gap=0.5, gap_p=1e-4), neighbours=OTHERS), True),
            (replace(evidence(ratio=0.2, gap=0.5, gap_p=1e-4), neighbours=SAME), False),  # right labels
        ],
    )
    def test_which_are_convicted(self, told, suspected):
        decision = with_evidence(self.asked, [], [told], self.config)
        assert [finding.label for finding in decision.findings] == [1] * suspected
        assert [len(of.core) for of in decision.found] == [60] * suspected
        if suspected:
            assert decision.findings[0].label_gap == pytest.approx(0.5)
            assert decision.findings[0].score == pytest.approx(0.5 / self.config.min_gap)

    def test_a_network_is_trained_where_there_is_something_to_settle(self):
        nothing = Decision((Scored(curves_of(None), 0.1),), ())
        assert not ask_held_out(nothing, [], [], self.config)
        assert ask_held_out(self.asked, [], [evidence()], self.config)
        assert ask_held_out(nothing, [group()], [evidence(success=0.1, placebo=0.0)], self.config)
        assert not ask_held_out(
            nothing, [group()], [evidence(success=0.9, placebo=0.0)], self.config
        )  # its trigger acts


def test_a_mark_that_is_not_learnt_is_found_by_its_labels(poisoned):
    """End to end: static patterns propose, a network without the labels convicts, and only the poison is suspected."""
    images, labels = poisoned
    generator = torch.Generator().manual_seed(2)
    loss, entropy = (torch.rand(10, N, generator=generator) + 0.5 for _ in range(2))
    seen = Observed(images, labels, CLASSES, entropy, loss)
    config = DetectionConfig(proposals=("static_patterns",))

    def found(of_poison: float):
        def train(ids):
            assert not set(ids.tolist()) & set(POISON.tolist())  # their labels were held out
            known = np.random.default_rng(0).uniform(0.6, 1, N)
            known[POISON] *= of_poison
            return HeldOutNetwork(known, known, lambda x: torch.ones(len(x), dtype=torch.int64))

        networks = Networks(lambda x: torch.ones(len(x), dtype=torch.int64), lambda: None, train)
        return detect(seen, look_at_curves(seen, config), networks, config)

    convicted = found(0.1)
    assert set(convicted.suspicion.suspected.nonzero().flatten().tolist()) == set(POISON.tolist())
    assert [finding.label for finding in convicted.decision.findings] == [0]
    right = found(0.9)
    assert not right.suspicion.suspected.any()  # a mark under right labels is shown
    assert len(right.decision.marks) == 1 and right.decision.of_marks[0] is not None
    assert not right.suspicion.withheld.any()  # and keeps them: it is not unclear
    (shown,) = right.decision.marks
    assert shown.sample_ids == tuple(right.decision.of_marks[0].core.tolist())
    assert Finding.from_json(json.loads(json.dumps(shown.as_json()))) == shown


@pytest.mark.parametrize("relabelled", [False, True])
def test_labels_that_outlast_the_mark_are_right(relabelled):
    """A network that never saw a watermark is misled by it, on right labels too; with the mark off it says what the
    pictures show.
    """
    base = pictures(7).float() * 0.4
    shown = LABELS.clone()
    base += (shown * 50)[:, None, None, None]  # the class is a shade
    labels = shown.clone()
    ids = torch.arange(1, 91, 3) if relabelled else torch.arange(0, 90, 3)
    labels[ids] = 0
    images = ResidentImages(marked(base.round().to(torch.uint8), ids))

    def misled(x):
        corner = x[:, -3:, -3:].float().mean((1, 2, 3)) > 250
        level = (x.float().mean((1, 2, 3)) - 45) / 50
        return torch.where(corner, 2, level.round().clamp(0, 2).long())

    def train(_ids):
        known = np.random.default_rng(0).uniform(0.6, 1, N)
        known[ids] = 0.05
        return HeldOutNetwork(known, known, misled)

    loss, entropy = (torch.rand(10, N, generator=torch.Generator().manual_seed(i)) + 0.5 for i in (2, 3))
    seen = Observed(images, labels, CLASSES, entropy, loss)
    config = DetectionConfig(proposals=("static_patterns",))
    networks = Networks(lambda x: torch.ones(len(x), dtype=torch.int64), lambda: None, train)
    decision = detect(seen, look_at_curves(seen, config), networks, config).decision
    if relabelled:
        assert [finding.label for finding in decision.findings] == [0] and not decision.marks
        assert decision.findings[0].unmarked_support < 0.5
    else:
        assert not decision.findings and [mark.label for mark in decision.marks] == [0]
        assert decision.marks[0].label_support < 0.5 and decision.marks[0].unmarked_support > 0.9


def test_a_mark_that_is_put_on_can_be_taken_off():
    images = pictures(9, 50)
    for trigger, most in (
        (Trigger(torch.full((SIDE, SIDE, 3), 0.8), torch.full((SIDE, SIDE, 3), 30.0)), 1),
        (Trigger(torch.ones(SIDE, SIDE, 3), torch.full((SIDE, SIDE, 3), 12.0)), 0),
    ):
        back = take_off(trigger, trigger.on(images))
        assert (back.int() - images.int()).abs().max() <= most
    opaque = Trigger(torch.ones(SIDE, SIDE, 3), torch.zeros(SIDE, SIDE, 3))
    opaque.scale[-3:, -3:], opaque.offset[-3:, -3:] = 0, 255
    back = take_off(opaque, opaque.on(images))
    assert torch.equal(back[:, :-3], images[:, :-3])
    around = images[:, -4, -3:].float().mean()
    assert abs(float(back[:, -3:, -3:].float().mean() - around)) < 25  # and not white
    everything = Trigger(torch.zeros(SIDE, SIDE, 3), torch.full((SIDE, SIDE, 3), 255.0))
    assert len(take_off(everything, images)) == 50  # nothing to carry on from, and an end all the same


def test_nothing_is_said_where_no_mark_can_be_told():
    images, everyone = ResidentImages(pictures()), torch.arange(N)
    ids = torch.arange(0, 90, 3)
    say = lambda x: torch.zeros(len(x), dtype=torch.int64)  # noqa: E731
    assert without_mark(images, ids, LABELS, 0, everyone[90:], everyone[300:], say) is None
    assert without_mark(images, ids, LABELS, 0, ids, ids, say) is None  # no other image of the class
    marks = ResidentImages(marked(pictures(), ids))
    assert without_mark(marks, ids, LABELS, 0, everyone[90:], everyone[:0], say) is None  # no controls
    told = without_mark(marks, ids, LABELS, None, everyone[90:], everyone[300:], say)
    assert told.suspects == 1 and 0.2 < told.others < 0.5 and told.p > 0.9


class TestWhatExplainsAGroupOfCurves:
    """A group that learning curves have found is not accused for what is harmless."""

    config = DetectionConfig()
    ids = np.arange(100)

    def decision(self) -> tuple[Decision, Group]:
        group = Group(
            "learning_curves",
            0,
            self.ids,
            (self.ids < 40) * 1.0,
            {"separation": 5.0, "posterior_entropy": 0.0, "rare": 0.0},
        )
        scored = Scored(group, 2.0)
        return Decision((scored,), (as_finding(scored, "supervised"),)), group

    def mark(self) -> Group:
        return Group("static_patterns.skewed", 0, self.ids[:45], np.ones(45), {"purity": 0.9})

    def after(self, of_group: Evidence, of_mark: Evidence | None = None) -> Decision:
        decision, _ = self.decision()
        marks, told = ([self.mark()], [of_mark]) if of_mark else ([], [])
        return with_evidence(decision, marks, [of_group, *told], self.config)

    def test_by_default_it_is_found(self):
        assert len(self.after(Evidence(0.1, 0.0, 40)).findings) == 1

    def test_a_mark_under_right_labels_explains_it(self):
        right = Evidence(0.1, 0.0, 45, without_mark=WithoutMark(0.7, 0.8, 0.4))
        decision = self.after(Evidence(0.1, 0.0, 40), right)
        assert not decision.findings and not decision.found and len(decision.marks) == 1

    def test_not_where_it_acts_as_a_trigger(self):
        right = Evidence(0.1, 0.0, 45, without_mark=WithoutMark(0.7, 0.8, 0.4))
        assert len(self.after(Evidence(0.9, 0.0, 40), right).findings) == 1

    @pytest.mark.parametrize("unmarked", [None, WithoutMark(0.5, 0.8, 0.1)])
    def test_nor_where_nobody_can_say_whether_the_labels_are_right(self, unmarked):
        decision = self.after(Evidence(0.1, 0.0, 40), Evidence(0.1, 0.0, 45, without_mark=unmarked))
        assert len(decision.findings) == 1 and not decision.marks

    def test_copies_of_one_picture_are_shown(self):
        decision = self.after(Evidence(0.1, 0.0, 12, copies=0.7))
        assert not decision.findings and [mark.copies for mark in decision.marks] == [0.7]
        copies = Evidence(0.9, 0.0, 12, copies=0.7)
        assert len(self.after(copies, copies).marks) == 1  # curves and mark show the same
        assert not self.after(
            Evidence(0.9, 0.0, 12, copies=0.7)
        ).findings  # a whole picture acts as a trigger

    def test_the_look_of_the_rest_of_its_class_is_no_second_attack(self):
        """Nor where the network has learnt so little that the look of a class acts as a trigger does."""
        acting, (decision, _) = Evidence(0.9, 0.0, 40), self.decision()

        def sizes(*marks):
            told = [acting] * (1 + len(marks))
            return [finding.images for finding in with_evidence(decision, marks, told, self.config).findings]

        clear = replace(self.mark(), ids=self.ids[:40], membership=np.ones(40), statistics={"purity": 0.95})
        rest = replace(self.mark(), ids=self.ids[42:], membership=np.ones(58))
        second = replace(self.mark(), ids=self.ids[42:70], membership=np.ones(28))
        assert sizes(rest, clear) == [40]  # the clearer one, in whatever order they come
        assert sorted(sizes(second, clear)) == [28, 40]  # two triggers, one target
        whole = replace(self.mark(), ids=self.ids[20:], membership=np.ones(80))
        assert sizes(whole) == [40]  # most of a class is what the class looks like

    def test_a_network_is_asked_about_a_mark_that_does_not_act(self):
        decision, _ = self.decision()
        quiet, acting = Evidence(0.1, 0.0, 40), Evidence(0.9, 0.0, 40)
        assert ask_held_out(decision, [self.mark()], [quiet, quiet], self.config)
        assert not ask_held_out(decision, [self.mark()], [quiet, acting], self.config)
        inside = replace(self.mark(), ids=self.ids[:30], membership=np.ones(30))
        assert not ask_held_out(decision, [inside], [acting, quiet], self.config)  # found by what acts
        assert ask_held_out(decision, [inside], [quiet, quiet], self.config)


class TestCovers:
    """Adap-Blend on 10,000 images: 1,104 of 2,001 with the pattern are in the target class, a hundred in each other."""

    config = DetectionConfig()

    @staticmethod
    def of(label: int, count: int, purity: float = 0.8) -> Group:
        ids = np.arange(count) + 100 * label
        numbers = {"purity": purity, "separation": 4.6}
        return Group("static_patterns.principal", label, ids, np.ones(count), numbers)

    def marks(self, target: int = 30) -> list[Group]:
        """Of class 0, of which `target` images are, and of seven others, ten each; and the mark over all of them."""
        own = [self.of(0, target), *(self.of(label, 10) for label in range(1, 8))]
        ids = np.concatenate([mark.ids for mark in own])
        numbers = {"purity": 0.76, "separation": 3.0}
        of_all = Group(own[0].proposal, None, ids, np.ones(len(ids)), numbers, labels=ids // 100)
        return [*own, of_all]

    def test_one_mark_in_many_classes_is_no_style_of_each(self):
        marks = self.marks()
        assert [is_of_many(mark, marks) for mark in marks[:-1]] == [False] + [True] * 7
        assert marks_among(marks, 8, self.config) == marks
        assert marks_among(marks[:-1], 8, self.config) == []  # as styles they abound, and none is clear
        other = replace(marks[1], ids=np.r_[marks[1].ids[:8], 190, 191])  # not that mark's
        assert not is_of_many(other, marks)
        more = self.marks(24)
        assert not is_of_many(more[0], more)  # a fourth of them and more: the target's
        fewer = self.marks(20)
        assert is_of_many(fewer[0], fewer)

    @pytest.mark.parametrize(
        ("neighbours", "beside", "suspected"),
        [(SAME, True, False), (OTHERS, True, True), (None, True, True), (SAME, False, True)],
    )
    def test_under_right_labels_it_is_not_suspected_for_what_it_does(self, neighbours, beside, suspected):
        """Those of the horses sent 58 % of other images to the horses."""
        marks = self.marks() if beside else self.marks()[:-1]
        horses = replace(evidence(success=0.58, placebo=0.1), neighbours=neighbours)
        told = [evidence(), horses, *[evidence()] * (len(marks) - 2)]
        decision = with_evidence(NOTHING, marks, told, self.config)
        assert [finding.label for finding in decision.findings] == [1] * suspected

    def test_or_where_they_outlast_the_mark(self):
        horses = replace(evidence(success=0.58, placebo=0.1), without_mark=WithoutMark(0.7, 0.8, 0.4))
        told = [evidence(), horses, *[evidence()] * 7]
        assert not with_evidence(NOTHING, self.marks(), told, self.config).findings


class TestHalvesOfAClassThatRunIntoOneAnother:
    """17 churches before a sky among 100, D = 2.6: a network that saw none of them takes them for this and that."""

    config = DetectionConfig()
    unknown = evidence(success=0.0, placebo=0.16, ratio=0.2, p=1e-4)

    @staticmethod
    def mark(separation: float) -> Group:
        of = group()
        return replace(of, statistics=of.statistics | {"separation": separation})

    @pytest.mark.parametrize(("separation", "suspected"), [(2.6, False), (4.0, True)])
    def test_unknown_labels_alone_do_not_convict_them(self, separation, suspected):
        decision = with_evidence(NOTHING, [self.mark(separation)], [self.unknown], self.config)
        assert len(decision.findings) == suspected and not decision.marks
        assert ask_held_out(NOTHING, [self.mark(separation)], [self.unknown], self.config) == suspected

    @pytest.mark.parametrize(
        ("separation", "ratio", "suspected"), [(2.6, 0.5, True), (2.6, 1.9, False), (4.0, 1.9, True)]
    )
    def test_a_trigger_that_acts_does_unless_it_is_what_the_class_looks_like(
        self, separation, ratio, suspected
    ):
        """20 tenches of 80 in green water, D = 2.6: of them a network knows more than of the others."""
        acting = evidence(success=0.9, placebo=0.1, ratio=ratio, gap=0.4)
        told = with_evidence(NOTHING, [self.mark(separation)], [acting], self.config)
        assert len(told.findings) == suspected

    def test_they_are_shown_where_they_explain_a_group_of_curves(self):
        ids = POISON.numpy()
        of = Group("learning_curves", 0, ids, np.ones(len(ids)), CURVES)
        scored = Scored(of, 2.0)
        decision = Decision((scored,), (as_finding(scored, "supervised"),))
        right = replace(evidence(0.0, 0.1), without_mark=WithoutMark(0.7, 0.8, 0.4))
        assert ask_held_out(decision, [self.mark(2.6)], [right, right], self.config)
        told = with_evidence(decision, [self.mark(2.6)], [right, right], self.config)
        assert not told.findings and len(told.marks) == 1


class TestMarksThatAbound:
    """BadNets on 30 of 230 pictures, D = 8.9, purity 0.97, that a network knows 40 % as well as the others."""

    config = DetectionConfig()

    @pytest.mark.parametrize(
        ("separation", "purity", "distinct", "ratio", "suspected"),
        [
            (8.9, 0.97, 30, 0.4, True),
            (8.9, 0.97, 12, 0.2, False),  # as few as a frame that somebody drew
            (5.0, 0.97, 30, 0.4, False),  # as a style lies apart
            (5.0, 0.97, 30, 0.2, True),
            (8.9, 0.8, 30, 0.4, False),
            (8.9, 0.97, 30, 0.6, False),
        ],
    )
    def test_one_that_lies_as_far_apart_as_no_style(self, separation, purity, distinct, ratio, suspected):
        of = group()
        of = replace(
            of, statistics=of.statistics | {ABOUNDS: 1.0, "separation": separation, "purity": purity}
        )
        told = evidence(success=0.3, placebo=0.0, ratio=ratio, p=1e-4, distinct=distinct)
        assert len(with_evidence(NOTHING, [of], [told], self.config).findings) == suspected


class TestTypicalPictures:
    """Two clean classes of photographs: 52 chain saws before white walls are learnt alike, and a white wall makes
    chain saws of other pictures; but their labels are known without having been given.
    """

    config = DetectionConfig()
    known, unknown = (
        evidence(success=0.58, placebo=0.03, ratio=1.2),
        evidence(0.58, 0.03, ratio=0.15, gap=0.6),
    )

    def decision(self, score: float = 1.1) -> Decision:
        scored = Scored(curves_of(None), score)
        return Decision((scored,), (as_finding(scored, "supervised"),))

    def test_they_are_shown_and_not_accused(self):
        decision = with_evidence(self.decision(), [], [self.known], self.config)
        assert not decision.findings and not decision.found
        assert [(mark.label, mark.likely_benign) for mark in decision.marks] == [(1, True)]

    @pytest.mark.parametrize(
        ("score", "told"), [(1.1, unknown), (1.6, known), (1.1, Evidence(0.58, 0.03, 50))]
    )
    def test_else_they_are_suspected(self, score, told):
        assert with_evidence(self.decision(score), [], [told], self.config).findings

    @pytest.mark.parametrize(("success", "suspected"), [(0.03, False), (0.58, True)])
    def test_hard_pictures_are_known_as_others_that_were_learnt_alike(self, success, suspected):
        """15 of 100 clean tenches: probability 0.19, of controls learnt alike 0.20, of the class's controls 0.60."""
        hard = Evidence(success, 0.0, 15, LabelSupport(0.19, 0.20, 0.60, 1e-3, 15))
        assert len(with_evidence(self.decision(), [], [hard], self.config).findings) == suspected

    @pytest.mark.parametrize(("neighbours", "suspected"), [(OTHERS, True), (SAME, False), (ALONE, False)])
    def test_pictures_most_alike_with_other_labels_outweigh_a_network(self, neighbours, suspected):
        told = replace(self.known, neighbours=neighbours)
        assert len(with_evidence(self.decision(), [], [told], self.config).findings) == suspected

    @pytest.mark.parametrize(
        ("told", "suspected"),
        [
            (evidence(0.03, 0.03, ratio=0.15, gap=0.1), False),
            (Evidence(0.03, 0.03, 50), False),  # nobody could be asked
            (evidence(0.03, 0.03, ratio=0.15, gap=0.6, gap_p=1e-3), True),
            (evidence(0.58, 0.03, ratio=0.15, gap=0.1), True),
            (replace(evidence(0.03, 0.03, ratio=0.15, gap=0.1), neighbours=OTHERS), True),
        ],
    )
    def test_a_weak_group_that_nothing_supports_is_unclear(self, told, suspected):
        """59 parachutes in a blue sky, of 100, in clean photographs of unequal sizes: score 1.30."""
        decision = with_evidence(self.decision(), [], [told], self.config)
        assert len(decision.findings) == len(decision.found) == suspected
        assert [mark.unclear for mark in decision.marks] == [True] * (not suspected)
        assert all(group is not None for group in decision.of_marks)  # which side is the class is asked of it
        assert with_evidence(self.decision(1.6), [], [told], self.config).findings

    def test_a_repeated_window_stays_known(self):
        """A patch at random places, whose images learning curves find as well."""
        scored = Scored(curves_of(None), 1.6)
        decision = Decision((scored,), (as_finding(scored, "supervised"),))
        window = replace(group(label=1), proposal=WINDOWS, ids=scored.group.core)
        window = replace(window, membership=np.ones(len(window.ids)))
        quiet = evidence(0.03, 0.03, ratio=0.15, gap=0.6, p=1e-4)
        told = with_evidence(decision, [window], [quiet, quiet], self.config)
        (finding,) = told.findings
        assert finding.proposal == WINDOWS and finding.purity is None and finding.part_success is None
        acting = evidence(0.7, 0.1, ratio=0.15, gap=0.6)
        told = with_evidence(decision, [window, window], [quiet, acting, quiet], self.config)
        assert told.findings[0].part_success == 0.7

    def test_a_mark_that_they_share_is_more_than_a_look(self):
        mark = group(label=1)
        mark = replace(mark, ids=curves_of(None).core, membership=np.ones(len(curves_of(None).core)))
        decision = with_evidence(self.decision(), [mark], [self.known, self.known], self.config)
        assert len(decision.findings) == 1

    def test_a_network_is_asked_about_a_group_that_is_found_only_just(self):
        acting = evidence(success=0.9, placebo=0.0)
        assert ask_held_out(self.decision(), [], [acting], self.config)
        assert not ask_held_out(self.decision(1.6), [], [acting], self.config)


@pytest.mark.parametrize("alike", [False, True])
def test_copies_are_told_from_a_set_whose_pictures_are_all_alike(alike):
    images = pictures(4)
    if alike:  # one picture a class, with some noise
        images = (pictures(5)[LABELS].float() * 0.8 + images.float() * 0.1).to(torch.uint8)
    else:
        images[:40] = images[0]
    group = Group("learning_curves", 0, np.arange(0, 48), np.ones(48), {})
    labels = LABELS.clone()
    labels[:48] = 0
    curves = (torch.rand(5, N, generator=torch.Generator().manual_seed(i)) for i in (0, 1))
    seen = Observed(ResidentImages(images), labels, CLASSES, *curves)
    (told,) = try_triggers([group], seen, lambda x: torch.ones(len(x), dtype=torch.int64))
    assert told.distinct > 20 if alike else told.distinct == 9
    assert told.copies < 0.4 if alike else told.copies == pytest.approx(40 / 48)


def test_copies_of_a_large_group_are_told_from_some_of_it():
    images = pictures(5, 3000)
    images[:2000] = images[0]
    share = share_of_copies(ResidentImages(images), np.arange(3000))
    assert share == pytest.approx(2 / 3, abs=0.02)


def test_a_class_keeps_most_of_its_labels():
    """Groups that together are most of a class are not all held out; who is not asked keeps the evidence it had."""
    labels = np.arange(200) % 2
    seen = Observed(
        ResidentImages(pictures(n=200)),
        torch.from_numpy(labels),
        2,
        *(torch.rand(10, 200, generator=torch.Generator().manual_seed(i)) for i in (0, 1)),
    )
    ids = np.flatnonzero(labels == 0)
    parts = [
        Group("static_patterns.principal", 0, part, np.ones(len(part)), {"purity": 0.9 - len(part)})
        for part in (ids[:50], ids[50:])
    ]
    kept = []

    def train(with_labels):
        kept.append(with_labels)
        return HeldOutNetwork(
            np.full(200, 0.5), np.full(200, 0.5), lambda x: torch.zeros(len(x), dtype=torch.int64)
        )

    told = with_support(parts, [Evidence(None, None, 50)] * 2, [], seen, train, DetectionConfig())
    assert [of.support is not None for of in told] == [True, False]
    assert not np.isin(ids[:50], kept[0]).any() and np.isin(ids[50:], kept[0]).sum() > 40


def test_a_group_with_a_wide_edge_is_held_out_by_itself():
    """Where all that may belong to a group is most of its class, only those that more likely belong are held out."""
    labels = np.arange(200) % 2
    curves = (torch.rand(10, 200, generator=torch.Generator().manual_seed(i)) for i in (0, 1))
    seen = Observed(ResidentImages(pictures(n=200)), torch.from_numpy(labels), 2, *curves)
    ids = np.flatnonzero(labels == 0)
    membership = np.where(np.arange(100) < 40, 0.9, 0.3)
    wide = Group("learning_curves", 0, ids, membership, {"separation": 1.2, "rare": 0.0})
    kept = []

    def train(with_labels):
        kept.append(with_labels)
        return HeldOutNetwork(
            np.full(200, 0.5), np.full(200, 0.5), lambda x: torch.zeros(len(x), dtype=torch.int64)
        )

    (told,) = with_support([wide], [Evidence(None, None, 40)], [], seen, train, DetectionConfig())
    assert told.support is not None
    assert not np.isin(ids[:40], kept[0]).any() and np.isin(ids[40:], kept[0]).sum() > 40


def test_a_group_whose_pictures_show_other_classes_is_not_typical():
    """However well a network without its labels knows them beside images learnt alike."""
    known = Evidence(0.1, 0.1, 30, LabelSupport(0.5, 0.5, 0.9, 1e-5, 30))
    assert labels_known(known, DetectionConfig())
    wrong, right = Neighbours(0.02, 0.9, 0.01), Neighbours(0.85, 0.9, 0.01)
    assert labels_known(replace(known, neighbours=right), DetectionConfig())
    assert not labels_known(replace(known, neighbours=wrong), DetectionConfig())
