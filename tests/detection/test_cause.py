"""Whether what is found has a cause: a trigger or a mark; groups of wrong labels have none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from dlp_fast.config import DetectionConfig
from dlp_fast.data.storage import ResidentImages
from dlp_fast.detection.cause import CERTAIN, acquitted, explained, with_causes
from dlp_fast.detection.decide import Decision, Scored, finding_of
from dlp_fast.detection.groups import Group
from dlp_fast.detection.propose import Observed
from dlp_fast.detection.propose.beside import ALIKE
from dlp_fast.detection.propose.grown import APART
from dlp_fast.detection.propose.neighbours import Neighbours
from dlp_fast.detection.rules import CLEARLY
from dlp_fast.detection.verdict import verdict
from dlp_fast.detection.verify import Evidence
from dlp_fast.detection.verify.hold_out import HeldOutNetwork
from dlp_fast.detection.verify.label_support import LabelSupport
from dlp_fast.report.text import notes

CLASSES, EACH, SIDE = 4, 60, 16
TRUE = torch.arange(CLASSES * EACH) % CLASSES
CONFIG = DetectionConfig()
NUMBERS = {"separation": 2.3, "posterior_entropy": 0.1, "rare": 0.0}


def pictures() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    shapes = (torch.rand(CLASSES, SIDE, SIDE, 1, generator=generator) < 0.3).float() * 120
    noise = torch.randn(len(TRUE), SIDE, SIDE, 3, generator=generator) * 10
    return (40 + shapes[TRUE] + noise).clamp(0, 255).round().to(torch.uint8)


def relabelled(count: int = 20) -> tuple[torch.Tensor, torch.Tensor]:
    """(labels, ids of those of classes 0 to 2 that are under label 3)."""
    labels, ids = TRUE.clone(), (TRUE != 3).nonzero().flatten()[:count]
    labels[ids] = 3
    return labels, ids


def partly_relabelled(right: int) -> tuple[torch.Tensor, torch.Tensor]:
    """As `relabelled`, with ids of `right` images of class 3 among the 20."""
    labels, ids = relabelled(20 - right)
    return labels, torch.cat([ids, (TRUE == 3).nonzero().flatten()[:right]]).sort().values


class Told:
    """What a network says; and what it was given."""

    def __init__(self, labels: torch.Tensor, ids: torch.Tensor, of_group: float):
        self.probability = np.full(len(labels), 0.9)
        self.probability[ids.numpy()] = of_group
        self.given: list[np.ndarray] = []

    def train(self, ids: np.ndarray) -> HeldOutNetwork:
        self.given.append(ids)
        return HeldOutNetwork(
            self.probability, np.zeros(len(self.probability)), lambda x: torch.zeros(len(x))
        )


def decided(labels, ids, images=None, taught=0.0, statistics=NUMBERS, marks=((), ()), **numbers):
    group = Group("learning_curves", 3, ids.numpy(), np.ones(len(ids)), statistics)
    finding = replace(finding_of(Scored(group, 1.2), "supervised"), **({"placebo_success": 0.1} | numbers))
    curves = torch.zeros(2, len(labels))
    seen = Observed(ResidentImages(pictures() if images is None else images), labels, CLASSES, curves, curves)
    network = Told(labels, ids, taught)
    decision, wrong = with_causes(Decision((), (finding,), (group,), *marks), seen, network.train, CONFIG)
    return decision, wrong, network


def test_wrong_labels_that_teach_nothing_are_no_poison():
    labels, ids = relabelled()
    decision, wrong, network = decided(labels, ids)
    assert not decision.findings and not decision.found
    assert wrong.tolist() == ids.tolist()
    (given,) = network.given
    assert np.isin(ids.numpy(), given).sum() == len(ids) // 2  # the other half was asked for
    controls = np.setdiff1d(np.setdiff1d(np.arange(len(labels)), given), ids)
    assert np.bincount(labels[controls], minlength=CLASSES).min() >= 4


def test_half_that_teaches_the_other_is_poison():
    """A trigger that leaves nothing at one place, as a warp does."""
    labels, ids = relabelled()
    decision, wrong, _ = decided(labels, ids, taught=0.5)
    (finding,) = decision.findings
    assert finding.taught == pytest.approx(0.5 / 0.9, abs=1e-3) and finding.shared_labels < 0.1
    assert not len(wrong) and not finding.likely_benign
    (said,) = verdict((finding,), 0.0, [EACH] * CLASSES, tuple("abcd"), 10, CONFIG).reasons
    assert "The pictures that look most like them have other labels (this one 0% as often" in said
    assert "given half of them knows the labels of the others 56% as well" in said


def test_a_mark_of_their_own_settles_it():
    labels, ids = relabelled()
    images = pictures()
    images[ids, -3:, -3:] = 255
    decision, _, network = decided(labels, ids, images)
    assert decision.findings[0].apart_from_alike > CONFIG.min_apart_from_alike
    assert not network.given


def test_what_acts_as_a_trigger_settles_it():
    labels, ids = relabelled()
    decision, _, network = decided(labels, ids, attack_success=0.9)
    assert decision.findings and not network.given


def test_a_mark_of_some_that_acts_settles_it():
    """Triggers of each image's own: what all have in common acts on nobody."""
    labels, ids = relabelled()
    decision, _, network = decided(labels, ids, part_success=0.7)
    assert decision.findings and not network.given


