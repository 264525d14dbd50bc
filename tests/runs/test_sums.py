"""SHA256SUMS: what a run wrote is read back as it was written, or not at all."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from tiny import command

import dlp_fast
from dlp_fast.errors import DataError
from dlp_fast.report.exhibits import Exhibits
from dlp_fast.runs.reader import read_classes, read_predictions, read_results, read_samples
from dlp_fast.runs.sums import LISTED, SUMS, samples_changed

READ = {
    "classes.json": read_classes,
    "exhibits.safetensors": Exhibits.load,
    "model.safetensors": dlp_fast.load,
    "predictions.safetensors": lambda run: read_predictions(run, len(read_samples(run)["path"]), 10),
    "results.json": read_results,
}


@pytest.fixture
def run(tiny_run, tmp_path):
    shutil.copytree(tiny_run[0], tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints"))
    return tmp_path / "run"


def replace(file, old, new):
    content = file.read_bytes()
    assert old in content
    file.write_bytes(content.replace(old, new, 1))


@pytest.mark.parametrize("name", READ)
def test_a_changed_byte_is_told(run, name):
    """One that leaves the file whole by every other measure: a digit of a weight, a letter in a name."""
    file = run / name
    READ[name](run)
    if name.endswith(".json"):
        replace(file, *((b'"6"', b'"7"') if name == "classes.json" else (b'"python"', b'"pythoM"')))
    else:
        content = bytearray(file.read_bytes())
        content[-5] ^= 1
        file.write_bytes(content)
    with pytest.raises(DataError, match=f"{name} is (not as the run wrote it|damaged)"):
        READ[name](run)


def test_samples_that_a_person_edited_are_read_and_told(run):
    assert samples_changed(run) is None
    replace(run / "samples.csv", b"\n0,", b"\n0,x")
    assert "is not as the run wrote it" in samples_changed(run)
    done = command("report.__main__", run)
    assert done.code == 0 and "samples.csv is not as the run wrote it" in " ".join(done.text.split())


@pytest.mark.parametrize("text", ["", "junk", "0" * 64 + "  model.safetensors\n"])
def test_a_damaged_list_is_told(run, text):
    (run / SUMS).write_text(text)
    with pytest.raises(DataError, match="SHA256SUMS is damaged"):
        read_results(run)


def test_a_run_of_an_earlier_version_has_no_list(run):
    (run / SUMS).unlink()
    for read in READ.values():
        read(run)


def test_the_form_is_that_of_sha256sum(run):
    done = subprocess.run(["sha256sum", "--check", SUMS], cwd=run, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.splitlines() == [
        f"{name}: OK" for name in (*LISTED, "samples.csv")
    ]
