"""Where images and results lie: one folder however it is written, never one within the other, and moved since."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from tiny import CONFIG, command, image_folder, options

import dlp_fast
from dlp_fast.config import RunConfig, at_real_places, real_data, real_places, refuse_overlap
from dlp_fast.errors import ConfigError
from dlp_fast.preparation.place import default_out
from dlp_fast.runs.writer import RunFolder

SHORT = options(
    supervised={"epochs": 1, "min_steps": 0, "batch": 64},
    unlearning={"epochs": 1},
    finetuning={"steps": 2, "batch": 16, "rounds": 1, "norm_batches": 2},
)


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A folder with images in `data` and, written from there as relative paths, a finished run in `run`."""
    root = tmp_path_factory.mktemp("places")
    image_folder(root / "data", each=20)
    before = os.getcwd()
    os.chdir(root)
    try:
        done = command("run", "--data", "data", "--out", "run", *SHORT)
    finally:
        os.chdir(before)
    assert done.code == 0, done.text
    return root


def words(text):
    return " ".join(text.split())


class TestRealPlaces:
    def test_of_a_configuration(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "data").mkdir()
        os.symlink("data", tmp_path / "link")
        for written in ("data", "./data/", "link", "x/../data", f"{tmp_path}//data"):
            config = RunConfig(data=written, dataset={"test": written})
            at = at_real_places(config)
            assert (at.data, str(at.dataset.test)) == (f"{tmp_path}/data",) * 2
            settings = {"data": written, "dataset": {"test": written}}
            assert real_places(settings) == {
                "data": f"{tmp_path}/data",
                "dataset": {"test": f"{tmp_path}/data"},
            }

    @pytest.mark.parametrize("data", ["digits", "cifar10", "https://x/y.zip"])
    def test_names_of_sources_stay(self, data):
        assert at_real_places(RunConfig(data=data)).data == data

    def test_folder_of_cifar(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        assert at_real_places(RunConfig(data="cifar10:x")).data == f"cifar10:{tmp_path}/x"

    @pytest.mark.parametrize("data", ["array", "dataset"])
    def test_what_was_in_memory(self, data):
        assert real_places({"data": data}) == {"data": data}

    def test_of_a_table(self, tmp_path, monkeypatch):
        """The folder of its images too; its own name, which says what it is, stays where it is a link."""
        monkeypatch.chdir(tmp_path)
        (tmp_path / "data").mkdir()
        (tmp_path / "store").write_text("path,label\n")
        os.symlink("data", tmp_path / "link")
        os.symlink("../store", tmp_path / "data/t.csv")
        at = at_real_places(RunConfig(data="link/t.csv", dataset={"images": "link"}))
        assert (at.data, str(at.dataset.images)) == (f"{tmp_path}/data/t.csv", f"{tmp_path}/data")
        settings = {"data": "link/t.csv", "dataset": {"images": "link"}}
        assert real_places(settings) == {
            "data": f"{tmp_path}/data/t.csv",
            "dataset": {"images": f"{tmp_path}/data"},
        }


class TestGoingOn:
    @pytest.mark.parametrize("written", ["data", "data/", "./data", "link", "absolute"])
    def test_the_same_folder(self, begun, monkeypatch, written):
        monkeypatch.chdir(begun)
        (begun / "link").unlink(missing_ok=True)
        os.symlink("data", begun / "link")
        written = f"{begun}/data/" if written == "absolute" else written
        done = command("run", "--data", written, "--out", "run", *SHORT)
        assert done.code == 0 and "finished already" in done.text, done.text

    def test_another_folder(self, begun, tmp_path):
        image_folder(tmp_path / "data", each=3)
        done = command("run", "--data", tmp_path / "data", "--out", begun / "run", *SHORT)
        assert done.code == 2 and f"data: {begun}/data there, {tmp_path}/data now" in words(done.text)

    def test_the_run_knows_the_real_path(self, begun):
        assert json.loads((begun / "run/results.json").read_text())["config"]["data"] == f"{begun}/data"

    def test_a_run_that_kept_a_relative_path(self, tmp_path, monkeypatch):
        """As runs did before."""
        monkeypatch.chdir(tmp_path)
        folder = RunFolder(tmp_path / "run")
        folder.open({"data": "data", "seed": 0})
        folder.close()
        (tmp_path / "run/checkpoints").mkdir()
        folder.open({"data": f"{tmp_path}/data", "seed": 0})
        folder.close()
        with pytest.raises(ConfigError, match=r"data: .*/data there, .*/other now"):
            folder.open({"data": f"{tmp_path}/other", "seed": 0})

    def test_the_default_folder_is_found_again(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "data").mkdir()
        begun = RunFolder(tmp_path / "runs/2020-01-01-data")
        begun.open({"data": f"{tmp_path}/data", "seed": 0})
        begun.close()
        (begun.path / "checkpoints").mkdir()
        assert default_out({"data": "./data", "seed": 0}).name == "2020-01-01-data"
        assert default_out({"data": "./data", "seed": 1}).name != "2020-01-01-data"


class TestOverlap:
    @pytest.mark.parametrize("out", ["data", "data/run", "data/cat/run", "link/run", "data/../data/x"])
    def test_results_among_images(self, tmp_path, monkeypatch, out):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "data").mkdir()
        os.symlink("data", tmp_path / "link")
        with pytest.raises(
            ConfigError, match=r"lies in --data .*where every folder is a class. Choose an --out"
        ):
            refuse_overlap("data", tmp_path / out)

    @pytest.mark.parametrize("out", [".", "run"])
    def test_images_among_results(self, tmp_path, monkeypatch, out):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(ConfigError, match=r"--data .*run/images lies in --out"):
            refuse_overlap(tmp_path / "run/images", tmp_path / out)

    def test_beside_one_another(self, tmp_path):
        for data in (f"{tmp_path}/data", "digits", "cifar10:."):
            refuse_overlap(data, tmp_path / "data-run")

    @pytest.mark.parametrize("more", [[], ["--dry-run"], ["--out", "run"], ["--out", "cat/run"]])
    def test_a_run_begun_among_its_images(self, tmp_path, monkeypatch, more):
        image_folder(tmp_path / "data", each=2)
        monkeypatch.chdir(tmp_path / "data")
        done = command("run", "--data", ".", *more, *SHORT)
        assert done.code == 2 and "where every folder is a class" in words(done.text), done.text
        assert sorted(os.listdir()) == ["cat", "dog"]
        with pytest.raises(ConfigError, match="where every folder is a class"):
            dlp_fast.defend(".", out="run", quiet=True, **CONFIG)
        assert sorted(os.listdir()) == ["cat", "dog"]

    def test_other_commands(self, begun):
        data = begun / "data"
        for done in (
            command("poison", "--data", data, "--out", data / "poisoned"),
            command("export", begun / "run", "--format", "csv", "--out", data / "lists"),
            command("run", "--data", begun / "other", "--test", data, "--out", data / "run", *SHORT),
        ):
            assert done.code == 2 and "where every folder is a class" in words(done.text), done.text
        assert sorted(os.listdir(data)) == ["cat", "dog"]


