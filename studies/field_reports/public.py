"""Ten further reports from the trackers of other projects; the situation names the report."""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from dlp_fast.config import DataConfig, RunConfig
from dlp_fast.data.sources import from_arrays, load
from dlp_fast.data.sources.dataset import Dataset
from dlp_fast.errors import DataError
from studies.field_reports.row import Row, images

ROOM = "DLP_FAST_CACHE"


def loaded(data: Path, **options: object) -> Dataset:
    os.environ[ROOM] = str(data.parent / "cache")
    return load(data, DataConfig(workers=1, **options))


def refusal(of: Callable[[], object]) -> str:
    """What the DataError says that `of` ends in; "" where it does not."""
    try:
        of()
    except DataError as error:
        return str(error)
    return ""


def refused(words: str, data: Path) -> None:
    """AssertionError unless `data` is refused with `words` (a pattern)."""
    said = refusal(lambda: loaded(data))
    assert re.search(words, said), f"not said: {words!r}; but: {said or 'it was taken'}"


def told(data: Dataset, words: str) -> None:
    assert any(words in warning for warning in data.warnings), f"not said: {words!r}; but: {data.warnings}"


def folder_above(here: Path) -> None:
    for k, name in enumerate(("session_a", "session_b")):
        images(here / "data" / name, each=2, seed=k)
    refused(r"hold the same folders \(cats, dogs, owls\), so these may be the classes", here / "data")


def pointers(here: Path) -> None:
    for name in ("cats", "dogs"):
        (here / "data" / name).mkdir(parents=True)
        (here / "data" / name / "1.jpg").write_text("version https://git-lfs.github.com/spec/v1\nsize 3\n")
    refused("pointer of Git LFS: git lfs pull fetches the file", here / "data")


def packed(archive: Path, folder: Path, *, flat: bool = False) -> None:
    archive.parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(folder.rglob("*.png")):
            file.write(path, path.name if flat else path.relative_to(folder))


def an_archive_a_class(here: Path) -> None:
    for name in ("n01440764", "n01443537"):
        packed(here / "data" / f"{name}.zip", images(here / name, (name,), 2), flat=True)
    data = loaded(here / "data")
    assert data.train.classes == ("n01440764", "n01443537"), data.train.classes
    told(data, "are taken for a class each")


def archives_of_splits(here: Path) -> None:
    for k, split in enumerate(("train", "test")):
        packed(here / "data" / f"{split}.zip", images(here / split, each=2, seed=k))
    data = loaded(here / "data")
    assert data.test is not None and (len(data.train), len(data.test)) == (6, 6), (
        data.train,
        data.quarantine,
    )


def is_valid(here: Path) -> None:
    images(here / "data", each=2)
    lines = [f"{c}/00{i}.png,{c},{bool(i)}" for c in ("cats", "dogs") for i in range(2)]
    (here / "data/t.csv").write_text("\n".join(["fname,label,is_valid", *lines]))
    data = loaded(here / "data/t.csv")
    assert data.test is not None and (len(data.train), len(data.test)) == (2, 2), data.warnings


def points(here: Path) -> None:
    images(here / "data", ("cats", "dogs"), 2)
    rows = ["cats/000.png,0.0", "cats/001.png,0", "dogs/000.png,1.0", "dogs/001.png,1"]
    (here / "data/t.csv").write_text("\n".join(["path,label", *rows]))
    data = loaded(here / "data/t.csv")
    assert data.train.classes == ("0", "1"), data.train.classes
    told(data, "are taken as whole numbers")


def other_letters(here: Path) -> None:
    images(here / "data", ("cats", "dogs"), 1)
    (here / "data/t.csv").write_text("path,label\ncats/000.PNG,0\ndogs/000.PNG,1\n")
    refused("there is 000.png, in other letters: write paths as the files are called", here / "data/t.csv")


def annotations(here: Path) -> None:
    images(here / "data", ("cats", "dogs"), 2)
    (here / "data/labels").mkdir()
    (here / "data/labels/1.txt").write_text("0 0.5 0.5 0.1 0.1")
    data = loaded(here / "data")
    assert data.train.classes == ("cats", "dogs"), data.train.classes
    told(data, "texts and no image in labels, so that it is no class")


def home(here: Path) -> None:
    before = os.environ.get("HOME")
    os.environ["HOME"] = str(here)
    try:
        assert RunConfig(out="~/runs/x").out == here / "runs/x"
    finally:
        os.environ.update({"HOME": before} if before else {})


def gaps(here: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    for labels, words in (([1, 2, 1, 2], "begin at 1: subtract 1"), ([0, 2, 0, 2], "without gaps")):
        said = refusal(lambda labels=labels: from_arrays(pixels, labels))
        assert words in said, f"{labels}: {said or 'they were taken'}"


def flat_archive(here: Path) -> None:
    packed(here / "data.zip", images(here / "x", ("x",), 3), flat=True)
    refused(r"no class folders; expected .*<class>/<image>\. 3 images lie in it directly", here / "data.zip")


ROWS = [
    Row("P1", "sessions above the classes (cderinbogaz/inpredo #13: 3 classes instead of 2)", folder_above),
    Row("P2", "pointers of Git LFS (jinnovation/rainy-image-dataset #2)", pointers),
    Row("P3", "an archive a class, as ImageNet's (pengzhiliang/MAE-pytorch #53)", an_archive_a_class),
    Row("P3.splits", "train.zip and test.zip", archives_of_splits),
    Row("P4", "a table with is_valid (fastai/fastai #3538)", is_valid),
    Row("P5", "labels 0.0 and 0 in one table (huggingface/datasets #4814 asks for tables)", points),
    Row("P6", "a table with .PNG, files with .png (mcdougallab/modeldb #198)", other_letters),
    Row("P7", "annotations beside the classes (ultralytics/ultralytics #8839)", annotations),
    Row("P8", "--out=~/runs (drush-ops/drush #649)", home),
    Row("P9", "labels with gaps, or from 1 (cleanlab/cleanlab #282)", gaps),
    Row("P10", "an archive of images without folders (facebookresearch/ijepa #54)", flat_archive),
]
