"""Where one network leaves doubt a second one is trained, and their learning curves are averaged."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny import TINY, session, training_data

from dlp_fast import pipeline
from dlp_fast.config import RunConfig
from dlp_fast.runs.checkpoint import Checkpoints
from dlp_fast.stages import ensemble, rounds
from dlp_fast.stages.supervised import Supervised, supervised

ALWAYS, NEVER = {"ensemble_from": 0.0, "ensemble_to": 9.0}, {"ensemble_to": 0.0}


class Training:
    """Stage 1 that notes every network, and stops a run before the `stop`-th begins."""

    def __init__(self, stop=None):
        self.seeds, self.weights, self.seconds, self.stop = [], [], [], stop

    def __call__(self, of, model, data, *others, **named):
        self.seeds.append(data.seed)
        self.weights.append(model.classifier.weight.detach().clone())
        if len(self.seeds) == self.stop:
            raise KeyboardInterrupt
        found = supervised(of, model, data, *others, **named)
        self.seconds.append(found.seconds)
        return found


@pytest.fixture
def watched(monkeypatch):
    """Puts a Training in the place of stage 1, of the first network and of the others."""

    def put(stop=None):
        training = Training(stop)
        for module in (pipeline, ensemble):
            monkeypatch.setattr(module, "supervised", training)
        return training

    return put


def run(of=None, **detection):
    only_curves = {"proposals": ("learning_curves",), "verify_from": 1}  # nothing to put to another network
    config = RunConfig(**{**TINY, "detection": only_curves | detection})
    return pipeline.defend(of or session(), training_data(), config)


def first_metrics(found):
    return found.stages["supervised"].metrics


def test_as_many_networks_as_asked_for_and_no_more(watched):
    training = watched()
    one, three, two = run(networks=1, **ALWAYS), run(networks=3, **NEVER), run(networks=2)
    assert len(training.seeds) == 1 + 3 + 2
    assert "networks" not in first_metrics(one)
    assert first_metrics(three)["networks"] == 3
    assert first_metrics(three)["seconds"] == pytest.approx(sum(training.seconds[1:4]))
    assert not torch.equal(three.first.loss, two.first.loss)


def test_both_networks_are_averaged():
    once, twice = run(**NEVER), run(**ALWAYS)
    assert "networks" not in first_metrics(once)
    assert first_metrics(twice)["networks"] == 2
    assert twice.first.entropy.shape == once.first.entropy.shape
    assert not torch.equal(twice.first.entropy, once.first.entropy)
    assert torch.equal(twice.first.prediction, once.first.prediction)  # stage 2 goes on with the first one


def test_a_method_that_only_ranks_takes_one_network():
    assert "networks" not in first_metrics(run(method="entropy", **ALWAYS))


def test_the_second_one_is_another_network_in_another_order(watched):
    training = watched()
    run(**ALWAYS)
    (first, second), (one, two) = training.seeds, training.weights
    assert first != second and not torch.equal(one, two)


def test_stopped_after_the_second_network(tmp_path, monkeypatch, watched):
    """Neither network is trained again."""
    training = watched()

    def stopping(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(rounds, "finetuning", stopping)
        with pytest.raises(KeyboardInterrupt):
            run(session(checkpoints=Checkpoints(tmp_path)), **ALWAYS)
    again, said = session(checkpoints=Checkpoints(tmp_path)), []
    monkeypatch.setattr(again.log, "say", said.append)
    found = run(again, **ALWAYS)
    assert len(training.seeds) == 2 and not said
    assert first_metrics(found)["networks"] == 2


@pytest.mark.parametrize(("networks", "detection"), [(2, ALWAYS), (3, {"networks": 3})])
def test_stopped_before_the_last_network(networks, detection, tmp_path, watched):
    """Those before it are not trained again, and the result is that of a run in one go."""
    training = watched(stop=networks)
    with pytest.raises(KeyboardInterrupt):
        run(session(checkpoints=Checkpoints(tmp_path)), **detection)
    found = run(session(checkpoints=Checkpoints(tmp_path)), **detection)
    seeds = list(training.seeds)
    assert len(seeds) == networks + 1 and seeds[-1] == seeds[-2] and len(set(seeds)) == networks
    whole = run(**detection)
    assert torch.equal(found.first.loss, whole.first.loss)
    assert all(torch.equal(a, b) for a, b in zip(found.model.parameters(), whole.model.parameters()))


@pytest.mark.parametrize(("epochs", "wanted"), [(13, 10), (2, 0)])
def test_a_network_without_labels_is_scored_only_where_it_is_read(monkeypatch, epochs, wanted):
    data, asked = training_data(), []
    curves = torch.rand(epochs, len(data), generator=torch.Generator().manual_seed(0))
    first = Supervised(3 * epochs, curves, curves, data.labels, 1.0, 1.0)

    def trained(_session, _model, _data, options, only, scored_from):
        asked.append((options.epochs, scored_from, only.tolist()))
        return first

    monkeypatch.setattr(ensemble, "supervised", trained)
    with session() as of:
        told = ensemble.known_without(of, np.arange(50), data, RunConfig(**TINY), first)
    assert asked == [(epochs, wanted, list(range(50)))]
    np.testing.assert_allclose(told.entropy, curves[wanted:].mean(0).numpy(), rtol=1e-6)
