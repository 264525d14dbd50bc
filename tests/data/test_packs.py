"""Real images: packs in the folder that DLP_FAST_TEST_DATA names (their README.md says what they hold)."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dlp_fast.data import FileImages, index_folder, load
from dlp_fast.errors import DataError

PACKS = os.environ.get("DLP_FAST_TEST_DATA")

pytestmark = [
    pytest.mark.packs,
    pytest.mark.skipif(PACKS is None, reason="DLP_FAST_TEST_DATA does not name the folder of image packs"),
]


def unpack(name: str, out: Path, each: int) -> dict[str, bytes]:
    """The first `each` images of every class and split, as files; path -> bytes."""
    written = {}
    with np.load(Path(PACKS) / name) as pack:
        classes = [str(c).replace(" ", "_") for c in pack["classes"]]
        for split in ("train", "test"):
            data, offsets, labels = (pack[f"{split}_{part}"] for part in ("jpeg", "offsets", "labels"))
            for label, class_name in enumerate(classes):
                for i in np.flatnonzero(labels == label)[:each]:
                    path = f"{split}/{class_name}/{i:05d}.jpg"
                    written[path] = data[offsets[i] : offsets[i + 1]].tobytes()
                    (out / path).parent.mkdir(parents=True, exist_ok=True)
                    (out / path).write_bytes(written[path])
    return written


@pytest.mark.parametrize(
    ("name", "side", "classes"), [("cifar10_jpeg.npz", 32, 10), ("tinyimagenet20_jpeg.npz", 64, 20)]
)
def test_pack(tmp_path, name, side, classes):
    files = unpack(name, tmp_path, each=20)
    data = load(tmp_path)
    assert data.quarantine == ()
    assert len(data.train) == len(data.test) == 20 * classes
    assert data.train.images.pixels.shape == (20 * classes, side, side, 3)
    assert len(data.train.classes) == classes
    for i in (0, 77, 20 * classes - 1):
        with Image.open(io.BytesIO(files[data.train.paths[i]])) as image:
            expected = np.asarray(image.convert("RGB"))
        np.testing.assert_array_equal(data.train.images.pixels[i].numpy(), expected)


def test_full_size_photographs(tmp_path):
    photographs = sorted((Path(PACKS) / "imagenet_samples").glob("*.JPEG"))
    for i, photograph in enumerate(photographs):
        (tmp_path / "ab"[i % 2]).mkdir(exist_ok=True)
        os.symlink(photograph, tmp_path / f"{'ab'[i % 2]}/{photograph.name}")
    assert load_error(tmp_path).startswith(f"{tmp_path}: no usable image in it (46 files: 46 link_leaves_f")
    for link in tmp_path.glob("*/*"):
        target = link.resolve()
        link.unlink()
        link.write_bytes(target.read_bytes())
    index, quarantine = index_folder(tmp_path)
    assert quarantine == []
    assert set(index.modes) == {"RGB", "L"}
    files = FileImages(index, 224)
    resident = load(tmp_path).train.images
    assert resident.pixels.shape == (46, 224, 224, 3)
    torch.testing.assert_close(torch.cat(list(files.prefetch(torch.arange(46).split(7)))), resident.pixels)


def load_error(folder: Path) -> str:
    with pytest.raises(DataError) as caught:
        load(folder)
    return str(caught.value)
