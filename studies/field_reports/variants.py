"""Variants of reported situations that are in no report: other tables, archives, formats, objects, commands."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import dlp_fast
from dlp_fast.errors import DlpError
from studies.field_reports.row import CLASSES, DRY, Done, Row, command, images, picture

EIGHTEEN = "18 training images, 3 classes"
RNG = np.random.default_rng(0)


def dry(data: object, *options: object, cwd: Path | None = None) -> Done:
    return command("run", "--data", data, *DRY, *options, cwd=cwd)


def flat(folder: Path, count: int = 18) -> list[tuple[str, str]]:
    """(file name, class) of `count` pictures that lie in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [(f"{i:03d}.png", CLASSES[i % 3]) for i in range(count)]
    for i, (name, _) in enumerate(rows):
        picture(RNG, i % 3).save(folder / name)
    return rows


def table(
    text: Callable[[list[tuple[str, str]]], str],
    *said: str,
    code: int = 0,
    name: str = "t.csv",
    encoding: str = "utf-8",
) -> Callable[[Path], None]:
    """A check: a table beside eighteen pictures, as `text` writes their rows."""

    def check(here: Path) -> None:
        rows = flat(here / "set")
        (here / "set" / name).write_text(text(rows), encoding=encoding, newline="")
        dry(here / "set" / name).ended(code, *(said or (EIGHTEEN,)))

    return check


def lines(head: str, form: Callable[[str, str], str], before: str = "") -> Callable[[Any], str]:
    return lambda rows: before + "\n".join([head, *(form(path, label) for path, label in rows)]) + "\n"


def one_hot(path: str, label: str) -> str:
    return ",".join([path, *("1" if label == name else "0" for name in CLASSES)])


def packed(here: Path, files: dict[str, bytes], name: str = "s.tar") -> Path:
    with tarfile.open(here / name, "w") as file:
        for path, data in files.items():
            info = tarfile.TarInfo(path)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return here / name


def labels_in_json(here: Path) -> None:
    files = {}
    for name, label in flat(here / "set"):
        files[name] = (here / "set" / name).read_bytes()
        files[name.replace("png", "json")] = json.dumps({"label": label}).encode()
    dry(packed(here, files)).ended(0, EIGHTEEN)


def archives_within(here: Path) -> None:
    for split in ("train", "test"):
        shutil.make_archive(str(here / split), "zip", images(here / f"{split}_images"))
    with zipfile.ZipFile(here / "all.zip", "w") as file:
        for split in ("train", "test"):
            file.write(here / f"{split}.zip", f"set/{split}.zip")
    done = dry(here / "all.zip")
    done.ended(3, "it holds archives, test.zip, train.zip", "give --data")
    dry(done.text.rpartition("--data ")[2].strip()).ended(0, "36 training images", "36 test images")


def raw_files(here: Path) -> None:
    images(here / "data")
    for i in range(3):
        raw = here / "data" / "cats" / f"IMG_{i}.dng"
        Image.new("RGB", (32, 32)).save(raw, format="TIFF", tiffinfo={50706: b"\1\4\0\0"})
    dry(here / "data").ended(0, "36 training images", "3 unsupported_format (a camera's raw file")


def beside(here: Path) -> None:
    """What phones and programs put beside pictures."""
    images(here / "data")
    for i in range(6):
        (here / "data" / "cats" / f"IMG_{i}.MOV").write_bytes(b"\0\0\0\x14ftypqt  " + bytes(100))
        (here / "data" / "cats" / f"IMG_{i}.AAE").write_text("<?xml version='1.0'?>")
        (here / "data" / "cats" / f"{i:03d}.png.json").write_text("{}")
        (here / "data" / "cats" / f"{i:03d}.txt").write_text("a cat")
    dry(here / "data").ended(0, "36 training images", "6 a video", unsaid=("are left out. The result",))


def fifo_and_holes(here: Path) -> None:
    images(here / "data")
    os.mkfifo(here / "data" / "cats" / "pipe.jpg")
    with (here / "data" / "dogs" / "huge.jpg").open("wb") as file:
        file.truncate(20 << 30)
    dry(here / "data").ended(0, "36 training images", "1 too_large", "1 not_a_regular_file")


def modes(here: Path) -> None:
    """One bit, palettes, CMYK, grey with alpha, YCbCr: each in every format that holds it."""
    images(here / "data")
    for mode in ("1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr"):
        for suffix in ("png", "tif", "webp", "jpg", "gif", "bmp", "jp2"):
            with contextlib.suppress(OSError, ValueError, KeyError):
                picture(RNG, 0).convert(mode).save(here / "data" / "cats" / f"{mode}.{suffix}")
    for file in (here / "data" / "cats").iterdir():
        if not file.stat().st_size:
            file.unlink()
    dry(here / "data").ended(0, unsaid=("cannot be used",))


