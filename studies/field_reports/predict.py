"""Using what a run leaves: what the model is, files and pictures of any kind, other programs, output of any kind."""

from __future__ import annotations

import csv
import functools
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import dlp_fast
from dlp_fast.errors import DataError
from studies.field_reports.row import QUICK, ROOT, Row, command, images, process

FULL = (
    "--device", "cpu", "--threads", "1", "--model", "wrn-10-1", "--supervised.epochs", "1", "--supervised.min-steps",
    "4", "--detection.networks", "1", "--finetuning.steps", "4", "--finetuning.norm-batches", "1",
)  # fmt: skip
"""A run of seconds with all stages; what it learnt says nothing."""


@functools.cache
def _folder() -> tempfile.TemporaryDirectory:
    """Of the two runs that the rows share; gone at the end of the process."""
    return tempfile.TemporaryDirectory(prefix="field_report_runs_")


@functools.cache
def clean_run() -> Path:
    """A run with stage 3."""
    here = Path(_folder().name).resolve()
    command("run", "--data", images(here / "data"), "--out", here / "clean", *FULL).ended(
        0, "the clean model"
    )
    return here / "clean"


@functools.cache
def scan_run() -> Path:
    """A run without stage 3."""
    here = Path(_folder().name).resolve()
    done = command(
        "run", "--data", images(here / "scanned"), "--out", here / "scan", "--model", "wrn-10-1", *QUICK
    )
    done.ended(0, "not a clean model", unsaid=("model.safetensors   the clean model",))
    return here / "scan"


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as text:
        return list(csv.DictReader(text))


def misnamed(here: Path) -> None:
    run = scan_run()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        model = dlp_fast.load(run)
    assert any("not a clean model" in str(one.message) for one in told)
    assert "clean" not in repr(model)
    data = images(here / "data", each=2)
    command("evaluate", run, "--data", data).ended(0, "not a clean model", unsaid=("the clean model:",))
    command("predict", run, "--data", data, "--out", here / "x.csv").ended(0, "not a clean model")
    command("export", run, "--format", "cleanlab", "--out", here / "lab").ended(0, "not a clean model")


def a_folder(here: Path) -> None:
    data = images(here / "new", each=2, side=50)
    (data / "cats" / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    done = command("predict", clean_run(), "--data", data, "--out", here / "x.csv")
    done.ended(0, "6 images predicted", "1 file could not be used (1 truncated)")
    rows = rows_of(here / "x.csv")
    assert len(rows) == 7 and sum(bool(row["problem"]) for row in rows) == 1
    assert {row["class"] for row in rows} <= {"cats", "dogs", "owls", ""}


def any_picture(here: Path) -> None:
    model = dlp_fast.load(clean_run())
    pixels = np.random.default_rng(0).integers(0, 256, (60, 45, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels)
    picture.save(here / "a.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ways = [
            here / "a.png",
            str(here / "a.png"),
            picture,
            np.asarray(picture),
            torch.from_numpy(pixels)[None],
        ]
        odds = [model.predict(one) for one in ways]
        odds.append(model.predict([picture, pixels])[1:])
    for one in odds:
        assert one.shape == (1, 3) and torch.allclose(one, odds[0], atol=1e-6)
    assert model.preprocess(picture).shape == (1, *model.size, 3)


def no_picture(here: Path) -> None:
    model = dlp_fast.load(clean_run())
    for bad, words in (
        (here / "nowhere.png", "No such file"),
        (np.zeros((3, 9, 9), np.float32), "expected uint8"),
        (np.zeros((1, 3, 9, 9), np.uint8), "permute(1, 2, 0)"),
        ([{"image": 1}], "a dict; expected a path"),
    ):
        told = ""
        try:
            model.predict(bad)
        except DataError as error:
            told = str(error)
        assert words in told, f"not said: {words}; but: {told}"


def encodings(here: Path) -> None:
    run = clean_run()
    for encoding in ("latin-1", "ascii"):
        words = ("--data", run.parent / "data", "--out", run, *FULL)
        process("run", *words, PYTHONIOENCODING=encoding).ended(0, "verdict:", "report.html")


def shell(line: str) -> subprocess.CompletedProcess[bytes]:
    python = f"PYTHONPATH='{ROOT}' '{sys.executable}' -m dlp_fast"
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", line.replace("DLP", python)], capture_output=True, timeout=600
    )


def closed(here: Path) -> None:
    data = images(here / "new", each=1)
    done = shell(f"DLP.predict '{clean_run()}' --data '{data}' --out '{here}/x.csv' >&- 2>&-")
    assert done.returncode == 0 and len(rows_of(here / "x.csv")) == 3
    done = shell("DLP.run --help | { read line; exec <&-; sleep 1; }")
    assert done.returncode in (0, 141) and done.stderr == b"", done.stderr


def torchvision(here: Path) -> None:
    done = command("export", clean_run(), "--format", "torchvision", "--out", here / "out")
    done.ended(2, "is not one of torchvision's networks", "--format onnx")
    assert not (here / "out").exists()


def advice(here: Path) -> None:
    code = (
        "import sys; sys.modules['onnx'] = None; sys.argv = ['x', *sys.argv[1:]]; "
        "from dlp_fast.commands.options import guarded; from dlp_fast.commands.export import main; guarded(main)"
    )
    words = [sys.executable, "-c", code, str(clean_run()), "--format", "onnx", "--out", str(here / "out")]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=600)
    said = " ".join(done.stderr.split())
    assert done.returncode == 5 and "-m pip install 'onnx>=1.16' 'onnxscript>=0.3'" in said, said


