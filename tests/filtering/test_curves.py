import numpy as np
import pytest
from sklearn.mixture import GaussianMixture

from dlp_fast.config import DetectionConfig
from dlp_fast.detection.propose.learning_curves import (
    LEAST,
    RARE_EPOCHS,
    Split,
    bhattacharyya,
    curves,
    late_strengths,
    split_class,
    split_classes,
)

CONFIG = DetectionConfig()
EPOCHS = 8


def cloud(rng, n, learnt_at=0.0, depth=0.0, spread=2.0):
    """[epochs, n] losses of labels whose log-odds rise by and by, each at its own level, with noise as SGD makes it.

    From epoch `learnt_at` on they lie `depth` higher: what a shortcut does to all that carry the trigger.
    """
    epochs = np.arange(EPOCHS)[:, None]
    odds = -1 + 0.3 * epochs + spread * rng.standard_normal(n) + 0.7 * rng.standard_normal((EPOCHS, n))
    odds += depth / (1 + np.exp(-3 * (epochs - learnt_at)))
    return np.log1p(np.exp(-odds))


def two_clouds(seed=0, clean=300, poisoned=60, learnt_at=1.0):
    """Entropy, loss [epochs, n] of a class whose last images were learnt together and deeply."""
    rng = np.random.default_rng(seed)
    loss = np.concatenate([cloud(rng, clean), cloud(rng, poisoned, learnt_at, 7.0, 0.7)], axis=1)
    return 0.8 * loss, loss


@pytest.mark.parametrize("learnt_at", [1.0, 4.0, 6.0])
def test_two_clouds_are_found(learnt_at):
    """However early or late the trigger was learnt."""
    entropy, loss = two_clouds(learnt_at=learnt_at)
    (split,) = split_classes(entropy, loss, np.zeros(360, dtype=np.int64), 1)
    assert split.apart(CONFIG.min_separation)
    assert split.label == 0
    inside = split.posterior > 0.5
    assert inside[300:].mean() > 0.98  # the deeper-learnt cloud is the one told
    assert inside[:300].mean() < 0.02
    assert split.strength(CONFIG.min_separation) > 1.2
    assert 0 <= split.doubt <= 1


@pytest.mark.parametrize("seed", range(3))
def test_one_cloud_is_not_cut_in_two(seed):
    rng = np.random.default_rng(seed)
    loss = cloud(rng, 400)
    (split,) = split_classes(0.8 * loss, loss, np.zeros(400, dtype=np.int64), 1)
    assert not split.apart(CONFIG.min_separation)


class TestRare:
    def rare(self, seed, poisoned=40, clean=800):
        return two_clouds(seed, clean, poisoned, learnt_at=5.0), np.zeros(clean + poisoned, dtype=np.int64)

    @pytest.mark.parametrize("seed", range(3))
    def test_five_per_cent_of_a_class_learnt_late(self, seed):
        (entropy, loss), labels = self.rare(seed)
        (split,) = split_classes(entropy, loss, labels, 1, CONFIG.min_separation)
        assert split.apart(CONFIG.min_separation)
        inside = split.posterior > 0.5
        assert inside[800:].mean() > 0.9
        assert inside[:800].mean() < 0.02

    @pytest.mark.parametrize("seed", range(4))
    def test_a_clean_class_has_no_rare_cloud_either(self, seed):
        rng = np.random.default_rng(seed)
        loss = cloud(rng, 400)
        labels = np.zeros(400, dtype=np.int64)
        (split,) = split_classes(0.8 * loss, loss, labels, 1, CONFIG.min_separation)
        assert not split.apart(CONFIG.min_separation)

    def test_small_clouds_must_be_clearer(self):
        """Chance makes small ones; a large one found from a tail is the plain fit's to find."""
        members = np.arange(1000)

        def strength(count, rare=True):
            posterior = (members < count).astype(float)
            return Split(0, members, posterior, 4.2, 0.0, rare).strength(2.1)

        assert strength(400) == 0
        assert strength(250) == pytest.approx(2 / 1.22)
        assert strength(100) == pytest.approx(2 / 1.4)
        assert strength(20) == pytest.approx(2 / 2.6)
        assert strength(9) == 0
        assert strength(400, rare=False) == strength(20, rare=False) == 2.0

    def test_few_epochs_are_not_enough(self, monkeypatch):
        monkeypatch.setattr("dlp_fast.detection.propose.learning_curves.rare_splits", None)
        loss = cloud(np.random.default_rng(0), 400)[: RARE_EPOCHS - 1]
        (split,) = split_classes(0.8 * loss, loss, np.zeros(400, dtype=np.int64), 1, CONFIG.min_separation)
        assert not split.rare

    def test_where_two_clouds_are_found_the_tails_are_not_looked_at(self, monkeypatch):
        monkeypatch.setattr("dlp_fast.detection.propose.learning_curves.rare_splits", None)
        entropy, loss = two_clouds()
        (split,) = split_classes(entropy, loss, np.zeros(360, dtype=np.int64), 1, CONFIG.min_separation)
        assert split.apart(CONFIG.min_separation) and not split.rare