def names(here: Path) -> None:
    images(here / "-x", ("-a", "--b", "[bold]c[/]", "%s%d", "{{7*7}}", "<b>x</b>"))
    command("run", "--data=-x", *DRY, cwd=here).ended(0, "6 classes")


def one_each(here: Path) -> None:
    dry(images(here / "data", tuple(f"c{i:04d}" for i in range(1000)), each=1, side=8)).ended(
        0, "1000 classes"
    )


def places(here: Path) -> None:
    images(here / "a")
    command("run", "--data", here / "a", "--data", here / "b", *DRY).ended(2, "given 2 times")
    command("run", "--data", here / "a", here / "b", *DRY).ended(2, "--data takes one place")
    dry(f"{here}/a/*/*.png").ended(3, "reads like a pattern")
    dry(here / "a" / "cats" / "000.png").ended(3, "it is one image")
    (here / "b").mkdir()
    dry("../a", cwd=here / "b").ended(0, "36 training images")


def in_python(here: Path) -> None:
    """Lists of paths, of pictures of different sizes, and datasets by their splits."""
    rows = flat(here / "set", 36)
    paths, labels = [here / "set" / name for name, _ in rows], [label for _, label in rows]
    quick = {
        "preset": "scan", "model": "wrn-10-1", "threads": 1, "device": "cpu", "quiet": True,
        "supervised": {"epochs": 1, "min_steps": 4}, "detection": {"networks": 1},
    }  # fmt: skip
    assert dlp_fast.defend(paths, labels, **quick).paths[0] == str(paths[0])
    sizes = [picture(RNG, i % 3, 32 + i, 32) for i in range(36)]
    assert len(dlp_fast.defend(sizes, labels, dataset={"image_size": 32}, **quick).samples["path"]) == 36
    splits = {"train": list(zip(sizes, labels)), "test": list(zip(sizes[:6], labels))}
    made = dlp_fast.defend(splits, dataset={"image_size": 32}, **quick)
    assert made.results["stages"]["supervised"]["clean_accuracy"] is not None
    said = ""
    try:
        dlp_fast.defend([*paths, here / "none.png"], [*labels, "cats"], **quick)
    except DlpError as error:
        said = str(error)
    assert "row 36" in said, said or "a path that is not there was taken"


ROWS = (
    Row("V1.onehot", "a table with one column a class", table(lines("filename," + ",".join(CLASSES), one_hot))),
    Row("V1.jsonl", "metadata.jsonl", table(
        lambda rows: "\n".join(json.dumps({"file_name": p, "label": c}) for p, c in rows), name="metadata.jsonl"
    )),
    Row("V1.sep", "Excel's line sep=;", table(lines("path;label", "{};{}".format, "sep=;\n"))),
    Row("V1.comment", "comments above the header", table(lines("path,label", "{},{}".format, "# mine\n\n"))),
    Row("V1.utf16", "UTF-16 without its mark", table(lines("path,label", "{},{}".format), encoding="utf-16-le")),
    Row("V1.file", "addresses file:///", lambda here: table(
        lines("uri,label", lambda path, label: f"file://{here}/set/{path},{label}")
    )(here)),
    Row("V1.windows", "Windows' paths of another machine", table(
        lines("path,label", lambda path, label: f"C:\\me\\{path},{label}"), "take C:/me/ off the paths", code=3
    )),
    Row("V1.web", "addresses of the web", table(
        lines("url,label", lambda path, label: f"https://x.org/{path},{label}"), "these are addresses", code=3
    )),
    Row("V1.comma", "a comma without quotes", table(
        lines("path,label", lambda path, label: f"a,{path},{label}"), "has 3 cells, and the header 2", code=3
    )),
    Row("V1.several", "labels such as cats|dogs", table(
        lines("path,label", lambda p, c: f"{p},{c}|dogs" if p == "000.png" else f"{p},{c}"), "reads like 2 labels"
    )),
    Row("V1.empty", "rows without a label", table(
        lines("path,label", lambda path, label: f"{path}," if path == "004.png" else f"{path},{label}"),
        "row 6 has no path or no label", code=3,
    )),
    Row("V2.json", "a tar with labels in JSON beside the images", labels_in_json),
    Row("V2.within", "archives within an archive", archives_within),
    Row("V3.raw", "cameras' raw files", raw_files),
    Row("V3.beside", "videos, edits and texts beside pictures", beside),
    Row("V3.fifo", "a pipe and a file of 20 GB that is empty", fifo_and_holes),
    Row("V3.modes", "pictures of all modes in all formats", modes),
    Row("V4.names", "classes and folders called -a, [bold], %s, {{7*7}}", names),
    Row("V4.thousand", "1,000 classes of one image", one_each),
    Row("V5.places", "places given twice, patterns, one image, another directory", places),
    Row("V6.python", "lists of paths and pictures, datasets by split, in Python", in_python),
)  # fmt: skip