def small(here: Path) -> None:
    command("run", "--data", "https://host/set.zip", *QUICK).ended(2, "https://host/set.zip is an address")
    done = command("run", "--dataset.image-size", "3", *QUICK)
    done.ended(2, "--dataset.image-size: expected 8 to 256, got 3", unsaid=("type=", "pydantic"))
    assert dlp_fast.load(clean_run() / "model.safetensors").holds == "clean_model"
    assert len(repr(dlp_fast.load(clean_run()))) < 150


def path_alone(here: Path) -> None:
    run, data = here / "run", images(here / "data")
    words = ("run", "--data", data, "--out", run, *FULL)
    command(*words).ended(0)
    (here / "mine.csv").write_text("path,override\ncats/000.png,keep\n")
    command(*words, "--decisions", here / "mine.csv").ended(0, "1 keep")
    (here / "mine.csv").write_text("path,override\n000.png,keep\n")
    command(*words, "--decisions", here / "mine.csv").ended(3, "fits 3 images")


def came_later(here: Path) -> None:
    data = images(here / "new", each=3, seed=5)
    done = command("scan_new", clean_run(), "--data", data, "--out", here / "look.csv")
    done.ended(0, "9 new images", "what this cannot say")
    assert len(rows_of(here / "look.csv")) == 9
    command("scan_new", scan_run(), "--data", data, "--out", here / "no.csv").ended(3, "no clean model")


ROWS = [
    Row("F6.misnamed", "--preset scan: the model file is no clean model", misnamed),
    Row("F8.folder", "classify a folder with a broken file in it", a_folder),
    Row("F8.pictures", "predict takes paths, Pillow images and arrays of any size", any_picture),
    Row("F8.no_picture", "predict is given something else", no_picture),
    Row("F9.encoding", "the terminal is Latin-1 or ASCII", encodings),
    Row("F9.closed", "no stdout at all, or a reader that leaves", closed),
    Row("F21.torchvision", "weights for torchvision of a network that is none of its", torchvision),
    Row("F29.advice", "an extra is missing", advice),
    Row("small.options", "https:// as data, a value out of range, model.safetensors to load", small),
    Row("small.decisions", "a decisions file with path alone", path_alone),
    Row("new.scan", "images that came after the run", came_later),
]
