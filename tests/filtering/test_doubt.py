"""Where one network leaves doubt, a second one looks, and their curves are averaged."""

from __future__ import annotations

import pytest
import torch
from tiny import session, training_data

from dlp_fast import pipeline
from dlp_fast.config import DetectionConfig, RunConfig
from dlp_fast.detection.suspicion import Suspicion
from dlp_fast.detection.verify.replication import averaged, in_doubt, networks
from dlp_fast.runs.checkpoint import Checkpoints
from dlp_fast.stages.supervised import supervised

TINY = {
    "supervised": {"epochs": 2, "min_steps": 0, "batch": 32},
    "finetuning": {"steps": 4, "batch": 16},
    "model": "wrn-10-1",
}
ALWAYS, NEVER = {"ensemble_from": 0.0, "ensemble_to": 9.0}, {"ensemble_to": 0.0}


def nothing(model):
    return {"clean_accuracy": None, "attack_success_rate": None}


class Training:
    """Stage 1 that notes every network, and stops a run before the `stop`-th begins."""

    def __init__(self, stop=None):
        self.seeds, self.seconds, self.stop = [], [], stop

    def __call__(self, of, model, data, *others, **named):
        self.seeds.append(data.seed)
        if len(self.seeds) == self.stop:
            raise KeyboardInterrupt
        found = supervised(of, model, data, *others, **named)
        self.seconds.append(found.seconds)
        return found


def run(of=None, **filtering):
    config = RunConfig(**TINY, filter=filtering)
    return pipeline.Pipeline(of or session(), training_data(), config, nothing).run()


def test_geometric_mean_over_the_epochs_of_both():
    one, two = torch.tensor([[4.0, 0.0], [1.0, 2.0], [9.0, 9.0]]), torch.tensor([[1.0, 1.0], [16.0, 2.0]])
    found = averaged([one, two])
    torch.testing.assert_close(found, torch.tensor([[2.0, 1e-9**0.5], [4.0, 2.0]]))


def test_averaging_with_itself_changes_nothing():
    one = torch.rand(3, 50) + 1e-6
    torch.testing.assert_close(averaged([one, one]), one)


def test_each_network_counts_the_same():
    of = [torch.rand(3, 50) + 1e-6 for _ in range(3)]
    torch.testing.assert_close(averaged(of), (of[0] * of[1] * of[2]) ** (1 / 3))
    torch.testing.assert_close(averaged(of[::-1]), averaged(of))


@pytest.mark.parametrize(
    ("strength", "doubt"), [(0.0, False), (0.69, False), (0.7, True), (1.0, True), (2.99, True), (3.0, False)]
)
@pytest.mark.parametrize("clear", [0.2, 5.0])
def test_the_band(strength, doubt, clear, monkeypatch):
    """Of any class, whatever another shows."""
    monkeypatch.setattr(
        "dlp_fast.detection.verify.replication.strengths", lambda splits, least: [0.1, strength, clear]
    )
    nobody = torch.zeros(3)
    of = Suspicion(nobody, nobody, nobody.bool(), nobody.bool())
    assert in_doubt(of, DetectionConfig()) == doubt
    assert not in_doubt(of, DetectionConfig(**NEVER))
    assert not in_doubt(of, DetectionConfig(networks=1)) and not in_doubt(of, DetectionConfig(score="loss"))


def test_classes_too_small_for_clouds_leave_no_doubt():
    nobody = torch.zeros(3)
    assert not in_doubt(Suspicion(nobody, nobody, nobody.bool(), nobody.bool()), DetectionConfig())


@pytest.mark.parametrize(("steps", "expected"), [(1, 5), (110, 5), (250, 4), (500, 2), (501, 1), (4000, 1)])
def test_as_many_networks_as_the_steps_that_stage_1_is_granted(steps, expected):
    assert networks(steps, RunConfig()) == expected
    assert networks(steps, RunConfig(detection={"networks": 3})) == 3
    assert networks(steps, RunConfig(detection={"score": "loss", "networks": 3})) == 1
    assert networks(steps, RunConfig(supervised={"min_steps": 0})) == 1


def test_as_many_networks_as_asked_for_and_no_more(monkeypatch):
    training = Training()
    monkeypatch.setattr(pipeline, "supervised", training)
    one, three, two = run(networks=1, **ALWAYS), run(networks=3, **NEVER), run(networks=2)
    assert len(training.seeds) == 1 + 3 + 2
    assert "networks" not in one.stages["supervised"]
    assert three.stages["supervised"]["networks"] == 3
    assert three.stages["supervised"]["seconds"] == pytest.approx(sum(training.seconds[1:4]))
    assert not torch.equal(three.first.loss, two.first.loss)


def test_both_networks_are_averaged():
    once, twice = run(**NEVER), run(**ALWAYS)
    assert "networks" not in once.stages["supervised"]
    assert twice.stages["supervised"]["networks"] == 2
    assert twice.first.entropy.shape == once.first.entropy.shape
    assert not torch.equal(twice.first.entropy, once.first.entropy)
    assert torch.equal(
        twice.first.prediction, once.first.prediction
    )  # what is unlearnt on stays the first network


def test_a_filter_that_only_ranks_takes_one_look():
    assert "networks" not in run(score="snapshot", **ALWAYS).stages["supervised"]


def test_the_second_look_is_another_network_in_another_order(monkeypatch):
    seen = []

    def noted(of, model, data, config, *others, **named):
        seen.append((data.seed, model.classifier.weight.detach().clone()))
        return supervised(of, model, data, config, *others, **named)

    monkeypatch.setattr(pipeline, "supervised", noted)
    run(**ALWAYS)
    (first, one), (second, two) = seen
    assert first != second and not torch.equal(one, two)


def test_stopped_after_the_second_look(tmp_path, monkeypatch):
    """Neither network is trained again."""
    training = Training()

    def stopping(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "supervised", training)
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "finetuning", stopping)
        with pytest.raises(KeyboardInterrupt):
            run(session(checkpoints=Checkpoints(tmp_path)), **ALWAYS)
    again, said = session(checkpoints=Checkpoints(tmp_path)), []
    monkeypatch.setattr(again.log, "say", said.append)
    found = run(again, **ALWAYS)
    assert len(training.seeds) == 2 and not said
    assert found.stages["supervised"]["networks"] == 2


@pytest.mark.parametrize(("looks", "filtering"), [(2, ALWAYS), (3, {"networks": 3})])
def test_stopped_before_the_last_look(looks, filtering, tmp_path, monkeypatch):
    """The networks before it are not trained again, and the result is that of a run in one go."""
    training = Training(stop=looks)
    monkeypatch.setattr(pipeline, "supervised", training)
    with pytest.raises(KeyboardInterrupt):
        run(session(checkpoints=Checkpoints(tmp_path)), **filtering)
    found = run(session(checkpoints=Checkpoints(tmp_path)), **filtering)
    seeds = list(training.seeds)
    assert len(seeds) == looks + 1 and seeds[-1] == seeds[-2] and len(set(seeds)) == looks
    whole = run(**filtering)
    assert torch.equal(found.first.loss, whole.first.loss)
    assert all(torch.equal(a, b) for a, b in zip(found.model.parameters(), whole.model.parameters()))
