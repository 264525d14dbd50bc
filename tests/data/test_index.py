import csv
import os

import numpy as np
import pytest
from corpus import jpeg, png, two_classes, write

from dlp_fast.data.classes import match_names
from dlp_fast.data.index import find_conflicts, index_folder, index_splits, write_quarantine
from dlp_fast.data.scan import Quarantined
from dlp_fast.data.splits import find_splits
from dlp_fast.errors import DataError, ResourceError


def test_ids_are_in_the_order_of_class_and_path_bytes(tmp_path):
    names = ["b/2.png", "b/10.png", "b/sub/1.png", "a/Z.png", "a/z.png", "a/é.png", "B/1.png"]
    write(tmp_path, {name: png(seed=i, height=4, width=4) for i, name in enumerate(names)})
    index, quarantine = index_folder(tmp_path)
    assert quarantine == []
    assert index.classes == ("B", "a", "b")
    expected = ["B/1.png", "a/Z.png", "a/z.png", "a/é.png", "b/10.png", "b/2.png", "b/sub/1.png"]
    assert index.paths == tuple(expected)
    assert index.labels.tolist() == [0, 1, 1, 1, 2, 2, 2]
    assert index.labels.dtype == np.int64
    assert not index.labels.flags.writeable
    assert len(index) == 7
    assert index.root == os.path.realpath(tmp_path)


def test_what_is_known_of_each_file(tmp_path):
    two_classes(tmp_path)
    write(tmp_path, {"dog/x.png": png(height=6, width=9)})
    index, _ = index_folder(tmp_path)
    i = index.paths.index("dog/x.png")
    assert (index.widths[i], index.heights[i], index.formats[i], index.modes[i]) == (9, 6, "PNG", "RGB")
    assert index.byte_sizes[i] == len(png(height=6, width=9))
    assert index.mtimes_ns[i] == (tmp_path / "dog/x.png").stat().st_mtime_ns


def test_class_with_one_image_is_told(tmp_path):
    two_classes(tmp_path)
    write(tmp_path, {"ant/1.png": png()})
    index, _ = index_folder(tmp_path)
    assert any("only one image in class ant" in warning for warning in index.warnings)


def test_loose_files_are_told(tmp_path):
    two_classes(tmp_path)
    write(tmp_path, {"README.txt": b"hello", ".DS_Store": b""})
    index, quarantine = index_folder(tmp_path)
    assert quarantine == []
    assert any("1 file outside of class folders not read" in warning for warning in index.warnings)


def test_hidden_files_and_folders_are_not_seen(tmp_path):
    two_classes(tmp_path)
    write(tmp_path, {"cat/.hid.jpg": jpeg(), ".git/x.jpg": jpeg(), "dog/.t/x.jpg": jpeg()})
    index, _ = index_folder(tmp_path)
    assert len(index) == 4


def test_bad_files_are_left_out(tmp_path):
    two_classes(tmp_path)
    write(tmp_path, {"cat/0.txt": b"notes", "cat/zero.jpg": b""})
    index, quarantine = index_folder(tmp_path)
    assert len(index) == 4
    assert {q.path: q.reason for q in quarantine} == {"cat/0.txt": "not_an_image", "cat/zero.jpg": "empty"}


