"""dlp_fast.predict and dlp_fast.scan_new on folders, and what load() and Result say of themselves."""

from __future__ import annotations

import csv
import json
import shutil
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import CONFIG, command, image_folder, options, picture

import dlp_fast
from dlp_fast.commands import predict
from dlp_fast.errors import ResourceError
from dlp_fast.models.classifier import NotACleanModel


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Files of two classes, a bad one, a hidden one; sizes differ from the run's."""
    root = tmp_path_factory.mktemp("new") / "pictures"
    image_folder(root, each=3, side=24)
    (root / "dog" / "broken.png").write_bytes(b"no picture")
    (root / ".hidden.png").write_bytes(b"")
    picture(30, 9).save(root / "loose.jpg")
    return root


def rows_of(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


class TestPredict:
    def test_a_folder_and_a_file(self, tiny_run, pictures, tmp_path):
        run, out = tiny_run[0], tmp_path / "x.csv"
        done = command("predict", run, "--data", pictures, pictures / "loose.jpg", "--out", out)
        assert done.code == 0, done.text
        rows = {row["path"]: row for row in rows_of(out)}
        assert len(rows) == 8  # the loose file once
        bad = rows.pop(str(pictures / "dog" / "broken.png"))
        assert bad["class"] == bad["probability"] == "" and bad["problem"].startswith("not_an_image")
        assert "1 file could not be used (1 not_an_image)" in done.text
        model = dlp_fast.load(run)
        odds = model.predict(list(rows))
        for row, one in zip(rows.values(), odds, strict=True):
            best = one.topk(5)
            told = [row["class"], *(row[f"class_{k}"] for k in range(2, 6))]
            assert told == [model.classes[i] for i in best.indices]
            assert float(row["probability"]) == pytest.approx(float(best.values[0]), abs=1e-4)
            assert row["problem"] == ""
        assert not (tmp_path / "x.csv.part").exists()

    def test_an_archive_and_a_table(self, tiny_run, pictures, tmp_path, monkeypatch):
        monkeypatch.setenv("DLP_FAST_CACHE", str(tmp_path / "cache"))
        packed = shutil.make_archive(str(tmp_path / "new"), "zip", pictures)
        (pictures / "list.csv").write_text("image_id\ndog/000\nloose.jpg\ncat/1.png\n")
        out = tmp_path / "x.csv"
        try:
            table = pictures / "list.csv"
            done = command("predict", tiny_run[0], "--data", packed, table, "--out", out)
        finally:
            (pictures / "list.csv").unlink()
        assert done.code == 0, done.text
        rows = {row["path"]: row for row in rows_of(out)}
        first = sorted(one for one in rows if one.startswith(packed))[0]
        assert rows[first]["class"] and not rows[first]["problem"] and first.startswith(f"{packed}/cat/")
        for name in ("loose.jpg", "dog/000.png"):
            assert rows[str(pictures / name)]["class"]

    def test_goes_on_where_it_was_killed(self, tiny_run, pictures, tmp_path, monkeypatch):
        run, out = tiny_run[0], tmp_path / "x.csv"
        words = ("predict", run, "--data", pictures, "--out", out)
        done, real = [], predict.predicted

        def killed(model, paths, options):
            if len(done) == 2:
                raise RuntimeError("killed")
            done.append(paths)
            return real(model, paths, options)

        monkeypatch.setattr(predict, "CHUNK", 3)
        monkeypatch.setattr(predict, "predicted", killed)
        with pytest.raises(RuntimeError, match="killed"):
            command(*words)
        assert not out.exists()
        with (tmp_path / "x.csv.part").open("ab") as file:
            file.write(b'["half a li')
        seen = []
        monkeypatch.setattr(predict, "predicted", lambda *of: seen.append(of[1]) or real(*of))
        again = command(*words)
        assert again.code == 0, again.text
        assert "6 of 8 files were done before" in again.text
        assert [len(paths) for paths in seen] == [2]
        assert len(rows_of(out)) == 8

    def test_answers_of_another_model_are_refused(self, tiny_run, pictures, tmp_path):
        (tmp_path / "x.csv.part").write_text(json.dumps({"dlp_fast": 1, "model": "other"}) + "\n")
        done = command("predict", tiny_run[0], "--data", pictures, "--out", tmp_path / "x.csv")
        assert done.code == 2 and "begun by another model" in done.text

    def test_what_cannot_be(self, tiny_run, pictures, tmp_path):
        run, out = tiny_run[0], tmp_path / "x.csv"
        done = command("predict", run, "--data", tmp_path / "nowhere", "--out", out)
        assert done.code == 3 and "no such file or folder" in done.text
        done = command("predict", run, "--data", "https://host/a.png", "--out", out)
        assert done.code == 2 and "https://host/a.png is an address" in done.text
        out.write_text("mine")
        done = command("predict", run, "--data", pictures, "--out", out)
        assert done.code == 2 and "nothing is overwritten" in done.text and out.read_text() == "mine"


class TestScanNew:
    def test_every_image_and_the_worst_first(self, tiny_run, tmp_path):
        run, out = tiny_run[0], tmp_path / "new.csv"
        data = image_folder(tmp_path / "data", each=3, classes=("0", "7"))
        (data / "7" / "bad.png").write_bytes(b"")
        done = command("scan_new", run, "--data", data, "--out", out)
        assert done.code == 0, done.text
        rows = rows_of(out)
        assert len(rows) == 6
        assert {row["label"] for row in rows} == {"0", "7"}
        looks = [int(row["look"]) for row in rows]
        assert looks == sorted(looks, reverse=True)
        assert all(bool(row["reason"]) == (row["look"] == "1") for row in rows)
        assert "what this cannot say" in done.text
        assert rows_of(tmp_path / "new.quarantine.csv")[0]["path"] == "7/bad.png"
        model = dlp_fast.load(run)
        for row in rows:
            odds = model.predict(data / row["path"])[0]
            assert row["clean_model"] == model.classes[int(odds.argmax())]
            assert float(row["label_probability"]) == pytest.approx(
                float(odds[model.classes.index(row["label"])]), abs=1e-4
            )

    def test_a_copy_of_a_suspect(self, tmp_path):
        data = image_folder(tmp_path / "data", each=40)
        assert command("run", "--data", data, "--out", tmp_path / "run", *options()).code == 0
        with (tmp_path / "run" / "samples.csv").open(newline="") as file:
            suspects = [r["path"] for r in csv.DictReader(file) if r["decision"] == "suspected_poisoned"]
        assert suspects
        new = image_folder(tmp_path / "new", each=2, side=15)
        shutil.copy(data / suspects[0], new / "dog" / "again.png")
        done = command("scan_new", tmp_path / "run", "--data", new, "--out", tmp_path / "new.csv")
        assert done.code == 0, done.text
        first = rows_of(tmp_path / "new.csv")[0]
        assert (first["path"], first["reason"], first["score"]) == ("dog/again.png", "copy of a suspect", "1")

    def test_without_checkpoints(self, tiny_run, tmp_path):
        run = tmp_path / "run"
        shutil.copytree(tiny_run[0], run, ignore=shutil.ignore_patterns("checkpoints"))
        data = image_folder(tmp_path / "data", each=2, classes=("0", "7"))
        done = command("scan_new", run, "--data", data, "--out", tmp_path / "new.csv")
        assert done.code == 3 and "no network of stage 1" in done.text

    def test_a_class_that_the_run_does_not_have(self, tiny_run, tmp_path):
        data = image_folder(tmp_path / "data", each=2, classes=("0", "cat"))
        done = command("scan_new", tiny_run[0], "--data", data, "--out", tmp_path / "new.csv")
        assert done.code == 3 and "class cat is not among the 10 classes" in done.text


@pytest.fixture(scope="module")
def scanned(tmp_path_factory):
    """A run without stage 3, and its result."""
    rng = np.random.default_rng(0)
    labels = np.arange(80) % 2
    images = (rng.integers(0, 60, (80, 12, 12, 3)) + 90 * labels[:, None, None, None]).astype(np.uint8)
    out = tmp_path_factory.mktemp("scan") / "run"
    over = {**CONFIG, "supervised": {"epochs": 2, "min_steps": 0, "batch": 32}}
    return out, dlp_fast.defend(images, labels, out=out, preset="scan", quiet=True, **over)


class TestNeverMisnamed:
    def test_a_run_without_stage_3(self, scanned, tmp_path):
        out, result = scanned
        assert result.model.holds == "after_unlearning"
        assert result.results["model"]["holds"] == "after_unlearning"
        assert json.loads((out / "classes.json").read_text())["holds"] == "after_unlearning"
        assert "the clean model" not in repr(result)
        with pytest.warns(NotACleanModel, match="this is not a clean model"):
            model = dlp_fast.load(out)
        assert "the network after unlearning" in repr(model)
        path = tmp_path / "a.png"
        picture(16).save(path)
        done = command("predict", out, "--data", path, "--out", tmp_path / "x.csv")
        assert done.code == 0 and "not a clean model" in done.text
        assert "the clean model" not in done.text
        data = image_folder(tmp_path / "data", classes=("0", "1"), each=2)
        done = command("evaluate", out, "--data", data)
        assert done.code == 0 and "not a clean model" in done.text
        done = command("scan_new", out, "--data", data, "--out", tmp_path / "new.csv")
        assert done.code == 3 and "no clean model to compare with" in done.text
        done = command("export", out, "--format", "cleanlab", "--out", tmp_path / "lab")
        assert done.code == 0 and "not a clean model" in done.text

    def test_a_clean_model(self, tiny_run):
        run, done = tiny_run
        assert "model.safetensors   the clean model" in done.text
        assert "not a clean model" not in done.text
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            model = dlp_fast.load(run / "model.safetensors")
        assert model.holds == "clean_model"
        assert repr(model).startswith("Classifier(wrn-10-1, 10 classes, 16 x 16 px")
        assert len(repr(model)) < 120

    def test_a_run_of_an_earlier_version(self, scanned, tmp_path):
        """Without the key in classes.json and results.json."""
        run = tmp_path / "run"
        shutil.copytree(
            scanned[0], run, ignore=shutil.ignore_patterns("SHA256SUMS")
        )  # earlier versions had none
        for name, key in (("classes.json", "holds"), ("results.json", "model")):
            facts = json.loads((run / name).read_text())
            del facts[key]
            (run / name).write_text(json.dumps(facts))
        with pytest.warns(NotACleanModel):
            assert dlp_fast.load(run).holds == "after_unlearning"
        assert command("report.__main__", run).code == 0


class TestResult:
    def test_what_it_holds(self, scanned):
        _, result = scanned
        assert result.verdict == result.results["verdict"]["kind"]
        assert result.poisoned == [result.paths[i] for i in result.suspected_poisoned.tolist()]
        assert len(repr(result)) < 250 and result.verdict in repr(result)
        assert len(result.samples["path"]) == 80

    def test_to_frame(self, scanned, monkeypatch):
        made = {}

        class Pandas:
            @staticmethod
            def DataFrame(columns):
                made.update(columns)
                return "frame"

        monkeypatch.setitem(__import__("sys").modules, "pandas", Pandas)
        assert scanned[1].to_frame() == "frame"
        assert made["decision"].count("suspected_poisoned") == len(scanned[1].poisoned)
        monkeypatch.setitem(__import__("sys").modules, "pandas", None)
        with pytest.raises(ResourceError, match=r"needs the package pandas: .*-m pip install 'pandas>=2'"):
            scanned[1].to_frame()


def test_pictures_of_any_kind(tiny_run, tmp_path):
    model = dlp_fast.load(tiny_run[0])
    image = picture(40, 4)
    image.save(tmp_path / "a.png")
    odds = model.predict(tmp_path / "a.png")
    assert odds.shape == (1, 10)
    for one in (image, np.asarray(image), [image], torch.from_numpy(np.asarray(image).copy())[None]):
        torch.testing.assert_close(model.predict(one), odds)
    many = model.predict(
        [image, Image.fromarray(np.zeros((9, 70), np.uint8)), str(tmp_path / "a.png")], batch=2
    )
    torch.testing.assert_close(many[[0, 2]], odds.expand(2, -1))
