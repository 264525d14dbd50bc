"""Tables of paths and labels, as people have them."""

from __future__ import annotations

import csv
import os
import sys
import types

import pytest
import torch
from corpus import png, write

from dlp_fast.config import DataConfig
from dlp_fast.data import sources
from dlp_fast.data.sources.table import index_table
from dlp_fast.errors import ConfigError, DataError

CLASSES = ("cat", "dog")


class Unsearched(tuple):
    """Names in which nobody is to search one after another."""

    def __contains__(self, name):
        raise AssertionError(f"searched for {name}")


@pytest.fixture
def files(tmp_path):
    """images/0.png ... 9.png"""
    write(tmp_path / "images", {f"{i}.png": png(seed=i) for i in range(10)})
    return tmp_path


def rows(prefix: str = "", suffix: str = ".png") -> list[list[str]]:
    return [[f"{prefix}{i}{suffix}", CLASSES[i % 2]] for i in range(10)]


def table(folder, lines, header=("path", "label"), name="t.csv", delimiter=",", encoding="utf-8", end="\n"):
    file = folder / name
    with file.open("w", encoding=encoding, errors="surrogateescape", newline="") as text:
        csv.writer(text, delimiter=delimiter, lineterminator=end).writerows([header, *lines])
    return file


def load(file, images=None, **options):
    return sources.load(file, DataConfig(images=images, **options))


def is_all(data) -> bool:
    paths = tuple(f"{i}.png" for i in (0, 2, 4, 6, 8, 1, 3, 5, 7, 9))
    return (
        data.train.paths == paths
        and data.train.labels.tolist() == [0] * 5 + [1] * 5
        and data.quarantine == ()
    )


class TestReading:
    @pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
    @pytest.mark.parametrize("end", ["\n", "\r\n"])
    def test_dialects(self, files, delimiter, encoding, end):
        file = table(files, rows(), delimiter=delimiter, encoding=encoding, end=end)
        data = load(file, files / "images")
        assert is_all(data)
        assert (data.name, data.train.classes, data.test, data.warnings) == ("t", CLASSES, None, ())
        assert data.root == str(files / "images")

    @pytest.mark.parametrize(
        "header",
        [("Image", "Class"), ("file_name", "label"), ("Filename ", "target"), ("image id", "category")],
    )
    def test_names_of_columns(self, files, header):
        assert is_all(load(table(files, rows(), header), files / "images"))

    def test_other_columns_and_order(self, files):
        lines = [[str(k), label, "x,y", path] for k, (path, label) in enumerate(reversed(rows()))]
        assert is_all(load(table(files, lines, ("", "label", "note", "path")), files / "images"))

    def test_paths_from_the_table(self, files):
        data = load(table(files, rows("images/")))
        assert data.train.paths[0] == "images/0.png"

    def test_absolute_paths_windows_paths_and_names_without_suffix(self, files):
        assert is_all(load(table(files, rows(f"{files}/images/")), files / "images"))
        assert is_all(load(table(files, rows(suffix="")), files / "images"))
        assert is_all(load(table(files, rows("images\\")), files)) is False
        assert load(table(files, rows("images\\")), files).train.paths[0] == "images/0.png"

    def test_names_that_are_not_utf8(self, files):
        odd = os.fsdecode(b"caf\xe9.png")
        write(files / "images", {odd: png(seed=77)})
        data = load(table(files, [*rows(), [odd, "cat"]]), files / "images")
        assert odd in data.train.paths

    def test_same_answer_in_any_order(self, files):
        one = load(table(files, rows()), files / "images")
        other = load(table(files, rows()[::-1], name="u.csv"), files / "images", workers=1)
        assert one.train.paths == other.train.paths
        assert torch.equal(one.train.images.pixels, other.train.images.pixels)

    def test_a_number_is_a_name(self, files):
        data = load(
            table(files, [[path, "10" if label == "cat" else "9"] for path, label in rows()]),
            files / "images",
        )
        assert data.train.classes == ("10", "9")

    def test_split_column(self, files):
        lines = [[*row, "Train" if k < 8 else "test"] for k, row in enumerate(rows())]
        data = load(table(files, lines, ("path", "label", "split")), files / "images")
        assert (len(data.train), len(data.test)) == (8, 2)
        assert data.test.paths == ("8.png", "9.png")

    @pytest.mark.parametrize("name", ["eval", "Evaluation", "holdout", "tst", "TEST"])
    @pytest.mark.parametrize("train", ["trn", "Training"])
    def test_splits_are_called_as_folders_are(self, files, train, name):
        lines = [[*row, train if k < 6 else name if k < 8 else "dev"] for k, row in enumerate(rows())]
        data = load(table(files, lines, ("path", "label", "split")), files / "images")
        assert (len(data.train), data.test.paths) == (6, ("6.png", "7.png"))
        assert "2 validation rows not read, since there are test rows" in data.warnings[0]

    def test_classes_that_are_known_are_not_searched_row_by_row(self, files):
        index, _ = index_table(table(files / "images", rows()), DataConfig(), Unsearched(CLASSES))
        assert index.labels.tolist() == [0] * 5 + [1] * 5

    def test_validation_is_the_test_where_there_is_none(self, files):
        lines = [[*row, "train" if k < 8 else "val"] for k, row in enumerate(rows())]
        data = load(table(files, lines, ("path", "label", "split")), files / "images")
        assert len(data.test) == 2
        assert "no test rows; the validation rows are the test set" in data.warnings[0]