class TestMovedImages:
    def test_from_another_directory(self, begun, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        done = command("export", begun / "run", "--format", "imagefolder", "--out", "out")
        assert done.code == 0, done.text

    def test_gone(self, begun, tmp_path):
        (begun / "data").rename(begun / "moved")
        try:
            arguments = [begun / "run", "--format", "imagefolder", "--out", tmp_path / "out"]
            done = command("export", *arguments)
            assert done.code == 3
            assert f"{begun}/data, where the run found its images, is no longer there" in words(done.text)
            assert "--data DIR" in words(done.text) and "digits" not in done.text
            assert command("export", *arguments, "--data", begun / "moved").code == 0
        finally:
            (begun / "moved").rename(begun / "data")


class TestTestFolder:
    def test_from_python(self, tmp_path):
        image_folder(tmp_path / "data", each=20)
        image_folder(tmp_path / "mine", each=4)
        found = dlp_fast.defend(tmp_path / "data", test=tmp_path / "mine", quiet=True, **CONFIG)
        assert found.results["stages"]["supervised"]["clean_accuracy"] is not None
        with pytest.raises(ConfigError, match="give the test set of a folder as a path"):
            dlp_fast.defend(tmp_path / "data", test=[1], quiet=True, **CONFIG)

    @pytest.mark.parametrize("option", ["test", "test_split"])
    def test_only_with_folders(self, option):
        import numpy as np

        more = {**CONFIG, "dataset": {option: "x"}}
        with pytest.raises(
            ConfigError, match=rf"dataset\.{option}: the array that was given has its own test set"
        ):
            dlp_fast.defend(np.zeros((4, 8, 8, 3), np.uint8), [0, 1, 0, 1], quiet=True, **more)


class TestWhatShellsLeave:
    """~ that no shell expanded, and variables that are not set."""

    def test_home(self, tmp_path, monkeypatch):
        from dlp_fast.commands.predict import PredictConfig

        monkeypatch.setenv("HOME", str(tmp_path))
        config = RunConfig(data="~/photos", out="~/runs/x", dataset={"test": "~/test"})
        assert config.data == f"{tmp_path}/photos" and config.out == tmp_path / "runs/x"
        assert config.dataset.test == tmp_path / "test"
        several = PredictConfig(run="~/r", data=("~/a", "b"), out="~/x.csv")
        assert several.data == (tmp_path / "a", Path("b")) and several.run == tmp_path / "r"

    def test_a_folder_that_is_called_so(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "~odd").mkdir()
        assert RunConfig(data="~odd").data == "~odd"

    @pytest.mark.parametrize("arguments", [["--data", ""], ["--data="], ["--out", " ", "--seed", "1"]])
    def test_empty(self, arguments):
        from dlp_fast.commands.options import read_options

        with pytest.raises(ConfigError, match=rf"{arguments[0].rstrip('=')}: empty; a variable of the shell"):
            read_options(arguments)
        with pytest.raises(ConfigError, match="data: empty"):
            real_data("")

    def test_a_working_directory_that_was_removed(self, tmp_path, monkeypatch, capsys):
        from dlp_fast.commands.guard import guarded

        (tmp_path / "gone").mkdir()
        monkeypatch.chdir(tmp_path / "gone")
        (tmp_path / "gone").rmdir()
        with pytest.raises(SystemExit) as end:
            guarded(lambda: None)
        monkeypatch.chdir(tmp_path)
        assert (
            end.value.code == 5 and "the working directory does not exist any more" in capsys.readouterr().err
        )
