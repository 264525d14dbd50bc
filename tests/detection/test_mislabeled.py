"""Images under wrong labels: told by what a set's own random labels look like, and nobody where nothing is learnt."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import TINY, session, training_data

from dlp_fast.config import DetectionConfig, RunConfig
from dlp_fast.data.storage import ResidentImages
from dlp_fast.detection.mislabeled import probably_mislabeled
from dlp_fast.detection.propose import Observed
from dlp_fast.pipeline import defend
from dlp_fast.selection.overrides import Overrides, apply
from dlp_fast.selection.partition import select

N, CLASSES, EPOCHS = 1200, 4, 10
CONFIG = DetectionConfig()


def observed(wrong: np.ndarray, seed: int = 0, hard: int = 0) -> Observed:
    """Curves of a network that learns right labels; those of class `hard` late. `wrong`: ids under a wrong label."""
    rng = np.random.default_rng(seed)
    labels = np.arange(N) % CLASSES
    shift = 1 + rng.integers(0, CLASSES - 1, N)
    known = 4 * np.exp(-np.arange(EPOCHS) / 3)[:, None] * rng.lognormal(0, 0.3, N)
    unknown = 3.5 + rng.normal(0, 0.6, (EPOCHS, N))
    own = np.where(labels == hard, known + 0.8, known)
    own[:, wrong] = unknown[:, wrong] - 0.3  # trained on all the same
    other = np.abs(unknown) + 0.2
    arrays = (torch.from_numpy(of.astype(np.float32)) for of in (own / 2, own, other))
    images = ResidentImages(torch.zeros(N, 8, 8, 3, dtype=torch.uint8))
    entropy, loss, other_loss = arrays
    others = torch.from_numpy((labels + shift) % CLASSES)
    return Observed(images, torch.from_numpy(labels), CLASSES, entropy, loss, other_loss, others)


def test_wrong_labels_are_listed_and_hard_classes_are_not():
    wrong = np.sort(np.random.default_rng(1).permutation(N)[:120])
    listed = np.flatnonzero(probably_mislabeled(observed(wrong), CONFIG))
    assert np.isin(listed, wrong).mean() > 0.9 and np.isin(wrong, listed).mean() > 0.6


def test_of_right_labels_next_to_none_is_listed():
    assert probably_mislabeled(observed(np.zeros(0, dtype=int)), CONFIG).mean() < 0.005


def test_how_many_is_an_option():
    seen = observed(np.arange(100))
    counts = [
        int(probably_mislabeled(seen, DetectionConfig(mislabeled_quantile=q)).sum()) for q in (0.0, 0.5, 1.0)
    ]
    assert counts[0] > counts[1] > counts[2] == 0


@pytest.mark.parametrize("change", [{"other_loss": None}, {"classes": 1}])
def test_where_nothing_can_be_compared_nobody_is_listed(change):
    assert not probably_mislabeled(replace(observed(np.arange(50)), **change), CONFIG).any()


def test_one_epoch_says_nothing():
    seen = observed(np.arange(50))
    once = {name: getattr(seen, name)[:1] for name in ("entropy", "loss", "other_loss")}
    assert not probably_mislabeled(replace(seen, **once), CONFIG).any()


def test_the_other_label_is_never_the_own_one_and_the_same_for_any_batch():
    data = training_data(300, 5)
    ids = torch.arange(300)
    others = data.other_label(ids)
    assert (others != data.labels).all()
    assert torch.equal(others[100:], data.other_label(ids[100:]))
    assert (torch.bincount(others, minlength=5) > 40).all()
    assert (training_data(40, 1).other_label(torch.arange(40)) == 0).all()


def chosen():
    """A Selection of 60 images in 2 classes: 0 to 4 suspected, 3 to 10 mislabeled."""
    from dlp_fast.detection.suspicion import by_score

    suspected, wrong = torch.arange(60) < 5, (torch.arange(60) >= 3) & (torch.arange(60) < 11)
    of = by_score(torch.arange(60).float() / 60)
    of = replace(of, suspected=suspected, withheld=suspected, mislabeled=wrong)
    return select(of, torch.arange(60) % 2, 2, CONFIG)


def test_their_labels_are_not_used_and_may_come_back():
    selection = chosen()
    assert selection.mislabeled.tolist() == [5, 6, 7, 8, 9, 10]  # who is suspected is not on this list
    assert not torch.isin(selection.mislabeled, selection.trusted).any()
    assert torch.isin(selection.mislabeled, selection.unlabeled).all()
    assert not torch.isin(selection.mislabeled, selection.suspected_clean).any()


def test_a_person_takes_them_off_the_list():
    ids = [torch.tensor(of) for of in ([5], [6], [7])]
    after = apply(chosen(), Overrides(*ids), 5)
    assert after.mislabeled.tolist() == [8, 9, 10]
    assert 5 in after.trusted and 6 in after.left_out and 7 in after.suspected_poisoned


def test_the_pipeline_lists_them(monkeypatch):
    """Wrong labels in easy pictures: listed, and neither trusted nor suspected."""
    data = training_data(360, 3, seed=2)
    wrong = torch.arange(0, 360, 20)
    labels = data.labels.clone()
    labels[wrong] = (labels[wrong] + 1) % 3
    detection = {"proposals": ("learning_curves",), "verify_from": 1}
    config = {**TINY, "detection": detection, "supervised": {"epochs": 6, "min_steps": 0, "batch": 32}}
    selection = defend(session(), replace(data, labels=labels), RunConfig(**config)).selection
    listed = selection.mislabeled
    assert len(listed) and torch.isin(listed, wrong).float().mean() > 0.8
    assert torch.isin(wrong, listed).float().mean() > 0.5
    assert not torch.isin(listed, selection.trusted).any()
