"""Every order of the stages, every preset, and what a run leaves behind."""

from __future__ import annotations

import csv
import dataclasses
import json
from typing import ClassVar

import numpy as np
import pytest
import torch
from dlp_fast.detection.scores import suspicion
from tiny import CONFIG, command, options, session, threads_kept, training_data

import dlp_fast
from dlp_fast import pipeline
from dlp_fast.config import RunConfig, presets
from dlp_fast.detection.propose.learning_curves import Split
from dlp_fast.errors import DataError
from dlp_fast.pipeline import Pipeline, defend, labels_to_use
from dlp_fast.selection.partition import Selection

FIGURES = {"seconds", "images_per_second", "clean_accuracy", "attack_success_rate"}
STAGES = {
    "supervised-unlearning-finetuning": ["supervised", "unlearning", "finetuning"],
    "supervised-unlearning": ["supervised", "unlearning"],
    "supervised-finetuning": ["supervised", "finetuning"],
    "supervised-finetuning-unlearning": ["supervised", "finetuning", "unlearning"],
}
TINY = {
    "supervised": {"epochs": 2, "min_steps": 0, "batch": 32},
    "detection": {"nothing_found": "suspect"},
    "unlearning": {"epochs": 1},
    "finetuning": {"steps": 4, "batch": 16, "norm_batches": 2},
    "model": "wrn-10-1",
}


def nothing(model):
    return {"clean_accuracy": None, "attack_success_rate": None}


def run(**over):
    return defend(session(), training_data(), RunConfig(**{**TINY, **over}), nothing)


@pytest.mark.parametrize("order", STAGES)
@pytest.mark.parametrize("start", ["fresh", "unlearned"])
def test_orders(order, start):
    found = run(order=order, finetuning={**TINY["finetuning"], "start": start})
    assert list(found.stages) == STAGES[order]
    assert all(set(of) >= FIGURES for of in found.stages.values())
    assert all(torch.isfinite(v).all() for v in found.model.state_dict().values())


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
    assert stages["supervised"]["steps"] == stages["finetuning"]["steps"] == 15  # one epoch alone is 3


@pytest.mark.parametrize("suspects", ["relabel", "leave_out"])
def test_rounds(suspects):
    """Labels that stage 3's own curves give away are dropped, suspected, and it begins anew without them."""
    data = training_data()

    class Finding(Pipeline):
        given: ClassVar[list] = []
        begun: ClassVar[list] = []

        def _late_poison(self, labeled, splits, clear):
            Finding.given.append(labeled)
            return labeled[:5], []

        def _round(self, model, labeled, unlabeled, suspected, *others):
            Finding.begun.append((labeled, unlabeled, suspected.clone()))
            return super()._round(model, labeled, unlabeled, suspected, *others)

    finetune = {**TINY["finetuning"], "rounds": 2, "suspects": suspects}
    config = RunConfig(**{**TINY, "finetuning": finetune})
    found = Finding(session(), data, config, nothing).run()
    assert found.stages["finetuning"]["rounds"] == len(Finding.begun) == 2
    first, second = Finding.begun
    dropped = set(Finding.given[0][:5].tolist())
    assert dropped <= set(first[0].tolist())
    assert not dropped & set(second[0].tolist())
    assert dropped & set(second[1].tolist()) == (dropped if suspects == "relabel" else set())  # unlabeled now
    assert second[2][sorted(dropped)].all()  # not to be given the label they came with, and cost no steps
    assert dropped <= set(found.selection.suspected_poisoned.tolist())
    worst = found.selection.rank.argsort()[: len(found.selection.suspected_poisoned)]
    assert set(worst.tolist()) == set(found.selection.suspected_poisoned.tolist())


