"""Which folders are splits: by any usual name; look-alikes and ambiguous folders stop, with what to do."""

import os

import pytest
from corpus import jpeg, two_classes, write

from dlp_fast.config import DataConfig
from dlp_fast.data import load
from dlp_fast.data.splits import find_splits
from dlp_fast.errors import ConfigError, DataError


def folders(root, *names, flat=()):
    """Two classes with pictures in each of `names`, and pictures alone in each of `flat`."""
    for name in names:
        write(root, {f"{name}/{c}/1.jpg": jpeg() for c in ("cat", "dog")})
    write(root, {f"{name}/1.jpg": jpeg() for name in flat})
    return root


class TestNames:
    @pytest.mark.parametrize("train", ["train", "Train", "TRAIN", "training", "Training"])
    @pytest.mark.parametrize(
        "test",
        ["test", "Test", "testing", "Testing", "eval", "evaluation", "val", "Valid", "validation", "dev"],
    )
    def test_usual_ones(self, tmp_path, train, test):
        folders(tmp_path, train, test)
        assert find_splits(tmp_path).splits == {"train": train, "test": test}

    def test_test_before_validation_and_the_rest_is_told(self, tmp_path):
        folders(tmp_path, "train", "valid", "test", "val")
        layout = find_splits(tmp_path)
        assert layout.splits == {"train": "train", "test": "test"}
        assert layout.warnings == (f"{tmp_path}: beside the splits, not read: val, valid",)

    def test_validation_is_told(self, tmp_path):
        (told,) = find_splits(folders(tmp_path, "train", "val")).warnings
        assert told == f"{tmp_path}: there is no test split, so val is taken as the test set"

    def test_train_only(self, tmp_path):
        assert find_splits(folders(tmp_path, "train")).splits == {"train": "train"}

    def test_no_splits(self, tmp_path):
        two_classes(tmp_path)
        layout = find_splits(tmp_path)
        assert layout.splits == {"train": ""} and layout.warnings == ()

    def test_flat_test_is_told(self, tmp_path):
        layout = find_splits(folders(tmp_path, "train", flat=["test"]))
        assert layout.splits == {"train": "train"}
        assert any(
            "test holds no class folders" in w and "test/<class>/<image>" in w for w in layout.warnings
        )

    def test_flat_test_and_a_validation_split(self, tmp_path):
        layout = find_splits(folders(tmp_path, "train", "val", flat=["test"]))
        assert layout.splits["test"] == "val"
        assert any("test holds no class folders" in w for w in layout.warnings)
        assert any("val is taken as the test set" in w for w in layout.warnings)

    def test_another_name_is_offered(self, tmp_path):
        layout = find_splits(folders(tmp_path, "train", "test2017"))
        assert layout.splits == {"train": "train"}
        assert any("--dataset.test-split test2017" in w for w in layout.warnings)


class TestTestSplit:
    def test_any_name(self, tmp_path):
        folders(tmp_path, "train", "test", "Holdout")
        for name in ("Holdout", "holdout", "Holdout/"):
            assert find_splits(tmp_path, test_split=name).splits == {"train": "train", "test": "Holdout"}

    @pytest.mark.parametrize("name", ["nothing", "train"])
    def test_none_of_that_name(self, tmp_path, name):
        folders(tmp_path, "train", "test")
        with pytest.raises(
            DataError, match=rf"test_split {name}: no such folder beside train; there are: test"
        ):
            find_splits(tmp_path, test_split=name)

    def test_without_class_folders(self, tmp_path):
        folders(tmp_path, "train", flat=["mine"])
        with pytest.raises(DataError, match="test_split mine: it holds no class folders"):
            find_splits(tmp_path, test_split="mine")

    def test_without_a_training_split(self, tmp_path):
        two_classes(tmp_path)
        with pytest.raises(DataError, match="test_split dog: there is no folder train with class folders"):
            find_splits(tmp_path, test_split="dog")

    @pytest.mark.parametrize("more", [{"test": "x"}, {"splits": "none"}])
    def test_contradictions(self, tmp_path, more):
        folders(tmp_path, "train", "test")
        with pytest.raises(ConfigError, match="contradict each other"):
            find_splits(tmp_path, test_split="test", **more)


