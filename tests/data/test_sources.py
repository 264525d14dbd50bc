import sys
import types

import numpy as np
import pytest
import torch
from corpus import encoded, jpeg, noise, png, two_classes, write
from PIL import Image
from sklearn.datasets import load_digits
from torchvision.datasets import FakeData

from dlp_fast.config import DataConfig
from dlp_fast.data import from_arrays, from_torchvision, load, load_split
from dlp_fast.data.classes import match_names
from dlp_fast.data.storage import FileImages, ResidentImages
from dlp_fast.errors import DataError


@pytest.fixture(scope="module")
def digits():
    return load("digits")


class TestDigits:
    def test_sizes(self, digits):
        assert (len(digits.train), len(digits.test)) == (1442, 355)
        assert digits.train.images.pixels.shape == (1442, 16, 16, 3)
        assert digits.name == "digits"
        assert digits.flip is False
        assert digits.train.classes == tuple("0123456789")
        assert digits.warnings == ()

    def test_split_is_stratified(self, digits):
        train, test = (torch.bincount(s.labels, minlength=10) for s in (digits.train, digits.test))
        share = test / (train + test)
        assert share.min() >= 0.19
        assert share.max() <= 0.2

    def test_pixels_are_scikit_learns(self, digits):
        first = load_digits().images[0]
        shown = digits.train.images.pixels[0].numpy()
        np.testing.assert_array_equal(shown[::2, ::2, 0], np.rint(first * 255 / 16))
        np.testing.assert_array_equal(shown[::2, ::2], shown[1::2, 1::2])
        assert digits.train.images.pixels.max() == 255

    def test_paths_and_hashes(self, digits):
        assert digits.train.paths[12] == "digits/train/00012"
        assert len(digits.train.sha256) == 1442
        assert len(digits.train.sha256[0]) == 64

    def test_no_image_is_in_both(self, digits):
        assert not set(digits.train.sha256) & set(digits.test.sha256)

    def test_image_size(self):
        assert load("digits", DataConfig(image_size=32)).train.images.height == 32