class TestBesideOthers:
    """Every class may fall into labels known by heart and not yet: poison stands out."""

    def splits(self, poisoned, classes=6):
        of = [two_clouds(seed) if seed in poisoned else two_clouds(seed, 360, 0) for seed in range(classes)]
        entropy, loss = (np.concatenate(x, axis=1) for x in zip(*of, strict=True))
        return split_classes(entropy, loss, np.arange(classes).repeat(360), classes)

    @pytest.mark.parametrize(
        ("poisoned", "found"), [({2}, {2}), ({1, 4}, {1, 4}), (set(), set()), ({0, 1, 2, 3, 5}, set())]
    )
    def test_classes_that_stand_out(self, poisoned, found):
        strengths = late_strengths(self.splits(poisoned), CONFIG.min_separation, early=False)
        assert {k for k, s in enumerate(strengths) if s >= 1} == found

    def test_values(self):
        posterior = (np.arange(100) < 50).astype(float)

        def strengths(*separations):
            of = [Split(k, np.arange(100), posterior, s, 0.0) for k, s in enumerate(separations)]
            return late_strengths(of, 2.0, early=False)

        assert strengths(6.0, 1.0, 0.5, 0.5) == [3.0, 0.5, 0.25, 0.25]
        assert strengths(6.0, 2.0, 2.0) == [1.5, 0.9, 0.9]
        assert strengths(6.0, 4.0, 4.0) == [0.9, 0.9, 0.9]  # not found, and nothing to be sure of
        assert strengths(6.0, 1.8, 0.4) == pytest.approx([3 / 1.1, 0.9 / 3.2, 0.2 / 3.9])
        assert strengths(6.0) == [3.0]
        assert strengths() == []

    def test_a_cloud_of_most_of_its_class_is_what_is_known_already(self):
        def strength(count):
            posterior = (np.arange(100) < count).astype(float)
            return late_strengths([Split(0, np.arange(100), posterior, 4.0, 0.0)], 2.0, early=False)

        assert strength(50) == [2.0]
        assert strength(51) == strength(88) == [0.0]


@pytest.mark.parametrize(("separation", "early", "late"), [(2.0, 0.5, 1.0), (4.0, 1.0, 2.0), (8.0, 2.0, 4.0)])
def test_beside_a_class_of_stage_1_a_late_cloud_counts_from_twice(separation, early, late):
    of = [Split(0, np.arange(100), (np.arange(100) < 30).astype(float), separation, 0.0)]
    assert late_strengths(of, 2.0, early=True) == [early]
    assert late_strengths(of, 2.0, early=False) == [late]


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
    assert (first.separation, first.doubt) == (second.separation, second.doubt)


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
    np.testing.assert_allclose(found[:, :3], np.log(1e4))  # p = 1, as sure as log-odds are counted
    np.testing.assert_allclose(found[:, 3:], np.log(1.02))
    half = curves(entropy, np.full((3, 5), np.log(2)))
    np.testing.assert_allclose(half[:, :3], 0, atol=1e-12)
    lost = curves(entropy, np.full((3, 5), 100.0))
    np.testing.assert_allclose(lost[:, :3], np.log(1e-6))


@pytest.mark.parametrize("few", [15, 30])
def test_a_few_that_are_not_learnt_are_no_poison(few):
    """Outliers are the smaller cloud, and the shallower one: the other is nearly the whole class."""
    rng = np.random.default_rng(0)
    loss = np.concatenate([cloud(rng, 400), 8 + 0.1 * rng.standard_normal((EPOCHS, few))], axis=1)
    entropy = np.minimum(0.8 * loss, 3)
    (split,) = split_classes(entropy, loss, np.zeros(400 + few, dtype=np.int64), 1)
    assert split.separation > CONFIG.min_separation  # two clouds they are
    assert not split.apart(CONFIG.min_separation)


def test_bhattacharyya_by_hand():
    mixture = GaussianMixture(2)
    mixture.means_ = np.array([[0.0, 0.0], [2.0, 0.0]])
    mixture.covariances_ = np.array([np.eye(2), 4 * np.eye(2)])
    # 1/8 d' S^-1 d + 1/2 ln(|S| / sqrt(|S1| |S2|)), S = 2.5 I
    expected = 4 / 2.5 / 8 + 0.5 * np.log(6.25 / np.sqrt(1 * 16))
    assert bhattacharyya(mixture) == pytest.approx(expected)


def test_two_epochs_are_enough():
    entropy, loss = two_clouds()
    split = split_class(0, np.arange(360), curves(entropy[-2:], loss[-2:]), loss[-1])
    assert np.isfinite(split.separation)
