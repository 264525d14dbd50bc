"""Each baseline finds what it is known for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from observed import asked, observed

from dlp_fast.config import DetectionConfig
from dlp_fast.detection.baselines import (
    activation_clustering,
    last_entropy,
    spectral_signatures,
    training_loss,
)
from dlp_fast.detection.decide import Decision
from dlp_fast.detection.detect import detect, look_at_curves
from dlp_fast.selection.partition import select

N, CLASSES = 600, 3


def planted(shift=6.0):
    """(features, labels, poisoned): class 1 holds 40 images that lie elsewhere in feature space."""
    rng = np.random.default_rng(0)
    labels = np.arange(N) % CLASSES
    x = rng.normal(size=(N, 16)) + 4 * np.eye(16)[labels]
    poisoned = np.zeros(N, dtype=bool)
    poisoned[np.flatnonzero(labels == 1)[:40]] = True
    x[poisoned, 9] += shift
    return torch.from_numpy(x).float(), torch.from_numpy(labels), torch.from_numpy(poisoned)


def top(of, labels, rate=0.05):
    config = DetectionConfig(method="loss", rate=rate)
    return select(of, labels, CLASSES, config).suspected_poisoned


@pytest.mark.parametrize("method", [activation_clustering, spectral_signatures])
def test_finds_the_group(method):
    x, labels, poisoned = planted()
    found = top(method(x, labels, CLASSES), labels)
    assert len(found) == 30
    assert float(poisoned[found].float().mean()) > 0.9


def test_half_of_a_class():
    """10 % of all images under one label double its class: the poison is no smaller cluster, but the clearest one."""
    rng = np.random.default_rng(1)
    labels = np.concatenate([np.arange(N) % CLASSES, np.ones(N // CLASSES, dtype=int)])
    x = rng.normal(size=(len(labels), 16)) + 4 * np.eye(16)[labels]
    x[N:, 9] += 9
    poisoned = torch.arange(len(labels)) >= N
    y = torch.from_numpy(labels)
    found = top(activation_clustering(torch.from_numpy(x).float(), y, CLASSES), y)
    assert set(y[found].tolist()) == {1}
    share = float(poisoned[found].float().mean())
    assert share > 0.98 or share < 0.02  # of two clusters of one size, which is the poison it cannot say


@pytest.mark.parametrize("method", [activation_clustering, spectral_signatures])
def test_repeats_itself(method):
    x, labels, _ = planted()
    assert torch.equal(method(x, labels, CLASSES).score, method(x, labels, CLASSES).score)


def test_spectral_signatures_by_hand():
    x, labels, _ = planted()
    score = spectral_signatures(x, labels, CLASSES).score.double()
    inside = (labels == 2).nonzero().flatten()
    centred = x[inside].double() - x[inside].double().mean(0)
    _, _, v = torch.linalg.svd(centred, full_matrices=False)
    expected = (centred @ v[0]) ** 2
    mine = score[inside]
    torch.testing.assert_close(mine.max() - mine, expected - expected.min(), rtol=1e-4, atol=1e-3)


def test_loss_ranks_by_the_last_epoch():
    loss = torch.tensor([[0.0, 1.0, 2.0], [0.5, 0.1, 0.9]])
    assert training_loss(loss).score.argsort().tolist() == [1, 0, 2]


@pytest.mark.parametrize("method", [last_entropy, training_loss])
def test_columns_of_large_sets(method):
    """Theirs are fp16; the choice is that of the same values in fp32."""
    column, labels = torch.rand(2, N).half(), torch.arange(N) % CLASSES
    assert torch.equal(top(method(column), labels), top(method(column.float()), labels))


def test_small_classes_are_not_split():
    x, labels, _ = planted()
    labels = labels.clone()
    labels[:4] = 3
    of = activation_clustering(x, labels, 4)
    assert (of.score[:4] == of.score.max()).all()


def never():
    raise AssertionError("activations were asked for")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("entropy", lambda entropy, _loss, _x, _labels: last_entropy(entropy)),
        ("loss", lambda _entropy, loss, _x, _labels: training_loss(loss)),
        ("activation_clustering", lambda _e, _l, x, labels: activation_clustering(x, labels, CLASSES)),
        ("spectral_signatures", lambda _e, _l, x, labels: spectral_signatures(x, labels, CLASSES)),
    ],
)
def test_by_configuration(name, expected):
    """Activations are asked for only by the methods that look at them; none of the four decides anything."""
    x, labels, _ = planted()
    entropy, loss = torch.rand(3, N), torch.rand(3, N)
    features = never if name in ("entropy", "loss") else lambda: x
    seen = observed(entropy, loss, labels, CLASSES)
    config = DetectionConfig(method=name)
    found = detect(seen, look_at_curves(seen, config), asked(features), config)
    wanted = expected(entropy, loss, x, labels)
    assert torch.equal(found.suspicion.score, wanted.score)
    assert torch.equal(found.suspicion.clean_score, wanted.clean_score)
    assert not (found.suspicion.suspected | found.suspicion.never_clean).any()
    assert found.decision == Decision((), ())
