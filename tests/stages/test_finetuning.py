"""Stage 3 by FixMatch: its plan, its losses, its labels, and what it ends on."""

from __future__ import annotations

import json
import math

import pytest
import torch
from tiny import session, training_data

from dlp_fast.config import FinetuningConfig, build, read_preset
from dlp_fast.engine.ema import WeightAverage
from dlp_fast.engine.muon import Muon
from dlp_fast.models.registry import build_model
from dlp_fast.runs.checkpoint import Checkpoints
from dlp_fast.runs.log import RunLog
from dlp_fast.selection.labels import Labels
from dlp_fast.stages.finetuning import (
    finetuning,
    plan,
    planned_steps,
    unlabeled_batch,
)
from dlp_fast.stages.fixmatch import fixmatch_loss, unlabeled_loss
from dlp_fast.stages.label_policy import ANY

LABELED, UNLABELED = torch.arange(0, 60), torch.arange(60, 96)
NOBODY, EVERYBODY = torch.zeros(96, dtype=torch.bool), torch.ones(96, dtype=torch.bool)


def config(**over):
    return FinetuningConfig(**{"steps": 6, "batch": 16, "ema": 0.9, **over})


def run(config, unlabeled=UNLABELED, snapshots=0, log=None, suspected=NOBODY, data=None, among=None):
    model = build_model("wrn-10-1", 3, 8, seed=0)
    labels = Labels(LABELED, unlabeled, suspected)
    among = among or session(log=log)
    return model, finetuning(among, model, data or training_data(), labels, config, snapshots)


class TestSteps:
    def test_given(self):
        assert planned_steps(1000, 0, FinetuningConfig(steps=7)) == 7

    def test_from_epochs(self):
        assert planned_steps(1000, 0, FinetuningConfig(epochs=20, batch=128, min_steps=1)) == math.ceil(
            20 * 1000 / 128
        )

    def test_least(self):
        assert planned_steps(1000, 0, FinetuningConfig(epochs=1, batch=128, min_steps=400)) == 400

    def test_no_fewer_than_stage_1_took(self):
        """A small set gets its epochs there by steps; the network that is handed out is not to be trained less."""
        of = FinetuningConfig(epochs=1, batch=128)
        assert [planned_steps(1000, 0, of, before) for before in (0, 399, 1005)] == [400, 400, 1005]
        assert planned_steps(128_000, 0, of, 999) == 1000
        assert planned_steps(1000, 0, FinetuningConfig(epochs=1, min_steps=200), 1005) == 200
        assert planned_steps(1000, 0, FinetuningConfig(steps=7), 1005) == 7

    def test_fewer_images_than_a_batch(self):
        assert planned_steps(10, 0, FinetuningConfig(epochs=3, batch=128, min_steps=1)) == 3

    def test_suspicion_costs_no_steps(self):
        of = FinetuningConfig(epochs=20, batch=128, min_steps=1)
        assert planned_steps(900, 100, of) == planned_steps(1000, 0, of)

    def test_fewer_labeled_than_a_batch(self):
        of = FinetuningConfig(epochs=30, batch=128, min_steps=1)
        assert planned_steps(20, 80, of) == planned_steps(100, 0, of) == 30

    def test_taken(self):
        of = config(steps=None, epochs=2, batch=16, min_steps=1)
        assert run(of, suspected=torch.arange(96) >= 60)[1].steps == 2 * 96 / 16

    def test_taken_with_labels_in_doubt(self):
        """Labels that are only in doubt count as well, but not where all labels but the hardest are left out."""
        of = config(steps=None, epochs=2, batch=16, min_steps=1)
        assert run(of)[1].steps == 2 * 96 / 16
        assert run(config(**{**of.model_dump(), "labeled": "hardest"}))[1].steps == math.ceil(2 * 60 / 16)


class TestPlan:
    LABELS = Labels(LABELED, UNLABELED, torch.arange(96) >= 90)

    def test_sizes(self):
        planned = plan(self.LABELS, config(mu=2))
        assert (planned.steps, planned.batch, planned.unlabeled_batch) == (6, 16, 32)
        assert plan(self.LABELS, config(batch=128)).batch == len(LABELED)

    @pytest.mark.parametrize(
        ("snapshots", "after"), [(0, {}), (3, {1: 0, 3: 1, 5: 2}), (99, {k: k for k in range(6)})]
    )
    def test_snapshots_are_evenly_spaced_and_end_with_the_last_step(self, snapshots, after):
        assert plan(self.LABELS, config(), snapshots).snapshot_after == after

    def test_steps_of_stage_1(self):
        of = FinetuningConfig(epochs=1, batch=96)
        assert plan(self.LABELS, of, steps_before=1005).steps == 1005


