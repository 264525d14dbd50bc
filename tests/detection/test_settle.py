"""Which half of a class is the class: a network without any label of it decides, and only where something is open."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from dlp_fast.config import DetectionConfig
from dlp_fast.data.storage import ResidentImages
from dlp_fast.detection.decide import Decision, Scored, finding_of
from dlp_fast.detection.findings import Finding
from dlp_fast.detection.groups import Group
from dlp_fast.detection.propose import Observed
from dlp_fast.detection.propose.neighbours import Neighbours
from dlp_fast.detection.settle import settled
from dlp_fast.detection.verdict import verdict
from dlp_fast.detection.verify.hold_out import HeldOutNetwork
from dlp_fast.detection.verify.sides import Sides, other_side, sides_of

CLASSES, EACH = 4, 80
LABELS = torch.arange(CLASSES).repeat_interleave(EACH)
N = len(LABELS)
HALF = np.arange(40)  # of class 0
STATISTICS = {"separation": 6.0, "posterior_entropy": 0.0, "rare": 0.0}


def seen() -> Observed:
    pixels = torch.randint(
        0, 256, (N, 16, 16, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8
    )
    return Observed(ResidentImages(pixels), LABELS, CLASSES, torch.rand(3, N), torch.rand(3, N))


def group(ids=HALF, label=0) -> Group:
    members = np.zeros(EACH)
    members[ids - label * EACH] = 0.99
    return Group("learning_curves", label, np.arange(EACH) + label * EACH, members, STATISTICS)


def decision(of: Group, **numbers) -> Decision:
    finding = replace(finding_of(Scored(of, 2.0), "supervised"), **numbers)
    return Decision((Scored(of, 2.0),), (finding,), (of,))


class Network:
    """Asked for with some labels; surer of some images than of others."""

    def __init__(self, entropy: np.ndarray):
        self.entropy, self.given = entropy, None

    def train(self, ids: np.ndarray) -> HeldOutNetwork:
        self.given = ids
        return HeldOutNetwork(np.full(N, 0.5), self.entropy, never)


def never(images):
    """A network that takes no image for class 0."""
    return torch.full((len(images),), 3)


def entropies(half: float, rest: float, others: float = 0.2) -> np.ndarray:
    values = np.full(N, others)
    values[:EACH], values[HALF] = rest, half
    return values + np.random.default_rng(0).normal(0, 0.02, N)


def after(network: Network, of: Group | None = None, predict=never, **numbers) -> Decision:
    return settled(decision(of or group(), **numbers), seen(), predict, network.train, DetectionConfig())


@pytest.mark.parametrize("numbers", [{}, {"purity": 0.9, "proposal": "static_patterns.principal"}])
def test_the_class_itself_is_not_suspected_but_the_other_half(numbers):
    """Its own images are known to nobody, the relabelled ones are as well known as those of other classes."""
    network = Network(entropies(half=1.2, rest=0.3))
    found = after(network, **numbers)
    assert found.found[0].core.tolist() == list(range(40, 80))
    assert found.findings[0].images == 40 and found.findings[0].sides == pytest.approx(
        (0.3, 1.2, 0.2), abs=0.02
    )
    assert not found.marks
    assert len(network.given) and not (LABELS[network.given] == 0).any()  # none of its labels was given


def test_the_suspect_stays_where_it_is_the_foreign_half():
    found = after(Network(entropies(half=0.3, rest=1.2)))
    assert found.found[0].core.tolist() == HALF.tolist()
    assert found.findings[0].sides == pytest.approx((0.3, 1.2, 0.2), abs=0.02)


@pytest.mark.parametrize("numbers", [{}, {"purity": 0.9, "proposal": "static_patterns.principal"}])
def test_where_neither_half_is_foreign_all_stays_as_it_was(numbers):
    found = after(Network(entropies(half=1.1, rest=1.2)), **numbers)
    assert found.found[0].core.tolist() == HALF.tolist() and not found.marks
    assert found.findings[0].sides and not found.findings[0].foreign


def test_two_marks_with_one_other_side_are_one_finding():
    marks = [group(), group(np.arange(5, 40))]
    shown = tuple(
        replace(finding_of(Scored(of, 2.0), "supervised"), purity=0.9, proposal="static_patterns.principal")
        for of in marks
    )
    network = Network(entropies(half=1.2, rest=0.3))
    found = settled(
        Decision((), (), (), shown, tuple(marks)), seen(), never, network.train, DetectionConfig()
    )
    assert [finding.images for finding in found.findings] == [40] and found.findings[
        0
    ].placebo_success is None


def test_of_many_classes_the_clearest_are_asked():
    groups = [group(np.arange(40) + label * EACH, label) for label in range(3)]
    findings = tuple(
        replace(finding_of(Scored(of, score), "supervised"), score=score)
        for of, score in zip(groups, (2.0, 4.0, 3.0), strict=True)
    )
    network = Network(np.full(N, 0.2))
    settled(Decision((), findings, tuple(groups)), seen(), never, network.train, DetectionConfig())
    assert set(LABELS[network.given].tolist()) == {0, 3}  # two classes are left to tell apart


@pytest.mark.parametrize(
    ("half", "rest", "suspected"), [(0.3, 1.2, range(40)), (1.2, 0.3, range(40, 80)), (1.1, 1.2, ())]
)
def test_a_mark_that_is_shown_is_suspected_where_a_half_is_foreign(half, rest, suspected):
    mark = replace(
        finding_of(Scored(group(), 2.0), "supervised"), purity=0.9, proposal="static_patterns.principal"
    )
    before = Decision((), (), (), (mark,), (group(),))
    network = Network(entropies(half, rest))
    found = settled(before, seen(), never, network.train, DetectionConfig())
    assert [of.core.tolist() for of in found.found] == ([list(suspected)] if suspected else [])
    assert len(found.marks) == len(found.of_marks) == (0 if suspected else 1)


@pytest.mark.parametrize("size", [8, 70])
def test_nobody_is_asked_of_groups_that_are_clearly_smaller_or_larger(size):
    network = Network(entropies(1.2, 0.3))
    assert after(network, group(np.arange(size))).found[0].core.tolist() == list(range(size))
    assert network.given is None


def test_nobody_is_asked_where_the_trigger_acts_as_no_class_does():
    network = Network(entropies(1.2, 0.3))
    nothing = after(
        network, attack_success=0.95, predict=lambda images: torch.zeros(len(images), dtype=torch.long)
    )
    assert nothing.found[0].core.tolist() == HALF.tolist() and network.given is None
    everything = after(
        network, attack_success=0.95, predict=lambda images: torch.ones(len(images), dtype=torch.long)
    )
    assert network.given is not None and everything.found  # any look of class 1 makes class 1


def test_a_gap_was_measured_with_the_rest_of_the_class():
    network = Network(entropies(1.2, 0.3))
    after(network, label_gap=0.6)
    assert network.given is None


def test_two_classes_leave_nothing_to_tell_apart():
    two = Observed(seen().images, LABELS % 2, 2, torch.rand(3, N), torch.rand(3, N))
    of = Group("learning_curves", 0, np.arange(0, N, 2), np.repeat([0.9, 0.1], N // 4), STATISTICS)
    network = Network(np.ones(N))
    assert settled(decision(of), two, never, network.train, DetectionConfig()).found == [of]
    assert network.given is None


def test_numbers():
    sides = sides_of(group(), LABELS.numpy(), entropies(0.3, 1.2), (LABELS >= 2).numpy())
    assert (sides.group, sides.rest, sides.controls) == pytest.approx((0.3, 1.2, 0.2), abs=0.02)
    assert sides.foreign == pytest.approx(0.9, abs=0.03) and sides.p < 1e-9
    assert Sides(1.2, 0.3, 0.2, 0.0).foreign == pytest.approx(-0.9)
    assert Sides(1.0, 1.0, 1.0, 1.0).foreign == 0
    assert other_side(group(), LABELS.numpy()).core.tolist() == list(range(40, 80))


def test_a_finding_keeps_them():
    finding = Finding("supervised", 0, 40, 1.0, 0.0, 2.0, sides=(0.3, 1.2, 0.2))
    assert Finding.from_json(finding.as_json()) == finding


class TestPictures:
    """Class 0 is half its own pictures and half those of other classes, all of them alike within their class."""

    @staticmethod
    def seen(sources: Sequence[int]) -> Observed:
        generator = torch.Generator().manual_seed(0)
        shapes = (torch.rand(CLASSES, 16, 16, 1, generator=generator) < 0.3).float() * 120
        shown = LABELS.clone()
        shown[40:80] = torch.tensor(sources).repeat(40)[:40]
        noise = torch.randn(N, 16, 16, 3, generator=generator) * 10
        pixels = (60 + shapes[shown] + noise).clamp(0, 255).round().to(torch.uint8)
        return Observed(ResidentImages(pixels), LABELS, CLASSES, torch.rand(3, N), torch.rand(3, N))

    def after(self, sources, ids=HALF, marks=False, **numbers) -> tuple[Decision, Network]:
        network = Network(entropies(half=0.3, rest=1.2))  # it would take the class's own pictures for foreign
        of = decision(group(np.array(ids)), **numbers)
        if marks:
            of = Decision((), (), (), of.findings, of.found)
        return settled(of, self.seen(sources), never, network.train, DetectionConfig()), network

    @pytest.mark.parametrize("marks", [False, True])
    @pytest.mark.parametrize("ids", [range(40), range(40, 80)])
    def test_a_mixture_of_other_classes_is_the_suspect(self, ids, marks):
        found, network = self.after([1, 2, 3], ids, marks, attack_success=0.2)
        assert found.found[0].core.tolist() == list(range(40, 80)) and not found.marks
        (finding,) = found.findings
        assert finding.images == 40 and finding.foreign and finding.sides is None
        assert finding.variety[0] > 0.9 and finding.variety[1] < 0.7
        assert network.given is None  # none was trained

    def test_one_other_class_is_not_told_from_the_class(self):
        found, network = self.after([1])
        assert network.given is not None and found.findings[0].variety is None

    def test_a_mixture_whose_labels_are_shared_is_none(self):
        """Where all of class 0 is such a mixture, neither half stands out."""
        mixed = self.seen([1, 2, 3])
        mixed.images.pixels[:40] = mixed.images.pixels[40:80]
        network = Network(entropies(half=0.3, rest=1.2))
        settled(decision(group()), mixed, never, network.train, DetectionConfig())
        assert network.given is not None

    @pytest.mark.parametrize(
        ("varieties", "near", "tells"),
        [
            ((0.9, 0.7), Neighbours(0.0, 0.9, 0.0, 0.5), True),
            ((0.9, 0.8), Neighbours(0.0, 0.9, 0.0, 0.5), False),  # the other half is nearly as mixed
            ((0.8, 0.4), Neighbours(0.0, 0.9, 0.0, 0.5), False),
            ((0.9, 0.7), Neighbours(0.0, 0.9, 0.0, -0.1), False),  # it is like nothing in the set
            ((0.9, 0.7), Neighbours(0.6, 0.9, 0.0, 0.5), False),  # its labels are right
            ((0.9, 0.7), None, False),
        ],
    )
    def test_what_tells(self, varieties, near, tells):
        left, around = iter(varieties), SimpleNamespace(of=lambda ids: near)
        around.only, around.variety = lambda ids: around, lambda ids: next(left)
        seen, network = self.seen([1, 2, 3]), Network(entropies(half=1.1, rest=1.2))
        seen.__dict__["surroundings"] = around
        found = settled(decision(group()), seen, never, network.train, DetectionConfig())
        assert bool(found.findings[0].variety) == tells == (network.given is None)

    def test_the_verdict_says_it(self):
        found, _ = self.after([1, 2, 3])
        said = verdict(found.findings, 0.0, [EACH] * 4, tuple("abcd"), 10, DetectionConfig()).reasons
        assert said[0].startswith(
            "the pictures that look most like 40 images of class a are of all other classes"
        )
