"""What a run found, for other tools."""

from __future__ import annotations

import csv
import json
import os
import shutil
from types import SimpleNamespace

import numpy as np
import PIL.Image
import pytest
import torch
import torchvision
from safetensors import safe_open
from safetensors.torch import load_file
from tiny import command, image_folder, options

import dlp_fast
from dlp_fast.commands.exported import Originals
from dlp_fast.errors import DataError
from dlp_fast.models.classifier import Classifier
from dlp_fast.models.registry import build_model, difference_from_torchvision


@pytest.fixture(scope="module")
def folder_run(tmp_path_factory):
    """(image folder, run on it)"""
    root = tmp_path_factory.mktemp("export")
    data = image_folder(root / "data", each=40)
    done = command("run", "--data", data, "--out", root / "run", *options())
    assert done.code == 0, done.text
    return data, root / "run"


def rows_of(file):
    with file.open(newline="") as text:
        return list(csv.DictReader(text))


def export(run, form, out, *more):
    done = command("export", run, "--format", form, "--out", out, *more)
    assert done.code == 0, done.text
    assert str(out) in done.text.replace("\n", "")
    return out


def suspects(run):
    return {r["path"] for r in rows_of(run / "samples.csv") if r["decision"] == "suspected_poisoned"}


def test_csv(folder_run, tmp_path):
    out = export(folder_run[1], "csv", tmp_path / "out")
    kept, suspected = rows_of(out / "kept.csv"), rows_of(out / "suspected.csv")
    assert {r["path"] for r in suspected} == suspects(folder_run[1])
    assert len(kept) + len(suspected) == 80


@pytest.mark.parametrize("copies", [False, True])
def test_imagefolder(folder_run, tmp_path, copies):
    data, run = folder_run
    before = {p: p.stat().st_mtime_ns for p in data.rglob("*.png")}
    out = export(run, "imagefolder", tmp_path / "out", *["--copies"] * copies)
    listed = rows_of(out / "images.csv")
    assert len(listed) == 80 - len(suspects(run)) > 0
    for row in listed:
        ours, theirs = out / row["file"], data / row["path"]
        assert ours.read_bytes() == theirs.read_bytes()
        assert ours.parent.name == row["label"] == theirs.parent.name
        assert os.path.samefile(ours, theirs) != copies
    assert {p: p.stat().st_mtime_ns for p in data.rglob("*.png")} == before
    again = dlp_fast.data.load(out / "images")
    assert len(again.train) == len(listed)


def test_imagefolder_of_what_is_no_folder(tiny_run, tmp_path):
    """The digits with their triggers, as the run saw them."""
    out = export(tiny_run[0], "imagefolder", tmp_path / "out")
    listed = rows_of(out / "images.csv")
    assert len(list((out / "images").rglob("*.png"))) == len(listed)
    assert not {r["path"] for r in listed} & suspects(tiny_run[0])


def test_fiftyone(folder_run, tmp_path):
    out = export(folder_run[1], "fiftyone", tmp_path / "out")
    labels = json.loads((out / "labels.json").read_text())
    assert labels["classes"] == ["cat", "dog"]
    assert {p.stem for p in (out / "data").iterdir()} == set(labels["labels"])
    flagged = {
        of["attributes"]["path"]
        for of in labels["labels"].values()
        if of["attributes"]["decision"] == "suspected_poisoned"
    }
    assert flagged == suspects(folder_run[1])


def test_cleanlab(folder_run, tmp_path):
    out = export(folder_run[1], "cleanlab", tmp_path / "out")
    rows = rows_of(out / "label_issues.csv")
    assert {r["path"] for r in rows if r["is_label_issue"] == "True"} == suspects(folder_run[1])
    model = dlp_fast.load(folder_run[1])
    images = dlp_fast.data.load(folder_run[0]).train.images.get(torch.arange(80))
    said = model.predict(images)
    labels = [model.classes.index(r["given_label"]) for r in rows]
    expected = said[torch.arange(80), labels]
    assert [float(r["label_quality"]) for r in rows] == pytest.approx(expected.tolist(), abs=1e-4)
    assert [r["predicted_label"] for r in rows] == [model.classes[int(c)] for c in said.argmax(1)]