class TestFolder:
    def test_small_images_keep_their_size(self, tmp_path):
        two_classes(tmp_path, height=20, width=30)
        data = load(tmp_path)
        assert isinstance(data.train.images, ResidentImages)
        assert data.train.images.pixels.shape == (4, 20, 30, 3)
        assert data.test is None
        assert data.flip is True
        assert data.name == tmp_path.name
        assert data.train.labels.tolist() == [0, 0, 1, 1]
        assert data.train.labels.dtype == torch.int64

    def test_different_sizes_become_224(self, tmp_path):
        two_classes(tmp_path)
        write(tmp_path, {"cat/x.png": png(height=33, width=20)})
        assert load(tmp_path).train.images.pixels.shape == (5, 224, 224, 3)

    def test_large_images_become_224(self, tmp_path):
        two_classes(tmp_path, height=97, width=97)
        assert load(tmp_path).train.images.height == 224

    def test_size_counts_both_splits(self, tmp_path):
        two_classes(tmp_path / "train")
        two_classes(tmp_path / "test", height=8, width=8)
        data = load(tmp_path)
        assert (data.train.images.height, data.test.images.height) == (224, 224)

    def test_image_size(self, tmp_path):
        two_classes(tmp_path)
        assert load(tmp_path, DataConfig(image_size=16)).train.images.pixels.shape == (4, 16, 16, 3)

    def test_files_stay_on_disk_beyond_the_limit(self, tmp_path):
        two_classes(tmp_path)
        near, far = load(tmp_path), load(tmp_path, DataConfig(resident_megabytes=0))
        assert isinstance(far.train.images, FileImages)
        ids = torch.tensor([3, 1])
        torch.testing.assert_close(near.train.images.get(ids), far.train.images.get(ids))

    def test_a_class_is_looked_for_once_for_all_its_lost_files(self, tmp_path, monkeypatch):
        two_classes(tmp_path)
        write(tmp_path, {f"cat/bad{i}.jpg": b"" for i in range(5)} | {"dog/bad.jpg": b""})
        asked = []

        def counted(where, names, known):
            asked.extend(names)
            return match_names(where, names, known)

        monkeypatch.setattr("dlp_fast.data.sources.folder.match_names", counted)
        assert "class cat lost 5 of 7" in " ".join(load(tmp_path).warnings)
        assert sorted(asked) == ["cat", "dog"]

    def test_quarantine_is_handed_on(self, tmp_path):
        two_classes(tmp_path)
        write(tmp_path, {"cat/bad.jpg": b"", "cat/worse.jpg": b"text"})
        data = load(str(tmp_path))
        assert [q.path for q in data.quarantine] == ["cat/bad.jpg", "cat/worse.jpg"]

    def test_same_bytes_under_two_labels(self, tmp_path):
        two_classes(tmp_path)
        write(tmp_path, {"cat/twin.jpg": jpeg(seed=99), "dog/twin.jpg": jpeg(seed=99)})
        write(tmp_path, {"cat/a.jpg": jpeg(seed=98), "cat/b.jpg": jpeg(seed=98)})
        data = load(tmp_path)
        ((first, second),) = data.train.conflicts
        assert [data.train.paths[i] for i in (first, second)] == ["cat/twin.jpg", "dog/twin.jpg"]
        told = (
            "2 images with the same bytes under different labels (1 picture), such as cat/twin.jpg and dog/"
        )
        assert any(told in w for w in data.warnings)

    def test_the_two_that_are_named_have_different_labels(self, tmp_path):
        two_classes(tmp_path)
        for seed, many in ((98, 4), (99, 2)):
            write(
                tmp_path,
                {f"{c}/{seed}-{i}.jpg": jpeg(seed=seed) for c in ("cat", "dog") for i in range(many)},
            )
        (told,) = [w for w in load(tmp_path).warnings if "same bytes" in w]
        assert "12 images with the same bytes under different labels (2 pictures)" in told
        assert "such as cat/98-0.jpg and dog/98-0.jpg" in told

    def test_test_images_that_are_training_images(self, tmp_path):
        two_classes(tmp_path / "train")
        two_classes(tmp_path / "test")
        (told,) = [w for w in load(tmp_path).warnings if "training images too" in w]
        assert told.startswith(
            "test: all 4 images are training images too, byte for byte, such as test/cat/0.jpg: acc"
        )
        write(
            tmp_path,
            {
                "test/dog/new.jpg": jpeg(seed=77),
                "test/dog/9.jpg": (tmp_path / "train/cat/0.jpg").read_bytes(),
            },
        )
        (told,) = [w for w in load(tmp_path).warnings if "training images too" in w]
        assert "test: 5 of 6 images are" in told
        assert "such as test/dog/9.jpg; 1 of them under another label there" in told

    def test_progress(self, tmp_path):
        two_classes(tmp_path)
        seen = []
        load(tmp_path, progress=lambda *call: seen.append(call))
        assert ("checking images", 4, 4) in seen
        assert seen[-1] == ("reading images", 4, 4)

    def test_cache(self, tmp_path):
        two_classes(tmp_path / "images")
        load(tmp_path / "images", cache=tmp_path / "c.jsonl")
        assert len((tmp_path / "c.jsonl").read_text().splitlines()) == 5

    def test_limits_are_those_of_the_options(self, tmp_path):
        two_classes(tmp_path, height=30, width=40)
        write(tmp_path, {"cat/big.png": png(height=300, width=400), "dog/long.bmp": bytes(200_000)})
        data = load(tmp_path, DataConfig(max_megapixels=0.1, max_megabytes=0.19))
        assert {item.path: item.detail for item in data.quarantine} == {
            "cat/big.png": "400 x 300 pixels, the limit is 0.1 million",
            "dog/long.bmp": "200000 bytes, the limit is 190000",
        }
        images, quarantine = load_split(
            tmp_path, DataConfig(max_megapixels=0.1, resident_megabytes=0), classes=("cat", "dog"), size=16
        )
        assert isinstance(images.images, FileImages)
        assert {item.path for item in quarantine} == {"cat/big.png", "dog/long.bmp"}

    def test_no_such_folder(self):
        with pytest.raises(DataError, match="digit: no such folder; give `digits`, `cifar10` or a folder"):
            load("digit")

    def test_folder_for_a_trained_model(self, tmp_path):
        two_classes(tmp_path, height=50, width=40)
        write(tmp_path, {"dog/bad.jpg": b""})
        images, quarantine = load_split(tmp_path, classes=("dog", "cat", "eel"), size=(16, 24))
        assert images.labels.tolist() == [1, 1, 0, 0]
        assert images.images.get(torch.tensor([0])).shape == (1, 16, 24, 3)
        assert images.classes == ("dog", "cat", "eel")
        assert len(quarantine) == 1