def test_a_repeated_window_settles_it():
    labels, ids = relabelled()
    decision, _, network = decided(labels, ids, proposal="static_patterns.windows")
    assert decision.findings and not network.given


def test_right_labels_without_a_cause_are_unclear():
    """Images of a class that were learnt together, and look like the class."""
    ids = (TRUE == 3).nonzero().flatten()[:20]
    for score in (1.2, CONFIG.clear_score):
        decision, wrong, network = decided(TRUE, ids, score=score)
        (mark,) = decision.marks
        assert mark.shared_labels > 0.9 and mark.unclear and not decision.findings
        assert not network.given and not len(wrong)
    said = verdict((), 0.0, [EACH] * CLASSES, tuple("abcd"), 10, CONFIG, shown=decision.marks)
    assert said.kind == "cannot tell" and "have the same label" in said.reasons[0]
    acting = decided(TRUE, ids, attack_success=0.9)[0]  # a clean-label attack
    assert acting.findings and not acting.marks
    untried = decided(TRUE, ids, placebo_success=None)[0]
    assert untried.findings and not untried.marks


@pytest.mark.parametrize(
    ("right", "success", "shown"), [(True, 0.0, True), (True, 0.9, False), (False, 0.0, False)]
)
def test_beside_changed_pictures_right_labels_without_a_cause_are_shown(right, success, shown):
    """Covers of an attack, or what somebody changed in a class where it went unnoticed."""
    ids = (TRUE == 3).nonzero().flatten()[:20]
    labels = TRUE.clone()
    if not right:
        labels, ids = relabelled()
    other = Group("static_patterns.grown", 0, np.arange(0, 40, 4), np.ones(10), NUMBERS)
    mark = replace(finding_of(Scored(other, 1.2), "supervised"), changed=True)
    decision, _, _ = decided(
        labels,
        ids,
        taught=0.9,
        marks=((mark,), (None,)),
        attack_success=success,
        placebo_success=None if shown else 0.1,
    )
    assert [told.changed for told in decision.marks] == [True] + [True] * shown
    assert bool(decision.findings) == bool(decision.found) == (not shown)


@pytest.mark.parametrize(
    ("variety", "noise", "found"), [((0.97, 0.4), 0, True), (None, 0, False), ((0.97, 0.4), 8, False)]
)
def test_a_mixture_of_all_classes_in_one_alone_is_no_chance(variety, noise, found):
    """BPP on the digits: half of the 144 does not teach a network the labels of the others."""
    labels, ids = relabelled(24)
    for of in range(3 if noise else 0):  # wrong labels in the other classes too
        kept = ((of == TRUE) & (labels == of)).nonzero().flatten()[-noise:]
        labels[kept] = (of + 1) % 3
    decision, wrong, network = decided(labels, ids, variety=variety)
    assert bool(decision.findings) == found
    assert bool(network.given) == (not found) and len(wrong) == (0 if found else len(ids))


def test_too_few_to_ask_are_no_poison():
    labels, ids = relabelled(6)
    decision, wrong, network = decided(labels, ids)
    assert not decision.findings and wrong.tolist() == ids.tolist() and not network.given


def test_where_pictures_say_nothing_all_stays():
    labels, ids = relabelled()
    noise = torch.randint(
        0, 256, pictures().shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )
    decision, wrong, network = decided(labels, ids, noise)
    assert decision.findings[0].shared_labels is None and not len(wrong) and not network.given


