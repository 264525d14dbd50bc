"""What people really give: each ends in a clear message and its exit code, or simply works."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys

import pytest
import torch
from tiny import ROOT, command, image_folder, options, picture

# One step of each stage: whether it goes through is the question here.
QUICK = options(
    supervised={"epochs": 2, "min_steps": 0, "batch": 64},
    unlearning={"epochs": 1},
    finetuning={"steps": 2, "batch": 16, "rounds": 1, "norm_batches": 2},
)


def run(data, out, *more):
    return command("run", "--data", data, "--out", out, *QUICK, *more)


def words(text: str) -> str:
    """On one line: a terminal's width is not the point."""
    return " ".join(text.split())


def assert_refused(done, code, *told):
    assert done.code == code, done.text
    assert "Traceback" not in done.text
    for text in told:
        assert text in words(done.text)


class TestFolders:
    def test_no_such_folder(self, tmp_path):
        done = run(tmp_path / "none", tmp_path / "run")
        assert_refused(
            done, 3, f"{tmp_path / 'none'}: no such folder", "give `digits`, `cifar10` or a folder"
        )

    def test_a_file(self, tmp_path):
        (tmp_path / "x.zip").write_bytes(b"PK")
        assert_refused(run(tmp_path / "x.zip", tmp_path / "run"), 3, "damaged, or no archive")

    def test_no_images(self, tmp_path):
        (tmp_path / "data" / "cat").mkdir(parents=True)
        (tmp_path / "data" / "cat" / "readme.txt").write_text("none")
        done = run(tmp_path / "data", tmp_path / "run")
        assert_refused(done, 3, "no usable image", "JPEG, PNG")
        assert not (tmp_path / "run" / "model.safetensors").exists()

    def test_an_empty_folder(self, tmp_path):
        (tmp_path / "data").mkdir()
        assert_refused(run(tmp_path / "data", tmp_path / "run"), 3, "no class folders", "/<class>/<image>")

    def test_one_class(self, tmp_path):
        image_folder(tmp_path / "data", each=3, classes=("cat",))
        assert_refused(
            run(tmp_path / "data", tmp_path / "run"), 3, "one class (cat)", "at least two class folders"
        )

    def test_an_empty_class(self, tmp_path):
        image_folder(tmp_path / "data", each=3)
        (tmp_path / "data" / "hen").mkdir()
        done = run(tmp_path / "data", tmp_path / "run", "--dry-run")
        assert done.code == 0, done.text
        assert "6 training images, 2 classes" in done.text
        assert "no file in hen, so that it is no class" in words(done.text)

    def test_a_class_whose_files_all_cannot_be_used(self, tmp_path):
        image_folder(tmp_path / "data", each=3)
        (tmp_path / "data" / "hen").mkdir()
        (tmp_path / "data" / "hen" / "1.png").write_bytes(b"text")
        done = run(tmp_path / "data", tmp_path / "run")
        told = (
            "no usable image in class hen (1 file: 1 not_an_image)",
            "mend the files, or remove the folder",
        )
        assert_refused(done, 3, *told, "quarantine.csv lists the 1 file that cannot be used")
        assert "hen/1.png" in (tmp_path / "run" / "quarantine.csv").read_text()

    def test_one_file_is_no_plural(self, tmp_path):
        image_folder(tmp_path / "data", each=3)
        (tmp_path / "data" / "cat" / "bad.png").write_bytes(b"text")
        assert "1 file cannot be used" in run(tmp_path / "data", tmp_path / "run", "--dry-run").text

    def test_an_attack_on_files_in_quarantine_goes_on(self, tmp_path):
        image_folder(tmp_path / "data", each=20)
        (tmp_path / "data" / "cat" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
        (tmp_path / "data" / "cat" / "empty.jpg").write_bytes(b"")
        done = run(tmp_path / "data", tmp_path / "run")
        assert done.code == 0, done.text
        assert "2 files cannot be used" in words(done.text)
        with (tmp_path / "run" / "quarantine.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert [(r["path"], r["reason"]) for r in rows] == [
            ("cat/broken.png", "truncated"),
            ("cat/empty.jpg", "empty"),
        ]


class TestWorks:
    def test_a_class_with_one_image(self, tmp_path):
        image_folder(tmp_path / "data", each=20)
        (tmp_path / "data" / "hen").mkdir()
        picture(16, 3).save(tmp_path / "data" / "hen" / "one.png")
        done = run(tmp_path / "data", tmp_path / "run")
        assert done.code == 0, done.text
        assert "only one image in class hen" in words(done.text)
        assert (
            json.loads((tmp_path / "run" / "results.json").read_text())["stages"]["finetuning"][
                "clean_accuracy"
            ]
            is None
        )

    def test_sizes_and_modes(self, tmp_path):
        data = image_folder(tmp_path / "data", each=12)
        picture(30, 1).save(data / "cat" / "larger.png")
        picture(16, 2, "L").save(data / "cat" / "grey.png")
        picture(16, 3, "CMYK").save(data / "cat" / "cmyk.jpg")
        picture(16, 4, "RGBA").save(data / "dog" / "rgba.png")
        picture(16, 5, "P").save(data / "dog" / "palette.png")
        picture(16, 6, "I;16").save(data / "dog" / "sixteen.png")
        picture(16, 7, "1").save(data / "dog" / "bits.png")
        picture(16, 8, "LA").save(data / "dog" / "grey-alpha.png")
        done = run(data, tmp_path / "run", "--dataset.image-size", "16")
        assert done.code == 0, done.text
        assert "32 training images, 2 classes, 16 x 16 px" in words(done.text)
        with (tmp_path / "run" / "quarantine.csv").open() as file:
            assert list(csv.DictReader(file)) == []
        with (tmp_path / "run" / "samples.csv").open() as file:
            assert len(list(csv.DictReader(file))) == 32

    def test_sizes_that_differ_become_224(self, tmp_path):
        data = image_folder(tmp_path / "data", each=10)
        picture(30, 1).save(data / "cat" / "larger.png")
        done = run(data, tmp_path / "run", "--finetuning.mu", "0")
        assert done.code == 0, done.text
        assert "224 x 224 px" in done.text

    def test_brackets_in_names(self, tmp_path):
        """Rich would take them for markup, and fail on a closing one."""
        data = image_folder(tmp_path / "[/red]a[b]", each=10, classes=("[bold]", "x[red]"))
        done = run(data, tmp_path / "[run]")
        assert done.code == 0, done.text
        assert "[run]" in done.text
        assert_refused(run(tmp_path / "[/x]", tmp_path / "run"), 3, "[/x]: no such folder")


class TestAttackOptions:
    def test_unknown_target(self, tmp_path):
        done = command("run", "--out", tmp_path / "run", *QUICK, "--target", "zebra")
        assert_refused(done, 2, "target class 'zebra' does not exist; the classes are: 0, 1, 2")

    def test_more_than_the_class_holds(self, tmp_path):
        more = ["--attack", "sig", "--poison-of", "all", "--poison-rate", "0.3"]
        done = command("run", "--out", tmp_path / "run", *QUICK, *more)
        assert_refused(
            done, 2, "poison rate 0.3 of all 1442 images is 433 images", "class 0", "choose a rate"
        )

    def test_nothing_is_left_behind(self, tmp_path):
        command("run", "--out", tmp_path / "run", *QUICK, "--target", "zebra")
        left = {p.name for p in (tmp_path / "run").iterdir()}
        assert not left & {"model.safetensors", "results.json", "samples.csv", "checkpoints"}


class TestOut:
    def test_below_a_file(self, tmp_path):
        (tmp_path / "file").write_text("mine")
        done = command("run", "--out", tmp_path / "file" / "run", *QUICK)
        assert_refused(done, 5, "cannot be written: Not a directory", "Choose another --out")
        assert (tmp_path / "file").read_text() == "mine"

    def test_a_file(self, tmp_path):
        (tmp_path / "file").write_text("mine")
        assert_refused(
            command("run", "--out", tmp_path / "file", *QUICK), 2, "is no run folder", "Choose another --out"
        )
        assert (tmp_path / "file").read_text() == "mine"

    def test_somebody_elses_folder(self, tmp_path):
        (tmp_path / "letters").mkdir()
        (tmp_path / "letters" / "a.txt").write_text("mine")
        done = command("run", "--out", tmp_path / "letters", *QUICK)
        assert_refused(done, 2, "exists and is no run folder of dlp_fast")
        assert [p.name for p in (tmp_path / "letters").iterdir()] == ["a.txt"]

    @pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="no /proc here")
    def test_where_nobody_can_write(self):
        assert_refused(command("run", "--out", "/proc/dlp_fast_run", *QUICK), 5, "cannot be written")

    def test_a_name_too_long(self, tmp_path):
        assert_refused(command("run", "--out", tmp_path / ("x" * 300), *QUICK), 5, "File name too long")

    def test_a_damaged_configuration(self, tmp_path):
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "checkpoints").mkdir()
        (tmp_path / "run" / "config.resolved.yaml").write_text("a: [")
        assert_refused(command("run", "--out", tmp_path / "run", *QUICK), 2, "cannot be read")