class TestMask:
    @pytest.mark.parametrize(("tau", "mask"), [(0.0, 1.0), (1.0, 0.0)])
    def test_threshold(self, tau, mask):
        assert run(config(tau=tau))[1].mask == mask

    def test_weight_of_nothing_is_nothing(self):
        """With λ_u = 0, or τ above all confidences, the unlabeled images act through batch norm alone."""
        one, two = run(config(lambda_u=0, tau=0))[0], run(config(lambda_u=1, tau=1))[0]
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters()))

    def test_labeled_only(self):
        one, two = run(config(mu=0))[0], run(config(mu=3), unlabeled=torch.empty(0, dtype=torch.int64))[0]
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters()))
        assert run(config(mu=0))[1].mask == 0

    def test_mu_is_used(self):
        one, two = run(config(mu=1))[0], run(config(mu=2))[0]
        assert not torch.equal(one.classifier.weight, two.classifier.weight)


class TestUnlabeledBatch:
    def test_trusted_shows_each_unlabeled_image_as_often_as_each_labeled_one(self):
        assert unlabeled_batch(9000, 1000, FinetuningConfig(batch=128)) == 14
        assert unlabeled_batch(9000, 3, FinetuningConfig(batch=128)) == 1

    def test_hardest_has_the_mu_of_fixmatch(self):
        assert unlabeled_batch(100, 9900, FinetuningConfig(batch=64, labeled="hardest")) == 448

    def test_given(self):
        assert unlabeled_batch(9000, 1000, FinetuningConfig(batch=128, mu=0.5)) == 64

    def test_nobody(self):
        assert unlabeled_batch(9000, 0, FinetuningConfig(mu=7)) == 0


@pytest.mark.parametrize("mu", [0.5, 2])
def test_the_unlabeled_loss_is_trained_on(monkeypatch, mu):
    """Each step's unlabeled images beside that many labeled ones, and its gradient arrives."""
    given, weight = [], [1.0]

    def watched(logits, pseudo_label, mask, labeled):
        given.append((len(logits), labeled))
        return unlabeled_loss(logits, pseudo_label, mask, labeled) * weight[0]

    monkeypatch.setattr("dlp_fast.stages.fixmatch.unlabeled_loss", watched)
    with_it = run(config(mu=mu, tau=0))[0]
    weight[0] = 0.0
    without = run(config(mu=mu, tau=0))[0]
    assert set(given) == {(round(mu * 16), 16)}
    assert not torch.equal(with_it.classifier.weight, without.classifier.weight)


class TestSuspected:
    def late_mask(self, labels=None, suspected=NOBODY, snapshots=6):
        """Share of unlabeled images whose pseudo-label counts once the network knows the three shades."""
        data = training_data()
        if labels is not None:
            data.labels[UNLABELED] = labels
        settings = config(steps=60, tau=0.0, mu=1, learning_rate=0.05)
        model, result = run(settings, snapshots=snapshots, suspected=suspected, data=data)
        return model, data, result

    def test_its_own_label_is_no_pseudo_label(self):
        """Right labels that are suspected: the network agrees with them, so nothing is left to learn from."""
        assert self.late_mask()[2].mask == 1
        model, data, result = self.late_mask(suspected=EVERYBODY)
        assert result.mask < 0.1
        predicted = model.eval()(data.plain(UNLABELED)).argmax(1)
        assert float((predicted == data.labels[UNLABELED]).float().mean()) > 0.9

    def test_nothing_counts_before_the_network_has_said_what_they_show(self):
        """With tau = 0 every pseudo-label but the own one would; without snapshots it is never asked."""
        shown = training_data().labels[UNLABELED]
        assert self.late_mask((shown + 1) % 3, EVERYBODY, snapshots=0)[2].mask == 0
        assert self.late_mask((shown + 1) % 3, EVERYBODY, snapshots=2)[2].mask == 0

    def test_another_label_is(self):
        """Wrong labels that are suspected: the images come back under the class that they show."""
        shown = training_data().labels[UNLABELED]
        model, data, result = self.late_mask((shown + 1) % 3, EVERYBODY)
        assert result.mask > 0.5
        predicted = model.eval()(data.plain(UNLABELED)).argmax(1)
        assert float((predicted == shown).float().mean()) > 0.9

    def test_never_reinstated(self):
        settings = config(steps=60, learning_rate=0.05, reinstate=0.1)
        free, barred = (
            run(settings, snapshots=6, suspected=suspected)[1] for suspected in (NOBODY, EVERYBODY)
        )
        assert len(free.labeled) > len(LABELED)
        assert torch.equal(barred.labeled, LABELED)