def arrays(n: int = 6, height: int = 4, width: int = 5):
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (n, height, width, 3), dtype=np.uint8), np.arange(n) % 2


class TestArrays:
    def test_numpy(self):
        images, labels = arrays()
        data = from_arrays(images, labels, images[:2], labels[:2], ["a", "b"], flip=False)
        np.testing.assert_array_equal(data.train.images.pixels.numpy(), images)
        assert data.train.labels.tolist() == labels.tolist()
        assert data.train.classes == ("a", "b")
        assert data.train.paths[5] == "arrays/train/00005"
        assert data.test.paths == ("arrays/test/00000", "arrays/test/00001")
        assert data.flip is False

    def test_torch_and_grey_and_lists(self):
        images, _ = arrays()
        data = from_arrays(torch.from_numpy(images[..., 0]), [0, 1, 0, 1, 0, 1])
        np.testing.assert_array_equal(data.train.images.pixels[..., 2].numpy(), images[..., 0])
        assert data.train.classes == ("0", "1")

    def test_arrays_are_copied(self):
        images, labels = arrays()
        data = from_arrays(images, labels)
        before = data.train.images.pixels.clone()
        images[:] = 0
        torch.testing.assert_close(data.train.images.pixels, before)

    def test_strides_do_not_matter(self):
        images, labels = arrays()
        data = from_arrays(images[:, ::-1, :, ::-1], labels)
        np.testing.assert_array_equal(data.train.images.pixels.numpy(), images[:, ::-1, :, ::-1])

    def test_twins_and_single_images_are_told(self):
        images, _ = arrays(4)
        images[1] = images[0]
        data = from_arrays(images, [0, 1, 1, 2], classes=["a", "b", "c"])
        assert data.train.conflicts == ((0, 1),)
        assert sum("only one image in class" in w for w in data.warnings) == 2
        assert any("arrays/train/00000 and arrays/train/00001" in w for w in data.warnings)

    @pytest.mark.parametrize(
        ("images", "message"),
        [
            (np.zeros((6, 4, 4, 3), np.float32), r"images: expected uint8 \(0..255\), got float32"),
            (
                np.zeros((6, 3, 4, 4), np.uint8),
                r"images: expected \[n, height, width, 3\] or .* got \[6, 3, 4, 4\]",
            ),
            (np.zeros((6, 4), np.uint8), r"images: expected \[n, height, width, 3\] or .* got \[6, 4\]"),
            (np.zeros((6, 0, 4, 3), np.uint8), r"images: expected .* got \[6, 0, 4, 3\]"),
            (np.zeros((0, 4, 4, 3), np.uint8), "images: no images"),
            ([[1], [1, 2]], "images: not an array"),
        ],
    )
    def test_bad_images(self, images, message):
        with pytest.raises(DataError, match=message):
            from_arrays(images, [0, 1] * 3)

    @pytest.mark.parametrize(
        ("labels", "message"),
        [
            ([0, 1, 0, -1, 0, 1], "labels: row 3 has label -1; expected 0 to 1"),
            ([0, 1, 0, 1, 2, 1], "labels: row 4 has label 2; expected 0 to 1"),
            ([0, 1, 2**31 + 5, 1, 0, 1], "labels: row 2 has label 2147483653; expected 0 to 1"),
            ([0, 1, float("nan"), 1, 0, 1], "labels: row 2 has label nan"),
            ([0, 1, 0.5, 1, 0, 1], "labels: row 2 has label 0.5"),
            ([0.0, 1, 0, 1, 0, 1], "labels: row 0 has label 0.0 of type float64; expected whole numbers"),
            (["a"] * 6, "labels: expected at least two classes, got only 'a'"),
            ([True, False] * 3, "labels: expected whole numbers or names, got bool"),
            ([0, 1], r"labels: expected \[6\], one for each image, got \[2\]"),
            ([[0]] * 6, r"labels: expected \[6\], one for each image, got \[6, 1\]"),
            ([0] * 6, "labels: expected at least two classes, got only 'a'"),
        ],
    )
    def test_bad_labels(self, labels, message):
        with pytest.raises(DataError, match=message):
            from_arrays(arrays()[0], labels, classes=["a", "b"])

    def test_absurd_label_without_classes(self):
        with pytest.raises(
            DataError, match="labels: row 1 has label 4000000000; expected whole numbers from 0"
        ):
            from_arrays(arrays(2)[0], [0, 4_000_000_000])

    def test_gap(self):
        with pytest.raises(
            DataError, match=r"labels: no image of class 1 \('1'\); number the classes without"
        ):
            from_arrays(arrays()[0], [0, 2] * 3)

    def test_half_a_test_set(self):
        images, labels = arrays()
        with pytest.raises(DataError, match="test_images and test_labels: give both or neither"):
            from_arrays(images, labels, images)

    def test_test_set_of_another_size(self):
        images, labels = arrays()
        with pytest.raises(
            DataError, match=r"test_images: expected \[4, 5\] pixels as in images, got \[3, 5\]"
        ):
            from_arrays(images, labels, images[:, :3], labels)

    def test_strange_class_in_test(self):
        images, labels = arrays()
        with pytest.raises(DataError, match="test_labels: row 0 has label 2; expected 0 to 1"):
            from_arrays(images, labels, images, labels + 2)


