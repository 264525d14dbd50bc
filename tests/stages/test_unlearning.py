import json

import pytest
import torch
from tiny import session, training_data
from torch.nn import functional as F

from dlp_fast.config import SupervisedConfig, UnlearningConfig
from dlp_fast.errors import NumericError
from dlp_fast.models.registry import build_model
from dlp_fast.runs.log import RunLog
from dlp_fast.stages import unlearning as stage
from dlp_fast.stages.supervised import supervised

SUSPECTS = torch.arange(0, 96, 5)


@pytest.fixture(scope="module")
def learnt():
    """Weights of a network that knows its images."""
    model = build_model("wrn-10-1", 3, 8, seed=0)
    config = SupervisedConfig(epochs=6, min_steps=0, batch=32, learning_rate=0.05)
    supervised(session(), model, training_data(), config)
    return model.state_dict()


@pytest.fixture
def model(learnt):
    model = build_model("wrn-10-1", 3, 8, seed=1)
    model.load_state_dict(learnt)
    return model


class Poisoned:
    """F.cross_entropy, spoilt at chosen calls: in value (NaN) or only in its gradient (infinite)."""

    def __init__(self, at, gradient=False):
        self.at, self.gradient, self.calls = at, gradient, 0

    def cross_entropy(self, logits, target):
        loss = F.cross_entropy(logits, target)
        self.calls += 1
        if self.calls - 1 not in self.at:
            return loss
        if self.gradient:
            loss.register_hook(lambda g: g * float("inf"))
            return loss
        return loss * float("nan")


def events(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def mean_loss(model, data):
    """In train mode, as the stage sees it."""
    with torch.no_grad():
        return float(F.cross_entropy(model.train()(data.plain(SUSPECTS)), data.target(SUSPECTS)))


def test_ascent_raises_the_suspects_loss(model):
    data = training_data()
    before = mean_loss(model, data)
    found = stage.unlearning(session(), model, data, SUSPECTS, UnlearningConfig(epochs=40, learning_rate=0.1))
    assert mean_loss(model, data) > before + 0.5
    assert found.rollbacks == 0
    assert found.loss > before


def test_stops_at_max_loss(model):
    found = stage.unlearning(
        session(),
        model,
        training_data(),
        SUSPECTS,
        UnlearningConfig(epochs=40, learning_rate=0.1, max_loss=2),
    )
    assert found.stopped_at_max_loss
    assert found.loss > 2


def test_no_epochs_changes_nothing(model, learnt):
    before = {k: v.clone() for k, v in learnt.items()}
    found = stage.unlearning(session(), model, training_data(), SUSPECTS, UnlearningConfig(epochs=0))
    assert found.loss == 0
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize("gradient", [False, True])
def test_a_step_that_is_not_finite_is_undone_and_logged(model, monkeypatch, tmp_path, gradient):
    monkeypatch.setattr(stage, "F", Poisoned({2}, gradient))
    log = RunLog(tmp_path / "metrics.jsonl", quiet=True)
    found = stage.unlearning(session(log=log), model, training_data(), SUSPECTS, UnlearningConfig(epochs=5))
    log.close()
    assert found.rollbacks == 1
    assert all(torch.isfinite(v).all() for v in model.state_dict().values())
    told = [e for e in events(tmp_path / "metrics.jsonl") if e["kind"] == "rollback"]
    assert [(e["step"], e["rollbacks"]) for e in told] == [(2, 1)]
    assert told[0]["learning_rate"] == pytest.approx(0.01 / 4)


def test_undone_within_an_epoch(model, monkeypatch, tmp_path):
    monkeypatch.setattr(stage, "F", Poisoned({3}))
    log = RunLog(tmp_path / "metrics.jsonl", quiet=True)
    config = UnlearningConfig(
        epochs=4, batch=4
    )  # 5 steps an epoch: the second of 20 suspects falls in the first
    stage.unlearning(session(log=log), model, training_data(), SUSPECTS, config)
    log.close()
    told = [e for e in events(tmp_path / "metrics.jsonl") if e["kind"] == "epoch"]
    assert [e["epoch"] for e in told] == [1, 2, 3, 4]
    # the first epoch's mean is that of its one step after the rollback, not a fifth of it
    assert told[0]["loss"] > told[1]["loss"] / 3


def test_rollbacks_are_bounded(model, learnt, monkeypatch):
    good = {k: v.clone() for k, v in learnt.items()}
    monkeypatch.setattr(stage, "F", Poisoned(set(range(99))))
    with pytest.raises(
        NumericError, match=r"3 steps were not finite, more than unlearning.max_rollbacks = 2"
    ):
        stage.unlearning(session(), model, training_data(), SUSPECTS, UnlearningConfig(epochs=9))
    assert all(torch.equal(v, good[k]) for k, v in model.state_dict().items())
