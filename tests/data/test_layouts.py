"""Folders that are no classes though nothing in their names says so, and what is advised where another one is meant."""

import numpy as np
import pytest
from PIL import Image

from dlp_fast.data import layouts
from dlp_fast.data.near import nearest_path, no_folder, what_lies_there
from dlp_fast.data.sources import load
from dlp_fast.data.splits import find_splits
from dlp_fast.errors import DataError


def put(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return root


def crossed(root, above, below):
    return put(root, *(f"{a}/{b}/1.jpg" for a in above for b in below))


class TestHiddenSplits:
    @pytest.mark.parametrize(
        "above",
        [
            ("fold_0", "fold_1", "fold_2"),
            ("训练集", "测试集"),
            ("clean", "poisoned"),
            ("entrenamiento", "prueba"),
        ],
    )
    def test_the_same_classes_in_each(self, tmp_path, above):
        crossed(tmp_path, above, ("cat", "dog"))
        with pytest.raises(
            DataError, match=r"hold the same folders \(cat, dog\), so these may be the classes"
        ):
            find_splits(tmp_path)
        assert find_splits(tmp_path, splits="none").splits == {"train": ""}

    def test_folders_of_images_are_not_listed_once_more(self, tmp_path, monkeypatch):
        crossed(tmp_path, ("cat", "dog"), (".",))

        def listed(path):
            raise AssertionError(f"{path} is listed")

        monkeypatch.setattr(layouts, "look", listed)
        assert layouts.refuse_hidden_splits(str(tmp_path), ["cat", "dog"]) == []

    def test_one_lacks_a_class(self, tmp_path):
        crossed(tmp_path, ("a", "b"), ("cat", "dog"))
        put(tmp_path, "a/owl/1.jpg")
        with pytest.raises(DataError, match="splits, sites or folds"):
            find_splits(tmp_path)

    def test_splits_below_the_classes(self, tmp_path):
        crossed(tmp_path, ("cat", "dog"), ("train", "test"))
        with pytest.raises(
            DataError, match=r"cat, dog hold test, train, which look like splits; all of them would"
        ):
            find_splits(tmp_path)

    def test_places_and_years_below_the_classes_are_told(self, tmp_path):
        crossed(tmp_path, ("cat", "dog"), ("2023", "2024"))
        layout = find_splits(tmp_path)
        assert layout.splits == {"train": ""}
        assert layout.warnings[0].endswith("classes are cat, dog, and not what is in them")

    @pytest.mark.parametrize("more", ["cat/1.jpg", "owl/1.jpg", "cat/young/1.jpg"])
    def test_ordinary_classes(self, tmp_path, more):
        put(tmp_path, "cat/indoor/1.jpg", "cat/grass/1.jpg", "dog/indoor/1.jpg", "dog/beach/1.jpg", more)
        assert find_splits(tmp_path).warnings == ()

    @pytest.mark.parametrize("names", [("trn", "tst"), ("train", "holdout"), ("Training", "HoldOut")])
    def test_other_names_of_splits(self, tmp_path, names):
        crossed(tmp_path, names, ("cat", "dog"))
        assert find_splits(tmp_path).splits == {"train": names[0], "test": names[1]}


class TestAdvice:
    def test_what_lies_there(self, tmp_path):
        assert what_lies_there(str(tmp_path)) == ""
        put(tmp_path, "a.jpg", "b.PNG")
        assert what_lies_there(str(tmp_path)).startswith(
            ". 2 images lie in it directly; where it is one class"
        )
        put(tmp_path, "labels.csv")
        assert what_lies_there(f"{tmp_path}/").endswith(f"give --data {tmp_path}/labels.csv")

    @pytest.mark.parametrize(
        ("name", "advice"),
        [
            ("x.zip", "It holds x.zip: give that as --data"),
            ("data_batch_1", "cifar10:"),
            ("train-images-idx3-ubyte.gz", "dlp_fast.defend(images, labels)"),
            ("train.lmdb", "save the pictures as files"),
        ],
    )
    def test_other_files(self, tmp_path, name, advice):
        assert advice in what_lies_there(str(put(tmp_path, name)))

    @pytest.mark.parametrize(
        ("name", "start", "advice"),
        [
            ("x/cat.PNG", b"", "it is one image; give the folder that holds the class folders"),
            ("photos", b"PK\x03\x04", "give it a name that ends in .zip"),
            ("photos", bytes(257) + b"ustar", "give it a name that ends in .tar"),
            ("photos.tar.zst", b"", "unpack it, and give the folder"),
        ],
    )
    def test_one_file(self, tmp_path, name, start, advice):
        put(tmp_path, name)
        (tmp_path / name).write_bytes(start)
        with pytest.raises(DataError, match=advice):
            load(tmp_path / name)

    def test_a_pattern(self, tmp_path):
        with pytest.raises(DataError, match="reads like a pattern: give the folder itself"):
            load(f"{tmp_path}/*/*.png")

    def test_no_class_folders(self, tmp_path):
        put(tmp_path, "a.jpg", "labels.csv")
        with pytest.raises(
            DataError, match=rf"{tmp_path}/<class>/<image>. 1 image lies in it directly; for a table"
        ):
            load(f"{tmp_path}/")

    def test_splits_without_classes(self, tmp_path):
        put(tmp_path, "train/1.jpg", "train.csv")
        with pytest.raises(
            DataError, match=rf"train holds no class folders.*--data {tmp_path}/train.csv. To take"
        ):
            find_splits(tmp_path)

    @pytest.mark.parametrize("wrong", ["'photos'", "photos ", "Photos", "photo", '"photos"'])
    def test_nearest_path(self, tmp_path, wrong):
        put(tmp_path, "photos/cat/1.jpg")
        assert nearest_path(f"{tmp_path}/{wrong}") == f"{tmp_path}/photos"
        assert f"; perhaps {tmp_path}/photos is meant; give" in str(no_folder(f"{tmp_path}/{wrong}"))

    def test_the_whole_path_in_quotes(self, tmp_path):
        assert nearest_path(f"'{tmp_path}'") == str(tmp_path)

    def test_nothing_near(self, tmp_path):
        put(tmp_path, "photos/1.jpg", ".hidden/1.jpg")
        for wrong in ("pictures", "", "hidden", "none/photos"):
            assert nearest_path(f"{tmp_path}/x{wrong}") is None
        assert nearest_path(f"{tmp_path}/none/photos") is None


def test_folders_of_texts_are_no_classes(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        Image.fromarray(np.full((8, 8, 3), len(name) * 9, np.uint8)).save(tmp_path / name / "1.png")
    put(tmp_path, "annotations/1.xml", "docs/readme.md")
    data = load(tmp_path)
    assert data.train.classes == ("cat", "dog")
    assert any("texts and no image in annotations, docs, so that it is no class" in w for w in data.warnings)
    (tmp_path / "docs/photo.jpg").write_text("<html>404")
    with pytest.raises(
        DataError,
        match=r"no usable image in class docs \(2 files: .*not_an_image \(a web page: its download may",
    ):
        load(tmp_path)
