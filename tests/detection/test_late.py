"""Groups of stage 3's learning curves beside the pictures that look most like them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dlp_fast.config import DetectionConfig
from dlp_fast.data.storage import ResidentImages
from dlp_fast.detection.decide import Decision, Scored, finding_of
from dlp_fast.detection.groups import Group
from dlp_fast.detection.late import beside_alike
from dlp_fast.detection.propose import Observed
from dlp_fast.detection.verdict import verdict

CLASSES, EACH, SIDE = 4, 80, 16
TRUE = torch.arange(CLASSES * EACH) % CLASSES
ALL = torch.arange(len(TRUE))
CONFIG = DetectionConfig()
JUST, CLEAR = 1.2, 1.8


def pictures(alike: bool = True) -> torch.Tensor:
    """Of each class one shape, with noise; or noise alone."""
    generator = torch.Generator().manual_seed(0)
    shapes = (torch.rand(CLASSES, SIDE, SIDE, 1, generator=generator) < 0.3).float() * 120 * alike
    noise = torch.randn(len(TRUE), SIDE, SIDE, 3, generator=generator) * 10
    return (40 + shapes[TRUE] + noise).clamp(0, 255).round().to(torch.uint8)


def found(labels, ids, labeled=ALL, score=JUST, alike=True):
    """`beside_alike` of one group of class 3: images `ids`, of those `labeled`."""
    of_class = (labels[labeled] == 3).nonzero().flatten()
    membership = torch.isin(labeled[of_class], ids).double().numpy()
    statistics = {"separation": 2.1 * score, "posterior_entropy": 0.1, "rare": 0.0}
    group = Group("learning_curves", 3, of_class.numpy(), membership, statistics)
    finding = finding_of(Scored(group, score), "finetuning")
    curves = torch.zeros(2, len(labels))
    seen = Observed(ResidentImages(pictures(alike)), labels, CLASSES, curves, curves)
    return beside_alike(Decision((), (finding,), (group,)), labeled, seen, CONFIG)


def relabelled(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(labels, ids of those of classes 0 to 2 that are under label 3)."""
    labels, ids = TRUE.clone(), (TRUE != 3).nonzero().flatten()[:count]
    labels[ids] = 3
    return labels, ids


def right(count: int = 30) -> torch.Tensor:
    return (TRUE == 3).nonzero().flatten()[:count]


def test_under_labels_that_alike_pictures_share_nobody_is_suspected():
    late = found(TRUE, right())
    assert not late.findings and not late.groups
    (shown,) = late.shown
    assert shown.unclear and shown.sample_ids == tuple(right().tolist()) and shown.shared_labels > 0.8
    said = verdict([], 0.0, [EACH] * CLASSES, ("a", "b", "c", "d"), 10, CONFIG, shown=late.shown)
    assert said.kind == "cannot tell"
    assert "the model has learnt their labels" in said.reasons[0] and "stage: finetuning" in said.reasons[0]


def test_a_clear_group_is_suspected_all_the_same():
    """An attack that keeps labels: its images are of their class."""
    late = found(TRUE, right(), score=CLEAR)
    assert late.groups[0].core.tolist() == right().tolist() and not late.shown


@pytest.mark.parametrize("score", [JUST, CLEAR])
def test_relabelled_images_are_suspected(score):
    labels, ids = relabelled(20)
    late = found(labels, ids, score=score)
    assert late.groups[0].core.tolist() == ids.tolist() and not late.shown
    assert late.findings[0].stage == "finetuning" and late.findings[0].shared_labels < 0.2


def test_where_no_picture_is_known_by_those_like_it_the_curves_decide():
    late = found(TRUE, right(), alike=False)
    assert late.groups[0].core.tolist() == right().tolist()
    assert late.findings[0].shared_labels is None


@pytest.mark.parametrize("turned", [False, True])
def test_of_two_halves_the_mixture_is_suspected(turned):
    """Whichever of them the curves took for the group."""
    labels, ids = relabelled(70)
    of_class = (TRUE == 3).nonzero().flatten()
    late = found(labels, of_class if turned else ids, score=CLEAR)
    (finding,), (group,) = late.findings, late.groups
    assert group.core.tolist() == ids.tolist() and finding.images == len(ids)
    assert finding.variety[0] > finding.variety[1]


def test_images_without_their_labels_have_no_say():
    """Groups are positions among the labels in use; others are neither suspected nor asked."""
    labels, ids = relabelled(20)
    labeled = ALL[(labels != 3) | torch.isin(ALL, ids) | (ALL > 150)]
    late = found(labels, ids, labeled)
    assert late.groups[0].core.tolist() == ids.tolist()
    assert np.isin(late.groups[0].ids, labeled.numpy()).all()


def test_nothing_found():
    curves = torch.zeros(2, len(TRUE))
    seen = Observed(ResidentImages(pictures()), TRUE, CLASSES, curves, curves)
    late = beside_alike(Decision((), ()), ALL, seen, CONFIG)
    assert not late.findings and not late.groups and not late.shown
