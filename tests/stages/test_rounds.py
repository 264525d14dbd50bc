"""Stage 3 begins anew where its own learning curves give labels away, and says of suspects what they show."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny import TINY, session, training_data, watch_finetuning

from dlp_fast.config import RunConfig
from dlp_fast.detection.decide import Decision, Scored
from dlp_fast.detection.findings import Finding, HeldOutAgreement
from dlp_fast.detection.groups import Group
from dlp_fast.models.registry import build_model
from dlp_fast.selection.labels import Labels
from dlp_fast.selection.overrides import Overrides, no_overrides
from dlp_fast.selection.partition import Selection, places
from dlp_fast.stages import rounds
from dlp_fast.stages.rounds import finetune, finetuning_round, late_decision

N = 96
IDS = torch.arange(N)
SUSPECTS, TRUSTED, WITHHELD = IDS[:10], IDS[10:90], IDS[90:]
STEPS_BEFORE = 6


def config(detection=None, **finetuning):
    return RunConfig(
        **{**TINY, "detection": detection or {}, "finetuning": {**TINY["finetuning"], **finetuning}}
    )


def selection(posterior=None):
    named = IDS < 10
    score = IDS / N - named.float()
    return Selection(
        score, places(IDS), SUSPECTS, IDS[80:], SUSPECTS, TRUSTED, WITHHELD, named, posterior=posterior
    )


def run(settings, findings=(), overrides=None, chosen=None):
    start = build_model("wrn-10-1", 3, 8, seed=9)
    return finetune(
        session(),
        start,
        chosen or selection(),
        findings,
        training_data(),
        settings,
        STEPS_BEFORE,
        overrides or no_overrides(),
    )


def halves(*separations):
    """A group of each of two classes, 40 positions among the labels in use each, half of them in it."""
    membership = (np.arange(40) % 2).astype(float)
    statistics = [{"separation": s, "posterior_entropy": 0.0, "rare": 0.0} for s in separations]
    return [Group("made", k, 40 * k + np.arange(40), membership, of) for k, of in enumerate(statistics)]


@pytest.fixture
def trained(monkeypatch):
    """What each training of stage 3 was given, and what came of it."""
    return watch_finetuning(monkeypatch)


@pytest.fixture
def gives_away(monkeypatch):
    """Each round's curves give away the labels at these positions among those in use, with this decision."""
    asked = []

    def put(positions):
        def decided(labeled, entropy, loss, data, config, found_before):
            asked.append(found_before)
            group = Group("made", 0, np.array(positions), np.ones(len(positions)), {})
            finding = Finding("finetuning", 0, len(positions), 4.0, 0.0, 2.0)
            return Decision((Scored(group, 2.0), Scored(group, 0.25 * len(asked))), (finding,))

        monkeypatch.setattr(rounds, "late_decision", decided)
        return asked

    return put


class TestRounds:
    @pytest.mark.parametrize("suspects", ["relabel", "leave_out"])
    def test_labels_that_are_given_away_are_dropped(self, suspects, trained, gives_away):
        gives_away(range(5))
        found = run(config(suspects=suspects))
        assert found.outcome.metrics["rounds"] == len(trained) == 2
        (first, of_first), (second, of_second) = trained
        dropped = set(of_first.labeled[:5].tolist())
        assert dropped <= set(first.labeled.tolist())
        assert not dropped & set(second.labeled.tolist())
        assert dropped & set(second.unlabeled.tolist()) == (dropped if suspects == "relabel" else set())
        assert second.suspected[sorted(dropped)].all()  # not to be given the label they came with
        assert found.given_away.tolist() == [*of_first.labeled[:5].tolist(), *of_second.labeled[:5].tolist()]
        assert found.stage3_detections == 5  # those of the last round, whose labels the model has learnt
        assert [finding.stage for finding in found.findings] == ["finetuning"] * 2
        assert found.max_subthreshold_score == 0.5
        seconds = [of.seconds for _, of in trained]
        assert found.outcome.metrics["seconds"] == pytest.approx(sum(seconds))

    def test_each_round_has_a_network_of_its_own(self, trained, gives_away):
        gives_away(range(5))
        found = run(config())
        again = run(config(rounds=1))
        assert not torch.equal(found.model.classifier.weight, again.model.classifier.weight)
        weights = found.model.state_dict()
        assert all(torch.equal(weights[name], value) for name, value in found.outcome.weights.items())

    def test_one_round_where_nothing_is_given_away(self, trained):
        found = run(config())
        assert found.outcome.metrics["rounds"] == len(trained) == 1
        assert (found.findings, found.stage3_detections, len(found.given_away)) == ((), 0, 0)

    def test_one_round_as_published(self, trained, gives_away):
        gives_away(range(5))
        assert run(config(labeled="hardest")).outcome.metrics["rounds"] == 1

    def test_what_a_person_keeps_is_kept(self, trained, gives_away):
        gives_away(range(5))
        none = torch.empty(0, dtype=torch.int64)
        found = run(config(rounds=1), overrides=Overrides(keep=TRUSTED[:4], drop=none, suspect=none))
        assert found.given_away.tolist() == TRUSTED[4:5].tolist()

    def test_only_what_stage_1_has_found_counts_as_found_before(self, trained, gives_away):
        asked = gives_away(range(5))
        run(config(rounds=3))
        assert asked == [False] * 3
        asked.clear()
        run(config(rounds=2), findings=(Finding("supervised", 1, 10, 4.0, 0.0, 2.0),))
        assert asked == [True] * 2

    def test_stage_1_counts_for_the_steps(self, monkeypatch):
        monkeypatch.setattr("dlp_fast.stages.finetuning.LEAST_STEPS", 1)
        found = run(config(steps=None, epochs=1, batch=96))
        assert found.outcome.metrics["steps"] == STEPS_BEFORE


