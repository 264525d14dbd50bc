"""Images as people have them in Python: lists of pictures and paths, data frames, datasets with splits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from corpus import png, write
from PIL import Image

from dlp_fast.config import DataConfig
from dlp_fast.data.sources import from_python
from dlp_fast.errors import DataError

LABELS = ["cat", "dog"] * 3


def made(data, labels=None, test=None, test_labels=None, classes=None, **options):
    return from_python(data, labels, test, test_labels, classes, options=DataConfig(**options), flip=True)


@pytest.fixture
def paths(tmp_path):
    write(tmp_path, {f"{i}.png": png(seed=i) for i in range(6)})
    return [tmp_path / f"{i}.png" for i in range(6)]


class Frame:
    """What is used of a data frame of pandas."""

    def __init__(self, **columns):
        self.columns, self.iloc = list(columns), self
        self._values = list(columns.values())

    def __getitem__(self, at):
        return self._values[at[1]]


@pytest.mark.parametrize("form", ["paths", "strings", "array", "objects", "pillow", "frame"])
def test_one_set_in_many_forms(paths, form):
    given = {
        "paths": (paths, LABELS),
        "strings": (list(map(str, paths)), np.array(LABELS)),
        "array": (np.array(list(map(str, paths))), np.array(LABELS)),
        "objects": (np.array(paths, dtype=object), LABELS),
        "pillow": ([Image.open(path) for path in paths], LABELS),
        "frame": (Frame(n=range(6), file_name=paths, label=LABELS), None),
    }[form]
    data = made(*given)
    assert data.train.classes == ("cat", "dog")
    assert data.train.labels.tolist() == [0, 1] * 3
    want = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in paths])
    assert np.array_equal(data.train.images.pixels.numpy(), want)
    named = tuple(map(str, paths))
    assert (data.train.paths == named) == (form != "pillow")
    assert {type(path) for path in data.train.paths} == {str}  # numpy's own strings are no plain ones


def test_pictures_of_different_sizes():
    pictures = [np.zeros((8 + i, 8, 3), np.uint8) for i in range(4)]
    data = made(pictures, [0, 1, 0, 1], image_size=16)
    assert tuple(data.train.images.pixels.shape) == (4, 16, 16, 3)


def test_splits_by_name():
    def of(n):
        return [(Image.new("RGB", (8, 8), (9 * i, 0, 0)), i % 2) for i in range(n)]

    data = made({"train": of(6), "validation": of(2), "test": of(4)})
    assert (len(data.train), len(data.test)) == (6, 4)
    for name in ("validation", "dev", "Testing"):  # the names that folders have
        data = made({"train": of(6), name: of(2)})
        assert len(data.test) == 2
        told = "dataset: no test images; the validation images are the test set"
        assert (told in data.warnings) == (name != "Testing")
    assert len(made({"train": of(6), "test": of(4)}, test=of(2)).test) == 2
    with pytest.raises(DataError, match="no split train; there are a"):
        made({"a": of(2)})


def test_arrays_stay_arrays():
    images = torch.zeros(4, 8, 8, 3, dtype=torch.uint8)
    for given in (images, images.numpy(), list(images.numpy())):
        assert made(given, [0, 1, 0, 1]).train.paths[0] == "arrays/train/00000"


def test_what_is_told(paths):
    with pytest.raises(DataError, match=r"labels: expected \[6\], one for each image, got \[2\]"):
        made(paths, [0, 1])
    with pytest.raises(DataError, match=r"row 5 cannot be read .*nowhere\.png"):
        made([*paths[:5], "nowhere.png"], LABELS)
    with pytest.raises(DataError, match="data frame: its columns are a, b; expected one of paths"):
        made(Frame(a=[], b=[]))
    with pytest.raises(DataError, match="column split says splits"):
        made(Frame(path=paths, label=LABELS, split=["train"] * 6))
    with pytest.raises(DataError, match="give both or neither"):
        made(paths, LABELS, paths)


class TestParquet:
    """Pictures in Parquet, as repositories of Hugging Face have them."""

    @pytest.fixture
    def file(self, paths):
        pa = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")

        def write_file(name, count=6, names=("cat", "dog")):
            cells = [{"bytes": path.read_bytes(), "path": None} for path in paths[:count]]
            table = pa.table({"image": cells, "label": [i % 2 for i in range(count)]})
            info = f'{{"info": {{"features": {{"label": {{"names": ["{names[0]}", "{names[1]}"]}}}}}}}}'
            target = paths[0].parent / "hub" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            parquet.write_table(table.replace_schema_metadata({"huggingface": info}), target)
            return target

        return write_file

    def load(self, place):
        from dlp_fast.data.sources import load

        return load(place)

    def test_one_file(self, file):
        data = self.load(file("x.parquet"))
        assert (len(data.train), data.train.classes, data.test) == (6, ("cat", "dog"), None)

    def test_a_folder_with_splits(self, file):
        file("data/train-00000-of-00001.parquet")
        folder = file("data/test-00000-of-00001.parquet", 2).parents[1]
        (folder / "README.md").write_text("a data set")
        data = self.load(folder)
        assert (len(data.train), len(data.test)) == (6, 2)

    def test_splits_that_are_folders(self, file):
        file("default/train/0000.parquet")
        data = self.load(file("default/validation/0000.parquet", 2).parents[2])
        assert (len(data.train), len(data.test)) == (6, 2)
        assert "no test files; the validation files are the test set" in data.warnings[0]

    def test_validation_beside_test(self, file):
        file("train-0.parquet"), file("val-0.parquet")
        data = self.load(file("test-0.parquet", 2).parent)
        assert len(data.test) == 2 and "1 validation file not read" in data.warnings[0]

    def test_a_file_of_no_split(self, file):
        file("train-0.parquet")
        with pytest.raises(DataError, match=r"more\.parquet beside files of split train"):
            self.load(file("more.parquet").parent)

    def test_two_data_sets(self, file):
        file("a/train/0000.parquet")
        with pytest.raises(DataError, match="Parquet files of 2 data sets, in a, b"):
            self.load(file("b/train/0000.parquet").parents[2])