@pytest.fixture
def rates(monkeypatch):
    """A list to which each step of SGD adds its step size."""
    noted, step = [], torch.optim.SGD.step

    def watched(self, *args, **kwargs):
        noted.append(self.param_groups[0]["lr"])
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.SGD, "step", watched)
    return noted


class TestStepSize:
    def test_as_published(self, rates):
        run(config(steps=8, optimizer="sgd", schedule="fixmatch_cosine", learning_rate=0.03, warmup=0))
        assert rates == [pytest.approx(0.03 * math.cos(7 * math.pi * k / 128)) for k in range(8)]

    def test_rises_and_falls_to_the_given_end(self, rates):
        run(
            config(
                steps=8, optimizer="sgd", schedule="linear", learning_rate=0.2, warmup=0.5, final_share=0.5
            )
        )
        assert rates == [pytest.approx(v) for v in (0.05, 0.1, 0.15, 0.2, 0.2, 0.175, 0.15, 0.125)]

    @pytest.mark.parametrize(("optimizer", "peak"), [("muon", 0.05), ("sgd", 0.2)])
    def test_each_optimizer_has_its_own(self, monkeypatch, optimizer, peak):
        noted, kind = [], {"muon": Muon, "sgd": torch.optim.SGD}[optimizer]
        step = kind.step

        def watched(self, *args, **kwargs):
            noted.append(self.param_groups[0]["lr"])
            return step(self, *args, **kwargs)

        monkeypatch.setattr(kind, "step", watched)
        run(config(steps=2, optimizer=optimizer, schedule="constant", warmup=0))
        assert noted == [peak, peak]
        noted.clear()
        run(config(steps=1, optimizer=optimizer, schedule="constant", warmup=0, learning_rate=0.01))
        assert noted == [0.01]

    @pytest.mark.parametrize(("steps", "a_step"), [(12, 0.01), (24, 0.005), (4, 0.02)])
    def test_the_decay_of_muon_fits_the_length(self, monkeypatch, steps, a_step):
        """All steps together take as much, at the peak; a step no more than a fiftieth."""
        made, begin = [], Muon.__init__

        def watched(self, *args, **kwargs):
            begin(self, *args, **kwargs)
            made.append(self.param_groups[0])

        monkeypatch.setattr(Muon, "__init__", watched)
        run(config(steps=steps, optimizer="muon", muon_decay=0.12, learning_rate=0.1))
        assert made[0]["orthogonal"] and made[0]["weight_decay"] * 0.1 == pytest.approx(a_step)

    @pytest.mark.parametrize("schedule", ["linear", "fixmatch_cosine"])
    def test_an_interrupted_stage_ends_as_one_that_was_not(self, tmp_path, monkeypatch, schedule):
        of = config(steps=9, schedule=schedule, warmup=0.4)
        whole = run(of, snapshots=2)[0]
        begin = WeightAverage.begin

        def until_the_sixth(self, step):
            if step == 5:
                raise KeyboardInterrupt
            begin(self, step)

        kept = session(checkpoints=Checkpoints(tmp_path))
        kept.every = 0
        monkeypatch.setattr(WeightAverage, "begin", until_the_sixth)
        with pytest.raises(KeyboardInterrupt):
            run(of, snapshots=2, among=kept)
        monkeypatch.undo()
        again = session(checkpoints=Checkpoints(tmp_path))
        assert again.resumed
        resumed = run(of, snapshots=2, among=again)[0]
        assert all(
            torch.equal(a, b) for a, b in zip(whole.state_dict().values(), resumed.state_dict().values())
        )


def test_smoothed_targets():
    """Of three classes, 0.3 spread: 0.8 for the label and 0.1 for each other, in the labeled part alone."""
    logits, target = torch.tensor([[2.0, 0.0, -1.0]]), torch.tensor([1])
    found, mask = fixmatch_loss(
        logits, target, torch.empty(0, dtype=torch.int64), config(label_smoothing=0.3)
    )
    wanted = -(torch.tensor([[0.1, 0.8, 0.1]]) * logits.log_softmax(1)).sum()
    assert mask is None
    assert float(found) == pytest.approx(float(wanted))
    views = torch.cat([logits, 9 * logits, logits])
    some = torch.tensor([ANY])
    plain, smooth = (fixmatch_loss(views, target, some, config(label_smoothing=v))[0] for v in (0.0, 0.3))
    one = fixmatch_loss(logits, target, some[:0], config(label_smoothing=0.0))[0]
    assert float(plain - one) == pytest.approx(float(smooth - found), rel=1e-5)