class TestErrors:
    def test_no_such_folder(self, tmp_path):
        with pytest.raises(DataError, match="nothing: no such folder; give"):
            index_folder(tmp_path / "nothing")
        with pytest.raises(DataError, match="nothing: no such folder; give"):
            find_splits(tmp_path / "nothing")

    def test_a_file(self, tmp_path):
        write(tmp_path, {"x.jpg": jpeg()})
        for function in (index_folder, find_splits):
            with pytest.raises(DataError, match=r"x\.jpg: not a folder; give a folder of images"):
                function(tmp_path / "x.jpg")

    def test_no_class_folders(self, tmp_path):
        write(tmp_path, {"1.jpg": jpeg(), "2.jpg": jpeg()})
        with pytest.raises(DataError, match=r"no class folders; expected .*/<class>/<image>"):
            index_folder(tmp_path)

    def test_no_images(self, tmp_path):
        write(tmp_path, {"cat/1.txt": b"no", "dog/2.txt": b"no"})
        with pytest.raises(DataError, match=r"no usable image in it \(2 files: 2 not_an_image\)") as caught:
            index_folder(tmp_path)
        assert len(caught.value.quarantine) == 2

    def test_one_class(self, tmp_path):
        write(tmp_path, {"cat/1.jpg": jpeg()})
        with pytest.raises(DataError, match=r"one class \(cat\); expected at least two class folders"):
            index_folder(tmp_path)

    def test_class_of_bad_files(self, tmp_path):
        two_classes(tmp_path)
        write(tmp_path, {"eel/1.jpg": b"", "eel/2.jpg": b"text", "eel/3.jpg": b"text"})
        with pytest.raises(
            DataError, match=r"class eel \(3 files: 2 not_an_image, 1 empty\); mend"
        ) as caught:
            index_folder(tmp_path)
        assert len(caught.value.quarantine) == 3

    def test_strange_class_in_test(self, tmp_path):
        two_classes(tmp_path / "train")
        two_classes(tmp_path / "test")
        write(tmp_path, {"test/eel/1.jpg": jpeg()})
        with pytest.raises(DataError, match=r"test: class eel is not among the 2 classes .*cat, dog"):
            index_splits(tmp_path, find_splits(tmp_path).splits)

    def test_hostile_names_are_escaped_in_messages(self, tmp_path):
        write(tmp_path, {"a\x1b[2J\nb/1.jpg": jpeg()})
        with pytest.raises(DataError, match=r"one class \(a\\x1b\[2J\\nb\)"):
            index_folder(tmp_path)

    @pytest.mark.skipif(os.geteuid() == 0, reason="permission bits do not bind root")
    def test_closed_folder(self, tmp_path):
        folder = two_classes(tmp_path / "closed")
        folder.chmod(0)
        with pytest.raises(DataError, match="closed: cannot be read"):
            index_folder(folder)
        folder.chmod(0o700)


class TestSplits:
    def test_class_missing_in_test_is_told(self, tmp_path):
        two_classes(tmp_path / "train")
        write(tmp_path, {"test/dog/1.jpg": jpeg()})
        indices, _ = index_splits(tmp_path, find_splits(tmp_path).splits)
        assert indices["test"].classes == ("cat", "dog")
        assert indices["test"].labels.tolist() == [1]
        assert any("no folder for class cat" in w for w in indices["test"].warnings)

    def test_empty_class_in_test_is_told(self, tmp_path):
        two_classes(tmp_path / "train")
        write(tmp_path, {"test/dog/1.jpg": jpeg(), "test/cat/1.jpg": b""})
        indices, _ = index_splits(tmp_path, find_splits(tmp_path).splits)
        assert any("no usable image in class cat" in w for w in indices["test"].warnings)

    def test_given_classes_set_the_labels(self, tmp_path):
        two_classes(tmp_path)
        index, _ = index_folder(tmp_path, classes=("dog", "eel", "cat"))
        assert index.labels.tolist() == [2, 2, 0, 0]
        assert index.classes == ("dog", "eel", "cat")


class TestEmptyClass:
    def test_is_left_out_and_told(self, tmp_path):
        two_classes(tmp_path)
        (tmp_path / "eel").mkdir()
        write(tmp_path, {"fox/.hidden.jpg": jpeg(), "gnu/Thumbs.db": b"x"})
        index, quarantine = index_folder(tmp_path)
        assert index.classes == ("cat", "dog") and quarantine == []
        assert any("no file in eel, fox, gnu, so that it is no class" in w for w in index.warnings)

    def test_of_two_leaves_one(self, tmp_path):
        write(tmp_path, {"cat/1.jpg": jpeg()})
        (tmp_path / "eel").mkdir()
        with pytest.raises(DataError, match=r"one class \(cat\).*no file in eel"):
            index_folder(tmp_path)