def test_a_mark_takes_in_those_that_were_learnt_with_it():
    labels, ids = relabelled()
    images = pictures()  # with a mark so faint that those who bear it are not most like one another
    ids_of_class = (labels == 3).nonzero().flatten().numpy()
    clean = (TRUE == 3).nonzero().flatten().numpy()[:5]
    learnt = np.isin(ids_of_class, np.r_[ids.numpy(), clean]).astype(float)
    scored = Scored(Group("learning_curves", 3, ids_of_class, learnt, NUMBERS), CONFIG.verify_from)
    group = Group("static_patterns.grown", 3, ids[:15].numpy(), np.ones(15), {ALIKE: 12.0})
    finding = replace(finding_of(Scored(replace(group, statistics=NUMBERS), 1.2), "supervised"), purity=0.9)
    curves = torch.zeros(2, len(labels))
    seen = Observed(ResidentImages(images), labels, CLASSES, curves, curves)
    sure = replace(group, statistics={ALIKE: 12.0, APART: CERTAIN})
    decision, _ = with_causes(
        Decision((scored,), (finding,), (sure,)), seen, Told(labels, ids, 0.0).train, CONFIG
    )
    assert decision.found[0].core.tolist() == ids[:15].tolist()  # it is plain who bears the mark
    for turned in (False, True):  # which of two components a group is, learning curves may have wrong
        entry = replace(scored, group=replace(scored.group, membership=1 - learnt)) if turned else scored
        decision, _ = with_causes(
            Decision((entry,), (finding,), (group,)), seen, Told(labels, ids, 0.0).train, CONFIG
        )
        assert decision.found[0].core.tolist() == ids.tolist()
        assert decision.findings[0].images == len(ids)


def test_nothing_found_asks_nobody():
    curves = torch.zeros(2, len(TRUE))
    seen = Observed(ResidentImages(pictures()), TRUE, CLASSES, curves, curves)
    empty = Decision((), ())
    assert with_causes(empty, seen, Told(TRUE, TRUE, 0.0).train, CONFIG)[0] is empty


def test_doubts_that_wrong_labels_explain_are_none():
    ids = np.arange(60)
    group = Group("learning_curves", 0, ids, (ids < 20).astype(float), NUMBERS)
    near, found = Scored(group, 0.95), Scored(replace(group, label=1, ids=ids + 60), 1.2)
    decision = Decision((near, found), (finding_of(found, "supervised"),))
    wrong = np.zeros(120, dtype=bool)
    wrong[:11] = wrong[60:71] = True
    told = explained(decision, wrong)
    assert [entry.score for entry in told.scored] == [0.0, 1.2] and told.found == [found.group]
    wrong[10] = False  # half of them
    assert explained(decision, wrong).max_subthreshold_score == 0.95


@pytest.mark.parametrize(
    ("told", "known"),
    [
        (Evidence(0.0, 0.1, 20, LabelSupport(0.5, 0.5, 0.6, 0.4, 20)), True),
        (Evidence(0.0, 0.1, 20, LabelSupport(0.1, 0.5, 0.6, 1e-4, 20)), False),
        (Evidence(0.9, 0.1, 20, LabelSupport(0.5, 0.5, 0.6, 0.4, 20)), False),  # it acts as a trigger
        (Evidence(0.0, 0.1, 20), False),  # nobody was asked
        (Evidence(0.0, 0.1, 20, neighbours=Neighbours(0.9, 0.95, 0.01)), True),
    ],
)
def test_labels_that_are_known_leave_no_doubt(told, known):
    """With one network, clean classes come near to what counts as found by chance."""
    group = Group("learning_curves", 0, np.arange(60), np.ones(60), NUMBERS)
    near = Scored(group, 0.95)
    cleared = acquitted([group], [told], CONFIG)
    assert len(cleared) == known
    left = explained(Decision((near,), ()), np.zeros(60, dtype=bool), cleared)
    assert left.max_subthreshold_score == (0.0 if known else 0.95)
    again = replace(group)  # another group of the same images
    assert explained(Decision((near,), ()), np.zeros(60, dtype=bool), [again]).max_subthreshold_score == 0.95


