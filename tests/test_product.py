"""The product as a user meets it: a command on a poisoned set and on a clean one, with the default settings."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import ROOT

FILES = {
    "report.html",
    "samples.csv",
    "model.safetensors",
    "results.json",
    "metrics.jsonl",
    "exhibits.safetensors",
}
PACKS = os.environ.get("DLP_FAST_TEST_DATA")


def typed(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """`python -m dlp_fast.run …` as typed into a terminal."""
    return subprocess.run(
        [sys.executable, "-m", "dlp_fast.run", *words],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=1800,
    )


def suspects(run: Path) -> set[int]:
    with (run / "samples.csv").open() as file:
        return {
            int(row["sample_id"]) for row in csv.DictReader(file) if row["decision"] == "suspected_poisoned"
        }


def poisoned_by(run: Path) -> set[int]:
    """Ids that the run's own attack poisoned, drawn again from its configuration."""
    from dlp_fast.attacks.poisoning import plan
    from dlp_fast.data import sources

    train = sources.load("digits").train
    attack = plan(
        "badnets",
        train.labels,
        train.classes,
        (train.images.height, train.images.width),
        rate=0.1,
        rate_of="auto",
        target="0",
        seed=json.loads((run / "results.json").read_text())["config"]["seed"],
    )
    return set(attack.poisoned.nonzero().flatten().tolist())


def test_the_demo_finds_its_poison(tmp_path):
    """make demo's command."""
    done = typed("--out", "runs/demo", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "demo"
    assert {file.name for file in run.iterdir()} >= FILES
    results = json.loads((run / "results.json").read_text())
    verdict = results["verdict"]
    assert verdict["kind"] == "poisoned"
    assert {target["class"] for target in verdict["targets"]} == {"0"}
    truth, found = poisoned_by(run), suspects(run)
    assert len(truth) == 144
    assert found <= truth and len(found) >= 139  # 139 to 144 over seeds and precisions
    end = results["stages"]["finetuning"]
    assert end["clean_accuracy"] >= 0.98
    assert end["attack_success_rate"] <= 0.01
    assert "verdict: poisoned, target class 0" in done.stdout
    assert "report.html" in done.stdout


@pytest.mark.slow
def test_the_demo_without_poison_accuses_nobody(tmp_path):
    done = typed("--attack", "none", "--out", "runs/clean", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "clean"
    results = json.loads((run / "results.json").read_text())
    assert results["verdict"]["kind"] in ("nothing found", "cannot tell")
    assert not results["verdict"]["targets"]
    assert not suspects(run)
    assert results["stages"]["finetuning"]["clean_accuracy"] >= 0.98
    assert "verdict: poisoned" not in done.stdout


@pytest.fixture
def photographs(tmp_path):
    """200 images of each of CIFAR-10's first five classes as a folder a class, and as many to test on."""
    if not PACKS:
        pytest.skip("needs the real image packs named by DLP_FAST_TEST_DATA")
    import numpy as np

    with np.load(Path(PACKS) / "cifar10_jpeg.npz") as pack:
        for part, each in (("train", 400), ("test", 100)):
            data, offsets, labels = (pack[f"{part}_{name}"] for name in ("jpeg", "offsets", "labels"))
            for c in range(5):
                folder = tmp_path / "images" / part / str(pack["classes"][c])
                folder.mkdir(parents=True)
                for i in np.flatnonzero(labels == c)[:each]:
                    (folder / f"{i:05d}.jpg").write_bytes(data[offsets[i] : offsets[i + 1]].tobytes())
    return tmp_path / "images"


@pytest.mark.slow
@pytest.mark.packs
@pytest.mark.parametrize("attack", ["badnets", "none"])
def test_real_photographs(photographs, tmp_path, attack):
    done = typed(
        "--data",
        str(photographs),
        "--attack",
        attack,
        "--out",
        "runs/real",
        "--model",
        "wrn-10-1",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "real"
    results = json.loads((run / "results.json").read_text())
    if attack == "none":
        assert results["verdict"]["kind"] != "poisoned"
        assert not suspects(run)
        return
    assert results["verdict"]["kind"] == "poisoned"
    assert {target["label"] for target in results["verdict"]["targets"]} == {0}
    found = results["detection"]
    assert found["poisoned_precision"] >= 0.95
    assert found["poisoned_recall"] >= 0.8
    assert results["stages"]["finetuning"]["attack_success_rate"] <= 0.1
