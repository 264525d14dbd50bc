"""How pictures of any shape get the size of the network's input, and what of them is seen."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from corpus import encoded, noise, write
from PIL import Image

from dlp_fast.config import DataConfig, build, read_preset
from dlp_fast.data import sources
from dlp_fast.data.fitting import FITS, fit, placement, share_cut_off
from dlp_fast.data.sources import from_torchvision

SHAPES = [(90, 160), (160, 90), (32, 512), (512, 32), (8, 300), (300, 8), (33, 32), (64, 64)]


def marked(height: int, width: int, corner: tuple[int, int]) -> Image.Image:
    """Black, with a white square of a quarter of the shorter side in a corner: (0 or -1, 0 or -1)."""
    pixels = np.zeros((height, width, 3), np.uint8)
    side = max(1, min(height, width) // 4)
    rows, columns = (slice(0, side) if end == 0 else slice(-side, None) for end in corner)
    pixels[rows, columns] = 255
    return Image.fromarray(pixels)


@pytest.mark.parametrize("corner", [(0, 0), (0, -1), (-1, 0), (-1, -1)])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("how", ["squash", "pad"])
def test_a_mark_in_any_corner_is_seen(how, shape, corner):
    seen = np.asarray(fit(marked(*shape, corner), 64, 64, how))
    share = (max(1, min(shape) // 4) ** 2) / (shape[0] * shape[1])
    box = placement(shape[1], shape[0], 64, 64, how)
    expected = share * box.size[0] * box.size[1]
    assert seen.astype(float).sum() / 255 / 3 == pytest.approx(expected, rel=0.35, abs=0.2)


@pytest.mark.parametrize("shape", [(90, 160), (512, 32)])
def test_crop_does_not_see_it(shape):
    assert np.asarray(fit(marked(*shape, (-1, -1)), 64, 64, "crop")).max() == 0


@pytest.mark.parametrize("how", FITS)
def test_squares_are_the_same_by_all(how):
    image = Image.fromarray(noise(50, 50))
    expected = np.asarray(image.resize((32, 32), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(np.asarray(fit(image, 32, 32, how)), expected)


def test_squash_is_a_plain_resize():
    image = Image.fromarray(noise(90, 160))
    expected = np.asarray(image.resize((32, 48), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(np.asarray(fit(image, 48, 32, "squash")), expected)


def test_pad_keeps_the_shape_and_adds_black():
    image = Image.fromarray(noise(30, 60) // 2 + 100)
    seen = np.asarray(fit(image, 32, 32, "pad"))
    assert (seen[:8] == 0).all() and (seen[24:] == 0).all()
    np.testing.assert_array_equal(seen[8:24], np.asarray(image.resize((32, 16), Image.Resampling.BILINEAR)))


@pytest.mark.parametrize(("shape", "share"), [((90, 160), 0.4375), ((64, 64), 0.0), ((32, 512), 0.9375)])
def test_share_cut_off(shape, share):
    assert share_cut_off(shape[1], shape[0], 64, 64) == pytest.approx(share, abs=0.01)


def test_a_folder_is_seen_whole_unless_crop_is_asked_for(tmp_path):
    for k, name in enumerate(("cat", "dog")):
        pictures = {f"{name}/{i}.png": encoded(marked(90, 160, (-1, -k)), "PNG") for i in range(3)}
        write(tmp_path, pictures)
    whole = sources.load(tmp_path, DataConfig(image_size=64))
    assert int(whole.train.images.get(torch.tensor([0]))[0, -4:, :4].min()) == 255
    assert "cut off" not in str(whole.warnings)
    cut = sources.load(tmp_path, DataConfig(image_size=64, fit="crop"))
    assert int(cut.train.images.get(torch.arange(3)).max()) == 0
    assert (
        "train: 43% of the average picture is cut off (--dataset.fit crop), and a mark there is not seen; "
        "squash and pad cut nothing off"
    ) in cut.warnings


@pytest.mark.parametrize(("how", "seen"), [("squash", True), ("pad", True), ("crop", False)])
def test_pictures_in_memory(how, seen):
    items = [(marked(90, 160, (0, 0)), i % 2) for i in range(4)]
    data = from_torchvision(items, options=DataConfig(image_size=64, fit=how))
    assert (int(data.train.images.pixels.max()) > 200) == seen
    assert data.fit == how


def test_the_papers_preset_crops_as_it_did():
    assert build(read_preset("paper"), "test").dataset.fit == "crop"
    assert build({}, "test").dataset.fit == "squash"
