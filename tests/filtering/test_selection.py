import numpy as np
import pytest
import torch
from dlp_fast.detection.scores import suspicion

from dlp_fast.config import DetectionConfig
from dlp_fast.detection.propose.learning_curves import strengths
from dlp_fast.detection.suspicion import Suspicion, snapshot
from dlp_fast.detection.verdict import NEAR
from dlp_fast.errors import NumericError
from dlp_fast.selection.partition import counts, select

N, CLASSES = 2000, 4


def scores(seed=0, epochs=5):
    generator = torch.Generator().manual_seed(seed)
    entropy = torch.rand(epochs, N, generator=generator)
    loss = torch.rand(epochs, N, generator=generator) * 2
    return entropy, loss, torch.arange(N) % CLASSES


def with_a_cloud(wide=0.002):
    """Scores in which 80 images of class 1 are learnt far deeper than all others; and which. The wider their cloud, the
    less sure it is that the others are not in it.
    """
    rng = np.random.default_rng(0)
    entropy, loss, labels = scores()
    entropy, loss = entropy + 0.5, loss + 0.5
    poison = (labels == 1).nonzero().flatten()[:80]
    loss[:, poison] = torch.from_numpy(0.01 + wide * rng.random((5, 80))).float()
    entropy[:, poison] = loss[:, poison]
    return entropy, loss, labels, poison


def chosen(config=None, score="snapshot", **over):
    config = config or DetectionConfig(score=score, **over)
    entropy, loss, labels = scores()
    return select(suspicion(entropy, loss, labels, CLASSES, config), labels, CLASSES, config), entropy, labels


class TestCounts:
    def test_share(self):
        assert counts(50_000, 10, DetectionConfig()) == (500, 50)

    def test_floor(self):
        assert counts(600, 10, DetectionConfig()) == (10, 10)

    def test_never_more_than_half(self):
        assert counts(12, 2, DetectionConfig())[0] == 6


class TestSnapshot:
    def test_lowest_entropy_is_suspected(self):
        found, entropy, _ = chosen(rate=0.05)
        expected = entropy[-1].argsort(stable=True)[:100]
        assert torch.equal(found.suspected_poisoned, expected)
        assert torch.equal(found.rank[expected], torch.arange(100))

    def test_highest_entropy_of_each_class_is_clean(self):
        found, entropy, labels = chosen(rate=0.05)
        for c in range(CLASSES):
            of_class = (labels == c).nonzero().flatten()
            expected = of_class[entropy[-1][of_class].argsort(descending=True)[:25]]
            inside = found.suspected_clean[labels[found.suspected_clean] == c]
            assert set(inside.tolist()) == set(expected.tolist())

    def test_ties_go_to_the_smaller_id(self):
        of = snapshot(torch.zeros(1, N))
        found = select(of, torch.arange(N) % CLASSES, CLASSES, DetectionConfig(score="snapshot"))
        assert found.rank.tolist() == list(range(N))
        assert found.suspected_poisoned.tolist() == list(range(20))

    def test_entropy_that_is_not_a_number_is_named(self):
        entropy = torch.rand(1, N)
        entropy[0, 7] = float("nan")
        with pytest.raises(NumericError, match="7"):
            select(snapshot(entropy), torch.arange(N) % CLASSES, CLASSES, DetectionConfig(score="snapshot"))


@pytest.mark.parametrize("score", ["snapshot", "trajectory"])
def test_sets_are_disjoint(score):
    found, _, _ = chosen(score=score, rate=0.1)
    poisoned, clean = set(found.suspected_poisoned.tolist()), set(found.suspected_clean.tolist())
    trusted, unlabeled = set(found.trusted.tolist()), set(found.unlabeled.tolist())
    assert not poisoned & clean
    assert not poisoned & trusted
    assert not poisoned & unlabeled
    assert not trusted & unlabeled
    assert sorted(found.rank.tolist()) == list(range(N))
    assert found.trusted.tolist() == sorted(trusted)


def test_an_image_in_both_sets_is_suspected_poisoned():
    of = snapshot(torch.arange(12.0)[None])
    config = DetectionConfig(score="snapshot", min_images=5)
    found = select(of, torch.arange(12) % 2, 2, config)
    assert found.suspected_poisoned.tolist() == [0, 1, 2, 3, 4]
    assert not set(found.suspected_clean.tolist()) & {0, 1, 2, 3, 4}


class TestTrajectory:
    def test_the_unlearnt_keep_no_label(self):
        found, _, _ = chosen(score="trajectory", high_loss_fraction=0.25)
        _, loss, _ = scores()
        highest = loss.mean(0).argsort(descending=True)[:500]
        assert not set(highest.tolist()) & set(found.trusted.tolist())
        assert set(found.unlabeled.tolist()) <= set(highest.tolist())

    def test_where_most_classes_fall_into_two_nobody_is_suspected(self):
        rng = np.random.default_rng(0)
        entropy, loss, labels = scores()
        entropy, loss = entropy + 0.5, loss + 0.5
        swung = torch.cat([(labels == c).nonzero().flatten()[:80] for c in range(CLASSES - 1)])
        loss[:, swung] = torch.from_numpy(0.01 + 0.002 * rng.random((5, len(swung)))).float()
        entropy[:, swung] = loss[:, swung]
        config = DetectionConfig()
        of = suspicion(entropy, loss, labels, CLASSES, config)
        assert sum(s.apart(config.min_separation) for s in of.splits) == CLASSES - 1
        assert of.found(config) == []
        assert not of.clustered.any()
        assert max(strengths(of.splits, config.min_separation)) >= NEAR  # told as "cannot tell", not as clean

    def test_clustered_images_come_first_and_are_left_out(self):
        entropy, loss, labels, poison = with_a_cloud()
        config = DetectionConfig()
        of = suspicion(entropy, loss, labels, CLASSES, config)
        assert [s.label for s in of.found(config)] == [1]
        found = select(of, labels, CLASSES, config)
        assert set(found.suspected_poisoned.tolist()) <= set(poison.tolist())
        assert not set(found.trusted.tolist()) & set(poison.tolist())
        assert not set(found.unlabeled.tolist()) & set(poison.tolist())
        assert set(found.rank.argsort()[:80].tolist()) == set(poison.tolist())
        assert not set(found.suspected_clean.tolist()) & set(poison.tolist())

    def test_the_edge_of_the_cloud_is_in_doubt(self):
        """Neither used at first nor suspected: what the filter thinks of each goes on to stage 3."""
        _, _, labels = scores()
        posterior = torch.zeros(N)
        posterior[:30], posterior[30:40] = 0.9, 1e-3
        score = torch.arange(N) / N - (posterior > 0.5).float()
        of = Suspicion(score, score, posterior > 0, torch.zeros(N, dtype=torch.bool), posterior=posterior)
        found = select(of, labels, CLASSES, DetectionConfig(rate=0.015))
        assert found.suspected_poisoned.tolist() == list(range(30))
        assert found.unlabeled.tolist() == list(range(30, 40))
        assert found.trusted.tolist() == list(range(40, N))
        assert torch.equal(found.posterior, posterior)

    def test_posterior(self):
        """Of images of a class that falls into two, above `membership`; of all others 0."""
        entropy, loss, labels, poison = with_a_cloud(wide=0.3)
        of = suspicion(entropy, loss, labels, CLASSES, DetectionConfig())
        assert torch.equal(of.posterior > 0, of.clustered)
        assert (of.posterior[poison] > 0.5).all()
        assert (of.posterior[labels != 1] == 0).all()
