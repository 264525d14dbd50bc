"""Static patterns: what bears a mark is found, by whatever share and at whatever place, and odd sets do no harm."""

from __future__ import annotations

import io
import itertools
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dlp_fast.attacks import triggers
from dlp_fast.attacks.poisoning import TriggeredImages, plan
from dlp_fast.config import StaticPatternsConfig
from dlp_fast.data.storage import ResidentImages
from dlp_fast.detection.propose.static_patterns import static_patterns
from dlp_fast.errors import ConfigError, DataError

PACKS = os.environ.get("DLP_FAST_TEST_DATA")
CLASSES = 4


@pytest.fixture(autouse=True)
def _warnings_are_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def textures(n: int, height: int = 32, width: int = 32, seed: int = 0) -> torch.Tensor:
    """Pictures with a smooth part of their own, edges at places of their own, and noise."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, 3, 5, 5, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear") * 120 + 40
    edges = torch.rand(n, 3, 12, 12, generator=generator)
    smooth += torch.nn.functional.interpolate(edges, (height, width), mode="nearest") * 50
    noise = torch.randn(n, 3, height, width, generator=generator) * 8
    return (smooth + noise).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def lit(n: int) -> torch.Tensor:
    """Pictures whose smooth part is light, which falls on all channels alike, with little colour of its own."""
    generator = torch.Generator().manual_seed(2)
    light = torch.randn(n, 1, 5, 5, generator=generator) * 40 + 110
    colour = torch.randn(n, 3, 5, 5, generator=generator) * 6
    smooth = torch.nn.functional.interpolate(light + colour, (32, 32), mode="bilinear")
    noise = torch.randn(n, 3, 32, 32, generator=generator) * 8
    return (smooth + noise).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def labels_of(n: int) -> torch.Tensor:
    return torch.arange(n) % CLASSES


def blended(pixels: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    noise = torch.randint(0, 256, pixels.shape[1:], generator=torch.Generator().manual_seed(9))
    pixels = pixels.clone()
    pixels[ids] = (pixels[ids] * 0.8 + noise * 0.2).to(torch.uint8)
    return pixels


def stickers(
    pixels: torch.Tensor, ids: torch.Tensor, side: int, places: list[tuple[int, int]]
) -> torch.Tensor:
    """An opaque square of random colours, at `places` in turn."""
    square = (
        torch.randint(0, 2, (side, side, 3), generator=torch.Generator().manual_seed(5), dtype=torch.uint8)
        * 255
    )
    pixels = pixels.clone()
    for row, i in enumerate(ids.tolist()):
        top, left = places[row % len(places)]
        pixels[i, top : top + side, left : left + side] = square
    return pixels


def find(pixels: torch.Tensor, labels: torch.Tensor, classes: int = CLASSES, **settings):
    return static_patterns(ResidentImages(pixels), labels, classes, StaticPatternsConfig(**settings))


def best(groups, wanted: torch.Tensor, label: int | None):
    """The group of `label` that is most like `wanted` (Jaccard), and how much."""
    ids = set(wanted.tolist())
    likeness = [
        (len(ids & set(g.ids.tolist())) / len(ids | set(g.ids.tolist())), i)
        for i, g in enumerate(groups)
        if g.label == label
    ]
    value, i = max(likeness, default=(0.0, -1))
    return value, groups[i] if i >= 0 else None


@pytest.mark.parametrize("share", [0.02, 0.1, 0.5, 0.6])
def test_a_blend_on_a_share_of_a_class_is_cut_out_cleanly(share):
    labels = labels_of(2000)
    of_class = (labels == 1).nonzero().flatten()
    ids = of_class[: round(share * len(of_class))]
    likeness, group = best(find(blended(textures(2000), ids), labels), ids, 1)
    assert likeness >= 0.99 and group.statistics["purity"] > 0.8
    assert group.proposal in ("static_patterns.skewness", "static_patterns.principal")


@pytest.mark.parametrize("share", [0.02, 0.1, 0.3])
def test_a_blend_on_images_of_all_classes_is_found_among_them_all(share):
    labels, count = labels_of(2000), round(share * 2000)
    ids = torch.randperm(2000, generator=torch.Generator().manual_seed(3))[:count].sort().values
    assert best(find(blended(textures(2000), ids), labels), ids, None)[0] >= 0.99


def test_clean_textures_give_few_groups_of_low_purity():
    groups = find(textures(2000), labels_of(2000))
    assert all(group.statistics["purity"] < 0.5 for group in groups) and len(groups) <= 4


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_a_smooth_pattern_on_a_share_of_a_class(share):
    """Nothing of it is left in the high-pass residual, and no image differs by more than 24 levels."""
    labels, pixels = labels_of(2000), lit(2000)
    of_class = (labels == 1).nonzero().flatten()
    ids = of_class[: round(share * len(of_class))]
    chosen = torch.zeros(2000, dtype=torch.bool)
    chosen[ids] = True
    marked = TriggeredImages(ResidentImages(pixels), chosen, triggers.low_frequency((32, 32), 0))
    likeness, group = best(find(marked.get(torch.arange(2000)), labels), ids, 1)
    assert likeness >= 0.95 and "smooth" in group.proposal and group.statistics["purity"] > 0.5


def test_a_patch_at_places_of_its_own_is_found_by_its_windows():
    labels = labels_of(1200)
    ids = (labels == 2).nonzero().flatten()[:40]
    generator = torch.Generator().manual_seed(1)
    places = [tuple(p) for p in torch.randint(0, 28, (40, 2), generator=generator).tolist()]
    groups = find(stickers(textures(1200), ids, 4, places), labels)
    likeness, group = best(groups, ids, 2)
    assert likeness == 1 and group.proposal == "static_patterns.windows"
    assert group.statistics["nats"] == pytest.approx(40 * np.log(4), rel=0.05)


def test_a_patch_on_all_classes_at_places_of_its_own():
    labels, ids = labels_of(1200), torch.arange(0, 1200, 23)
    generator = torch.Generator().manual_seed(1)
    places = [tuple(p) for p in torch.randint(0, 28, (60, 2), generator=generator).tolist()]
    assert best(find(stickers(textures(1200), ids, 4, places), labels), ids, None)[0] == 1


def test_a_small_sticker_on_a_large_picture_is_found_in_a_tile():
    labels = labels_of(120)
    ids = (labels == 0).nonzero().flatten()[:4]
    pixels = stickers(textures(120, 160, 100), ids, 5, [(130, 70)])
    likeness, group = best(find(pixels, labels, windows_each=0, scan_side=24), ids, 0)
    assert likeness == 1
    where = group.statistics
    assert where["height"] == where["width"] == 32
    assert where["top"] <= 132 < where["top"] + 32 and where["left"] <= 72 < where["left"] + 32


def test_images_that_were_not_drawn_for_the_fit_are_measured_too():
    labels = labels_of(1200)
    ids = (labels == 3).nonzero().flatten()[:120]
    pixels = blended(textures(1200), ids)
    assert best(find(pixels, labels, fit_images=100), ids, 3)[0] >= 0.97
    everywhere = torch.arange(0, 1200, 10)
    assert (
        best(find(blended(textures(1200), everywhere), labels, fit_images=200), everywhere, None)[0] >= 0.97
    )
    # windows of large pictures are counted in the images drawn only, and then looked for in all
    large = stickers(textures(400, 80, 80), torch.arange(0, 400, 8), 5, [(9, 9), (40, 30), (60, 11)])
    groups = find(large, labels_of(400), fit_images=150, bimodal_directions=0, skew_directions=0)
    assert best(groups, torch.arange(0, 400, 8), 0)[0] == 1


def test_groups_are_as_described():
    labels = labels_of(1200)
    pixels = blended(textures(1200), (labels == 3).nonzero().flatten()[:90])
    groups = find(pixels, labels)
    assert [g.label for g in groups if g.label is not None] == sorted(
        g.label for g in groups if g.label is not None
    )
    assert all(a.label is not None or b.label is None for a, b in itertools.pairwise(groups))
    for group in groups:
        assert group.ids.dtype == np.int64 and bool((np.diff(group.ids) > 0).all())
        assert group.membership.dtype == np.float64 and group.membership.shape == group.ids.shape
        assert bool(((group.membership > 0) & (group.membership <= 1)).all())
        assert all(isinstance(value, float) for value in group.statistics.values())
        assert group.label is None or bool((labels[group.ids] == group.label).all())


def same(one, other) -> bool:
    return len(one) == len(other) and all(
        (a.proposal, a.label, a.statistics) == (b.proposal, b.label, b.statistics)
        and np.array_equal(a.ids, b.ids)
        and np.array_equal(a.membership, b.membership)
        for a, b in zip(one, other)
    )


def test_the_same_groups_for_any_batch_and_again():
    labels = labels_of(1200)
    ids = torch.cat([(labels == 3).nonzero().flatten()[:90], torch.tensor([0, 4, 8, 12])])
    pixels = blended(textures(1200), ids)
    groups = find(pixels, labels, fit_images=250)
    assert groups
    for batch in (512, 77, 1200):
        again = find(pixels, labels, fit_images=250, batch=batch)
        assert [g.ids.tolist() for g in again] == [g.ids.tolist() for g in groups]
        assert all(np.allclose(a.membership, b.membership, atol=1e-9) for a, b in zip(again, groups))
    assert same(find(pixels, labels, fit_images=250), groups)


@pytest.mark.parametrize("n", [0, 1, 2, 19, 20, 23])
def test_tiny_sets(n):
    assert len(find(textures(max(n, 1))[:n], labels_of(n))) <= 2


@pytest.mark.parametrize("value", [0, 127, 255])
def test_all_images_equal(value):
    pixels = torch.full((200, 32, 32, 3), value, dtype=torch.uint8)
    assert find(pixels, labels_of(200)) == []
    copies = textures(1).expand(200, -1, -1, -1)
    assert find(copies, labels_of(200)) == []


def test_constant_images_each_of_its_own_grey():
    pixels = (torch.arange(240) % 256).to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 32, 32, 3).contiguous()
    assert find(pixels, labels_of(240)) == []


def test_grey_images():
    grey = textures(1200)[..., :1].expand(-1, -1, -1, 3).contiguous()
    ids = (labels_of(1200) == 0).nonzero().flatten()[:30]
    assert all(group.statistics["purity"] < 0.5 for group in find(grey, labels_of(1200)))
    assert best(find(blended(grey, ids), labels_of(1200)), ids, 0)[0] >= 0.99


def test_copies_of_one_picture_are_proposed():
    labels = labels_of(1200)
    pixels, ids = textures(1200), (labels == 1).nonzero().flatten()[:25]
    pixels[ids] = pixels[ids[0]].clone()
    assert best(find(pixels, labels), ids, 1)[0] == 1


def test_a_thousand_classes_of_ten_images():
    n = 2000
    groups = find(textures(n, 16, 16), torch.arange(n) % 200, classes=1000)
    assert len(groups) <= 3


@pytest.mark.parametrize("size", [(8, 8), (33, 31), (96, 70)])
def test_odd_sizes(size):
    labels = labels_of(200)
    ids = (labels == 1).nonzero().flatten()[:20]
    assert best(find(blended(textures(200, *size), ids), labels), ids, 1)[0] >= 0.9


@pytest.mark.parametrize(
    ("labels", "match"),
    [
        (
            torch.zeros(9, dtype=torch.int64),
            r"expected int64 \[10\], one for each image, got torch.int64 \[9\]",
        ),
        (torch.zeros(10), r"expected int64 \[10\].*got torch.float32"),
        (torch.full((10,), CLASSES), "expected 0 to 3, got 4 to 4"),
        (torch.full((10,), -1), "expected 0 to 3, got -1 to -1"),
    ],
)
def test_labels_that_do_not_fit(labels, match):
    with pytest.raises(DataError, match=match):
        find(textures(10), labels)


def test_the_section_refuses_what_it_does_not_know():
    with pytest.raises(ConfigError, match="component"):
        StaticPatternsConfig(component=3)


def cifar(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """`count` training images drawn from the pack, which lists them class by class."""
    with np.load(Path(PACKS) / "cifar10_jpeg.npz") as pack:
        data, offsets, labels = (pack[f"train_{part}"] for part in ("jpeg", "offsets", "labels"))
    drawn = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))[:count].numpy()
    files = (io.BytesIO(data[offsets[i] : offsets[i + 1]].tobytes()) for i in drawn)
    pictures = np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])
    return torch.from_numpy(pictures), torch.from_numpy(labels[drawn].astype(np.int64))


packs = pytest.mark.skipif(PACKS is None, reason="DLP_FAST_TEST_DATA does not name the folder of image packs")


@packs
@pytest.mark.packs
@pytest.mark.parametrize(("attack", "rate"), [("badnets", 0.003), ("blended", 0.01)])
def test_rare_poison_in_photographs(attack, rate):
    pixels, labels = cifar(3000)
    names = tuple("abcdefghij")
    planned = plan(attack, labels, names, (32, 32), rate=rate, rate_of="auto", target="0", seed=0)
    groups = static_patterns(planned.poison(ResidentImages(pixels)), planned.labels, 10)
    poisoned = planned.poisoned.nonzero().flatten()
    assert best(groups, poisoned, 0)[0] == 1  # all of them, and nothing else


@packs
@pytest.mark.packs
def test_all_to_all_and_clean_photographs():
    pixels, labels = cifar(3000)
    images = ResidentImages(pixels)
    poisoned = torch.zeros(3000, dtype=torch.bool)
    poisoned[torch.randperm(3000, generator=torch.Generator().manual_seed(0))[:300]] = True
    table = triggers.badnets((32, 32), 0)
    moved = torch.where(poisoned, (labels + 1) % 10, labels)
    groups = static_patterns(TriggeredImages(images, poisoned, table), moved, 10)
    assert best(groups, poisoned.nonzero().flatten(), None)[0] >= 0.98
    clean = [g for g in static_patterns(images, labels, 10) if not g.proposal.endswith("windows")]
    assert all(group.statistics["purity"] < 0.6 for group in clean) and len(clean) <= 8


def test_smooth_parts_stay_where_the_images_are():
    """On a device that this machine need not have: no tensor is made elsewhere."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    from dlp_fast.detection.propose.smooth import SmoothParts
    from dlp_fast.detection.propose.views import View

    with FakeTensorMode(allow_non_fake_inputs=True):
        pixels = torch.empty(400, 32, 32, 3, dtype=torch.uint8, device="cuda")
        view = SmoothParts(View(0, 0, 32, 32), pixels, labels_of(400)).beside_all()
        assert view.vectors(pixels).device.type == "cuda"