def test_late_clouds_must_stand_out():
    """Where most classes fall into two in stage 3, none of them is suspected for it."""
    members = torch.arange(len(training_data())).reshape(2, -1).numpy()

    class Falling(Pipeline):
        def _late_splits(self, labeled, entropy, loss):
            halves = (np.arange(members.shape[1]) % 2).astype(float)
            return [Split(k, members[k], halves, of, 0.0) for k, of in enumerate(self.separations)]

    for separations, late in (((9.0, 8.0), 0), ((9.0, 1.0), members.shape[1] // 2)):
        Falling.separations = separations
        finetune = {**TINY["finetuning"], "rounds": 1}
        config = RunConfig(**{**TINY, "detection": {"nothing_found": "skip"}, "finetuning": finetune})
        found = Falling(session(), training_data(), config, nothing).run()
        assert found.late == late
        assert [e["stage"] for e in found.evidence] == ["finetuning"] * (late > 0)
        assert 0 < found.nearest < 1


@pytest.mark.parametrize(
    ("separation", "stage", "late"),
    [(4.0, "supervised", False), (4.0, "finetuning", True), (9.0, "supervised", True), (4.0, None, True)],
)
def test_late_clouds_beside_what_stage_1_found(separation, stage, late):
    """They must be twice as clear there."""
    members = torch.arange(len(training_data())).reshape(2, -1).numpy()

    class Falling(Pipeline):
        def _late_splits(self, labeled, entropy, loss):
            halves = (np.arange(members.shape[1]) % 2).astype(float)
            return [Split(k, members[k], halves, of, 0.0) for k, of in enumerate((separation, 0.1))]

    config = RunConfig(**{**TINY, "finetuning": {**TINY["finetuning"], "rounds": 1}})
    pipeline = Falling(session(), training_data(), config, nothing)
    pipeline.evidence = [{"stage": stage, "label": 5}] if stage else []
    assert (pipeline.run().late > 0) == late


def test_the_first_late_look_does_not_count(monkeypatch):
    """It falls to the end of the warm-up."""
    given = []
    monkeypatch.setattr("dlp_fast.pipeline.split_classes", lambda *args: given.append(args) or [])
    pipeline = Pipeline(session(), training_data(), RunConfig(**TINY), nothing)
    looks = torch.arange(10.0)[:, None].repeat(1, len(training_data()))
    labeled = torch.arange(1, 9)
    pipeline._late_splits(labeled, looks, looks + 0.5)
    entropy, loss, labels, _ = given[0]
    assert entropy.shape == (9, 8) and entropy[:, 0].tolist() == list(range(1, 10))
    assert (loss == entropy + 0.5).all()
    assert labels.tolist() == training_data().labels[labeled].tolist()


def test_stage_3_hears_what_the_filter_thinks_of_each_image(monkeypatch):
    heard = []
    stage = pipeline.finetuning

    def noted(*args, **named):
        heard.append(named["posterior"])
        return stage(*args, **named)

    posterior = torch.linspace(0, 0.4, 96)
    of = suspicion

    def thinking(*args):
        return dataclasses.replace(of(*args), posterior=posterior)

    monkeypatch.setattr(pipeline, "finetuning", noted)
    monkeypatch.setattr(pipeline, "suspicion", thinking)
    run()
    assert len(heard) == 1 and torch.equal(heard[0], posterior)


@pytest.mark.parametrize("start", ["fresh", "unlearned"])
def test_the_first_round_says_what_suspects_show(monkeypatch, start):
    """As long as it has learnt from none of them, which unlearnt weights have."""
    heard = []

    def vouching(loss, labels, suspects, trusted):
        heard.append((loss, suspects, trusted))
        return {0: {"suspects": 0.25 * len(heard), "trusted": 0.5}, 7: {"suspects": 1.0, "trusted": 1.0}}

    stage, ended = pipeline.finetuning, []

    def noted(*args, **named):
        ended.append(stage(*args, **named))
        return ended[-1]

    monkeypatch.setattr(pipeline, "words", vouching)
    monkeypatch.setattr(pipeline, "finetuning", noted)
    steps = {**TINY["finetuning"], "steps": 12, "start": start, "rounds": 2}

    class Finding(Pipeline):
        def _late_poison(self, labeled, splits, clear):
            return labeled[:2], []

    of = Finding(session(), training_data(), RunConfig(**{**TINY, "finetuning": steps}), nothing)
    of.evidence = [{"stage": "supervised", "label": label} for label in (0, 1)]
    found = of.run()
    first, second = found.evidence[:2]
    if start == "unlearned":
        assert not heard and "word" not in first
        return
    assert first["word"] == {"suspects": 0.25, "trusted": 0.5} and "word" not in second
    (loss, suspects, trusted), _ = heard
    late = [i for round_ in ended for i in round_.labeled[:2].tolist()]
    assert torch.equal(loss, ended[0].loss[2]) and not torch.equal(loss, ended[0].loss[3])  # the third look
    assert set(suspects.tolist()) == set(found.selection.suspected_poisoned.tolist()) - set(late)
    assert set(trusted.tolist()) == set(found.selection.trusted.tolist())


def test_suspects_left_out():
    """`leave_out`: an image whose label is suspected does not come back, not even without it."""
    seen = {}

    class Watching(Pipeline):
        def _round(self, model, labeled, unlabeled, suspected, *others):
            seen["ids"] = torch.cat([labeled, unlabeled])
            seen["suspected"] = suspected.clone()
            return super()._round(model, labeled, unlabeled, suspected, *others)

    for suspects, stay in (("relabel", True), ("leave_out", False)):
        config = RunConfig(**{**TINY, "finetuning": {**TINY["finetuning"], "suspects": suspects}})
        found = Watching(session(), training_data(), config, nothing).run()
        poisoned = found.selection.suspected_poisoned
        assert len(poisoned)
        assert bool(torch.isin(poisoned, seen["ids"]).all()) == stay
        assert seen["suspected"][poisoned].all()


def test_nobody_is_suspected_where_nothing_is_found():
    found = run(detection={"nothing_found": "skip"})
    assert not found.evidence
    assert not len(found.selection.suspected_poisoned)
    assert len(found.selection.trusted) == len(training_data())
    assert found.stages["unlearning"]["skipped"]
    assert "skipped" not in run(detection={"nothing_found": "suspect"}).stages["unlearning"]


def test_one_round_where_nothing_is_found():
    assert run().stages["finetuning"]["rounds"] == 1


def test_labels_to_use():
    ids = torch.arange(10)
    of = Selection(torch.zeros(10), ids, ids[:2], ids[8:], ids[:1], ids[4:], ids[2:4])
    labeled, unlabeled, suspected = labels_to_use(of, RunConfig())
    assert (labeled.tolist(), unlabeled.tolist()) == ([4, 5, 6, 7, 8, 9], [0, 1, 2, 3])
    assert suspected.nonzero().flatten().tolist() == [0, 1]
    labeled, unlabeled, suspected = labels_to_use(of, RunConfig(finetuning={"suspects": "leave_out"}))
    assert (labeled.tolist(), unlabeled.tolist()) == ([4, 5, 6, 7, 8, 9], [2, 3])
    labeled, unlabeled, suspected = labels_to_use(of, RunConfig(finetuning={"labeled": "hardest"}))
    assert (labeled.tolist(), unlabeled.tolist()) == ([8, 9], list(range(8)))
    assert not suspected.any()


def test_nothing_left_to_be_clean():
    ids = torch.arange(10)
    of = Selection(torch.zeros(10), ids, ids, ids[:0], ids, ids, ids[:0])
    with pytest.raises(
        DataError, match=r"detection.min_images = 10\. Lower it, or use --finetuning.labeled trusted"
    ):
        labels_to_use(of, RunConfig(finetuning={"labeled": "hardest"}))


def test_every_class_keeps_labels():
    """However few are trusted, stage 3 has images of each class to learn from."""
    found = run(detection={"high_loss_fraction": 0.999, "min_images": 4})
    labels = training_data().labels[found.selection.trusted]
    assert torch.bincount(labels, minlength=3).min() >= 4
    assert found.stages["finetuning"]["labeled"] >= len(found.selection.trusted)


def test_the_observer_decides_nothing():
    """Figures that depend on the truth are written down and change no weight."""
    values = iter([0.1, 0.9, 0.5] * 3)
    one = run()
    two = defend(
        session(),
        training_data(),
        RunConfig(**TINY),
        lambda model: {"clean_accuracy": next(values), "attack_success_rate": 1.0},
    )
    assert all(
        torch.equal(a, b) for a, b in zip(one.model.state_dict().values(), two.model.state_dict().values())
    )
    assert two.stages["unlearning"]["clean_accuracy"] == 0.9


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
        assert results["schema"] == 1
        assert set(results) == {
            "schema",
            "verdict",
            "stages",
            "filter",
            "decisions",
            "late",
            "label_agreement",
            "raised_odds",
            "environment",
            "config",
        }
        assert list(results["stages"]) == ["supervised", "unlearning", "finetuning"]
        assert set(results["label_agreement"]) == {"supervised", "clean_model"}
        for of in results["stages"].values():
            assert set(of) >= FIGURES
            assert 0 <= of["clean_accuracy"] <= 1
            assert 0 <= of["attack_success_rate"] <= 1
            assert of["seconds"] > 0
            assert of["images_per_second"] > 0
        of = results["detection"]
        assert set(of) >= {"suspected_poisoned", "suspected_clean", "poisoned_precision", "clean_precision"}
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
        for decision in ("suspected_poisoned", "suspected_clean"):
            assert sum(row["decision"] == decision for row in rows) == results["detection"][decision]
        assert {row["decision"] for row in rows} == {"suspected_poisoned", "suspected_clean", "undecided"}
        # lowest rank, most suspicious
        first = by_rank[: results["detection"]["suspected_poisoned"]]
        assert {row["decision"] for row in first} == {"suspected_poisoned"}

    def test_metrics(self, tiny_run):
        told = [json.loads(line) for line in (tiny_run[0] / "metrics.jsonl").read_text().splitlines()]
        assert all(event["schema"] == 1 and event["time"] > 1e9 for event in told)
        kinds = [event["kind"] for event in told]
        assert kinds.count("filter") == 1
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