def test_onnx(folder_run, tmp_path):
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    out = export(folder_run[1], "onnx", tmp_path / "out")
    images = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)
    session = runtime.InferenceSession(str(out / "model.onnx"), providers=["CPUExecutionProvider"])
    (theirs,) = session.run(None, {"images": images})
    ours = dlp_fast.load(out).predict(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(theirs, ours, atol=1e-5)
    assert "Attack success rate" not in (out / "README.md").read_text().split("\n")[0]
    assert "cannot be excluded" in (out / "README.md").read_text()


@pytest.mark.slow
def test_onnx_that_resizes(folder_run, tmp_path):
    """Pictures of any size; probabilities as ours, whose pixels differ by at most one level of 255."""
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    out = export(folder_run[1], "onnx", tmp_path / "out", "--resize", "--opset", "18")
    assert "opset 18" in (out / "README.md").read_text()
    session = runtime.InferenceSession(str(out / "model.onnx"), providers=["CPUExecutionProvider"])
    model = dlp_fast.load(out)
    for n, height, width in ((1, 16, 16), (3, 50, 31), (2, 9, 200)):
        images = np.random.default_rng(n).integers(0, 256, (n, height, width, 3), dtype=np.uint8)
        (theirs,) = session.run(None, {"images": images})
        np.testing.assert_allclose(theirs, model.predict(images).numpy(), atol=0.02)


def run_of(name, size, tiny_run, tmp_path):
    """A run folder whose model is the network `name` for images of `size` pixels, and the model."""
    net = build_model(name, 10, size, seed=1)
    model = Classifier(
        net, name, tuple("0123456789"), (size, size), torch.full((3,), 0.5), torch.full((3,), 0.25)
    ).eval()
    run = tmp_path / "run"
    shutil.copytree(tiny_run[0], run, ignore=shutil.ignore_patterns("checkpoints", "SHA256SUMS"))
    model.save(run)
    return run, model


@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1"])
def test_torchvision(tiny_run, tmp_path, name):
    """Loaded by torchvision's own names, strictly, as the card says; the same logits."""
    run, model = run_of(f"torchvision:{name}", 112, tiny_run, tmp_path)
    out = export(run, "torchvision", tmp_path / "out")
    net = torchvision.models.get_model(name, weights=None, num_classes=10)
    net.load_state_dict(load_file(out / "weights.safetensors"), strict=True)
    with safe_open(out / "weights.safetensors", "pt") as file:
        facts = file.metadata()
    assert json.loads(facts["classes"]) == list("0123456789") and json.loads(facts["size"]) == [112, 112]
    mean, std = (torch.tensor(json.loads(facts[key])) for key in ("mean", "std"))
    images = torch.randint(0, 256, (2, 112, 112, 3), dtype=torch.uint8)
    x = ((images / 255 - mean) / std).permute(0, 3, 1, 2)
    with torch.no_grad():
        torch.testing.assert_close(net.eval()(x), model(images), rtol=1e-3, atol=1e-4)
    card = (out / "README.md").read_text()
    assert f'get_model("{name}", weights=None, num_classes=10)' in card and "mean [0.5, 0.5, 0.5]" in card


@pytest.mark.parametrize(
    ("name", "size", "how"),
    [
        ("torchvision:resnet18", 32, "first convolution is 3 x 3 with stride 1"),
        ("wrn-10-1", 16, "not one of torchvision's networks"),
    ],
)
def test_torchvision_refused(tiny_run, tmp_path, name, size, how):
    run, _ = run_of(name, size, tiny_run, tmp_path)
    done = command("export", run, "--format", "torchvision", "--out", tmp_path / "out")
    assert done.code == 2 and how in " ".join(done.text.split())
    assert not (tmp_path / "out").exists()


def test_every_stem_that_differs_is_told():
    """What the network itself says: other shapes or strides than torchvision's of the same name."""
    for name in ("resnet18", "densenet121", "mobilenet_v2", "vgg11", "squeezenet1_1"):
        ours = build_model(f"torchvision:{name}", 10, 64, seed=0)
        theirs = torchvision.models.get_model(name, weights=None, num_classes=10)
        same = repr(ours) == repr(theirs)
        assert (difference_from_torchvision(f"torchvision:{name}", 64) is None) == same, name
        assert difference_from_torchvision(f"torchvision:{name}", 112) is None


def test_options_of_another_format(folder_run, tmp_path):
    done = command("export", folder_run[1], "--format", "csv", "--resize", "--out", tmp_path / "out")
    assert done.code == 2 and "--resize and --opset are of --format onnx" in done.text


@pytest.mark.parametrize("form", ["onnx", "torchvision"])
def test_a_model_needs_no_table_of_images(folder_run, tmp_path, monkeypatch, form):
    """A damaged one does not keep a sound model back."""
    run = tmp_path / "run"
    shutil.copytree(folder_run[1], run, ignore=shutil.ignore_patterns("checkpoints", "samples.parquet"))
    (run / "samples.csv").write_text("of no use")
    monkeypatch.setattr(f"dlp_fast.commands.exported.as_{form}", lambda *_, **__: "a model")
    done = command("export", run, "--format", form, "--out", tmp_path / "model")
    assert done.code == 0 and "a model" in done.text and "not as the run wrote it" not in done.text
    refused = command("export", run, "--format", "csv", "--out", tmp_path / "lists")
    assert refused.code == 3 and "damaged" in refused.text and not (tmp_path / "lists").exists()


def test_suffixes_are_of_what_is_in_the_files(tmp_path):
    def placed(form):
        source = tmp_path / "0.png"
        PIL.Image.new("RGB", (16, 16)).save(source, form)
        train = SimpleNamespace(paths=[source.name])
        of = SimpleNamespace(root=tmp_path, dataset=SimpleNamespace(train=train), copies=True)
        return Originals.place(of, 0, tmp_path / "out" / form).suffix

    assert placed("JPEG") == ".jpg" and placed("JPEG2000") == ".jp2" and placed("GIF") == ".gif"
    with pytest.raises(DataError, match="cannot be opened any more"):
        placed("PCX")  # Pillow has a decoder for it, which a run hands no file to


def edited(run, tmp_path, change):
    """A copy of `run` whose samples.csv went through `change` (rows -> rows), with a column override."""
    copy = tmp_path / "edited"
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("checkpoints"))
    rows = change([{**row, "override": ""} for row in rows_of(copy / "samples.csv")])
    with (copy / "samples.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return copy


def test_a_persons_words_count(folder_run, tmp_path):
    def change(rows):
        suspect = next(r for r in rows if r["decision"] == "suspected_poisoned")
        others = [r for r in rows if r["decision"] == "undecided"][:2]
        suspect["override"], others[0]["override"], others[1]["override"] = "keep", "suspect", "drop"
        change.words = {r["path"]: r["override"] for r in (suspect, *others)}
        return rows

    out = export(edited(folder_run[1], tmp_path, change), "csv", tmp_path / "out")
    kept = {r["path"] for r in rows_of(out / "kept.csv")}
    assert {p: p in kept for p in change.words} == {p: w == "keep" for p, w in change.words.items()}


def test_rows_in_another_order(folder_run, tmp_path):
    """As a spreadsheet leaves them, sorted by rank: every figure still belongs to its image."""
    run = edited(folder_run[1], tmp_path, lambda rows: sorted(rows, key=lambda r: int(r["rank"])))
    ours = rows_of(export(run, "cleanlab", tmp_path / "a") / "label_issues.csv")
    theirs = rows_of(export(folder_run[1], "cleanlab", tmp_path / "b") / "label_issues.csv")
    assert ours == theirs


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[:-1] + [{**rows[-1], "override": "Dropp"}], "override 'dropp' is unknown"),
        (lambda rows: rows[1:], "ids are missing or doubled"),
        (lambda rows: [*rows, rows[0]], "ids are missing or doubled"),
    ],
)
def test_an_edited_list_that_cannot_be_used(folder_run, tmp_path, change, message):
    done = command(
        "export", edited(folder_run[1], tmp_path, change), "--format", "csv", "--out", tmp_path / "out"
    )
    assert done.code == 3
    assert message in " ".join(done.text.split())


