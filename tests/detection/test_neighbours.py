"""Whether the pictures most like an image have its label, and whether images have a mark of their own beside these."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from dlp_fast.config import DetectionConfig, StaticPatternsConfig
from dlp_fast.data.storage import ResidentImages
from dlp_fast.detection.mislabeled import unlike_their_label as listed_as_unlike
from dlp_fast.detection.propose import Observed
from dlp_fast.detection.propose.beside import apart_from_alike
from dlp_fast.detection.propose.neighbours import STRANGERS, Surroundings, strangers, unlike_their_label

CLASSES, EACH, SIDE = 4, 60, 16
TRUE = torch.arange(CLASSES * EACH) % CLASSES
STATIC = StaticPatternsConfig()


def pictures(seed: int = 0, noise: float = 10.0) -> torch.Tensor:
    """uint8 [n, 16, 16, 3]: shapes of a class, each picture's more or less bright, and noise."""
    generator = torch.Generator().manual_seed(seed)
    shapes = (torch.rand(CLASSES, SIDE, SIDE, 1, generator=generator) < 0.3).float() * 120
    amounts = 1 + 0.2 * torch.randn(len(TRUE), 1, 1, 1, generator=generator)
    noises = torch.randn(len(TRUE), SIDE, SIDE, 3, generator=generator) * noise
    return (40 + shapes[TRUE] * amounts + noises).clamp(0, 255).round().to(torch.uint8)


def some(count: int = 24) -> torch.Tensor:
    return torch.arange(0, 2 * count, 2) + 1  # of classes 1 and 3


def rest(ids: torch.Tensor) -> torch.Tensor:
    everything = torch.arange(len(TRUE))
    return everything[~torch.isin(everything, ids)]


def around(images: torch.Tensor, labels: torch.Tensor, ids: torch.Tensor) -> Surroundings:
    return Surroundings(ResidentImages(images), labels, rest(ids))