@pytest.mark.parametrize("foreign", [True, False])
def test_what_nothing_is_like_may_be_the_class_itself(foreign):
    """A whole class that was relabelled: its images are like one another, and those of the class like one another."""
    labels = TRUE.clone()
    labels[TRUE == 2] = 3
    ids = (TRUE == 3).nonzero().flatten()  # the class itself, which another one was put into
    decision, wrong, network = decided(
        labels,
        ids,
        foreign=foreign,
        sides=(0.6, 1.0, 0.3),
        attack_success=0.9,
        placebo_success=None,
        purity=0.9,
    )
    assert not decision.findings and not len(wrong) and not network.given
    (mark,) = decision.marks
    assert mark.alone and mark.foreign == foreign
    said = verdict((), 0.0, [60, 60, 60, 120], tuple("abcd"), 10, CONFIG, shown=decision.marks)
    assert said.kind == "cannot tell" and "nothing else in the set looks like them" in " ".join(said.reasons)


@pytest.mark.parametrize("purity", [None, 0.9])
def test_what_may_be_the_class_itself_is_told_beside_a_finding(purity):
    group = Group("learning_curves", 3, np.arange(60), np.ones(60), NUMBERS)
    mark = finding_of(Scored(group, 1.2), "supervised")
    mark = replace(mark, alone=True, purity=purity)
    results = {
        "verdict": {"kind": "poisoned", "reasons": []},
        "model": {"holds": "clean"},
        "stages": {},
        "decisions": {},
        "stage3_detections": 0,
        "logit_adjustment": {},
        "detection": {"marks": [mark.as_json() | {"class": "d"}]},
    }
    (sentence,) = notes(results)
    assert "nothing else in the set looks like them" in sentence and "short cut" not in sentence
    results["verdict"]["reasons"] = [sentence]  # said once
    assert notes(results) == []
    results["detection"]["marks"][0]["sample_ids"] = [3, 4]
    (where,) = notes(results)
    assert "the sample_ids of its marks" in where


@pytest.mark.parametrize("right", [0, 8])
def test_a_mark_far_from_alike_pictures_is_a_cause_under_labels_that_some_share(right):
    """An attack may leave some of its marks under right labels, so that they are taken for a style."""
    labels, ids = partly_relabelled(right)
    images = pictures()
    images[ids, :3, :3] = 255
    decision, wrong, network = decided(labels, ids, images, taught=0.0, purity=0.9)
    (finding,) = decision.findings
    assert finding.apart_from_alike > CLEARLY * CONFIG.min_apart_from_alike
    assert finding.shared_labels < CONFIG.min_shared_labels
    assert not network.given and not len(wrong)
    of_curves = decided(labels, ids, images, taught=0.0)[0]  # 56 ones of a style, 13.8 standard errors apart
    assert bool(of_curves.findings) == (right == 0) and bool(of_curves.marks) == (right > 0)


def test_without_a_cause_labels_that_some_share_are_unclear():
    """A style that a class has few of: half of it teaches the other, as poison does."""
    labels, ids = partly_relabelled(8)
    decision, wrong, network = decided(labels, ids, taught=0.9)
    assert not decision.findings and not len(wrong) and not network.given
    (mark,) = decision.marks
    assert mark.unclear and CONFIG.min_shared_labels / 3 < mark.shared_labels < CONFIG.min_shared_labels
    said = verdict((), 0.0, [EACH] * CLASSES, tuple("abcd"), 10, CONFIG, shown=decision.marks)
    assert said.kind == "cannot tell" and "have the same label" in said.reasons[0]
    assert "may be poison, or pictures of a kind that the class has few of" in said.reasons[0]


@pytest.mark.parametrize(
    ("count", "alone", "variety"), [(20, True, None), (12, False, None), (20, False, (0.99, 0.4))]
)
def test_only_a_large_group_may_be_the_class_itself(count, alone, variety):
    """A fourth of the class and more, unless it was told which half is the class."""
    generator = torch.Generator().manual_seed(5)
    images, ids = pictures(), (TRUE == 3).nonzero().flatten()[:count]
    shape = torch.linspace(0, 120, SIDE).expand(SIDE, SIDE).unsqueeze(-1)  # of no class
    noise = torch.randn(count, SIDE, SIDE, 3, generator=generator) * 10
    images[ids] = (40 + shape + noise).clamp(0, 255).round().to(torch.uint8)
    decision, _, _ = decided(TRUE, ids, images, taught=0.9, placebo_success=None, variety=variety)
    (told,) = (*decision.findings, *decision.marks)
    assert told.alone == alone and bool(decision.marks) == alone
