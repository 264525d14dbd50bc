"""Killed at any moment, a run goes on and ends with the bytes that it would have ended with."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest
import yaml
from tiny import CONFIG, command, finish, full_disk, image_folder, options, start

from dlp_fast.config import build, resolve
from dlp_fast.preparation.place import default_out

SAME_BYTES = ("model.safetensors", "samples.csv", "classes.json", "config.resolved.yaml", "quarantine.csv")
VARYING = {"time", "seconds", "images_per_second"}


def events(run: Path) -> list[dict]:
    """metrics.jsonl without what a clock decides."""
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in VARYING} for line in lines]


def figures(run: Path) -> dict:
    results = json.loads((run / "results.json").read_text())
    stages = {
        name: {k: v for k, v in of.items() if k not in VARYING} for name, of in results["stages"].items()
    }
    return {"stages": stages, "detection": results["detection"], "config": results["config"] | {"out": None}}


def assert_same(run: Path, whole: Path) -> None:
    for name in SAME_BYTES[:3]:
        assert (run / name).read_bytes() == (whole / name).read_bytes(), f"{name} differs"
    assert events(run) == events(whole)
    assert figures(run) == figures(whole)


def begin(run: Path, **over: object):
    return start("run", ["--out", str(run), *options(**over)], run.parent / f"{run.name}.log")


def await_checkpoint(run: Path, number: int, child, seconds: float = 120) -> None:
    """Until the checkpoint of that number, or a later one, is there."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and child.is_alive():
        names = [p.name for p in (run / "checkpoints").glob("[0-9]*")]
        if any(int(n) >= number for n in names):
            return
        time.sleep(0.005)
    raise AssertionError("no checkpoint in time: " + (run.parent / f"{run.name}.log").read_text())


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run in a process of its own, and how many seconds it took after it first saved."""
    run = tmp_path_factory.mktemp("resume") / "whole"
    child = begin(run)
    await_checkpoint(run, 1, child)
    began = time.monotonic()
    assert finish(child) == 0, (run.parent / "whole.log").read_text()
    return run, time.monotonic() - began


def kill_until_done(run: Path, kills: int, span: float, seed: int) -> int:
    """Start, kill after a random while, start again; returns how often it was killed before the end."""
    rng = random.Random(seed)
    done = 0
    while done < kills:
        child = begin(run)
        time.sleep(rng.uniform(0, span))
        while child.is_alive() and not any(run.glob("checkpoints/[0-9]*")):
            time.sleep(0.005)
        child.kill()
        code = finish(child)
        if code != -signal.SIGKILL:  # it was faster
            assert code == 0, (run.parent / f"{run.name}.log").read_text()
            break
        done += 1
    child = begin(run)
    assert finish(child) == 0, (run.parent / f"{run.name}.log").read_text()
    return done


@pytest.mark.slow  # one kill is in the signals' tests; 50 of them in benchmarks/system/reliability
def test_killed_three_times(whole, tmp_path):
    run, seconds = whole
    assert kill_until_done(tmp_path / "run", 3, seconds, seed=1) >= 1
    assert_same(tmp_path / "run", run)


@pytest.mark.slow
def test_killed_twenty_times(whole, tmp_path):
    run, seconds = whole
    for number in range(4):
        assert kill_until_done(tmp_path / f"run{number}", 5, seconds / 2, seed=10 + number) >= 1
        assert_same(tmp_path / f"run{number}", run)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_save_and_leave(whole, tmp_path, number):
    run = tmp_path / "run"
    child = begin(run, checkpoint_seconds=1000)
    await_checkpoint(run, 1, child)
    os.kill(child.pid, number)
    code = finish(child)
    text = (tmp_path / "run.log").read_text()
    assert code == 128 + number, text
    assert f"stopped by {signal.Signals(number).name}" in text
    assert "goes on from the last checkpoint" in text
    assert "Traceback" not in text
    assert not (run / "results.json").exists()
    done = command("run", "--out", run, *options())
    assert done.code == 0, done.text
    assert "going on from the last checkpoint" in done.text
    assert_same(run, whole[0])


def test_a_damaged_checkpoint_costs_no_result(whole, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(whole[0], run)
    for name in ("results.json", "model.safetensors", "classes.json", "samples.csv"):
        (run / name).unlink()
    newest = max((run / "checkpoints").iterdir(), key=lambda p: int(p.name))
    (newest / "state.json").write_bytes(b"damaged")
    done = command("run", "--out", run, *options())
    assert done.code == 0, done.text
    assert "is damaged" in done.text
    assert_same(run, whole[0])


def test_killed_before_anything_was_saved(tmp_path):
    """A folder with a lock file and no configuration is a run's first moment, not somebody's folder."""
    run = tmp_path / "run"
    run.mkdir()
    (run / ".lock").write_text("")
    (run / "config.resolved.yaml.tmp").write_text("half")
    quick = {
        "supervised": {"epochs": 1, "min_steps": 0},
        "finetuning": {"steps": 1, "norm_batches": 2},
        "unlearning": {"epochs": 0},
    }
    done = command("run", "--out", run, *options(**quick))
    assert done.code == 0, done.text


def test_a_finished_run_prints_its_results(tiny_run, tmp_path):
    run = tmp_path / "again"
    shutil.copytree(tiny_run[0], run)
    before = {name: (run / name).read_bytes() for name in (*SAME_BYTES, "results.json")}
    began = time.monotonic()
    done = command("run", "--out", run, *options())
    assert done.code == 0, done.text
    assert "this run was finished already" in done.text
    assert "clean accuracy" in done.text
    # the run folder is another one, which is part of the resolved configuration but of no result
    for name in SAME_BYTES:
        assert (run / name).read_bytes() == before[name], name
    now, then = json.loads((run / "results.json").read_text()), json.loads(before["results.json"])
    assert now["stages"] == then["stages"]
    assert now["detection"] == then["detection"]
    assert events(run) == events(tiny_run[0])
    trained = sum(of["seconds"] for of in now["stages"].values())
    assert time.monotonic() - began < trained + 20


def test_another_configuration_is_refused(tiny_run):
    run = tiny_run[0]
    before = {p.name: p.stat().st_mtime_ns for p in run.iterdir() if p.is_file() and p.name != ".lock"}
    done = command("run", "--out", run, *options(seed=3, unlearning={"epochs": 4}))
    assert done.code == 2
    assert "seed: 0 there, 3 now" in " ".join(done.text.split())
    assert "unlearning.epochs: 3 there, 4 now" in " ".join(done.text.split())
    assert "Choose another --out" in done.text
    assert before == {
        p.name: p.stat().st_mtime_ns for p in run.iterdir() if p.is_file() and p.name != ".lock"
    }


def test_other_checkpoint_seconds_are_the_same_run(tiny_run, tmp_path):
    assert (
        command(
            "run", "--out", tiny_run[0], *options(checkpoint_seconds=CONFIG["checkpoint_seconds"] + 1)
        ).code
        == 0
    )


def test_a_changed_image_folder_is_refused(tmp_path):
    data = image_folder(tmp_path / "images", each=25)
    arguments = ["--data", data, "--out", tmp_path / "run", *options(finetuning={"steps": 2, "batch": 16})]
    assert command("run", *arguments).code == 0
    model = (tmp_path / "run" / "model.safetensors").read_bytes()
    (data / "cat" / "000.png").unlink()
    done = command("run", *arguments)
    assert done.code == 2
    assert "the image set is not the one that" in done.text
    assert "Put them back, or choose another --out" in " ".join(done.text.split())
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == model


def test_a_folder_in_use_is_refused(tiny_run):
    import fcntl

    with (tiny_run[0] / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = command("run", "--out", tiny_run[0], *options())
    assert done.code == 5
    assert "another process is working in" in done.text


def test_no_room_for_a_checkpoint(tmp_path):
    """A disk that fills up in the middle: exit 5, what was saved stays, and the same command ends the run."""
    run = tmp_path / "run"
    with full_disk(200_000):  # less than the network's weights
        done = command("run", "--out", run, *options())
    assert done.code == 5
    assert "free some space and run the same command again" in " ".join(done.text.split())
    assert "Traceback" not in done.text
    assert not (run / "results.json").exists()
    quick = command("run", "--out", run, *options())
    assert quick.code == 0, quick.text


def test_options_may_be_mended_before_anything_was_done(tmp_path):
    run = tmp_path / "run"
    refused = command("run", "--out", run, *options(), "--target", "nobody")
    assert refused.code == 2
    assert "target class 'nobody' does not exist" in " ".join(refused.text.split())
    assert command("run", "--out", run, *options()).code == 0


class TestDefaultFolder:
    """runs/<date>-<data>, also when midnight has passed since the run was begun."""

    def begun(self, root, day, **over):
        settings = resolve(build({"data": "digits", **over}, "test"))
        folder = root / "runs" / f"{day}-digits"
        (folder / "checkpoints").mkdir(parents=True)
        (folder / "config.resolved.yaml").write_text(yaml.safe_dump(settings))
        return folder, settings

    def test_an_unfinished_run_goes_on(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        folder, settings = self.begun(tmp_path, "2001-01-01")
        assert default_out(settings).resolve() == folder
        assert default_out(settings | {"seed": 5}).name != folder.name
        (folder / "results.json").write_text("{}")
        assert default_out(settings).name != folder.name
        assert default_out(settings).name.endswith("-digits")