CHANGES = {
    "as they are": lambda x: x,
    "dimmed": lambda x: (x.float() * 0.3).to(torch.uint8),
    "turned round": lambda x: 255 - x,
    "mirrored": lambda x: x.flip(2),
    "upside down": lambda x: x.flip(1, 2),
    "on their side": lambda x: x.transpose(1, 2),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_right_labels_are_shared_however_pictures_were_changed(change):
    images, ids = pictures(), some()
    images[ids] = change(images[ids])
    told = around(images, TRUE, ids).of(ids)
    assert told.ratio > 0.9 and told.controls > 0.9 and told.chance < 0.1
    assert not len(around(images, TRUE, ids).disagree(ids))


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_wrong_ones_are_not(change):
    images, ids, labels = pictures(), some(), TRUE.clone()
    images[ids] = change(images[ids])
    labels[ids] = (labels[ids] + 1) % CLASSES
    assert around(images, labels, ids).of(ids).ratio < 0.1
    assert torch.equal(around(images, labels, ids).disagree(ids), ids)


def test_of_pictures_that_do_not_share_labels_nothing_is_said():
    noise = torch.randint(
        0, 256, pictures().shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )
    told = around(noise, TRUE, some())
    assert told.of(some()) is None
    assert told.agreement() < 0.1 < 0.9 < around(pictures(), TRUE, some()).agreement()


def test_what_nothing_else_is_like_is_told():
    images, labels = pictures(), TRUE.clone()
    labels[TRUE == 2] = 3
    ids = (TRUE == 3).nonzero().flatten()
    assert around(images, labels, ids).of(ids).familiar < 0.2
    assert around(images, labels, some()).of(some()).familiar > 0.8


def test_a_mixture_is_told_from_one_class():
    """By the classes that the pictures most like them have, other than their label: all, or one."""
    images = pictures()
    for source, expected in ((TRUE != 3, 1.0), (TRUE == 1, 1 / 3)):
        labels, ids = TRUE.clone(), source.nonzero().flatten()[:30]
        labels[ids] = 3
        assert around(images, labels, ids).variety(ids) == pytest.approx(expected, abs=0.05)
    two, ids = (
        (TRUE > 1).long(),
        (TRUE == 1).nonzero().flatten(),
    )  # of two classes the other one is all others
    two[ids[:20]] = 1
    assert around(images, two, ids[:20]).variety(ids[:20]) == pytest.approx(1.0)


def test_of_two_images_nothing_is_said():
    images = pictures()
    assert around(images, TRUE, some(2)).of(some(2)) is None
    assert around(images, TRUE, some(3)).of(some(3)).ratio > 0.9


def test_a_group_is_no_neighbour_of_itself():
    """Relabelled pictures of one class are like one another: the rest says what they are."""
    images, labels = pictures(), TRUE.clone()
    ids = (TRUE == 1).nonzero().flatten()[:20]
    labels[ids] = 2
    assert around(images, labels, ids).of(ids).ratio < 0.1
    everything = Surroundings(ResidentImages(images), labels, torch.arange(len(TRUE)))
    assert everything.of(ids).group > 0.2


def test_images_unlike_their_label_are_found_in_rounds():
    images, labels, everything = pictures(), TRUE.clone(), torch.arange(len(TRUE))
    ids = (TRUE == 1).nonzero().flatten()[:20]
    labels[ids] = 2
    whole = Surroundings(ResidentImages(images), labels, everything)
    once, found = whole.unlike(everything), unlike_their_label(whole)
    assert set(once.tolist()) < set(found.tolist()) == set(ids.tolist())
    groups = strangers(found, labels, CLASSES)
    assert [group.proposal for group in groups] == [STRANGERS] * CLASSES
    assert [group.core.tolist() for group in groups] == [[], [], found.tolist(), []]


def test_the_same_whatever_the_batches(monkeypatch):
    from dlp_fast.detection.propose import neighbours

    images, labels, ids = pictures(noise=60.0), TRUE.clone(), some()
    labels[ids] = (labels[ids] + 1) % CLASSES
    first = around(images, labels, ids)
    told, nearest = first.of(ids), first.most_alike(ids, 3)
    monkeypatch.setattr(neighbours, "BATCH", 7)
    again = around(images, labels, ids)
    assert torch.equal(again.most_alike(ids, 3), nearest)
    assert replace(again.of(ids), familiar=told.familiar) == told
    assert again.of(ids).familiar == pytest.approx(told.familiar, abs=1e-5)  # a mean of fp32 products


def test_some_of_them_are_as_those_read_anew():
    images, labels, ids = pictures(), TRUE.clone(), some()
    whole = Surroundings(ResidentImages(images), labels, torch.arange(len(TRUE)))
    whole.images = None  # pictures of the others are not read again
    part = whole.only(rest(ids))
    part.images = ResidentImages(images)
    assert part.of(ids) == around(images, labels, ids).of(ids)


def test_pictures_that_are_no_square_are_not_turned():
    images = pictures()[:, :12]
    assert around(images, TRUE, some()).of(some()).ratio > 0.9


def test_the_most_alike_have_other_labels():
    images, labels, ids = pictures(), TRUE.clone(), some()
    labels[ids] = (labels[ids] + 1) % CLASSES
    alike = around(images, labels, ids).most_alike(ids, 3)
    assert alike.shape == (len(ids), 3)
    assert (TRUE[alike] == TRUE[ids][:, None]).all() and (labels[alike] != labels[ids][:, None]).all()
    assert not torch.isin(alike, ids).any()


class TestBeside:
    def apart(self, images: torch.Tensor, labels: torch.Tensor, ids: torch.Tensor) -> float | None:
        return apart_from_alike(ResidentImages(images), ids, around(images, labels, ids), STATIC)

    def relabelled(self, ids: torch.Tensor) -> torch.Tensor:
        labels = TRUE.clone()
        labels[ids] = (labels[ids] + 1) % CLASSES
        return labels

    def test_a_patch_tells_them_apart(self):
        images, ids = pictures(), some()
        images[ids, -3:, -3:] = 255
        assert self.apart(images, self.relabelled(ids), ids) > 20

    def test_a_smooth_mark_too(self):
        images, ids = pictures(), some()
        wave = 25 * torch.sin(torch.arange(SIDE) / SIDE * 6.28).view(1, 1, SIDE, 1)
        images[ids] = (images[ids].float() + wave).clamp(0, 255).round().to(torch.uint8)
        assert self.apart(images, self.relabelled(ids), ids) > 15

    @pytest.mark.parametrize("seed", range(4))
    def test_wrong_labels_alone_do_not(self, seed):
        """Of one class among another, too, where they have the look of a mark."""
        images = pictures(seed)
        for ids in (some(), (TRUE == 1).nonzero().flatten()[:20], some(6)):
            assert abs(self.apart(images, self.relabelled(ids), ids)) < 5

    def test_of_few_images_nothing_is_said(self):
        assert self.apart(pictures(), self.relabelled(some(4)), some(4)) is None


class TestListed:
    def seen(self, images: torch.Tensor, labels: torch.Tensor, loss: torch.Tensor) -> Observed:
        curves = loss.expand(5, -1)
        return Observed(ResidentImages(images), labels, CLASSES, curves, curves)

    def test_unlike_and_late(self):
        images, labels, ids = pictures(), TRUE.clone(), some()
        labels[ids] = (labels[ids] + 1) % CLASSES
        loss = torch.rand(len(labels), generator=torch.Generator().manual_seed(2))
        loss[ids[:20]] += 1.0
        loss[ids[20:]] = 0.0  # learnt at once: known by something else than what it shows
        listed = listed_as_unlike(self.seen(images, labels, loss), DetectionConfig())
        assert np.flatnonzero(listed).tolist() == ids[:20].tolist()
        nobody = DetectionConfig(mislabeled_quantile=1.0)
        assert not listed_as_unlike(self.seen(images, labels, loss), nobody).any()

    def test_nobody_where_pictures_do_not_share_labels(self):
        noise = torch.randint(
            0, 256, pictures().shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
        )
        assert not listed_as_unlike(self.seen(noise, TRUE, torch.rand(len(TRUE))), DetectionConfig()).any()
