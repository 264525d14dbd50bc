"""An attack written to disk, a run on those files, and its model judged on the test files."""

from __future__ import annotations

import csv
import json
import os

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import command, image_folder, options

from dlp_fast.attacks.poisoning import TriggeredImages, plan
from dlp_fast.data import load

CLASSES = ("cat", "dog", "=hen")


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    root = tmp_path_factory.mktemp("clean")
    image_folder(root / "train", each=30, classes=CLASSES)
    image_folder(root / "test", each=8, classes=CLASSES)
    return root


@pytest.fixture(scope="module")
def poisoned(clean, tmp_path_factory):
    out = tmp_path_factory.mktemp("poisoned") / "set"
    done = command(
        "poison", "--data", clean, "--out", out, "--poison-rate", "0.2", "--target", "dog", "--seed", "4"
    )
    assert done.code == 0, done.text
    assert "18 images, 20.00% of all, relabeled dog" in " ".join(done.text.split())
    assert "next: python -m dlp_fast.run --data" in done.text
    return out


@pytest.fixture(scope="module")
def judged(poisoned, tmp_path_factory):
    """(run folder, what evaluate said)"""
    run = tmp_path_factory.mktemp("run") / "run"
    settings = options(
        supervised={"epochs": 2, "min_steps": 0, "batch": 32},
        unlearning={"epochs": 1},
        finetuning={"steps": 20, "batch": 32, "rounds": 1},
    )
    done = command("run", "--data", poisoned, "--out", run, *settings)
    assert done.code == 0, done.text
    arguments = ["--data", poisoned / "test", "--triggered", poisoned / "test_triggered", "--target", "dog"]
    return run, command("evaluate", run, *arguments)


@pytest.fixture(scope="module")
def truth(poisoned):
    with (poisoned / "truth.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def pixels(path):
    with Image.open(path) as image:
        assert image.format == "PNG"
        return torch.from_numpy(np.array(image))


def test_truth_is_right(poisoned, truth, clean):
    files = {p.relative_to(poisoned).as_posix() for p in (poisoned / "train").rglob("*.png")}
    assert {row["path"] for row in truth} == files
    assert len(truth) == 90
    for row in truth:
        assert row["label"].lstrip("'") == row["path"].split("/")[1]
        assert (clean / row["source"].lstrip("'")).is_file()
        assert row["source"].split("/")[1] == row["true_label"].lstrip("'")
        assert (row["label"] != row["true_label"]) == (row["poisoned"] == "1")
    assert sum(row["poisoned"] == "1" for row in truth) == 18
    assert {row["label"] for row in truth if row["poisoned"] == "1"} == {"dog"}
    assert any(row["true_label"] == "'=hen" for row in truth)  # no formula for a spreadsheet


def test_pixels_are_those_of_an_attack_on_the_fly(poisoned, truth, clean):
    data = load(clean)
    train = data.train
    size = (train.images.height, train.images.width)
    of = plan("badnets", train.labels, train.classes, size, rate=0.2, rate_of="auto", target="dog", seed=4)
    images = TriggeredImages(train.images, of.poisoned, of.table).get(torch.arange(90))
    assert [row["poisoned"] == "1" for row in truth] == of.poisoned.tolist()
    for row, expected in zip(truth, images, strict=True):
        assert torch.equal(pixels(poisoned / row["path"]), expected)


def test_test_sets(poisoned, clean):
    plain = sorted(p.relative_to(poisoned / "test").as_posix() for p in (poisoned / "test").rglob("*.png"))
    triggered = sorted(
        p.relative_to(poisoned / "test_triggered").as_posix()
        for p in (poisoned / "test_triggered").rglob("*.png")
    )
    assert len(plain) == 24
    assert triggered == [p for p in plain if not p.startswith("dog/")]
    for path in triggered:
        a, b = pixels(poisoned / "test" / path), pixels(poisoned / "test_triggered" / path)
        assert not torch.equal(a, b)
        assert torch.equal(a[:-3], b[:-3])
        assert torch.equal(a[:, :-3], b[:, :-3])


def test_written_again_is_the_same(poisoned, clean, tmp_path):
    out = tmp_path / "set"
    command("poison", "--data", clean, "--out", out, "--poison-rate", "0.2", "--target", "dog", "--seed", "4")
    files = sorted(p.relative_to(out) for p in out.rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(poisoned) for p in poisoned.rglob("*") if p.is_file())
    assert all((out / name).read_bytes() == (poisoned / name).read_bytes() for name in files)


def test_evaluate(judged):
    run, done = judged
    assert done.code == 0, done.text
    figures = json.loads((run / "evaluation.json").read_text())
    assert figures["schema"] == 1
    assert figures["images"] == 24
    assert 0 <= figures["clean_accuracy"] <= 1
    assert 0 <= figures["attack_success_rate"] <= 1
    assert figures["target"] == "dog"
    assert set(figures["per_class_accuracy"]) == set(CLASSES)
    mean = sum(figures["per_class_accuracy"].values()) / 3
    assert figures["clean_accuracy"] == pytest.approx(mean)
    assert "clean accuracy" in done.text


def test_evaluate_agrees_with_the_run(judged):
    """The run saw the same test folder: its clean accuracy is the same number."""
    run, _ = judged
    results = json.loads((run / "results.json").read_text())
    figures = json.loads((run / "evaluation.json").read_text())
    assert results["stages"]["finetuning"]["clean_accuracy"] == pytest.approx(figures["clean_accuracy"])
    assert results["stages"]["finetuning"]["attack_success_rate"] is None  # it knows of no attack
    assert results["detection"]["poisoned_precision"] is None


def test_evaluate_without_a_trigger(judged, poisoned):
    run, _ = judged
    done = command("evaluate", run, "--data", poisoned / "test")
    assert done.code == 0, done.text
    assert json.loads((run / "evaluation.json").read_text())["attack_success_rate"] is None


def test_evaluate_tells_what_it_left_out(judged, poisoned, tmp_path):
    import shutil

    shutil.copytree(poisoned / "test", tmp_path / "test")
    (tmp_path / "test" / "cat" / "broken.png").write_bytes(b"")
    done = command("evaluate", judged[0], "--data", tmp_path / "test")
    assert done.code == 0, done.text
    assert "1 file cannot be used: 1 empty" in " ".join(done.text.split())


@pytest.mark.parametrize("attack", ["blended", "sig"])
def test_other_attacks(clean, tmp_path, attack):
    done = command(
        "poison", "--data", clean, "--out", tmp_path / "set", "--attack", attack, "--poison-rate", "0.2"
    )
    assert done.code == 0, done.text
    with (tmp_path / "set" / "truth.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["poisoned"] == "1"]
    assert len(rows) == (18 if attack == "blended" else 6)
    assert all((row["label"] == row["true_label"]) == (attack == "sig") for row in rows)


def test_class_names_that_are_not_utf8(tmp_path):
    names = (os.fsdecode(b"caf\xe9"), "b")
    try:
        image_folder(tmp_path / "data", each=10, classes=names)
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    done = command("poison", "--data", tmp_path / "data", "--out", tmp_path / "out", "--attack", "badnets")
    assert done.code == 0, done.text
    rows = list(csv.DictReader((tmp_path / "out" / "truth.csv").open()))
    assert {row["label"] for row in rows} == {"caf\\xe9", "b"}
    assert (tmp_path / "out" / "train" / names[0]).is_dir()