def test_names_that_strangers_chose(tmp_path, monkeypatch):
    """Classes that differ by an apostrophe, suffixes that are none, a data folder called like the embedded set, and
    an export into the folder that one stands in.
    """
    monkeypatch.chdir(tmp_path)
    data = image_folder(tmp_path / "digits", each=12, classes=("=a", "'=a", "b"))
    hostile = data / "b" / ("x.<b>" + "y" * 200)
    (data / "b" / "000.png").rename(hostile)
    assert command("run", "--data", "./digits", "--out", "run", *options(attack="none")).code == 0
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path / "out")
    done = command("export", "../run", "--format", "imagefolder", "--data", "../digits", "--out", ".")
    assert done.code == 0, done.text
    listed = rows_of(tmp_path / "out" / "images.csv")
    assert {r["label"] for r in listed} == {"'=a", "''=a", "b"}
    for row in listed:
        assert row["file"].endswith(".png")
        assert row["file"].split("/")[1] == data.joinpath(row["path"].removeprefix("'")).parent.name


def test_parquet_is_typed(tiny_run):
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(tiny_run[0] / "samples.parquet")
    kinds = {name: str(table.schema.field(name).type) for name in table.column_names}
    assert kinds["sample_id"] == kinds["rank"] == "int64"
    assert kinds["score"] == kinds["entropy"] == "double"
    assert kinds["path"] == kinds["label"] == kinds["decision"] == "string"


