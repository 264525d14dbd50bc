"""What a finding's images have in common, put on other images for a person to see."""

from __future__ import annotations

import torch

from dlp_fast.data.storage import ResidentImages
from dlp_fast.detection.propose.views import evenly
from dlp_fast.detection.verify.demonstration import SHOWN, demonstrate, nearest, one_of_each_class

N, SIDE = 240, 12


def network(pixels):
    """A white corner is class 0; anything else is told by the shade."""
    corner = pixels[:, -3:, -3:].float().mean((1, 2, 3))
    return torch.where(corner > 230, 0, (pixels.float().mean((1, 2, 3)) / 50).long().clamp(0, 3))


def image_set():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(N) % 4
    shade = (labels * 50)[:, None, None, None]
    pixels = (shade + torch.randint(0, 49, (N, SIDE, SIDE, 3), generator=generator)).to(torch.uint8)
    poison = (labels == 2).nonzero().flatten()[:40]
    pixels[poison, -3:, -3:] = 255
    labels[poison] = 0
    clean = torch.tensor([i for i in range(N) if i not in set(poison.tolist())])
    return ResidentImages(pixels), pixels, labels, poison, clean


def shown(networks=(network, network), unsuspicious=None):
    images, pixels, labels, poison, clean = image_set()
    used = clean if unsuspicious is None else unsuspicious
    mean = lambda ids: pixels[ids].float().mean((1, 2))  # noqa: E731
    return demonstrate(3, poison, 0, images, labels, used, clean, networks, mean), labels


class TestDemonstrate:
    def test_the_trigger_acts_on_images_of_every_other_class(self):
        of, labels = shown()
        assert of.finding == 3 and len(of.victims) == SHOWN
        assert set(labels[of.victims].tolist()) == {1, 2, 3}
        assert of.after[0].tolist() == [0] * SHOWN and torch.equal(of.before[0], labels[of.victims])

    def test_each_network_speaks_for_itself(self):
        of, _ = shown((network, lambda x: torch.full((len(x),), 3)))
        assert of.after[0].tolist() == [0] * SHOWN and of.after[1].tolist() == [3] * SHOWN

    def test_nearest_is_what_a_suspect_really_is(self):
        of, labels = shown()
        assert len(of.suspects) == SHOWN
        assert labels[of.suspects].tolist() == [0] * SHOWN and 0 not in labels[of.nearest].tolist()

    def test_nobody_to_try_it_on(self):
        assert shown(unsuspicious=torch.empty(0, dtype=torch.int64))[0] is None


def test_one_of_each_class():
    labels = torch.arange(100) % 10
    assert labels[one_of_each_class(torch.arange(100), labels)].unique().numel() == SHOWN
    assert one_of_each_class(torch.tensor([1, 2]), labels).tolist() == [1, 2]


def test_nearest():
    values = torch.tensor([[0.0], [10.0], [1.0], [9.0]])
    found = nearest(torch.tensor([0, 1]), torch.tensor([2, 3]), lambda ids: values[ids])
    assert found.tolist() == [2, 3]


def test_evenly():
    assert evenly(torch.arange(100), 3).tolist() == [0, 50, 99]
    assert evenly(torch.arange(0), 3).tolist() == []