class Items(list):
    classes = ("a", "b")


class TestTorchvision:
    def test_pillow_images_of_any_mode(self):
        image = Image.fromarray(noise(8, 8))
        items = Items(
            (image.convert(mode), i % 2) for i, mode in enumerate(("RGB", "L", "P", "CMYK", "RGBA"))
        )
        data = from_torchvision(items, items)
        assert data.train.images.pixels.shape == (5, 8, 8, 3)
        np.testing.assert_array_equal(data.train.images.pixels[0].numpy(), noise(8, 8))
        assert data.train.classes == ("a", "b")
        assert len(data.test) == 5
        assert data.name == "Items"

    def test_arrays_and_tensors(self):
        array = noise(8, 6)
        tensor = torch.from_numpy(array).permute(2, 0, 1)
        items = Items(
            [(array, 0), (tensor, 1), (tensor.float() / 255, torch.tensor(1)), (array, np.int64(0))]
        )
        pixels = from_torchvision(items).train.images.pixels
        for row in pixels:
            np.testing.assert_array_equal(row.numpy(), array)

    def test_grey_tensor(self):
        grey = torch.from_numpy(noise(8, 6, channels=1)).permute(2, 0, 1)
        pixels = from_torchvision(Items([(grey, 0), (grey[0], 1)])).train.images.pixels
        assert (pixels[0] == pixels[1]).all()

    def test_different_sizes(self):
        items = Items([(noise(8, 6), 0), (noise(9, 6), 1)])
        assert from_torchvision(items).train.images.height == 224
        assert from_torchvision(items, options=DataConfig(image_size=10)).train.images.height == 10

    def test_more_than_memory_is_lent(self):
        items = Items([(noise(50, 50), i % 2) for i in range(200)])
        with pytest.raises(DataError, match=r"dataset: more than 1 MiB of pixels by row 139 of 200; give a"):
            from_torchvision(items, options=DataConfig(resident_megabytes=1))
        assert (
            len(from_torchvision(items, options=DataConfig(resident_megabytes=1, image_size=30)).train) == 200
        )

    def test_a_real_one(self):
        items = FakeData(8, (3, 16, 16), num_classes=2)
        assert len(from_torchvision(items, name="fake").train) == 8

    @pytest.mark.parametrize(
        ("item", "message"),
        [
            ((noise(8, 8), -1), "labels: row 1 has label -1"),
            ((noise(8, 8), 7), "labels: row 1 has label 7"),
            ((noise(8, 8), 0.5), "dataset: row 1 has label 0.5; expected a whole number from 0"),
            ((noise(8, 8), "cat"), "labels: row 0 has label 0; the others are names"),
            (
                (torch.randn(3, 8, 8), 1),
                r"dataset: row 1 has values outside of 0..1 or NaN; give .* Normalize",
            ),
            ((torch.full((3, 8, 8), float("nan")), 1), "dataset: row 1 has values outside of 0..1 or NaN"),
            ((noise(8, 8).astype(float), 1), r"dataset: row 1 is float64 \[8, 8, 3\]; expected uint8"),
            ((torch.zeros(4, 8, 8).byte(), 1), r"dataset: row 1 is uint8 \[8, 8, 4\]"),
            (("x.jpg", 1), "dataset: row 1 is a str; expected a Pillow image"),
            (7, r"dataset: row 1 is a int; expected \(image, label\) or"),
        ],
    )
    def test_bad_items(self, item, message):
        with pytest.raises(DataError, match=message):
            from_torchvision(Items([(noise(8, 8), 0), item]))

    def test_no_length(self):
        with pytest.raises(DataError, match="dataset: expected a map-style dataset, with a length"):
            from_torchvision(iter([]))

    def test_empty(self):
        with pytest.raises(DataError, match="dataset: no images"):
            from_torchvision(Items())

    def test_image_that_breaks_off(self, tmp_path):
        (tmp_path / "x.jpg").write_bytes(encoded(noise(100, 100), "JPEG")[:800])
        with pytest.raises(DataError, match="dataset: row 0 cannot be decoded"):
            from_torchvision(Items([(Image.open(tmp_path / "x.jpg"), 0)]))


