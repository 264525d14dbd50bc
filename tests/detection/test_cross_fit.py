"""Labels that stage 1 knows by heart: whom networks of the other half tell as mislabeled, how many, and when asked."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import TINY, session, training_data

from dlp_fast.config import DetectionConfig, RunConfig
from dlp_fast.detection.mislabeled import (
    HeldOutLoss,
    known_by_heart,
    mislabeled_by_held_out,
    probably_mislabeled,
    wrong_share,
)
from dlp_fast.detection.propose import Observed
from dlp_fast.pipeline import defend
from dlp_fast.runs.checkpoint import Checkpoints
from dlp_fast.stages import cross_fit
from dlp_fast.stages.cross_fit import halves

N, CLASSES, EPOCHS = 2000, 5, 12
CONFIG = DetectionConfig()
LABELS = np.arange(N) % CLASSES
OTHERS = (LABELS + 1 + np.arange(N) // CLASSES % (CLASSES - 1)) % CLASSES


def told(share: float, hard: float = 0.1, seed: int = 0):
    """(held-out losses, curves of stage 1, bool [n]: wrong) of networks that know right labels, but for `hard` of them
    as little as wrong ones; stage 1 ends knowing all labels, wrong ones later.
    """
    rng = np.random.default_rng(seed)
    wrong = rng.random(N) < share
    unknown = rng.normal(4, 1, (2, N)).clip(0.5)
    right = rng.exponential(0.5, N)
    difficult = rng.random(N) < hard
    right[difficult] = rng.normal(2.5, 0.7, difficult.sum()).clip(0.2)
    own = np.where(wrong, unknown[0], right)
    late = np.where(wrong, 4, np.where(difficult, 2.5, 1)) * rng.lognormal(0, 0.2, N)
    curves = 3 * np.exp(-np.arange(EPOCHS)[:, None] / late)
    return HeldOutLoss(own, unknown[1]), curves, wrong


def listed_of(held: HeldOutLoss, curves: np.ndarray, config: DetectionConfig = CONFIG) -> np.ndarray:
    return mislabeled_by_held_out(held, curves, LABELS, OTHERS, CLASSES, config)


@pytest.mark.parametrize("share", [0.05, 0.1, 0.2, 0.4])
def test_wrong_labels_known_by_heart_are_listed(share):
    held, curves, wrong = told(share)
    listed = listed_of(held, curves)
    assert listed[wrong].mean() > 0.7 and wrong[listed].mean() > 0.8
    # from the curves alone next to nobody is: other labels are never trained on
    seen = Observed(
        None, torch.from_numpy(LABELS), CLASSES, None, torch.from_numpy(curves),
        torch.full((EPOCHS, N), 6.0), torch.from_numpy(OTHERS),
    )  # fmt: skip
    assert probably_mislabeled(seen, CONFIG).sum() < 0.1 * wrong.sum()


def test_of_right_labels_few_are_listed():
    held, curves, _ = told(0.0)
    assert listed_of(held, curves).mean() < 0.02


def test_networks_that_know_nothing_list_nobody():
    rng = np.random.default_rng(3)
    held = HeldOutLoss(*rng.normal(3, 1, (2, N)))
    assert not listed_of(held, told(0.2)[1]).any()


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3])
def test_the_share_of_wrong_labels(share):
    rng = np.random.default_rng(0)
    other = rng.normal(4, 1, 20_000)
    own = np.where(rng.random(20_000) < share, rng.normal(4, 1, 20_000), rng.normal(0, 1, 20_000))
    assert wrong_share(own, other, 0.2) == pytest.approx(share, abs=0.02)


@pytest.mark.parametrize(
    ("loss", "over", "asked"),
    [
        (0.1, {}, True),
        (1.0, {}, False),
        (0.1, {"heart_share": 1}, False),
        (0.1, {"mislabeled_quantile": 1}, False),
    ],
)
def test_when_held_out_networks_are_asked(loss, over, asked):
    curves = torch.full((9, 100), 2.0)
    curves[-3:] = loss
    curves[-3:, :15] = 2.0
    assert known_by_heart(curves, DetectionConfig(**{"heart_share": 0.8, **over})) is asked


def test_halves_have_as_many_of_each_class():
    labels = np.repeat(np.arange(4), [40, 41, 1, 0])
    half = halves(labels, 4, 0)
    for label, count in enumerate((40, 41, 1)):
        assert abs(int(half[labels == label].sum()) * 2 - count) <= 1
    assert (halves(labels, 4, 0) == half).all() and (halves(labels, 4, 1) != half).any()


def noisy_run(**over):
    """(data with wrong labels, ids of these, a configuration in which they are learnt by heart)."""
    data = training_data(360, 3, seed=2)
    wrong = torch.arange(0, 360, 10)
    labels = data.labels.clone()
    labels[wrong] = (labels[wrong] + 1 + torch.arange(len(wrong)) % 2) % 3
    detection = {
        "proposals": ("learning_curves",),
        "verify_from": 1,
        "heart_share": 0.3,
        "networks": 1,
        **over,
    }
    config = RunConfig(
        **{**TINY, "detection": detection, "supervised": {"epochs": 6, "min_steps": 0, "batch": 32}}
    )
    return replace(data, labels=labels), wrong, config


def test_a_run_asks_two_networks_and_goes_on_after_the_first(tmp_path, monkeypatch):
    data, wrong, config = noisy_run()
    trained, real = [], cross_fit.supervised

    def stopped(*arguments, only, **named):
        trained.append(only)
        if len(trained) == 2:
            raise KeyboardInterrupt
        return real(*arguments, only=only, **named)

    monkeypatch.setattr(cross_fit, "supervised", stopped)
    with pytest.raises(KeyboardInterrupt):
        defend(session(checkpoints=Checkpoints(tmp_path)), data, config)
    listed = defend(session(checkpoints=Checkpoints(tmp_path)), data, config).selection.mislabeled
    assert len(trained) == 3 and torch.equal(trained[1], trained[2])
    both = torch.cat(trained[:2])
    assert len(both) == len(both.unique()) == len(data)
    assert (
        torch.isin(listed, wrong).float().mean() > 0.8
    )  # some others have a common cause, and are suspected
    assert torch.isin(wrong, listed).float().mean() > 0.5


def test_without_the_question_no_network_is_trained(monkeypatch):
    assert DetectionConfig().heart_share == 1  # by default it is not asked: what it costs is one more stage 1
    data, _, config = noisy_run(heart_share=1)
    monkeypatch.setattr(cross_fit, "supervised", None)
    defend(session(), data, config)
