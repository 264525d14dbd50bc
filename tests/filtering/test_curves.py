import numpy as np
import pytest

from dlp_fast.config import FilterConfig
from dlp_fast.filtering.curves import LEAST, curves, split_class, split_classes

CONFIG = FilterConfig()
EPOCHS = 8


def cloud(rng, n, learnt_at, spread):
    """[epochs, n] losses that fall from 2.3 near epoch `learnt_at`, each by its own pace and depth."""
    at = learnt_at + spread * rng.standard_normal(n)
    depth = np.exp(0.5 * spread * rng.standard_normal(n))
    epochs = np.arange(EPOCHS)[:, None]
    return 2.3 / (1 + np.exp(2 * (epochs - at))) + 0.05 * depth


def two_clouds(seed=0, clean=300, poisoned=60):
    """Entropy, loss [epochs, n] of a class whose last images were learnt at once, early and deeply."""
    rng = np.random.default_rng(seed)
    loss = np.concatenate([cloud(rng, clean, 5, 1.2), 0.01 * cloud(rng, poisoned, 1, 0.05)], axis=1)
    return 0.8 * loss, loss


def test_two_clouds_are_found():
    entropy, loss = two_clouds()
    (split,) = split_classes(entropy, loss, np.zeros(360, dtype=np.int64), 1)
    assert split.found(CONFIG.min_distance, CONFIG.max_doubt)
    assert split.label == 0
    inside = split.posterior > 0.5
    assert inside[300:].mean() == 1  # the deeper-learnt cloud is the one told
    assert inside[:300].mean() < 0.02
    assert split.gain > 0
    assert 0 <= split.doubt <= 1


@pytest.mark.parametrize("seed", range(3))
def test_one_cloud_is_not_cut_in_two(seed):
    rng = np.random.default_rng(seed)
    loss = cloud(rng, 400, 4, 1.2)
    (split,) = split_classes(0.8 * loss, loss, np.zeros(400, dtype=np.int64), 1)
    assert not split.found(CONFIG.min_distance, CONFIG.max_doubt)


def test_members_are_ids_of_their_class():
    entropy, loss = two_clouds()
    labels = np.tile([1, 0, 2], 120)
    splits = split_classes(entropy, loss, labels, 3)
    assert [s.label for s in splits] == [0, 1, 2]
    for split in splits:
        np.testing.assert_array_equal(split.members, np.flatnonzero(labels == split.label))
        assert len(split.posterior) == len(split.members)


def test_deterministic():
    entropy, loss = two_clouds()
    labels = np.zeros(360, dtype=np.int64)
    np.random.seed(1)
    first = split_classes(entropy, loss, labels, 1)[0]
    np.random.seed(2)
    second = split_classes(entropy, loss, labels, 1)[0]
    np.testing.assert_array_equal(first.posterior, second.posterior)
    assert (first.distance, first.doubt, first.gain) == (second.distance, second.doubt, second.gain)


def test_tiny_classes_are_passed_over():
    entropy, loss = two_clouds()
    labels = np.zeros(360, dtype=np.int64)
    labels[: LEAST - 1] = 1
    assert [s.label for s in split_classes(entropy, loss, labels, 3)] == [0]


def test_one_epoch_has_no_curves():
    entropy, loss = two_clouds()
    assert split_classes(entropy[:1], loss[:1], np.zeros(360, dtype=np.int64), 1) == []
    assert split_classes(entropy[:0], loss[:0], np.zeros(360, dtype=np.int64), 1) == []


def test_constant_curves():
    """All learnt to the last bit: nothing to tell apart, and nothing divided by zero."""
    constant = np.zeros((EPOCHS, 100), dtype=np.float32)
    assert split_classes(constant, constant, np.zeros(100, dtype=np.int64), 1) == []
    almost = constant.copy()
    almost[0, 0] = 1.0
    for split in split_classes(almost, almost, np.zeros(100, dtype=np.int64), 1):
        assert np.isfinite(split.posterior).all()


def test_curves():
    entropy, loss = np.ones((3, 5)), np.zeros((3, 5))
    found = curves(entropy, loss)
    assert found.shape == (5, 6)
    np.testing.assert_allclose(found[:, :3], np.log(0.02))
    np.testing.assert_allclose(found[:, 3:], np.log(1.02))


def test_two_epochs_are_enough():
    entropy, loss = two_clouds()
    split = split_class(0, np.arange(360), curves(entropy[-2:], loss[-2:]), loss[-1])
    assert np.isfinite(split.distance)