class TestLateDecision:
    def test_groups_must_stand_out(self, monkeypatch):
        """Where most classes fall into two in stage 3, none of them is suspected for it."""
        for separations, late in (((9.0, 8.0), 0), ((9.0, 1.0), 20)):
            groups = halves(*separations)
            monkeypatch.setattr(rounds, "learning_curves", lambda *_, groups=groups, **__: groups)
            found = run(config(rounds=1))
            assert found.stage3_detections == late
            assert found.given_away.tolist() == (TRUSTED[1:40:2].tolist() if late else [])
            assert [finding.stage for finding in found.findings] == ["finetuning"] * (late > 0)
            assert 0 < found.max_subthreshold_score < 1

    @pytest.mark.parametrize(
        ("separation", "before", "late"), [(4.0, True, False), (4.0, False, True), (9.0, True, True)]
    )
    def test_beside_what_stage_1_found(self, separation, before, late, monkeypatch):
        """They must be twice as clear there."""
        monkeypatch.setattr(rounds, "learning_curves", lambda *_, **__: halves(separation, 0.1))
        findings = (Finding("supervised", 2, 10, 4.0, 0.0, 2.0),) if before else ()
        assert (run(config(rounds=1), findings).stage3_detections > 0) == late

    def test_the_first_snapshot_does_not_count(self, monkeypatch):
        """It falls to the end of the warm-up. Only plain fits are asked for."""
        given = []

        def proposal(*args, **named):
            given.append((args, named))
            return []

        monkeypatch.setattr(rounds, "learning_curves", proposal)
        values = torch.arange(10.0)[:, None].repeat(1, N)
        labeled = torch.arange(1, 9)
        decision = late_decision(labeled, values, values + 0.5, training_data(), RunConfig(**TINY), False)
        assert decision == Decision((), ())
        (entropy, loss, labels, classes, _), named = given[0]
        assert entropy.shape == (9, 8) and entropy[:, 0].tolist() == list(range(1, 10))
        assert (loss == entropy + 0.5).all()
        assert labels.tolist() == training_data().labels[labeled].tolist()
        assert classes == 3 and named == {"rare": False}


def test_the_posterior_of_each_image_arrives(trained):
    posterior = torch.linspace(0, 0.4, N)
    run(config(), chosen=selection(posterior))
    ((labels, _),) = trained
    assert torch.equal(labels.posterior, posterior)


class TestHeldOut:
    @pytest.fixture
    def heard(self, monkeypatch):
        """What was asked; the first answer is 0.25, the next one 0.5."""
        asked = []

        def agreement(loss, labels, suspects, trusted):
            asked.append((loss, suspects, trusted))
            return {0: HeldOutAgreement(0.25 * len(asked), 0.2), 7: HeldOutAgreement(1.0, 1.0)}

        monkeypatch.setattr(rounds, "held_out_agreement", agreement)
        return asked

    @pytest.mark.parametrize("start", ["fresh", "unlearned"])
    def test_the_first_round_says_what_suspects_show(self, start, heard, trained, gives_away):
        """As long as it has learnt from none of them, which unlearnt weights have."""
        gives_away(range(2))
        before = tuple(Finding("supervised", label, 10, 3.0, 0.0, 1.2) for label in (0, 1))
        found = run(config(steps=12, start=start), before)
        assert len(trained) == 2
        if start == "unlearned":
            assert not heard and found.findings[:2] == before
            return
        first, second = found.findings[:2]
        assert first.held_out == HeldOutAgreement(0.25, 0.2) and first.likely_benign
        assert second == before[1]
        (loss, suspects, trusted), _ = heard
        of_first = trained[0][1]
        assert torch.equal(loss, of_first.loss[2])  # at the third snapshot
        assert not torch.equal(loss, of_first.loss[3])
        assert torch.equal(suspects, SUSPECTS) and torch.equal(trusted, TRUSTED)

    def test_nobody_is_suspected(self, heard):
        labels = Labels(TRUSTED, WITHHELD, torch.zeros(N, dtype=torch.bool))
        model = build_model("wrn-10-1", 3, 8, seed=0)
        settings = config(steps=12)
        kept = finetuning_round(
            session(), model, training_data(), labels, settings, STEPS_BEFORE, False, no_overrides()
        )
        assert not heard and kept["held_out"] == {}
