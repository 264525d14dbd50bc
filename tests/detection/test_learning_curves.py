"""Components in the learning curves of a class: what is proposed, and that the decision finds what is poison."""

from __future__ import annotations

import sys
import warnings

import numpy as np
import pytest
from made_curves import EPOCHS, component, two_components
from observed import observed
from sklearn.mixture import GaussianMixture

from dlp_fast.config import DetectionConfig, LearningCurvesConfig
from dlp_fast.detection.decide import decide, separation_score
from dlp_fast.detection.propose import PROPOSALS, mixtures
from dlp_fast.detection.propose.learning_curves import bhattacharyya, by_class, curves, learning_curves

CONFIG = DetectionConfig()
OPTIONS = LearningCurvesConfig()


def proposed(entropy, loss, labels=None, classes=1, rare=False):
    """Without `rare`, the one group that a fit to the whole class gives, of each class."""
    labels = np.zeros(loss.shape[1], dtype=np.int64) if labels is None else labels
    return learning_curves(entropy, loss, labels, classes, OPTIONS, rare)


def clearest(entropy, loss):
    """Of one class, the clearest of all its groups, and whether it counts as found."""
    (scored,) = decide(proposed(entropy, loss, rare=True), CONFIG).scored
    return scored.group, scored.score >= 1


@pytest.mark.parametrize("learnt_at", [1.0, 4.0, 6.0])
def test_two_components_are_found(learnt_at):
    """However early or late the trigger was learnt."""
    (group,) = proposed(*two_components(learnt_at=learnt_at))
    assert separation_score(group, CONFIG) > 1.2
    assert group.label == 0
    inside = group.membership > 0.5
    assert inside[300:].mean() > 0.98  # the deeper-learnt component is the one told
    assert inside[:300].mean() < 0.02
    assert group.core.tolist() == np.flatnonzero(inside).tolist()
    assert 0 <= group.statistics["posterior_entropy"] <= 1


@pytest.mark.parametrize("seed", range(3))
def test_one_component_is_not_cut_in_two(seed):
    loss = component(np.random.default_rng(seed), 400)
    (group,) = proposed(0.8 * loss, loss)
    assert separation_score(group, CONFIG) < 1


class TestRare:
    @pytest.mark.parametrize("seed", range(3))
    def test_five_per_cent_of_a_class_learnt_late(self, seed):
        group, found = clearest(*two_components(seed, clean=800, poisoned=40, learnt_at=5.0))
        assert found
        inside = group.membership > 0.5
        assert inside[800:].mean() > 0.9
        assert inside[:800].mean() < 0.02

    @pytest.mark.parametrize("seed", range(4))
    def test_a_clean_class_has_no_rare_component_either(self, seed):
        loss = component(np.random.default_rng(seed), 400)
        assert not clearest(0.8 * loss, loss)[1]

    def test_the_likeliest_fits_from_the_tails_come_after_the_plain_one(self):
        groups = proposed(*two_components(), rare=True)
        assert [group.statistics["rare"] for group in groups] == [0.0] + [1.0] * OPTIONS.rare_fits

    def test_few_epochs_are_not_enough(self):
        loss = component(np.random.default_rng(0), 400)
        for epochs, more in ((OPTIONS.rare_epochs, OPTIONS.rare_fits), (OPTIONS.rare_epochs - 1, 0)):
            assert len(proposed(0.8 * loss[:epochs], loss[:epochs], rare=True)) == 1 + more


def test_ids_are_those_of_their_class():
    entropy, loss = two_components()
    labels = np.tile([1, 0, 2], 120)
    groups = proposed(entropy, loss, labels, 3)
    assert [group.label for group in groups] == [0, 1, 2]
    for group in groups:
        np.testing.assert_array_equal(group.ids, np.flatnonzero(labels == group.label))
        assert len(group.membership) == len(group.ids)


def test_deterministic():
    entropy, loss = two_components()
    np.random.seed(1)
    first = proposed(entropy, loss, rare=True)
    np.random.seed(2)
    for one, two in zip(first, proposed(entropy, loss, rare=True), strict=True):
        np.testing.assert_array_equal(one.membership, two.membership)
        assert one.statistics == two.statistics


def test_tiny_classes_are_passed_over():
    labels = np.zeros(360, dtype=np.int64)
    labels[: OPTIONS.min_class_size - 1] = 1
    assert [group.label for group in proposed(*two_components(), labels, 3)] == [0]
    labels[: OPTIONS.min_class_size] = 1
    assert [group.label for group in proposed(*two_components(), labels, 3)] == [0, 1]


def test_one_epoch_has_no_curves():
    entropy, loss = two_components()
    assert proposed(entropy[:1], loss[:1]) == []
    assert proposed(entropy[:0], loss[:0]) == []


def test_two_epochs_are_enough():
    entropy, loss = two_components()
    (group,) = proposed(entropy[-2:], loss[-2:], rare=True)
    assert np.isfinite(group.statistics["separation"])


def test_constant_curves():
    """All learnt to the last bit: nothing to tell apart, and nothing divided by zero."""
    constant = np.zeros((EPOCHS, 100), dtype=np.float32)
    assert proposed(constant, constant, rare=True) == []
    almost = constant.copy()
    almost[0, 0] = 1.0
    for group in proposed(almost, almost):
        assert np.isfinite(group.membership).all()