class TestTrouble:
    def refused(self, file, message, **options):
        with pytest.raises(DataError, match=message):
            load(file, **options)

    def test_no_header(self, files):
        self.refused(
            table(files, rows()[1:], rows()[0]), r"its columns are 0.png, cat; expected a header line with"
        )

    def test_missing_files_are_listed(self, files):
        data = load(table(files, [*rows(), ["gone.png", "cat"]]), files / "images")
        assert [(item.path, item.reason) for item in data.quarantine] == [("gone.png", "unreadable")]
        assert "1 of 11 image files (9%) are left out" in data.warnings[0]

    def test_all_missing(self, files):
        self.refused(
            table(files, rows()), "none of its 10 files is in .*, such as 0.png; give --dataset.images"
        )

    def test_no_such_folder(self, files):
        self.refused(table(files, rows()), "nowhere: no such folder", images=files / "nowhere")

    @pytest.mark.parametrize("path", ["../secret.png", "/etc/hostname", "images/../../secret.png", ".."])
    def test_paths_that_lead_out(self, files, path):
        write(files.parent, {"secret.png": png()})
        data = load(table(files / "images", [*rows(), [path, "cat"]]))
        assert [(item.path, item.reason) for item in data.quarantine] == [(path, "link_leaves_folder")]
        assert is_all(sources.load(files / "images" / "t.csv")) is False
        assert len(data.train) == 10

    def test_links_that_lead_out(self, files):
        write(files, {"secret.png": png()})
        os.symlink(files / "secret.png", files / "images/link.png")
        os.symlink(files, files / "images/up")
        data = load(table(files, [*rows(), ["link.png", "cat"], ["up/secret.png", "cat"]]), files / "images")
        assert {item.reason for item in data.quarantine} == {"link_leaves_folder"}
        assert len(data.quarantine) == 2

    def test_links_that_are_followed(self, files):
        write(files, {"outside/a.png": png(seed=20)})
        os.symlink(files / "outside", files / "images/more")
        listed = table(files, [*rows(), ["more/a.png", "cat"]])
        for loader in ("resident", "torchvision"):
            options = DataConfig(images=files / "images", follow_links=True)
            data = sources.load(listed, options, loader=loader)
            assert (len(data.train), data.quarantine) == (11, ())
            assert data.train.images.get(torch.arange(11)).shape == (
                11,
                *data.train.images.get(torch.tensor([0])).shape[1:],
            )

    def test_a_class_of_links_that_lead_out(self, files):
        write(files, {"outside/a.png": png(seed=20)})
        os.symlink(files / "outside/a.png", files / "images/a.png")
        listed = table(files, [*rows(), ["a.png", "owl"]])
        self.refused(
            listed,
            r"class owl .*1 link_leaves_folder; --dataset.follow-links allows",
            images=files / "images",
        )
        self.refused(
            table(files, [*rows(), ["../a.png", "owl"]]),
            "all paths of class owl lead out of .*images; give",
            images=files / "images",
        )

    def test_twins_and_test_images_that_are_training_images(self, files):
        listed = table(
            files,
            [[*row, "train"] for row in rows()]
            + [["twin.png", "dog", "train"], ["0.png", "dog", "test"], ["1.png", "dog", "test"]],
            header=("path", "label", "split"),
        )
        write(files / "images", {"twin.png": png(seed=0)})
        twins, leaks = load(listed, files / "images").warnings
        assert twins.startswith("train: 2 images with the same bytes under different labels (1 picture)")
        assert leaks.startswith("test: all 2 images are training images too")
        assert "1 of them under another label" not in leaks  # the twin has the label of the test image

    @pytest.mark.parametrize("options", [{"test_split": "val"}, {"splits": "none"}, {"test": "x"}])
    def test_options_of_folders(self, files, options):
        with pytest.raises(
            ConfigError, match=rf"dataset\.{next(iter(options))}: .*t\.csv has its own test set"
        ):
            load(table(files, rows()), files / "images", **options)

    def test_all_lead_out(self, files):
        self.refused(table(files, rows("/elsewhere/")), "lead out of .*; give --dataset.images")

    def test_rows_that_are_there_twice(self, files):
        data = load(table(files, [*rows(), *rows()[:3], ["./0.png", "cat"]]), files / "images")
        assert is_all(data)
        assert "4 rows say what others say, and count once" in data.warnings[0]

    def test_two_labels(self, files):
        file = table(files, [*rows(), ["0.png", "dog"]])
        self.refused(
            file, r"0.png is 'cat' in row 2 and 'dog' in row 12 \(1 such row\)", images=files / "images"
        )

    def test_empty_cells_and_lines(self, files):
        assert is_all(load(table(files, [*rows(), [], ["", ""]]), files / "images"))
        self.refused(table(files, [*rows(), ["x.png", ""]]), "row 12 has no path or no label", images=files)

    @pytest.mark.parametrize("label", ["../x", ".hidden", "a/b", "x" * 300])
    def test_labels_that_are_no_folders(self, files, label):
        file = table(files, [*rows(), ["0.png", label]][1:])
        self.refused(file, "cannot be the name of a folder", images=files / "images")

    def test_one_class(self, files):
        self.refused(table(files, [[p, "cat"] for p, _ in rows()]), "one class", images=files / "images")

    def test_a_class_without_a_picture(self, files):
        self.refused(
            table(files, [*rows(), ["gone.png", "owl"]]),
            r"no usable image of class owl in split train \(1 file: 1 unreadable \(No such file or directory\)\)",
            images=files / "images",
        )

    def test_strange_split_and_no_training_rows(self, files):
        lines = [[*row, "fold1"] for row in rows()]
        self.refused(
            table(files, lines, ("path", "label", "split")), "split 'fold1'", images=files / "images"
        )
        lines = [[*row, "test"] for row in rows()]
        self.refused(
            table(files, lines, ("path", "label", "split")),
            "no row is of split train",
            images=files / "images",
        )

    def test_a_label_of_the_test_rows_alone(self, files):
        lines = [*([*row, "train"] for row in rows()[:8]), ["8.png", "owl", "test"]]
        self.refused(
            table(files, lines, ("path", "label", "split")), "label 'owl', which no", images=files / "images"
        )

    def test_empty(self, files):
        (files / "t.csv").write_text("")
        self.refused(files / "t.csv", "its columns are none")
        self.refused(table(files, []), "no rows")


