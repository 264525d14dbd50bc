"""Every order of the stages, every preset, and what a run leaves behind."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import CONFIG, TINY, command, options, session, threads_kept, training_data, watch_finetuning

import dlp_fast
from dlp_fast.config import RunConfig, presets
from dlp_fast.detection.decide import Decision, Scored
from dlp_fast.detection.detect import Detection
from dlp_fast.detection.findings import Finding
from dlp_fast.detection.groups import Group
from dlp_fast.detection.late import Late
from dlp_fast.detection.suspicion import by_score
from dlp_fast.pipeline import defend, partition
from dlp_fast.runs.schema import DECISIONS
from dlp_fast.selection.overrides import Overrides, no_overrides
from dlp_fast.stages import rounds

STAGES = {
    "supervised-unlearning-finetuning": ["supervised", "unlearning", "finetuning"],
    "supervised-unlearning": ["supervised", "unlearning"],
    "supervised-finetuning": ["supervised", "finetuning"],
    "supervised-finetuning-unlearning": ["supervised", "finetuning", "unlearning"],
}
METRICS = {"seconds", "images_per_second", "clean_accuracy", "attack_success_rate"}


def run(**over):
    return defend(session(), training_data(), RunConfig(**{**TINY, **over}))


@pytest.fixture
def trained(monkeypatch):
    """What each training of stage 3 was given, and what came of it."""
    return watch_finetuning(monkeypatch)


@pytest.mark.parametrize("order", STAGES)
@pytest.mark.parametrize("start", ["fresh", "unlearned"])
def test_orders(order, start):
    found = run(order=order, finetuning={**TINY["finetuning"], "start": start})
    assert list(found.stages) == STAGES[order]
    assert all(set(of.metrics) >= {"seconds", "images_per_second"} for of in found.stages.values())
    assert all(torch.isfinite(v).all() for v in found.model.state_dict().values())
    last = found.stages[STAGES[order][-1]].weights
    assert all(torch.equal(value, last[name]) for name, value in found.model.state_dict().items())


def test_stage_3_starts_where_it_is_told():
    fresh, unlearned, other = (
        run(seed=0, finetuning={**TINY["finetuning"], "start": start}, unlearning={"epochs": epochs})
        for start, epochs in (("fresh", 1), ("unlearned", 1), ("fresh", 3))
    )
    one, two, three = (of.model.state_dict()["classifier.weight"] for of in (fresh, unlearned, other))
    assert not torch.equal(one, two)
    assert torch.equal(one, three)  # from new weights, stage 2 leaves no trace


def test_stage_3_is_no_shorter_than_stage_1(monkeypatch):
    monkeypatch.setattr("dlp_fast.stages.finetuning.LEAST_STEPS", 1)
    stages = run(supervised={**TINY["supervised"], "epochs": 5}, finetuning={"epochs": 1, "batch": 32}).stages
    steps = [stages[name].metrics["steps"] for name in ("supervised", "finetuning")]
    assert steps == [15, 15]  # one epoch alone is 3


def test_what_stage_3_gives_away_is_suspected(trained, monkeypatch):
    """The most suspicious of all, of every round."""
    group = Group("made", 0, np.arange(5), np.ones(5), {})
    finding = Finding("finetuning", 0, 5, 4.0, 0.0, 2.0)
    decision = Decision((Scored(group, 2.0),), (finding,))
    monkeypatch.setattr(rounds, "late_decision", lambda *_: decision)
    found = run()
    late = {i for _, of in trained for i in of.labeled[:5].tolist()}
    assert len(trained) == found.stages["finetuning"].metrics["rounds"] == 2 and len(late) == 10
    assert late <= set(found.selection.suspected_poisoned.tolist())
    assert found.stage3_detections == 5
    worst = found.selection.rank.argsort()[: len(found.selection.suspected_poisoned)]
    assert set(worst.tolist()) == set(found.selection.suspected_poisoned.tolist())


def test_what_stage_3_finds_under_right_labels_is_shown(trained, monkeypatch):
    """Nobody is suspected, no round begins anew, and the class is named once, among what is shown."""
    group = Group("made", 0, np.arange(5), np.ones(5), {})
    finding = Finding("finetuning", 0, 5, 2.5, 0.0, 1.2)
    mark = replace(finding, unclear=True, sample_ids=(1, 2, 3))
    monkeypatch.setattr(rounds, "late_decision", lambda *_: Decision((Scored(group, 1.2),), (finding,)))
    monkeypatch.setattr(rounds, "beside_alike", lambda *_: Late(shown=(mark,)))
    found = run()
    assert len(trained) == 1 and not found.stage3_detections
    assert mark in found.marks and not any(of.stage == "finetuning" for of in found.findings)
    monkeypatch.setattr(rounds, "beside_alike", lambda *_: Late((finding,), (group,), (mark,)))
    assert mark not in run().marks  # of a class that is suspected nothing is shown besides


def test_suspects_left_out(trained):
    """`leave_out`: an image whose label is suspected does not come back, not even without it."""
    for suspects, stay in (("relabel", True), ("leave_out", False)):
        found = run(finetuning={**TINY["finetuning"], "suspects": suspects})
        labels = trained[-1][0]
        poisoned = found.selection.suspected_poisoned
        assert len(poisoned)
        assert bool(torch.isin(poisoned, torch.cat([labels.labeled, labels.unlabeled])).all()) == stay
        assert labels.suspected[poisoned].all()


def test_nobody_is_suspected_where_nothing_is_found():
    found = run(detection={"nothing_found": "skip"})
    assert not found.findings
    assert not len(found.selection.suspected_poisoned)
    assert len(found.selection.trusted) == len(training_data())
    assert found.stages["unlearning"].metrics["skipped"]
    assert "skipped" not in run(detection={"nothing_found": "suspect"}).stages["unlearning"].metrics


def test_one_round_where_nothing_is_found():
    assert run().stages["finetuning"].metrics["rounds"] == 1


def test_every_class_keeps_labels():
    """However few are trusted, stage 3 has images of each class to learn from."""
    found = run(detection={"high_loss_fraction": 0.999, "min_images": 4})
    labels = training_data().labels[found.selection.trusted]
    assert torch.bincount(labels, minlength=3).min() >= 4
    assert found.stages["finetuning"].metrics["labeled"] >= len(found.selection.trusted)


class TestPartition:
    DETECTION = Detection(by_score(torch.arange(96.0)), Decision((), ()))

    def partition(self, of, overrides, **detection):
        config = RunConfig(detection={"nothing_found": "suspect", **detection})
        return partition(of, self.DETECTION, training_data(), config, overrides)

    def test_told_once_in_the_life_of_a_run(self, monkeypatch):
        at, told = session(), []
        monkeypatch.setattr(at.log, "event", lambda kind, **values: told.append((kind, values)))
        one, two = (self.partition(at, no_overrides()) for _ in range(2))
        assert torch.equal(one.suspected_poisoned, two.suspected_poisoned)
        ((kind, values),) = told
        assert (
            (kind, values["suspected_poisoned"]) == ("detection", len(one.suspected_poisoned)) == (kind, 10)
        )

    def test_a_person_decides(self):
        none = torch.empty(0, dtype=torch.int64)
        over = Overrides(keep=torch.tensor([0]), drop=torch.tensor([1]), suspect=torch.tensor([90]))
        assert self.partition(session(), no_overrides()).suspected_poisoned.tolist() == list(range(10))
        found = self.partition(session(), over)
        assert found.suspected_poisoned.tolist() == [90, *range(2, 10)]
        assert found.left_out.tolist() == [1]
        only = Overrides(keep=none, drop=none, suspect=torch.tensor([90]))
        quiet = self.partition(session(), only, nothing_found="skip")
        assert quiet.suspected_poisoned.tolist() == quiet.to_unlearn.tolist() == [90]


def test_what_is_measured_decides_nothing():
    """A test set, and labels that it has, are measured on finished models and change no weight."""
    data, other = training_data(), training_data(seed=1)
    images = data.images.pixels.numpy(), data.labels.numpy()
    tests = ({}, {"test": other.images.pixels.numpy(), "test_labels": other.labels.numpy()})
    with threads_kept():
        config = {**TINY, "threads": 1, "precision": "fp32", "device": "cpu"}
        without, measured = (
            dlp_fast.defend(*images, classes=("a", "b", "c"), quiet=True, **config, **test) for test in tests
        )
    weights = measured.model.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in without.model.state_dict().items())
    assert torch.equal(without.score, measured.score)
    assert without.results["stages"]["unlearning"]["clean_accuracy"] is None
    assert 0 <= measured.results["stages"]["unlearning"]["clean_accuracy"] <= 1


@pytest.mark.parametrize("preset", [None, *presets()])
def test_presets_run(preset, tmp_path):
    with threads_kept():
        found = dlp_fast.defend(
            "digits",
            out=tmp_path / "run",
            preset=preset,
            quiet=True,
            attack="badnets",
            threads=1,
            precision="fp32",
            model="wrn-10-1",
            supervised={"epochs": 1, "min_steps": 0},
            unlearning={"epochs": 1},
            finetuning={"steps": 2, "batch": 16},
        )
    order = found.results["config"]["order"]
    assert list(found.results["stages"]) == STAGES[order]
    assert found.results["stages"].get("finetuning", {"steps": 2})["steps"] == 2


class TestRunFolder:
    def test_files(self, tiny_run):
        names = {p.name for p in tiny_run[0].iterdir()}
        assert names >= {
            "config.resolved.yaml",
            "environment.json",
            "metrics.jsonl",
            "samples.csv",
            "quarantine.csv",
            "results.json",
            "model.safetensors",
            "classes.json",
            "checkpoints",
        }
        assert not [name for name in names if name.endswith(".tmp")]

    def test_results(self, tiny_run):
        results = json.loads((tiny_run[0] / "results.json").read_text())
        assert results["schema"] == 2
        assert set(results) == {
            "schema",
            "verdict",
            "stages",
            "model",
            "detection",
            "decisions",
            "stage3_detections",
            "label_agreement",
            "logit_adjustment",
            "environment",
            "config",
        }
        assert list(results["stages"]) == ["supervised", "unlearning", "finetuning"]
        assert set(results["label_agreement"]) == {"supervised", "clean_model"}
        for of in results["stages"].values():
            assert set(of) >= METRICS
            assert 0 <= of["clean_accuracy"] <= 1
            assert 0 <= of["attack_success_rate"] <= 1
            assert of["seconds"] > 0
            assert of["images_per_second"] > 0
        of = results["detection"]
        sizes = {"suspected_poisoned", "suspected_clean", "poisoned_precision", "clean_precision"}
        assert set(of) >= sizes | {"findings"}
        assert isinstance(of["suspected_poisoned"], int)
        assert 0 <= of["poisoned_precision"] <= 1
        assert 0 <= of["clean_precision"] <= 1
        assert {"torch", "python", "device", "threads", "native"} <= set(results["environment"])
        assert results["config"]["attack"] == "badnets"
        assert results["config"]["supervised"]["epochs"] == CONFIG["supervised"]["epochs"]

    def test_samples(self, tiny_run):
        with (tiny_run[0] / "samples.csv").open() as file:
            reader = csv.DictReader(file)
            rows = list(reader)
        assert reader.fieldnames == ["sample_id", "path", "label", "score", "entropy", "rank", "decision"]
        assert [int(row["sample_id"]) for row in rows] == list(range(1442))
        assert sorted(int(row["rank"]) for row in rows) == list(range(1442))
        assert rows[12]["path"] == "digits/train/00012"
        by_rank = sorted(rows, key=lambda row: int(row["rank"]))
        scores = [float(row["score"]) for row in by_rank]
        assert scores == sorted(scores)
        assert all(0 <= float(row["entropy"]) <= 3.33 for row in rows)
        results = json.loads((tiny_run[0] / "results.json").read_text())
        for decision in DECISIONS[:3]:
            assert sum(row["decision"] == decision for row in rows) == results["detection"][decision]
        assert {row["decision"] for row in rows} == set(DECISIONS)
        # lowest rank, most suspicious
        first = by_rank[: results["detection"]["suspected_poisoned"]]
        assert {row["decision"] for row in first} == {"suspected_poisoned"}

    def test_metrics(self, tiny_run):
        told = [json.loads(line) for line in (tiny_run[0] / "metrics.jsonl").read_text().splitlines()]
        assert all(event["schema"] == 1 and event["time"] > 1e9 for event in told)
        kinds = [event["kind"] for event in told]
        assert kinds.count("detection") == 1
        assert kinds[-1] == "done"
        assert [e["epoch"] for e in told if e["kind"] == "epoch" and e["stage"] == "supervised"] == [1, 2]

    def test_what_a_person_sees(self, tiny_run):
        text = tiny_run[1].text
        for word in (
            "after stage",
            "supervised",
            "unlearning",
            "finetuning",
            "suspected poisoned:",
            "samples.csv",
            "next:",
        ):
            assert word in text
        assert str(tiny_run[0]) in " ".join(text.split()).replace("/ ", "/") or tiny_run[0].name in text

    def test_the_loaded_model_is_the_one_measured(self, tiny_run):
        from dlp_fast.data import load

        test = load("digits").test
        predicted = dlp_fast.load(tiny_run[0]).predict(test.images.pixels).argmax(1)
        results = json.loads((tiny_run[0] / "results.json").read_text())
        accuracy = float((predicted == test.labels).float().mean())
        assert accuracy == pytest.approx(results["stages"]["finetuning"]["clean_accuracy"], abs=0.005)


def test_a_command_run_has_no_surprise_in_its_options(tmp_path):
    """`supervised-unlearning` from the command line: stage 3 is not there, and the model is that of stage 2."""
    out = tmp_path / "run"
    done = command(
        "run",
        "--out",
        out,
        *options(supervised={"epochs": 1, "min_steps": 0}),
        "--order",
        "supervised-unlearning",
    )
    assert done.code == 0, done.text
    assert list(json.loads((out / "results.json").read_text())["stages"]) == ["supervised", "unlearning"]
    assert (out / "model.safetensors").is_file()