class TestNamesAndItems:
    """Labels that are names, and items as Hugging Face's datasets have them."""

    def test_names_as_labels(self):
        images, _ = arrays()
        data = from_arrays(images, ["dog", "cat"] * 3, images[:2], np.array(["cat", "dog"]))
        assert data.train.classes == ("cat", "dog")
        assert data.train.labels.tolist() == [1, 0] * 3
        assert data.test.labels.tolist() == [0, 1]
        data = from_arrays(images, np.array(["dog", "cat"] * 3, dtype=object), classes=["dog", "cat"])
        assert data.train.labels.tolist() == [0, 1] * 3

    @pytest.mark.parametrize(
        ("labels", "classes", "message"),
        [
            (["a", "b", ""] * 2, None, "labels: row 2 has label ''; the others are names"),
            (["a", "b", None] * 2, None, "labels: row 2 has label None; the others are names"),
            (["a", "b", "c"] * 2, ["a", "b"], "labels: row 2 has label 'c', which is none of a, b"),
        ],
    )
    def test_bad_names(self, labels, classes, message):
        with pytest.raises(DataError, match=message):
            from_arrays(arrays()[0], labels, classes=classes)

    def test_a_test_label_that_no_training_image_has(self):
        images, _ = arrays()
        with pytest.raises(DataError, match="test_labels: row 1 has label 'owl', which is none of cat, dog"):
            from_arrays(images, ["dog", "cat"] * 3, images[:2], ["cat", "owl"])

    @pytest.mark.parametrize("keys", [("image", "label"), ("img", "fine_label"), ("image", "labels")])
    def test_items_that_are_mappings(self, keys):
        items = Items(
            [{keys[0]: Image.fromarray(noise(8, 8, seed=i)), keys[1]: i % 2, "id": i} for i in range(4)]
        )
        data = from_torchvision(items, items)
        np.testing.assert_array_equal(data.train.images.pixels[3].numpy(), noise(8, 8, seed=3))
        assert data.train.labels.tolist() == [0, 1, 0, 1]

    def test_names_of_features_and_bytes(self):
        class Dataset(list):
            @property
            def features(self):
                return {"label": types.SimpleNamespace(names=["cat", "dog"])}

        rows = [
            {"image": {"bytes": encoded(noise(8, 8), "PNG"), "path": None}, "label": i % 2} for i in range(4)
        ]
        data = from_torchvision(Dataset(rows))
        assert data.train.classes == ("cat", "dog")
        np.testing.assert_array_equal(data.train.images.pixels[0].numpy(), noise(8, 8))

    def test_items_with_names(self):
        items = [(noise(8, 8, seed=i), ["b", "a"][i % 2]) for i in range(4)]
        assert from_torchvision(items).train.classes == ("a", "b")

    def test_other_columns(self):
        with pytest.raises(DataError, match=r"dataset: row 0 has pixels, y; expected an image \(image, img"):
            from_torchvision([{"pixels": noise(8, 8), "y": 0}])

    def test_deep_pictures_are_scaled_as_a_set(self):
        def deep(seed):
            return Image.fromarray(noise(8, 8, 1, seed)[..., 0].astype(np.uint16) * 16 + 15)

        data = from_torchvision([(deep(i), i % 2) for i in range(8)])
        assert data.bit_depth == 12
        assert data.warnings[-1] == "dataset: 8 images of 16-bit samples read as 12 bits (dataset.bit_depth)"
        np.testing.assert_array_equal(data.train.images.pixels[3, ..., 0].numpy(), noise(8, 8, 1, 3)[..., 0])