class TestNamesThatLookTheSame:
    NFC, NFD = "caf\u00e9", "cafe\u0301"

    def both(self, root, train, test):
        write(root, {f"train/{name}/{i}.png": png(seed=i) for i, name in enumerate((*train, "b"))})
        write(root, {f"test/{name}/{i}.png": png(seed=i + 9) for i, name in enumerate((*test, "b"))})
        return index_splits(root, {"train": "train", "test": "test"})[0]["test"]

    def test_known_names_are_not_searched_one_after_another(self):
        class Unsearched(tuple):
            def __contains__(self, name):
                raise AssertionError(f"searched for {name}")

        found, told = match_names("x", Unsearched([self.NFD, "dog", "owl"]), Unsearched([self.NFC, "dog"]))
        assert found == {self.NFD: self.NFC} and len(told) == 1

    @pytest.mark.parametrize(("train", "test"), [(NFC, NFD), (NFD, NFC)])
    def test_unicode_forms_are_matched_and_told(self, tmp_path, train, test):
        index = self.both(tmp_path, [train], [test])
        assert index.classes == tuple(sorted(("b", train)))
        assert index.labels.tolist() == sorted(index.classes.index(name) for name in (train, "b"))
        told = next(w for w in index.warnings if "is taken as class" in w)
        assert "class caf\u00e9" in told and "class cafe\\u0301" in told and "Unicode form" in told

    def test_never_two_into_one(self, tmp_path):
        with pytest.raises(DataError, match=r"class cafe.*u0301.*differ in their Unicode form"):
            self.both(tmp_path, [self.NFC], [self.NFC, self.NFD])

    def test_case_is_a_hint(self, tmp_path):
        with pytest.raises(DataError, match=r"Cats and cats differ in upper and lower case alone"):
            self.both(tmp_path, ["cats"], ["Cats"])

    def test_signs_are_a_hint(self, tmp_path):
        with pytest.raises(DataError, match=r"red_fox and Red fox differ in spaces, signs and upper"):
            self.both(tmp_path, ["Red fox"], ["red_fox"])

    @pytest.mark.parametrize("names", [(NFC, NFD), ("Cats", "cats"), ("cats", "cats ")])
    def test_two_classes_of_one_split_are_told(self, tmp_path, names):
        write(tmp_path, {f"{name}/{i}.png": png(seed=i) for i, name in enumerate((*names, "other"))})
        index, _ = index_folder(tmp_path)
        assert len(index.classes) == 3
        assert sum("are two classes, whose names differ in" in w for w in index.warnings) == 1


def test_root_may_be_a_link(tmp_path):
    two_classes(tmp_path / "real")
    os.symlink("real", tmp_path / "link")
    assert len(index_folder(tmp_path / "link")[0]) == 4


def test_conflicts():
    assert find_conflicts(["a", "b", "a", "b", "a"], [0, 1, 1, 1, 0]) == ((0, 2, 4),)
    assert find_conflicts([], []) == ()


class TestQuarantineFile:
    def read(self, path):
        with open(path, encoding="utf-8", newline="") as file:
            return list(csv.reader(file))

    def test_hostile_names(self, tmp_path):
        names = ["=cmd|' /C calc'!A0", "+1", "-1", "@x", "\tx", "<script>", 'a"b,c', "new\nline"]
        items = [Quarantined(name, "empty", "0 bytes") for name in [*names, os.fsdecode(b"\xff")]]
        write_quarantine(tmp_path / "q.csv", items)
        header, *rows = self.read(tmp_path / "q.csv")
        assert header == ["path", "reason", "detail"]
        assert [row[0] for row in rows] == [
            "'=cmd|' /C calc'!A0",
            "'+1",
            "'-1",
            "'@x",
            "'\\tx",
            "<script>",
            'a"b,c',
            "new\\nline",
            "\\xff",
        ]
        assert all(row[1:] == ["empty", "0 bytes"] for row in rows)

    def test_none(self, tmp_path):
        write_quarantine(tmp_path / "q.csv", [])
        assert self.read(tmp_path / "q.csv") == [["path", "reason", "detail"]]

    def test_unwritable(self, tmp_path):
        with pytest.raises(ResourceError, match=r"q\.csv cannot be written: No such file"):
            write_quarantine(tmp_path / "nothing" / "q.csv", [])

    def test_the_disk_has_it_before_it_has_its_name(self, tmp_path, monkeypatch):
        synced = []
        monkeypatch.setattr(os, "fsync", synced.append)
        write_quarantine(tmp_path / "q.csv", [])
        assert len(synced) == 1