class TestParquet:
    def test_by_pyarrow_or_pandas(self, files, monkeypatch):
        columns = {"path": [p for p, _ in rows()], "label": [label for _, label in rows()]}
        (files / "t.parquet").write_bytes(b"PAR1")
        arrow = types.SimpleNamespace(read_table=lambda _: types.SimpleNamespace(to_pydict=lambda: columns))
        package = types.ModuleType("pyarrow")
        package.parquet = arrow
        monkeypatch.setitem(sys.modules, "pyarrow", package)
        monkeypatch.setitem(sys.modules, "pyarrow.parquet", arrow)
        assert is_all(load(files / "t.parquet", files / "images"))
        monkeypatch.setitem(sys.modules, "pyarrow", None)
        monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)

        class Column(list):
            def tolist(self):
                return list(self)

        frame = types.SimpleNamespace(
            items=lambda: [(name, Column(column)) for name, column in columns.items()]
        )
        monkeypatch.setitem(sys.modules, "pandas", types.SimpleNamespace(read_parquet=lambda _: frame))
        assert is_all(load(files / "t.parquet", files / "images"))

    def test_neither_is_there(self, files, monkeypatch):
        (files / "t.parquet").write_bytes(b"PAR1")
        for name in ("pyarrow", "pyarrow.parquet", "pandas"):
            monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(
            DataError, match=r"Parquet is read by pyarrow \(pip install pyarrow\); or save it as CSV"
        ):
            load(files / "t.parquet")