class TestRefused:
    def test_a_full_folder(self, tiny_run, tmp_path):
        (tmp_path / "mine.txt").write_text("mine")
        done = command("export", tiny_run[0], "--format", "csv", "--out", tmp_path)
        assert done.code == 2
        assert "nothing is overwritten" in " ".join(done.text.split())
        assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]

    def test_contents_that_changed_under_the_same_name(self, folder_run, tmp_path):
        data = shutil.copytree(folder_run[0], tmp_path / "data")
        shutil.copy2(data / "cat" / "001.png", data / "cat" / "000.png")
        done = command(
            "export", folder_run[1], "--format", "fiftyone", "--data", data, "--out", tmp_path / "out"
        )
        assert done.code == 3
        assert "is not the one of the run" in " ".join(done.text.split())

    def test_no_run(self, tmp_path):
        done = command("export", tmp_path / "none", "--format", "csv", "--out", tmp_path / "out")
        assert done.code == 3
        assert not (tmp_path / "out").exists()

    def test_images_in_memory(self, tmp_path):
        from tiny import CONFIG, threads_kept

        images = torch.randint(0, 256, (80, 16, 16, 3), dtype=torch.uint8)
        with threads_kept():
            dlp_fast.defend(images, torch.arange(80) % 2, out=tmp_path / "run", quiet=True, **CONFIG)
        done = command("export", tmp_path / "run", "--format", "imagefolder", "--out", tmp_path / "out")
        assert done.code == 3
        assert "given in memory" in " ".join(done.text.split())

    def test_a_folder_that_changed(self, tmp_path):
        data = image_folder(tmp_path / "data", each=30)
        assert command("run", "--data", data, "--out", tmp_path / "run", *options()).code == 0
        (data / "cat" / "000.png").unlink()
        done = command("export", tmp_path / "run", "--format", "imagefolder", "--out", tmp_path / "out")
        assert done.code == 3
        assert "is not the one of the run" in " ".join(done.text.split())
        assert not (tmp_path / "out").exists()
