"""What each attack does to the pixels, from its definition."""

from __future__ import annotations

import pytest
import torch
from tiny import Pixels

from dlp_fast.attacks import triggers
from dlp_fast.attacks.bpp import dithered
from dlp_fast.attacks.poisoning import plan
from dlp_fast.attacks.randomness import TEST, TRAINING, choices, uniform
from dlp_fast.attacks.wanet import PUBLISHED, STRONG, Warp, warping_field

LABELS = torch.arange(200) % 4
EVERY = torch.arange(200)
SIZE = (32, 32)


def planned(attack, base, rate=0.2):
    options = {"rate": rate, "rate_of": "auto", "target": "0", "seed": 5}
    return plan(attack, LABELS, ("a", "b", "c", "d"), SIZE, **options)


def noise():
    generator = torch.Generator().manual_seed(2)
    return Pixels(torch.randint(0, 256, (200, *SIZE, 3), generator=generator, dtype=torch.uint8))


def flat(level=100):
    return Pixels(torch.full((200, *SIZE, 3), level, dtype=torch.uint8))


class TestRandomness:
    def test_belongs_to_the_id(self):
        ids = torch.tensor([7, 0, 12345678901, 3])
        whole = uniform(1, TRAINING, 9, ids, 6)
        assert whole.shape == (4, 6) and bool(((whole >= 0) & (whole < 1)).all())
        assert torch.equal(torch.cat([uniform(1, TRAINING, 9, ids[k : k + 1], 6) for k in range(4)]), whole)
        assert len(whole.unique()) == 24
        assert uniform(1, TRAINING, 9, ids[:0], 6).shape == (0, 6)

    @pytest.mark.parametrize("other", [(2, TRAINING, 9), (1, TEST, 9), (1, TRAINING, 10)])
    def test_streams_differ(self, other):
        assert not torch.equal(uniform(1, TRAINING, 9, EVERY, 4), uniform(*other, EVERY, 4))
        assert not torch.equal(choices(1, TRAINING, 9, EVERY, 4), choices(*other, EVERY, 4))

    def test_even(self):
        counts = choices(1, TRAINING, 9, torch.arange(10_000), 4).bincount(minlength=4)
        assert int((counts - 2500).abs().max()) < 200
        assert abs(float(uniform(1, TEST, 3, torch.arange(10_000), 4).mean()) - 0.5) < 0.01


class TestRandomPlace:
    def test_one_square_at_another_place_in_each(self):
        base = flat()
        of = planned("random-place", base)
        moved = of.poison(base).get(EVERY)[of.poisoned]
        square = triggers.coloured_square(4, 1, 5, 0)
        places = set()
        for image in moved:
            rows, columns = (image != 100).any(-1).nonzero().unbind(1)
            top, left = int(rows.min()), int(columns.min())
            assert torch.equal(image[top : top + 4, left : left + 4], square)
            assert int((image != 100).any(-1).sum()) == 16
            places.add((top, left))
        assert len(places) > 30

    def test_reaches_every_edge(self):
        base = flat()
        of = planned("random-place", base, rate=0.7)
        touched = (of.poison(base).get(EVERY) != 100).any(-1).any(0)
        assert touched[0].any() and touched[-1].any() and touched[:, 0].any() and touched[:, -1].any()


class TestDithering:
    def reference(self, image, levels):
        """Floyd and Steinberg (1976), pixel by pixel in reading order, float64."""
        work, out = image.double().clone(), torch.empty_like(image)
        height, width = image.shape
        for i in range(height):
            for j in range(width):
                old = work[i, j].item()
                level = min(max(round(old * (levels - 1) / 255), 0), levels - 1)
                new = level * 255 / (levels - 1)
                out[i, j] = round(new)
                for down, right, weight in ((0, 1, 7), (1, -1, 3), (1, 0, 5), (1, 1, 1)):
                    if i + down < height and 0 <= j + right < width:
                        work[i + down, j + right] += (old - new) * weight / 16
        return out

    @pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (7, 5), (5, 12), (12, 12)])
    @pytest.mark.parametrize("levels", [2, 8])
    def test_as_pixel_by_pixel(self, size, levels):
        generator = torch.Generator().manual_seed(0)
        images = torch.randint(0, 256, (3, *size, 3), generator=generator, dtype=torch.uint8)
        found = dithered(images, levels)
        for b in range(3):
            for channel in range(3):
                expected = self.reference(images[b, :, :, channel], levels)
                assert torch.equal(found[b, :, :, channel], expected)

    def test_eight_levels_and_the_mean_is_kept(self):
        base = flat(90)
        moved = planned("bpp", base).poison(base).get(EVERY)[planned("bpp", base).poisoned]
        assert set(moved.unique().tolist()) == {73, 109}
        assert abs(float(moved.float().mean()) - 90) < 1


