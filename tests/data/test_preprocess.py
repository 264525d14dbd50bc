"""A picture takes one way to the network, whatever it comes as."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import image_folder, picture

import dlp_fast
from dlp_fast.data import sources
from dlp_fast.data.preprocess import index_files
from dlp_fast.errors import ConfigError, DataError
from dlp_fast.models.resizing import GRAPH_FITS, Resizing

SIZE = (12, 20)


@pytest.fixture
def turned(tmp_path):
    """A JPEG that is 40 x 30 as stored, and upright 30 x 40 by its EXIF."""
    path = tmp_path / "turned.jpg"
    image = picture(40, seed=3).crop((0, 0, 40, 30))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(path, exif=exif, quality=95)
    return path


def test_every_kind_gives_the_same(turned):
    """Path, Pillow image, and the upright pixels."""
    want = dlp_fast.preprocess(turned, SIZE)
    assert want.dtype == torch.uint8 and want.shape == (1, *SIZE, 3)
    with Image.open(turned) as opened:
        assert torch.equal(dlp_fast.preprocess(opened, SIZE), want)
        upright = np.asarray(opened.convert("RGB").transpose(Image.Transpose.ROTATE_270))
    assert torch.equal(dlp_fast.preprocess(upright, SIZE), want)
    assert torch.equal(dlp_fast.preprocess(torch.from_numpy(upright.copy()), SIZE), want)
    many = dlp_fast.preprocess([upright, str(turned), turned], SIZE)
    assert torch.equal(many, want.expand(3, -1, -1, -1))


def test_as_training_reads_them(tmp_path):
    folder = image_folder(tmp_path / "set", each=4, side=30)
    trained = sources.load_split(folder, classes=("cat", "dog"), size=12)[0]
    paths = [folder / path for path in trained.paths]
    assert torch.equal(dlp_fast.preprocess(paths, (12, 12)), trained.images.get(torch.arange(8)))


def test_grey_and_many():
    grey = np.arange(4 * 8 * 10, dtype=np.uint8).reshape(4, 8, 10)
    many = dlp_fast.preprocess(grey, (8, 10))
    assert torch.equal(many, torch.from_numpy(grey.copy())[..., None].expand(4, 8, 10, 3))
    assert torch.equal(dlp_fast.preprocess(grey[0], (8, 10)), many[:1])
    assert torch.equal(dlp_fast.preprocess([grey[1][..., None]], (8, 10)), many[1:2])
    assert dlp_fast.preprocess([], (8, 10)).shape == (0, 8, 10, 3)


@pytest.mark.filterwarnings("error")
def test_an_array_that_cannot_be_written_to():
    """What np.asarray(Pillow image) gives: torch would warn of it."""
    pixels = np.asarray(picture(16))
    assert not pixels.flags.writeable
    assert torch.equal(dlp_fast.preprocess(pixels, (16, 16))[0], torch.from_numpy(pixels.copy()))


def test_bad_files_are_named(tmp_path, turned):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"bad\.png: not_an_image.*\(2 such files\)"):
        dlp_fast.preprocess([turned, bad, bad], SIZE)
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match=r"folder: not_a_regular_file"):
        dlp_fast.preprocess(tmp_path / "folder", SIZE)


def test_unknown_fit():
    with pytest.raises(ConfigError, match=r"dataset\.fit 'stretch' is unknown"):
        dlp_fast.preprocess([], SIZE, fit="stretch")


def test_a_link_is_what_it_leads_to(tmp_path, turned):
    (tmp_path / "inner").mkdir()
    link = tmp_path / "inner" / "link.jpg"
    link.symlink_to(turned)
    index, refused = index_files([link])
    assert not refused and len(index) == 1


@pytest.mark.parametrize("shape", [(16, 16), (100, 37), (37, 100), (5, 300), (300, 5), (1, 1), (12, 20)])
@pytest.mark.parametrize("size", [(16, 16), SIZE])
@pytest.mark.parametrize("fit", GRAPH_FITS)
def test_resizing_as_tensor_operations(shape, size, fit):
    """Within one of 255 levels of Pillow's, as the docstring and the model card say."""
    pixels = torch.randint(
        0, 256, (2, *shape, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )
    ours = dlp_fast.preprocess(pixels, size, fit).int()
    graph = Resizing(*size, fit)(pixels).int()
    assert (ours - graph).abs().max() <= 1
    assert ours.shape == graph.shape
