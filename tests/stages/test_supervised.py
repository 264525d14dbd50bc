import pytest
import torch
from tiny import session, training_data

from dlp_fast.config import SupervisedConfig
from dlp_fast.errors import NumericError
from dlp_fast.models.registry import build_model
from dlp_fast.runs import columns, mapped
from dlp_fast.runs.checkpoint import Checkpoints
from dlp_fast.stages.supervised import plan, supervised


def config(**over):
    return SupervisedConfig(**{"epochs": 3, "min_steps": 0, "batch": 32, "learning_rate": 0.05, **over})


def test_plan():
    assert plan(1000, config(epochs=10, batch=128)) == (10, 7, 128)
    assert plan(1000, config(epochs=10, batch=128, min_steps=100)) == (15, 7, 128)
    assert plan(20, config(epochs=2, batch=128)) == (2, 1, 20)


def test_learns_and_keeps_every_epoch():
    data = training_data()
    model = build_model("wrn-10-1", 3, 8, seed=0)
    found = supervised(session(), model, data, config(epochs=6))
    assert found.entropy.shape == found.loss.shape == (6, 96)
    assert found.loss[-1].mean() < found.loss[0].mean()
    assert (found.prediction == data.labels).float().mean() > 0.9
    assert found.entropy.min() >= 0
    assert found.entropy.max() <= torch.log2(torch.tensor(3.0)) + 1e-5
    assert found.seconds > 0
    assert found.images_per_second > 0


def test_epochs_beyond_e1_end_when_all_is_learnt():
    model = build_model("wrn-10-1", 3, 8, seed=0)
    wanted = config(epochs=2, min_steps=300)
    assert plan(96, wanted)[0] == 100
    found = supervised(session(), model, training_data(), wanted)
    assert 2 <= len(found.entropy) < 100
    assert len(found.loss) == len(found.entropy)
    assert (found.prediction == training_data().labels).float().mean() >= 0.995


def test_epochs_that_nobody_asks_for_are_not_scored():
    """Scoring draws nothing and changes no weight, so the others are the same to the bit."""
    runs, shown = [], []
    for first in (0, 2):
        model = build_model("wrn-10-1", 3, 8, seed=0)
        calls = []
        found = supervised(
            session(), model, training_data(), config(epochs=4), calls.append, scored_from=first
        )
        runs.append((found.loss, found.entropy, found.prediction))
        shown.append(len(calls))
    assert shown == [4, 2]
    for every, last in zip(runs[0][:2], runs[1][:2], strict=True):
        assert torch.equal(every[2:], last[2:]) and not last[:2].any()
    assert torch.equal(runs[0][2], runs[1][2])


def test_repeats_bit_by_bit():
    runs = []
    for _ in range(2):
        model = build_model("wrn-10-1", 3, 8, seed=0)
        found = supervised(session(), model, training_data(), config(epochs=1, augment="weak"))
        runs.append((found.entropy, model.state_dict()["classifier.weight"].clone()))
    assert torch.equal(runs[0][0], runs[1][0])
    assert torch.equal(runs[0][1], runs[1][1])


def test_a_large_set_is_seen_in_two_bytes_a_value_and_goes_on(monkeypatch, tmp_path):
    """Its columns lie in a file, and are what fp32 ones are but for rounding; also after a checkpoint."""
    runs = []
    for folder in ("none", "first", "first"):
        if folder == "first":
            monkeypatch.setattr(mapped, "MAPPED_FROM", 10)
            monkeypatch.setattr(columns, "MAPPED_FROM", 10)
            monkeypatch.setattr(columns, "LONG", 64)
        model = build_model("wrn-10-1", 3, 8, seed=0)
        kept = session(checkpoints=Checkpoints(tmp_path / folder))

        def train(own=kept, model=model):
            return dict(vars(supervised(own, model, training_data(), config(epochs=2))))

        runs.append(kept.cached("supervised", train))
    assert [mapped.is_mapped(run["loss"]) for run in runs] == [False, True, True]
    assert runs[1]["loss"].dtype == torch.float16 and len(list((tmp_path / "first/columns").iterdir())) >= 6
    for name in ("entropy", "loss", "other_loss"):
        torch.testing.assert_close(runs[1][name].float(), runs[0][name], atol=1e-3, rtol=1e-3)
        assert torch.equal(runs[1][name], runs[2][name])


def test_augmented_views_are_others():
    losses = []
    for augment in ("none", "weak"):
        model = build_model("wrn-10-1", 3, 8, seed=0)
        losses.append(supervised(session(), model, training_data(), config(epochs=1, augment=augment)).loss)
    assert not torch.equal(*losses)


def test_dropout_draws_from_the_seed():
    runs = []
    for number in range(2):
        torch.manual_seed(number)
        model = build_model("wrn-10-1", 3, 8, seed=0)
        model.classifier = torch.nn.Sequential(torch.nn.Dropout(0.5), model.classifier)
        runs.append(supervised(session(), model, training_data(), config(epochs=1)).loss)
    assert torch.equal(*runs)


def test_a_loss_that_is_not_finite_ends_before_the_weights():
    model = build_model("wrn-10-1", 3, 8, seed=0)
    with torch.no_grad():
        model.classifier.bias[0] = float("nan")
    before = model.stem[0].weight.clone()
    with pytest.raises(
        NumericError, match=r"supervised: the (loss is|weights are) not finite at step 0 of .*learning_rate"
    ):
        supervised(session(), model, training_data(), config())
    assert torch.equal(model.stem[0].weight, before)


@pytest.mark.parametrize(
    ("over", "wanted"),
    [
        ({}, [0.05] * 6),
        ({"schedule": "linear"}, [0.05 * (1 - k / 6) for k in range(6)]),
        (
            {"schedule": "cosine", "warmup": 0.5, "final_share": 1},
            [0.05 * min(1, (k + 1) / 3) for k in range(6)],
        ),
    ],
)
def test_step_sizes(monkeypatch, over, wanted):
    rates, step = [], torch.optim.SGD.step

    def watched(self, *args, **kwargs):
        rates.append(self.param_groups[0]["lr"])
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.SGD, "step", watched)
    model = build_model("wrn-10-1", 3, 8, seed=0)
    supervised(session(), model, training_data(), config(epochs=2, **over))
    assert rates == [pytest.approx(v) for v in wanted]