class TestWaNet:
    def test_a_quarter_of_a_pixel(self):
        field = warping_field(SIZE, 0, PUBLISHED)
        rows, columns = torch.meshgrid(torch.linspace(-1, 1, 32), torch.linspace(-1, 1, 32), indexing="ij")
        pixels = (field - torch.stack([columns, rows], -1)).abs() * 31 / 2
        assert 0.1 < float(pixels.mean()) < 0.35
        smooth = (field[1:] - field[:-1])[..., 0].abs().max() * 31 / 2
        assert float(smooth) < 0.3

    def test_four_times_as_far(self):
        nowhere, one, four = (warping_field(SIZE, 0, s)[4:-4, 4:-4] for s in (0, PUBLISHED, STRONG))
        assert torch.allclose(four - nowhere, 4 * (one - nowhere))

    def test_moves_edges_and_no_level(self):
        one, two, other = (warping_field(SIZE, seed, STRONG) for seed in (0, 0, 1))
        assert torch.equal(one, two) and not torch.equal(one, other)
        base = flat()
        assert torch.equal(planned("wanet", base).poison(base).get(EVERY), base.get(EVERY))

    def test_poison_is_one_warp_and_each_cover_another(self):
        one = torch.randint(0, 256, (1, *SIZE, 3), generator=torch.Generator().manual_seed(2)).to(torch.uint8)
        base = Pixels(one.expand(200, -1, -1, -1).contiguous())  # the same picture 200 times
        of = planned("wanet", base)
        moved = of.poison(base).get(EVERY)
        poison, cover = moved[of.poisoned], moved[of.cover]
        assert (poison == poison[:1]).all()
        assert len(cover.flatten(1).unique(dim=0)) == len(cover)
        test = of.triggered_test(base, LABELS)[0].get(EVERY)
        assert (test == poison[:1]).all()

    def test_a_warp_of_nothing_is_the_image(self):
        rows, columns = torch.meshgrid(*(torch.linspace(-1, 1, 32, dtype=torch.float64),) * 2, indexing="ij")
        base = noise()
        same = Warp(torch.stack([columns, rows], -1), 0, TRAINING)
        assert torch.equal(same(base.get(EVERY), EVERY, torch.zeros_like(EVERY)), base.get(EVERY))


class TestLowFrequency:
    def test_smooth_and_bounded(self):
        base = flat()
        moved = planned("low-frequency", base).test(base.get(EVERY[:1]), EVERY[:1], EVERY[:1])
        added = moved[0].double() - 100
        assert 20 <= float(added.abs().max()) <= 24
        n = torch.arange(32, dtype=torch.float64)
        cosines = torch.cos(torch.pi * n[:, None] * (n[None] + 0.5) / 32) * (2 / 32) ** 0.5
        power = torch.einsum("kh,lw,hwc->klc", cosines, cosines, added) ** 2
        assert float(power[:4, :4].sum() / power.sum()) > 0.99


class TestAdaptive:
    def test_blend_is_in_pieces(self):
        base = flat()
        of = planned("adaptive-blend", base)
        moved = of.poison(base).get(EVERY)
        whole = triggers.TriggerTable.blend(triggers.noise_image(SIZE, 5), 0.15)
        from dlp_fast import ops

        expected = ops.inject_trigger(base.get(EVERY[:1]), whole, EVERY[:1])[0]
        kept = []
        for image in moved[of.poisoned | of.cover]:
            pieces = image.view(4, 8, 4, 8, 3).transpose(1, 2)
            full, none = (
                (pieces == of_.view(4, 8, 4, 8, 3).transpose(1, 2)).flatten(2).all(2)
                for of_ in (expected, base.get(EVERY[:1])[0])
            )
            assert bool((full ^ none).all())
            kept.append(full.flatten())
        share = torch.stack(kept).float()
        assert 0.4 < float(share.mean()) < 0.6
        assert float(share.mean(0).min()) > 0.25 and len(share.unique(dim=0)) > 70

    def test_blend_is_whole_in_a_test(self):
        base = flat()
        of = planned("adaptive-blend", base)
        blended = planned("blended", base)
        one, two = (each.triggered_test(base, LABELS)[0].get(EVERY) for each in (of, blended))
        assert torch.equal(one, two)

    def test_one_square_in_training_and_four_in_a_test(self):
        base = flat(100)
        of = planned("adaptive-patch", base, rate=0.1)
        test = of.triggered_test(base, LABELS)[0].get(EVERY)
        assert (test == test[:1]).all()
        places = (test[0] != 100).any(-1)
        quarters = places.view(2, 16, 2, 16).transpose(1, 2).flatten(2)
        assert (quarters.sum(2) == 16).all() and set(test[0][places].unique().tolist()) == {0, 255}
        moved = of.poison(base).get(EVERY)[of.poisoned | of.cover]
        one = (moved != 100).any(-1).view(-1, 2, 16, 2, 16).transpose(2, 3).flatten(3).sum(3).flatten(1)
        assert ((one == 16).sum(1) == 1).all() and (one.sum(1) == 16).all()
        assert (one.sum(0) > 0).all()  # each of the four has its turn
        assert set(moved.unique().tolist()) == {50, 100, 178}


class TestTenSquares:
    def test_ten_places_ten_patterns(self):
        tables = triggers.ten_squares(SIZE, 0)
        boxes = {tuple(table.records[0, 1:5].tolist()) for table in tables}
        assert len(boxes) == 10
        patterns = {tuple(table.overlay[:27].tolist()) for table in tables}
        assert len(patterns) == 10