def test_only_weights_decay(monkeypatch):
    groups = []
    step = torch.optim.SGD.step

    def noted(self, *args, **kwargs):
        groups.append([(g["weight_decay"], {p.dim() > 1 for p in g["params"]}) for g in self.param_groups])
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.SGD, "step", noted)
    run(config(steps=1, optimizer="sgd", weight_decay=0.1))
    assert groups == [[(0.1, {True}), (0.0, {False})]]


def test_ends_on_the_average():
    """After one step the average lies between first and last weights; without averaging it is the last."""
    first = build_model("wrn-10-1", 3, 8, seed=0).classifier.weight
    last = run(config(steps=1, ema=0))[0].classifier.weight
    averaged = run(config(steps=1, ema=0.999))[0].classifier.weight
    torch.testing.assert_close(
        averaged, first.lerp(last, 1 - 1 / 10)
    )  # decay is warmed up: (1 + 0) / (10 + 0)


class TestBatchNorm:
    """The average has statistics of its own, of labeled images alone."""

    def norms(self, model):
        return {k: v for k, v in model.state_dict().items() if "running" in k}

    def test_only_statistics_change(self):
        without, fitted = run(config(norm_batches=0))[0], run(config(norm_batches=4))[0]
        assert all(torch.equal(a, b) for a, b in zip(without.parameters(), fitted.parameters()))
        assert all(
            not torch.equal(a, b) for a, b in zip(self.norms(without).values(), self.norms(fitted).values())
        )

    def test_they_fit_the_average(self):
        """Nearer to the statistics of many more batches than those of the last steps' weights are."""
        of = config(steps=30, ema=0.99, learning_rate=0.1)
        without, fitted, exact = (
            run(FinetuningConfig(**{**of.model_dump(), "norm_batches": n}))[0] for n in (0, 10, 200)
        )
        off = [
            torch.stack(
                [(self.norms(of)[name] - wanted).abs().mean() for name, wanted in self.norms(exact).items()]
            )
            for of in (fitted, without)
        ]
        # of ten batches the statistics of a layer may be off by chance, those of all are not
        assert (off[0] / off[1]).log().mean().exp() < 0.3

    def test_of_labeled_images_in_use(self, monkeypatch):
        """Not of suspects; and of those whose label came back."""
        seen = []
        given = training_data()
        views = type(given).views

        def watched(self, ids, epoch, strong):
            seen.append((epoch, strong, ids))
            return views(self, ids, epoch, strong)

        monkeypatch.setattr(type(given), "views", watched)
        found = run(config(reinstate=0.34, norm_batches=20), snapshots=4)[1]
        late = [(strong, ids) for epoch, strong, ids in seen if epoch >= 6]
        assert len(late) == 20 and not any(strong for strong, _ in late)
        assert set(torch.cat([ids for _, ids in late]).tolist()) == set(found.labeled.tolist())
        assert len(found.labeled) > len(LABELED)

    def test_off_in_the_published_preset(self):
        assert build(read_preset("paper"), "test").finetuning.norm_batches == 0


@pytest.mark.parametrize(("snapshots", "taken"), [(0, 0), (3, 3), (99, 6)])
def test_snapshots(snapshots, taken):
    found = run(config(learning_rate=0.03), snapshots=snapshots)[1]
    assert found.entropy.shape == found.loss.shape == (taken, 96)
    assert (found.loss > 0).all()
    assert not torch.equal(found.loss[:1], found.loss[1:2]) or not taken


def test_snapshots_change_nothing():
    one, two = run(config(reinstate=1.0), snapshots=0)[0], run(config(reinstate=1.0), snapshots=4)[0]
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values()))


def test_labels_come_back_where_the_network_agrees():
    found = run(config(reinstate=0.34), snapshots=4)[-1]
    assert set(found.labeled.tolist()) >= set(LABELED.tolist())
    back = found.labeled[~torch.isin(found.labeled, LABELED)]
    assert torch.isin(back, UNLABELED).all()
    agreed = (found.loss[-1] < -math.log(0.34)).nonzero().flatten()
    assert set(back.tolist()) == set(agreed.tolist()) & set(UNLABELED.tolist())


def test_logged(tmp_path):
    log = RunLog(tmp_path / "metrics.jsonl", quiet=True)
    run(config(steps=53), log=log)
    log.close()
    told = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(e["kind"], e["step"]) for e in told] == [("steps", 50), ("steps", 53)]
    assert all(math.isfinite(e["loss"]) and 0 <= e["mask"] <= 1 for e in told)
