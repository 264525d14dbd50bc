"""Pictures that are decoded once: what is kept, what is not believed, and where there is no room."""

from __future__ import annotations

import errno
import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny import picture

from dlp_fast.config import DataConfig
from dlp_fast.data import pixel_cache, sources
from dlp_fast.data.index import index_folder
from dlp_fast.data.pixel_cache import CachedImages, PixelCache
from dlp_fast.data.storage import FileImages
from dlp_fast.errors import ResourceError

EVERYTHING = torch.arange(6)


@pytest.fixture
def files(tmp_path):
    """FileImages of six pictures that count how often each was decoded."""
    for i in range(6):
        place = tmp_path / "images" / ("cat" if i < 3 else "dog") / f"{i}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        picture(40, seed=i).save(place)

    class Counting(FileImages):
        decoded = 0

        def decode_into(self, rows, ids):
            type(self).decoded += len(ids)
            super().decode_into(rows, ids)

    return Counting(index_folder(tmp_path / "images")[0], 32, 2)


def test_each_file_is_decoded_once_in_its_life(files, tmp_path):
    expected = files.get(EVERYTHING)
    type(files).decoded = 0
    for _ in range(2):  # two runs, three passes each
        images = CachedImages(files, tmp_path / "cache")
        for ids in (EVERYTHING, EVERYTHING.flip(0), EVERYTHING):
            assert torch.equal(images.get(ids), expected[ids])
    assert files.decoded == 6


def test_another_reader_of_images_has_a_place_of_its_own(files, tmp_path, monkeypatch):
    for there in (None, object(), None):  # pillow-heif comes, and goes
        monkeypatch.setattr("importlib.util.find_spec", lambda name, there=there: there)
        images = CachedImages(files, tmp_path / "cache")
        monkeypatch.undo()
        images.get(EVERYTHING)
    assert files.decoded == 12


def test_other_pixels_have_a_place_of_their_own(files, tmp_path):
    CachedImages(files, tmp_path / "cache").get(EVERYTHING)
    others = (
        FileImages(files.index, 24, 2),
        FileImages(files.index, 32, 2, fit="pad"),
        FileImages(files.index, 32, 2, bits=12),
    )
    for other in others:
        assert torch.equal(CachedImages(other, tmp_path / "cache").get(EVERYTHING), other.get(EVERYTHING))
    assert len(os.listdir(tmp_path / "cache")) == 4


@pytest.mark.parametrize("name", ["pixels", "sums"])
@pytest.mark.parametrize("damage", ["flipped", "cut", "emptied"])
def test_what_is_damaged_is_decoded_again(files, tmp_path, name, damage):
    images = CachedImages(files, tmp_path / "cache")
    expected = images.get(EVERYTHING)
    place = images.cache.folder / name
    content = bytearray(place.read_bytes())
    content[5] ^= 1
    place.write_bytes({"flipped": content, "cut": content[: len(content) // 2], "emptied": b""}[damage])
    type(files).decoded = 0
    again = CachedImages(files, tmp_path / "cache")
    assert torch.equal(again.get(EVERYTHING), expected) and files.decoded >= 1
    type(files).decoded = 0
    assert torch.equal(again.get(EVERYTHING), expected) and files.decoded == 0


def test_a_disk_that_fills_up_costs_time_alone(files, tmp_path, monkeypatch):
    images = CachedImages(files, tmp_path / "cache")
    write, written = os.pwrite, []

    def few(fd, data, offset):
        written.append(len(data))
        if len(written) > 6:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(fd, data, offset)

    monkeypatch.setattr(pixel_cache.os, "pwrite", few)
    with pytest.warns(RuntimeWarning, match="is full") as told:
        assert torch.equal(images.get(EVERYTHING), files.get(EVERYTHING))
    assert len(told) == 1
    assert torch.equal(images.get(EVERYTHING), files.get(EVERYTHING))


def test_no_room_is_told_before_anything_is_decoded(tmp_path, monkeypatch):
    free = SimpleNamespace(free=2**30 + 1000)
    monkeypatch.setattr(pixel_cache.shutil, "disk_usage", lambda _: free)
    PixelCache(tmp_path / "small", 1, 10, 30)
    with pytest.raises(ResourceError, match=r"GiB of pixels do not fit into .*set DLP_FAST_CACHE") as caught:
        PixelCache(tmp_path / "large", 10**6, 224, 224)
    assert caught.value.exit_code == 5


def test_a_place_that_cannot_be_written(files, tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(ResourceError, match=r"cannot be used .*DLP_FAST_CACHE"):
        CachedImages(files, tmp_path / "cache")


def test_a_write_that_takes_part_is_gone_on_with(files, tmp_path, monkeypatch):
    write = os.pwrite
    monkeypatch.setattr(pixel_cache.os, "pwrite", lambda fd, data, offset: write(fd, data[:1000], offset))
    images = CachedImages(files, tmp_path / "cache")
    expected = images.get(EVERYTHING)
    type(files).decoded = 0
    assert torch.equal(images.get(EVERYTHING), expected) and files.decoded == 0


def test_the_source_says_where(files, tmp_path, monkeypatch):
    monkeypatch.setenv("DLP_FAST_CACHE", str(tmp_path / "own"))
    dataset = sources.load(tmp_path / "images", DataConfig(image_size=32), loader="cached")
    assert (
        dataset.loader
        == f"cached: each file is decoded once, and its pixels are kept in {tmp_path}/own/pixels"
    )
    row = np.empty((32, 32, 3), np.uint8)
    dataset.train.images.get(EVERYTHING)
    assert dataset.train.images.cache.read_into(row, 3)
