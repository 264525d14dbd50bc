"""Run folders that are damaged, edited or of another version: a message and exit code 3, never a traceback."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import command, options

from dlp_fast.errors import DataError
from dlp_fast.runs.reader import read_quarantine, read_results
from dlp_fast.runs.schema import SCHEMA


@pytest.fixture
def run(tiny_run, tmp_path):
    return shutil.copytree(tiny_run[0], tmp_path / "run")


def change_results(run, change):
    file = run / "results.json"
    results = json.loads(file.read_text())
    change(results)
    file.write_text(json.dumps(results))


def change_tensors(run, name, change):
    tensors = load_file(run / name)
    change(tensors)
    save_file({k: v.contiguous() for k, v in tensors.items()}, run / name)


def replace_in(run, name, old, new):
    file = run / name
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


DAMAGE = {
    "results cut off": lambda run: (run / "results.json").write_text('{"schema": 2, '),
    "results a list": lambda run: (run / "results.json").write_text("[]"),
    "another version": lambda run: change_results(run, lambda r: r.update(schema=99)),
    "no stages": lambda run: change_results(run, lambda r: r.pop("stages")),
    "no verdict": lambda run: change_results(run, lambda r: r.pop("verdict")),
    "seconds a word": lambda run: change_results(
        run, lambda r: r["stages"]["supervised"].update(seconds="x")
    ),
    "no environment": lambda run: change_results(run, lambda r: r.pop("environment")),
    "no samples": lambda run: (run / "samples.csv").unlink(),
    "samples empty": lambda run: (run / "samples.csv").write_text(""),
    "rank no number": lambda run: replace_in(run, "samples.csv", ",undecided", ".5,undecided"),
    "unknown decision": lambda run: replace_in(run, "samples.csv", "undecided", "undecidable"),
    "no column": lambda run: replace_in(run, "samples.csv", "entropy", "entropie"),
}
REPORT_ONLY = {
    "no classes": lambda run: (run / "classes.json").unlink(),
    "classes no list": lambda run: (run / "classes.json").write_text('{"classes": 3}'),
    "no exhibits": lambda run: (run / "exhibits.safetensors").unlink(),
    "exhibits junk": lambda run: (run / "exhibits.safetensors").write_bytes(b"junk"),
    "exhibits of another run": lambda run: change_tensors(
        run, "exhibits.safetensors", lambda t: t["ids"].add_(10**6)
    ),
    "metrics junk": lambda run: (run / "metrics.jsonl").write_text("junk\n"),
}
CLEANLAB_ONLY = {
    "no predictions": lambda run: (run / "predictions.safetensors").unlink(),
    "predictions junk": lambda run: (run / "predictions.safetensors").write_bytes(b"junk"),
    "unknown class": lambda run: change_tensors(
        run, "predictions.safetensors", lambda t: t["prediction"].fill_(99)
    ),
    "too few": lambda run: change_tensors(
        run, "predictions.safetensors", lambda t: t.update(prediction=torch.zeros(3, dtype=torch.int64))
    ),
}


@pytest.mark.parametrize("name", [*DAMAGE, *REPORT_ONLY])
def test_report(run, name):
    (DAMAGE | REPORT_ONLY)[name](run)
    before = (run / "report.html").read_bytes()
    done = command("report.__main__", run)
    assert done.code == 3, done.text
    assert done.text.startswith("error: ")
    assert "Traceback" not in done.text
    assert (run / "report.html").read_bytes() == before


@pytest.mark.parametrize("name", [*DAMAGE, *CLEANLAB_ONLY])
def test_export(run, tmp_path, name):
    (DAMAGE | CLEANLAB_ONLY)[name](run)
    done = command("export", run, "--format", "cleanlab", "--out", tmp_path / "out")
    assert done.code == 3, done.text
    assert not (tmp_path / "out").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run"]


def test_a_run_that_is_given_again(run):
    (run / "results.json").write_text("{")
    done = command("run", "--out", run, *options(attack="badnets"))
    assert done.code == 3
    assert "results.json" in done.text


@pytest.mark.parametrize("name", ["report.__main__", "export", "run"])
def test_a_run_of_an_older_version(run, tmp_path, name):
    """Schema 1 had other names: one sentence says which version is needed, and not which key is missing."""

    def as_schema_1(results):
        results["schema"] = 1
        results["filter"], results["late"] = results.pop("detection"), results.pop("stage3_detections")
        results["raised_odds"] = results.pop("logit_adjustment")

    change_results(run, as_schema_1)
    arguments = {
        "report.__main__": [run],
        "export": [run, "--format", "csv", "--out", tmp_path / "out"],
        "run": ["--out", run, *options(attack="badnets")],
    }
    before = (run / "results.json").read_bytes()
    done = command(name, *arguments[name])
    assert done.code == 3
    *begun, line = done.text.strip().splitlines()
    assert len(begun) == (name == "run")  # which says what it begins with
    assert line == (
        f"error: {run / 'results.json'} is of another version of dlp_fast (schema 1, this one reads 2): read it with "
        "the version that wrote it, or run again into another folder."
    )
    assert (run / "results.json").read_bytes() == before


def test_whole(run):
    assert read_results(run)["schema"] == SCHEMA == 2


def test_a_quarantine_list_in_another_code(tmp_path):
    (tmp_path / "quarantine.csv").write_bytes(b"path,reason,detail\ncaf\xe9.png,empty\n")
    assert read_quarantine(tmp_path) == [{"path": "caf\\xe9.png", "reason": "empty", "detail": ""}]
    assert read_quarantine(tmp_path / "none") == []


def test_results_name_what_is_missing(run):
    change_results(run, lambda r: r["detection"].pop("suspected_clean"))
    with pytest.raises(DataError, match=r"detection\.suspected_clean"):
        read_results(run)
