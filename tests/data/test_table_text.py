"""Tables as programs write them: code pages, headers, labels with a point, columns of true and false."""

import gzip

import pytest

from dlp_fast.config import DataConfig
from dlp_fast.data.sources.table import load_table
from dlp_fast.data.sources.table_text import find_columns, read_rows
from dlp_fast.errors import DataError


def read(folder, text, name="t.csv"):
    file = folder / name
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_rows(file, "t")


@pytest.mark.parametrize(
    ("names", "path", "label", "split"),
    [
        (["id", "breed"], 0, 1, None),
        (["category_name", "file"], 1, 0, None),
        (["Image Path", "Class-Name"], 0, 1, None),
        (["fname", "label", "is_valid"], 0, 1, 2),
        (["path", "label", "is_valid", "split"], 0, 1, 3),
    ],
)
def test_columns(names, path, label, split):
    found = find_columns(names)
    assert (found.path, found.label, found.split) == (path, label, split)


@pytest.mark.parametrize("names", [["path", "cat", "dog"], ["x", "y"], ["label", "breed"], []])
def test_no_columns(names):
    assert find_columns(names) is None


@pytest.mark.parametrize(("code", "told"), [("cp1252", "café"), ("utf-8", "café"), ("utf-8-sig", "café")])
def test_code_pages(tmp_path, code, told):
    rows, _ = read(tmp_path, "path;label\r\n1.jpg;café\r\n".encode(code))
    assert [row.label for row in rows] == [told]


def test_whole_numbers_of_pandas(tmp_path):
    rows, told = read(tmp_path, "path,label\na.jpg,0.0\nb.jpg,1\nc.jpg,1.0\n")
    assert [row.label for row in rows] == ["0", "1", "1"]
    assert told == ["t: labels such as 0.0 are taken as whole numbers"]
    rows, told = read(tmp_path, "path,label\na.jpg,0.5\nb.jpg,1.0\n")
    assert ([row.label for row in rows], told) == (["0.5", "1.0"], [])
    rows, told = read(tmp_path, "path,label\na.jpg,v1.0\nb.jpg,1.0\n")
    assert ([row.label for row in rows], told) == (["v1.0", "1.0"], [])


@pytest.mark.parametrize(
    ("column", "cells", "splits"),
    [
        ("is_valid", ("False", "True", "1"), ("train", "val", "val")),
        ("is_test", ("0", "1.0", "no"), ("train", "test", "train")),
        ("is_train", ("True", "False", ""), ("train", "test", "test")),
    ],
)
def test_columns_of_true_and_false(tmp_path, column, cells, splits):
    lines = "".join(f"{i}.jpg,a,{cell}\n" for i, cell in enumerate(cells))
    rows, _ = read(tmp_path, f"path,label,{column}\n{lines}")
    assert tuple(row.split for row in rows) == splits


def test_neither_true_nor_false(tmp_path):
    with pytest.raises(DataError, match=r"row 2 says 'perhaps'; expected true or false"):
        read(tmp_path, "path,label,is_valid\n1.jpg,a,perhaps\n")


def test_two_columns_of_labels_are_told(tmp_path):
    _, told = read(tmp_path, "path,label,class_name\n1.jpg,0,cat\n")
    assert told == ["t: labels are those of column label, and not of class_name"]


def test_no_header_is_told(tmp_path):
    with pytest.raises(DataError, match=r"The first line looks like a picture: put path,label above it"):
        read(tmp_path, "1.JPG,cat\n2.JPG,dog\n")


@pytest.mark.parametrize(
    ("data", "what"),
    [(gzip.compress(b"path,label"), "gzip"), (b"PK\x03\x04", "spreadsheet"), (b"PAR1", "Parquet")],
)
def test_no_text(tmp_path, data, what):
    with pytest.raises(DataError, match=f"it is .*{what}, and no text"):
        read(tmp_path, data)


@pytest.mark.parametrize(
    ("path", "advice"),
    [
        ("images/{}.jpg", "they are in the folder above it: give --dataset.images {above}"),
        ("/home/bob/images/{}.jpg", "there is 0.jpg: take home/bob/images/ off the paths in the table"),
        ("C:\\data\\{}.jpg", "there is 0.jpg: take C:/data/ off the paths in the table"),
        ("{}.JPG", "there is 0.jpg, in other letters"),
        ("https://x.org/{}.jpg", "these are addresses"),
        ("other/x{}.gif", "give --dataset.images the folder that the paths start from"),
    ],
)
def test_where_the_files_are_instead(tmp_path, path, advice):
    (tmp_path / "images").mkdir()
    for i in range(2):
        (tmp_path / f"images/{i}.jpg").touch()
    lines = "".join(f"{path.format(i)},{'ab'[i]}\n" for i in range(2))
    (tmp_path / "t.csv").write_text("path,label\n" + lines)
    with pytest.raises(DataError) as told:
        load_table(tmp_path / "t.csv", DataConfig(images=tmp_path / "images"))
    assert advice.format(above=tmp_path) in str(told.value)