class TestDeviceAndModel:
    @pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
    def test_no_gpu(self, tmp_path):
        done = command("run", "--out", tmp_path / "run", *QUICK, "--device", "cuda")
        assert_refused(done, 5, "torch sees no usable GPU", "--device cpu")
        assert not (tmp_path / "run").exists()

    def test_unknown_model(self, tmp_path):
        done = command("run", "--out", tmp_path / "run", *QUICK, "--model", "torchvision:resnet81")
        assert_refused(done, 2, "perhaps you meant torchvision:resnet18")

    @pytest.mark.parametrize("more", [[], ["--dry-run"]])
    def test_unknown_model_is_told_before_the_scan(self, tmp_path, more):
        done = run(tmp_path / "no_such_folder", tmp_path / "run", "--model", "resnet50", *more)
        assert_refused(done, 2, "model 'resnet50' is unknown; perhaps you meant torchvision:resnet50")
        assert not (tmp_path / "run").exists()

    def test_unknown_preset(self):
        assert_refused(command("run", "--preset", "papers"), 2, "perhaps you meant paper", "there are: ")


class TestOtherCommands:
    def test_evaluate_what_is_no_run(self, tmp_path):
        done = command("evaluate", tmp_path, "--data", tmp_path)
        assert_refused(done, 3, "holds no finished model")

    def test_evaluate_on_strange_classes(self, tiny_run, tmp_path):
        image_folder(tmp_path / "data", each=2)
        done = command("evaluate", tiny_run[0], "--data", tmp_path / "data")
        assert_refused(done, 3, "class cat, dog is not among the 10 classes trained on")

    def test_evaluate_half_of_a_pair(self, tiny_run, tmp_path):
        done = command("evaluate", tiny_run[0], "--data", tmp_path, "--target", "1")
        assert_refused(done, 2, "--triggered and --target belong together")

    def test_poison_into_a_full_folder(self, tmp_path):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "mine.txt").write_text("mine")
        done = command("poison", "--data", "digits", "--out", tmp_path / "out")
        assert_refused(done, 2, "is not empty; nothing is overwritten")
        assert (tmp_path / "out" / "mine.txt").read_text() == "mine"

    def test_poison_unknown_target(self, tmp_path):
        done = command("poison", "--data", "digits", "--out", tmp_path / "out", "--target", "zebra")
        assert_refused(done, 2, "target class 'zebra' does not exist")
        assert list(tmp_path.iterdir()) == []

    def test_poison_where_nobody_can_write(self, tmp_path):
        (tmp_path / "file").write_text("")
        done = command("poison", "--data", "digits", "--out", tmp_path / "file" / "out")
        assert_refused(done, 5, "cannot be written")


class TestRealProcess:
    """The whole way, once for a message and once for what is printed."""

    def run(self, *arguments):
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
        return subprocess.run(
            [sys.executable, "-m", "dlp_fast.run", *map(str, arguments)],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env=environment,
            timeout=300,
        )

    def test_no_such_folder(self, tmp_path):
        done = self.run("--data", tmp_path / "none", "--out", tmp_path / "run")
        assert done.returncode == 3
        assert done.stdout == ""
        assert "no such folder" in done.stderr.splitlines()[-1]
        assert done.stderr.splitlines()[-1].startswith("error: ")
        assert "Traceback" not in done.stderr
