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


def test_a_line_end_within_a_name_of_the_header(tmp_path):
    (row,), told = read(tmp_path, 'path,label,"remarks,\r\nif any"\na.png,cat,"none\n"\n')
    assert (row.path, row.label, told) == ("a.png", "cat", [])


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
    [(gzip.compress(b"path,label", mtime=0), "gzip"), (b"PK\x03\x04", "spreadsheet"), (b"PAR1", "Parquet")],
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


@pytest.mark.parametrize("code", ["utf-16-le", "utf-16-be"])
def test_utf16_without_its_mark(tmp_path, code):
    rows, _ = read(tmp_path, "path,label\na.jpg,café\n".encode(code))
    assert [(row.path, row.label) for row in rows] == [("a.jpg", "café")]


@pytest.mark.parametrize("before", ["sep=;\r\n", "# made by hand\n\n", "\ufeffsep=;\n", "# "])
def test_lines_before_the_header(tmp_path, before):
    rows, _ = read(tmp_path, f"{before}path;label\na.jpg;cat\n".encode())
    assert [(row.path, row.label) for row in rows] == [("a.jpg", "cat")]
    assert rows[0].number == before.count("\n") + 2


def test_a_row_with_a_cell_too_many(tmp_path):
    assert len(read(tmp_path, "path,label\na.jpg,cat,,\n")[0]) == 1  # what spreadsheets leave at the end
    with pytest.raises(DataError, match=r"row 3 has 3 cells, and the header 2.*comma.*quotes"):
        read(tmp_path, "path,label\na.jpg,cat\nb,c.jpg,cat\n")


class TestOneColumnAClass:
    def test_it_is_read(self, tmp_path):
        text = "filename,split,cat,dog\na.jpg,train,1,0\nb.jpg,test,0.0,1.0\n\n"
        rows, _ = read(tmp_path, text)
        assert [(r.path, r.label, r.split) for r in rows] == [
            ("a.jpg", "cat", "train"),
            ("b.jpg", "dog", "test"),
        ]

    @pytest.mark.parametrize(
        ("cells", "told"), [("1,1", "row 2 is of cat, dog"), ("0,0", "row 2 is of none")]
    )
    def test_not_one_class(self, tmp_path, cells, told):
        with pytest.raises(DataError, match=told):
            read(tmp_path, f"filename,cat,dog\na.jpg,{cells}\n")

    def test_other_numbers_are_no_classes(self, tmp_path):
        with pytest.raises(DataError, match="expected a header line"):
            read(tmp_path, "filename,width,height\na.jpg,1,640\n")


def test_labels_that_read_like_several(tmp_path):
    assert "reads like 2 labels" in read(tmp_path, "path,label\na.jpg,cat|dog\nb.jpg,dog\n")[1][0]
    assert not read(tmp_path, "path,label\na.jpg,salt; pepper\nb.jpg,dog\n")[1]


def test_addresses_of_files(tmp_path):
    rows, _ = read(
        tmp_path, "uri,label\nfile:///x/a%20b.jpg,cat\nfile://localhost/x/c.jpg,cat\nd%20e.jpg,cat\n"
    )
    assert [row.path for row in rows] == ["/x/a b.jpg", "/x/c.jpg", "d%20e.jpg"]


class TestJson:
    LINES = '{"file_name": "a.jpg", "label": "cat"}\n\n{"label": 1, "file_name": "b.jpg", "x": null}\n'

    def test_lines(self, tmp_path):
        rows, _ = read(tmp_path, self.LINES, "metadata.jsonl")
        assert [(r.number, r.path, r.label) for r in rows] == [(1, "a.jpg", "cat"), (3, "b.jpg", "1")]

    @pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
    @pytest.mark.parametrize("mark", ["\u2028", "\u0085"])
    def test_a_string_with_a_line_end_of_unicode(self, tmp_path, mark, end):
        lines = [f'{{"path": "{name}.jpg", "label": "a{mark}b"}}' for name in "xy"]
        rows, _ = read(tmp_path, end.join(lines), "x.jsonl")
        assert [(r.number, r.path, r.label) for r in rows] == [
            (1, "x.jpg", f"a{mark}b"),
            (2, "y.jpg", f"a{mark}b"),
        ]

    def test_a_list(self, tmp_path):
        rows, _ = read(tmp_path, '[{"path": "a.jpg", "label": "cat"}]', "x.json")
        assert [(r.path, r.label) for r in rows] == [("a.jpg", "cat")]

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ('{"path": "a.jpg"\n', "no JSON"),
            ('{"path": "a", "label": "b"}\nnonsense', "line 2 is no JSON"),
            ("[1, 2]", "line 1 is no record"),
            ('{\n"images": [],\n"annotations": []}', "COCO"),
            ("", "its columns are none"),
        ],
    )
    def test_what_is_told(self, tmp_path, text, told):
        with pytest.raises(DataError, match=told):
            read(tmp_path, text, "x.json")