class TestLookAlikes:
    @pytest.mark.parametrize(
        ("train", "test"),
        [
            ("Train2017", "Test2017"),
            ("train2014", "val2017"),
            ("training_set", "test_set"),
            ("seg_train", "seg_test"),
            ("trainset", "test_set"),
            ("TrainImages", "TestImages"),
            ("01_train", "02_test"),
            ("train data", "validation data"),
            ("asl_alphabet_train", "asl_alphabet_test"),
            ("train", "test1"),
        ],
    )
    def test_stop(self, tmp_path, train, test):
        for each in (
            folders(tmp_path / "deep", f"{train}/sub", f"{test}/sub"),
            folders(tmp_path / "flat", flat=[train, test]),
        ):
            if train == "train" and each.name == "deep":
                continue  # a true training split
            with pytest.raises(DataError, match="look like splits") as raised:
                find_splits(each)
            said = str(raised.value)
            assert f"--data {each}/{train} --dataset.test {each}/{test}" in said
            assert "--dataset.splits none" in said
            assert find_splits(each, splits="none").splits == {"train": ""}

    @pytest.mark.parametrize(
        "names",
        [
            ("valid", "invalid"),
            ("train", "bus", "car"),
            ("train", "tram"),
            ("trainer", "tester"),
            ("test tube", "beaker"),
            ("training shoes", "test tube"),
            ("dev", "prod"),
            ("steam_train", "diesel_train"),
            ("latest", "eval"),
            ("test_positive", "test_negative"),
            ("contest", "strain"),
            ("train test rig", "test rig"),
        ],
    )
    def test_ordinary_classes_are_classes(self, tmp_path, names):
        assert find_splits(folders(tmp_path, flat=names)).splits == {"train": ""}

    def test_class_named_like_a_split_is_told(self, tmp_path):
        layout = find_splits(folders(tmp_path, flat=["train", "bus"]))
        assert any("train is taken for a class" in w for w in layout.warnings)

    def test_splits_without_class_folders(self, tmp_path):
        folders(tmp_path, flat=["train", "test"])
        with pytest.raises(DataError, match=r"test, train hold no class folders; expected .*/train/<class>/"):
            find_splits(tmp_path)

    def test_splits_without_class_folders_and_more(self, tmp_path):
        folders(tmp_path, flat=["train", "test", "other"])
        with pytest.raises(DataError, match="test, train look like splits"):
            find_splits(tmp_path)

    def test_only_test_splits(self, tmp_path):
        folders(tmp_path, "test", "val")
        with pytest.raises(
            DataError, match=r"test, val hold class folders, but there is no training split. Name it"
        ):
            find_splits(tmp_path)

    def test_two_training_sets(self, tmp_path):
        folders(tmp_path, "train", "training", "test")
        with pytest.raises(DataError, match="train, training may each be the training set"):
            find_splits(tmp_path)

    def test_two_test_sets(self, tmp_path):
        folders(tmp_path, "train", "Test", "test")
        with pytest.raises(DataError, match="Test, test may each be the test set"):
            find_splits(tmp_path)
        assert find_splits(tmp_path, test_split="Test").splits["test"] == "Test"


class TestAmbiguous:
    def test_class_called_train_with_folders(self, tmp_path):
        folders(tmp_path, "train", flat=["car", "plane"])
        with pytest.raises(
            DataError, match=r"car, plane beside it hold images too.*--data .*/train .*splits none"
        ):
            find_splits(tmp_path)
        assert find_splits(tmp_path, splits="none").splits == {"train": ""}

    def test_folders_without_images_are_no_classes(self, tmp_path):
        folders(tmp_path, "train")
        write(tmp_path, {"annotations/1.xml": b"", "docs/a/b.pdf": b""})
        layout = find_splits(tmp_path)
        assert layout.splits == {"train": "train"}
        assert any("not read: annotations, docs" in w for w in layout.warnings)

    def test_with_a_test_split_there_is_no_doubt(self, tmp_path):
        layout = find_splits(folders(tmp_path, "train", "test", flat=["raw"]))
        assert layout.splits == {"train": "train", "test": "test"}

    def test_test_set_beside_its_classes(self, tmp_path):
        two_classes(tmp_path)
        folders(tmp_path, "test")
        with pytest.raises(
            DataError, match=r"test holds folders named like the classes beside it \(cat, dog\)"
        ):
            find_splits(tmp_path)
        layout = find_splits(tmp_path, test=tmp_path / "test")
        assert layout.splits == {"train": ""} and layout.left_out == ("test",)