class TestSaved:
    """`save_to_disk` of Hugging Face's datasets, by a stand-in for the library."""

    def folder(self, root, split: bool):
        names = ["dataset_dict.json"] if split else ["dataset_info.json", "state.json"]
        return write(root / "hf", dict.fromkeys(names, b"{}"))

    def rows(self, n=4):
        return [{"image": Image.fromarray(noise(8, 8, seed=i)), "label": i % 2} for i in range(n)]

    @pytest.mark.parametrize("split", [False, True])
    def test_load(self, tmp_path, monkeypatch, split):
        saved = {"train": self.rows(), "validation": self.rows(2)} if split else self.rows()
        library = types.SimpleNamespace(load_from_disk=lambda path: saved)
        monkeypatch.setitem(sys.modules, "datasets", library)
        data = load(self.folder(tmp_path, split))
        assert (data.name, len(data.train), data.test is not None) == ("hf", 4, split)
        assert (
            bool([one for one in data.warnings if "the validation images are the test set" in one]) == split
        )

    def test_no_library_no_split_and_damage(self, tmp_path, monkeypatch):
        folder = self.folder(tmp_path, True)
        monkeypatch.setitem(sys.modules, "datasets", None)
        with pytest.raises(DataError, match=r"which is not installed \(pip install datasets\)"):
            load(folder)
        monkeypatch.setitem(
            sys.modules, "datasets", types.SimpleNamespace(load_from_disk=lambda path: {"all": []})
        )
        with pytest.raises(DataError, match="no split train; there are all"):
            load(folder)
        monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_from_disk=lambda path: 1 / 0))
        with pytest.raises(DataError, match="cannot be loaded"):
            load(folder)