def test_curves():
    entropy, loss = np.ones((3, 5)), np.zeros((3, 5))
    found = curves(entropy, loss, OPTIONS)
    assert found.shape == (5, 6)
    np.testing.assert_allclose(found[:, :3], np.log(1e4))  # p = 1, as sure as log-odds are counted
    np.testing.assert_allclose(found[:, 3:], np.log(1.02))
    half = curves(entropy, np.full((3, 5), np.log(2)), OPTIONS)
    np.testing.assert_allclose(half[:, :3], 0, atol=1e-12)
    lost = curves(entropy, np.full((3, 5), 100.0), OPTIONS)
    np.testing.assert_allclose(lost[:, :3], np.log(1e-6))


@pytest.mark.parametrize("few", [15, 30])
def test_a_few_that_are_not_learnt_are_no_poison(few):
    """Outliers are the smaller component, and the shallower one: the other is nearly the whole class."""
    rng = np.random.default_rng(0)
    loss = np.concatenate([component(rng, 400), 8 + 0.1 * rng.standard_normal((EPOCHS, few))], axis=1)
    (group,) = proposed(np.minimum(0.8 * loss, 3), loss)
    assert group.statistics["separation"] > CONFIG.min_separation  # two components they are
    assert separation_score(group, CONFIG) < 1


def test_bhattacharyya_by_hand():
    mixture = GaussianMixture(2)
    mixture.means_ = np.array([[0.0, 0.0], [2.0, 0.0]])
    mixture.covariances_ = np.array([np.eye(2), 4 * np.eye(2)])
    # 1/8 d' S^-1 d + 1/2 ln(|S| / sqrt(|S1| |S2|)), S = 2.5 I
    expected = 4 / 2.5 / 8 + 0.5 * np.log(6.25 / np.sqrt(1 * 16))
    assert bhattacharyya(mixture) == pytest.approx(expected)


def test_it_is_what_is_proposed():
    """With its own options, and with fits from the tails."""
    entropy, loss = two_components()
    labels = np.zeros(360, dtype=np.int64)
    propose = PROPOSALS["learning_curves"]
    groups = propose(observed(entropy, loss, labels, 1), CONFIG)
    for one, two in zip(groups, proposed(entropy, loss, rare=True), strict=True):
        np.testing.assert_array_equal(one.membership, two.membership)
    larger = DetectionConfig(learning_curves={"min_class_size": 361})
    assert propose(observed(entropy, loss, labels, 1), larger) == []


class TestMixtures:
    """All starts at once, beside scikit-learn's one after another."""

    @pytest.mark.parametrize("steps", [1, 8, 100])
    def test_are_those_of_scikit_learn(self, steps):
        rng = np.random.default_rng(0)
        points = np.concatenate([rng.standard_normal((300, 4)), 0.2 * rng.standard_normal((40, 4)) + 3])
        inside = np.stack([points[:, axis] > at for axis in range(4) for at in (0, 2)])
        start = mixtures.from_parts(points, inside, inside.mean(1), 1e-3)
        ours = mixtures.fit(points, start, 1e-4, steps)
        for k, posterior in enumerate(ours.posterior(points)):
            theirs = GaussianMixture(
                2,
                reg_covar=1e-4,
                max_iter=steps,
                weights_init=start.weights_[k],
                means_init=start.means_[k],
                precisions_init=np.linalg.inv(start.covariances_[k]),
                random_state=0,
            )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                theirs.fit(points)
            np.testing.assert_allclose(ours.lower_bound_[k], theirs.lower_bound_, atol=1e-9)
            np.testing.assert_allclose(posterior, theirs.predict_proba(points), atol=1e-8)

    def test_a_component_that_nobody_is_in(self):
        points = np.repeat([[0.0, 0.0], [1.0, 1.0]], 30, axis=0)
        start = mixtures.from_parts(points, (points[:, 0] > 0.5)[None], np.array([1e-300]), 1e-3)
        assert np.isfinite(mixtures.fit(points, start, 1e-4, 20).posterior(points)).all()


class TestSize:
    def test_a_part_of_a_large_class_is_fitted_to(self):
        entropy, loss = two_components(clean=5000, poisoned=600)
        options = OPTIONS.model_copy(update={"fit_images": 2000})
        labels = np.zeros(5600, dtype=np.int64)
        (of_part, *_), (of_all, *_) = (
            learning_curves(entropy, loss, labels, 1, o) for o in (options, OPTIONS)
        )
        assert len(of_part.membership) == 5600
        assert len(np.setxor1d(of_part.core, of_all.core)) <= 0.01 * len(of_all.core)
        np.testing.assert_allclose(*(g.statistics["separation"] for g in (of_part, of_all)), rtol=0.1)

    def test_two_bytes_a_value_are_enough(self):
        entropy, loss = two_components()
        labels = np.zeros(360, dtype=np.int64)
        half = learning_curves(entropy.astype(np.float16), loss.astype(np.float16), labels, 1, OPTIONS)
        for one, two in zip(half, learning_curves(entropy, loss, labels, 1, OPTIONS), strict=True):
            assert one.core.tolist() == two.core.tolist()

    def test_threads_change_nothing(self, monkeypatch):
        monkeypatch.setattr(sys.modules[by_class.__module__], "WORTH_A_THREAD", 1)
        entropy, loss = two_components()
        labels = np.arange(360) % 3
        pairs = zip(
            *(learning_curves(entropy, loss, labels, 3, OPTIONS, threads=t) for t in (1, 3)), strict=True
        )
        for one, two in pairs:
            assert one.label == two.label and one.statistics == two.statistics
            np.testing.assert_array_equal(one.membership, two.membership)

    @pytest.mark.parametrize("classes", [3, 300, 70_000])
    def test_by_class(self, classes):
        labels = np.random.default_rng(0).integers(0, classes, 1000)
        found = list(by_class(labels, classes))
        assert len(found) == classes
        for c in {0, 2, int(labels[5])}:
            np.testing.assert_array_equal(found[c], np.flatnonzero(labels == c))