class TestLinks:
    @pytest.mark.parametrize("name", ["train", "test", "val"])
    def test_linked_split_stops(self, tmp_path, name):
        folders(tmp_path / "root", *{"train", "other"} - {name})
        folders(tmp_path, "store")
        os.symlink("../store", tmp_path / "root" / name)
        with pytest.raises(DataError, match=rf"split {name} is a link to .*store, and links .*follow-links"):
            find_splits(tmp_path / "root")

    def test_followed(self, tmp_path):
        folders(tmp_path, "store", "more")
        (tmp_path / "root").mkdir()
        os.symlink("../store", tmp_path / "root/train")
        os.symlink("../more", tmp_path / "root/test")
        splits = {"train": "train", "test": "test"}
        assert find_splits(tmp_path / "root", follow_links=True).splits == splits
        data = load(tmp_path / "root", DataConfig(follow_links=True))
        assert data.train.paths == ("train/cat/1.jpg", "train/dog/1.jpg") and len(data.test) == 2

    def test_linked_test_that_is_the_training_set(self, tmp_path):
        folders(tmp_path, "train")
        os.symlink("train", tmp_path / "test")
        with pytest.raises(DataError, match="test: a link to a folder that is read already"):
            load(tmp_path, DataConfig(follow_links=True))

    @pytest.mark.parametrize("follow", [True, False])
    def test_that_leads_nowhere(self, tmp_path, follow):
        folders(tmp_path, "train")
        os.symlink("/nonexistent", tmp_path / "test")
        with pytest.raises(
            DataError, match="split test is a link to /nonexistent, which does not exist; mend"
        ):
            find_splits(tmp_path, follow_links=follow)

    def test_an_unread_link_is_no_matter(self, tmp_path):
        folders(tmp_path, "train", "test")
        os.symlink("test", tmp_path / "val")
        layout = find_splits(tmp_path)
        assert layout.splits == {"train": "train", "test": "test"}
        assert any("not read: val" in w for w in layout.warnings)


class TestOtherFolder:
    def test_is_the_test_set(self, tmp_path):
        two_classes(tmp_path / "mine")
        folders(tmp_path, "theirs")
        write(tmp_path, {"theirs/dog/bad.jpg": b"text", "theirs/dog/Thumbs.db": b""})
        data = load(tmp_path / "mine", DataConfig(test=tmp_path / "theirs"), cache=tmp_path / "scan.jsonl")
        assert (len(data.train), len(data.test)) == (4, 2)
        assert [item.path for item in data.quarantine] == [f"{tmp_path}/theirs/dog/bad.jpg"]
        assert any("Thumbs.db" in w for w in data.warnings)
        assert (tmp_path / "scan_test.jsonl").is_file()

    def test_instead_of_the_split(self, tmp_path):
        folders(tmp_path, "root/train", "root/test", "theirs")
        write(tmp_path, {"theirs/cat/2.jpg": jpeg(3)})
        data = load(tmp_path / "root", DataConfig(test=tmp_path / "theirs"))
        assert len(data.test) == 3
        assert any("not read: test" in w for w in data.warnings)

    def test_beside_the_classes_it_is_none(self, tmp_path):
        two_classes(tmp_path)
        folders(tmp_path, "holdout")
        data = load(tmp_path, DataConfig(test=tmp_path / "holdout"))
        assert data.train.classes == ("cat", "dog") and len(data.test) == 2

    def test_below_a_class(self, tmp_path):
        two_classes(tmp_path)
        folders(tmp_path, "cat/holdout")
        with pytest.raises(DataError, match="it lies in the training set"):
            load(tmp_path, DataConfig(test=tmp_path / "cat/holdout"))

    def test_the_training_set_itself(self, tmp_path):
        two_classes(tmp_path)
        with pytest.raises(DataError, match="this is the training set"):
            load(tmp_path, DataConfig(test=tmp_path))

    def test_folder_of_splits(self, tmp_path):
        two_classes(tmp_path / "mine")
        folders(tmp_path, "theirs/train", "theirs/test")
        with pytest.raises(
            DataError, match=r"it holds test, train, which are splits.* such as .*theirs/test"
        ):
            load(tmp_path / "mine", DataConfig(test=tmp_path / "theirs"))

    def test_no_such_folder(self, tmp_path):
        two_classes(tmp_path)
        with pytest.raises(DataError, match=r"dataset.test .*nothing: no such folder"):
            load(tmp_path, DataConfig(test=tmp_path / "nothing"))

    @pytest.mark.parametrize("options", [{"test": "x"}, {"test_split": "x"}])
    def test_not_with_digits(self, options):
        with pytest.raises(ConfigError, match="digits has its own test set"):
            load("digits", DataConfig(**options))


class TestSource:
    def test_run_folder(self, tmp_path):
        write(tmp_path, {"config.resolved.yaml": b"", "metrics.jsonl": b""})
        with pytest.raises(DataError, match="a run folder of dlp_fast; give the folder of the images"):
            load(tmp_path)

    def test_address(self):
        with pytest.raises(DataError, match=r"^https://x/y\.zip: an address; download the images"):
            load("https://x/y.zip")

    @pytest.mark.parametrize("inner", ["mine", "train"])
    def test_one_folder_too_high(self, tmp_path, inner):
        two_classes(tmp_path / inner / inner)
        with pytest.raises(DataError, match=rf"one class.*perhaps --data .*{inner}/{inner} is meant"):
            load(tmp_path if inner == "train" else tmp_path / inner)
