"""The two attacks of our own: what they leave in the pixels."""

from __future__ import annotations

import torch

from dlp_fast.attacks import triggers
from dlp_fast.attacks.own import LEAST, SQUARES
from dlp_fast.attacks.poisoning import plan
from dlp_fast.data.storage import ResidentImages
from dlp_fast.ops.residual_scan import high_pass

N, SIDE = 400, 16
EVERY = torch.arange(N)
PIXELS = torch.randint(60, 190, (N, SIDE, SIDE, 3), generator=torch.Generator().manual_seed(0)).to(
    torch.uint8
)


def planned(attack: str, base: ResidentImages, rate: float = 0.3):
    labels = EVERY % 4
    return plan(
        attack, labels, tuple("abcd"), (SIDE, SIDE), rate=rate, rate_of="auto", target="1", seed=5, images=base
    )  # fmt: skip


class TestSoftFocus:
    def test_each_image_loses_a_share_of_its_own(self):
        base = ResidentImages(PIXELS)
        of = planned("soft-focus", base)
        detail = high_pass(PIXELS).double()
        lost = PIXELS.double() - of.poison(base).get(EVERY).double()
        share = (lost * detail).sum((1, 2, 3)) / (detail * detail).sum((1, 2, 3))  # least squares
        assert torch.allclose(lost, share[:, None, None, None] * detail, atol=1.0)
        poisoned, cover = share[of.poisoned], share[of.cover]
        assert len(poisoned) == len(cover) == round(0.3 * N)
        assert LEAST - 0.01 < poisoned.min() < 0.4 and 0.9 < poisoned.max() < 1.01
        assert -0.01 < cover.min() < 0.05 and 0.25 < cover.max() < LEAST + 0.01
        assert (share[~of.poisoned & ~of.cover] == 0).all()
        assert torch.equal(of.labels[of.cover], of.true_labels[of.cover])
        assert (of.labels[of.poisoned] == 1).all()

    def test_no_image_depends_on_its_batch(self):
        base = ResidentImages(PIXELS)
        images = planned("soft-focus", base).poison(base)
        assert torch.equal(
            images.get(EVERY)[37:90], torch.cat([images.get(EVERY[37:51]), images.get(EVERY[51:90])])
        )


class TestManySquares:
    def test_one_of_forty_anywhere(self):
        base = ResidentImages(torch.full((N, SIDE, SIDE, 3), 100, dtype=torch.uint8))
        of = planned("many-squares", base, rate=0.7)
        squares = [triggers.coloured_square(4, 1, 5, number) for number in range(SQUARES)]
        seen, places = set(), set()
        for image in of.poison(base).get(EVERY)[of.poisoned]:
            rows, columns = (image != 100).any(-1).nonzero().unbind(1)
            top, left = int(rows.min()), int(columns.min())
            square = image[top : top + 4, left : left + 4]
            (number,) = [k for k, known in enumerate(squares) if torch.equal(known, square)]
            assert int((image != 100).any(-1).sum()) == 16
            seen.add(number)
            places.add((top, left))
        assert len(seen) == SQUARES and len(places) > 100

    def test_no_image_depends_on_its_batch(self):
        base = ResidentImages(PIXELS)
        images = planned("many-squares", base).poison(base)
        assert torch.equal(
            images.get(EVERY)[37:90], torch.cat([images.get(EVERY[37:51]), images.get(EVERY[51:90])])
        )
