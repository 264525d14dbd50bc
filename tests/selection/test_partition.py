"""From scores to the sets that the stages work on."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dlp_fast.config import DetectionConfig
from dlp_fast.data.storage import ResidentImages
from dlp_fast.detection.baselines import last_entropy
from dlp_fast.detection.decide import separation_score
from dlp_fast.detection.detect import Networks, detect, look_at_curves
from dlp_fast.detection.propose import Observed
from dlp_fast.detection.suspicion import Suspicion
from dlp_fast.errors import ConfigError, NumericError
from dlp_fast.selection import partition
from dlp_fast.selection.partition import counts, select

N, CLASSES = 2000, 4
ENTROPY = DetectionConfig(method="entropy")


def scores(seed=0, epochs=5):
    generator = torch.Generator().manual_seed(seed)
    entropy = torch.rand(epochs, N, generator=generator)
    loss = torch.rand(epochs, N, generator=generator) * 2
    return entropy, loss, torch.arange(N) % CLASSES


def with_a_group(wide=0.002):
    """Scores in which 80 images of class 1 are learnt far deeper than all others; and which. The wider their group, the
    less sure it is that the others are not in it.
    """
    rng = np.random.default_rng(0)
    entropy, loss, labels = scores()
    entropy, loss = entropy + 0.5, loss + 0.5
    poison = (labels == 1).nonzero().flatten()[:80]
    loss[:, poison] = torch.from_numpy(0.01 + wide * rng.random((5, 80))).float()
    entropy[:, poison] = loss[:, poison]
    return entropy, loss, labels, poison


def never():
    raise AssertionError("activations were asked for")


def detected(entropy, loss, labels, config=None):
    images = ResidentImages(torch.zeros(len(labels), 8, 8, 3, dtype=torch.uint8))
    seen = Observed(images, labels, CLASSES, entropy, loss)
    config = (config or DetectionConfig()).model_copy(
        update={"proposals": ("learning_curves",), "verify_from": 1}
    )
    networks = Networks(lambda x: torch.zeros(len(x), dtype=torch.int64), never, never)
    return detect(seen, look_at_curves(seen, config), networks, config)


def chosen(method="entropy", **over):
    config = DetectionConfig(method=method, **over)
    entropy, loss, labels = scores()
    detection = detected(entropy, loss, labels, config)
    return select(detection.suspicion, labels, CLASSES, config), entropy, labels


class TestCounts:
    def test_share(self):
        assert counts(50_000, 10, DetectionConfig()) == (500, 50)

    def test_least(self):
        assert counts(600, 10, DetectionConfig()) == (10, 10)

    def test_of_each_class(self):
        """The paper's other reading: 500 clean images of each class of CIFAR-10, and 500 suspects in all."""
        assert counts(50_000, 10, DetectionConfig(clean_of="class")) == (500, 500)
        assert counts(600, 10, DetectionConfig(clean_of="class")) == (10, 10)

    def test_of_each_class_never_more_than_half_of_it(self):
        assert counts(1000, 10, DetectionConfig(clean_of="class", rate=0.05)) == (50, 50)
        with pytest.raises(ConfigError, match=r"51 suspected clean images of each class .* class of 100"):
            counts(1000, 10, DetectionConfig(clean_of="class", rate=0.051))

    def test_never_more_than_half(self):
        assert counts(12, 2, DetectionConfig())[0] == 6


class TestLastEntropy:
    def test_lowest_entropy_is_suspected(self):
        found, entropy, _ = chosen(rate=0.05)
        expected = entropy[-1].argsort(stable=True)[:100]
        assert torch.equal(found.suspected_poisoned, expected)
        assert torch.equal(found.rank[expected], torch.arange(100))

    def test_as_many_of_each_class_as_are_suspected_in_all(self):
        found, _, labels = chosen(rate=0.05, clean_of="class")
        assert len(found.suspected_poisoned) == 100
        assert torch.bincount(labels[found.suspected_clean], minlength=CLASSES).tolist() == [100] * CLASSES

    def test_highest_entropy_of_each_class_is_clean(self):
        found, entropy, labels = chosen(rate=0.05)
        for c in range(CLASSES):
            of_class = (labels == c).nonzero().flatten()
            expected = of_class[entropy[-1][of_class].argsort(descending=True)[:25]]
            inside = found.suspected_clean[labels[found.suspected_clean] == c]
            assert set(inside.tolist()) == set(expected.tolist())

    def test_ties_go_to_the_smaller_id(self):
        of = last_entropy(torch.zeros(1, N))
        found = select(of, torch.arange(N) % CLASSES, CLASSES, ENTROPY)
        assert found.rank.tolist() == list(range(N))
        assert found.suspected_poisoned.tolist() == list(range(20))

    def test_entropy_that_is_not_a_number_is_named(self):
        entropy = torch.rand(1, N)
        entropy[0, 7] = float("nan")
        with pytest.raises(NumericError, match="7"):
            select(last_entropy(entropy), torch.arange(N) % CLASSES, CLASSES, ENTROPY)


@pytest.mark.parametrize("method", ["entropy", "learning_curves"])
def test_sets_are_disjoint(method):
    found, _, _ = chosen(method, rate=0.1)
    poisoned, clean = set(found.suspected_poisoned.tolist()), set(found.suspected_clean.tolist())
    trusted, unlabeled = set(found.trusted.tolist()), set(found.unlabeled.tolist())
    assert not poisoned & clean
    assert not poisoned & trusted
    assert not poisoned & unlabeled
    assert not trusted & unlabeled
    assert sorted(found.rank.tolist()) == list(range(N))
    assert found.trusted.tolist() == sorted(trusted)


def test_an_image_in_both_sets_is_suspected_poisoned():
    of = last_entropy(torch.arange(12.0)[None])
    config = DetectionConfig(method="entropy", min_images=5)
    found = select(of, torch.arange(12) % 2, 2, config)
    assert found.suspected_poisoned.tolist() == [0, 1, 2, 3, 4]
    assert not set(found.suspected_clean.tolist()) & {0, 1, 2, 3, 4}


class TestLearningCurves:
    def test_high_losses_keep_no_label(self):
        found, _, _ = chosen("learning_curves", high_loss_fraction=0.25)
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
        detection = detected(entropy, loss, labels)
        scored = detection.decision.scored
        assert sum(separation_score(entry.group, config) >= 1 for entry in scored) == CLASSES - 1
        assert detection.decision.findings == ()
        assert not (detection.suspicion.suspected | detection.suspicion.withheld).any()
        # told as "cannot tell", not as clean
        assert detection.decision.max_subthreshold_score >= config.near_score

    def test_suspected_images_come_first_and_are_left_out(self):
        entropy, loss, labels, poison = with_a_group()
        detection = detected(entropy, loss, labels)
        assert [finding.label for finding in detection.decision.findings] == [1]
        found = select(detection.suspicion, labels, CLASSES, DetectionConfig())
        assert set(found.suspected_poisoned.tolist()) <= set(poison.tolist())
        assert not set(found.trusted.tolist()) & set(poison.tolist())
        assert not set(found.unlabeled.tolist()) & set(poison.tolist())
        assert set(found.rank.argsort()[:80].tolist()) == set(poison.tolist())
        assert not set(found.suspected_clean.tolist()) & set(poison.tolist())
        assert torch.equal(found.named, detection.suspicion.suspected)

    def test_the_edge_of_the_group_is_in_doubt(self):
        """Neither used at first nor suspected: what detection thinks of each goes on to stage 3."""
        _, _, labels = scores()
        posterior = torch.zeros(N)
        posterior[:30], posterior[30:40] = 0.9, 1e-3
        score = torch.arange(N) / N - (posterior > 0.5).float()
        none = torch.zeros(N, dtype=torch.bool)
        of = Suspicion(score, score, posterior > 0.5, posterior > 0, none, posterior)
        found = select(of, labels, CLASSES, DetectionConfig(rate=0.015))
        assert found.suspected_poisoned.tolist() == list(range(30))
        assert found.unlabeled.tolist() == list(range(30, 40))
        assert found.trusted.tolist() == list(range(40, N))
        assert torch.equal(found.posterior, posterior)

    def test_what_is_unclear_is_in_doubt_where_nobody_is_suspected(self):
        _, _, labels = scores()
        posterior = torch.zeros(N)
        posterior[30:40] = 0.5
        score, none = torch.arange(N) / N, torch.zeros(N, dtype=torch.bool)
        of = Suspicion(score, score, none, posterior > 0, none, posterior)
        found = select(of, labels, CLASSES, DetectionConfig(rate=0.015))
        assert not len(found.suspected_poisoned) and not len(found.to_unlearn)
        assert found.unlabeled.tolist() == list(range(30, 40))
        assert found.trusted.tolist() == [*range(30), *range(40, N)]

    def test_posterior(self):
        """Of images of a class that falls into two, above `membership`; of all others 0."""
        entropy, loss, labels, poison = with_a_group(wide=0.3)
        of = detected(entropy, loss, labels).suspicion
        assert torch.equal(of.posterior > 0, of.withheld)
        assert torch.equal(of.posterior > 0.5, of.suspected)
        assert (of.posterior[poison] > 0.5).all()
        assert (of.posterior[labels != 1] == 0).all()


class TestLateDetections:
    def select(self, score, named=()):
        score = torch.tensor(score)
        suspected = torch.isin(torch.arange(len(score)), torch.tensor(named, dtype=torch.int64))
        of = Suspicion(score, score, suspected, suspected, torch.zeros_like(suspected))
        config = DetectionConfig(method="entropy", rate=0.4, min_images=1)
        return select(of, torch.zeros(len(score), dtype=torch.int64), 1, config)

    def test_none(self):
        before = self.select([0.1, 0.2, 0.3, 0.4, 0.5])
        assert before.with_late(torch.empty(0, dtype=torch.int64)) is before

    @pytest.mark.parametrize(
        "score",
        [
            [0.1, 0.2, 0.3, 0.4, 0.5],
            [1e-5, 1e-4, 2e-4, 3e-4, 4e-4],
            [10.0, 200.0, 300.0, 400.0, 500.0],
            [-900.0, -8.0, -7.0, -6.0, -5.0],  # spectral signatures are negative
        ],
    )
    def test_they_are_suspected_and_rank_first_on_any_scale(self, score):
        before = self.select(score)
        assert before.suspected_poisoned.tolist() == [0, 1]
        after = before.with_late(torch.tensor([2, 4]))
        assert after.suspected_poisoned.tolist() == [2, 4, 0, 1]
        assert after.rank.tolist() == [2, 3, 0, 4, 1]
        assert after.named.tolist() == [False, False, True, False, True]
        assert not set(after.suspected_clean.tolist()) & {2, 4}
        assert torch.equal(after.score[[0, 1, 3]], before.score[[0, 1, 3]])

    def test_beside_those_that_are_named_already(self):
        """What stage 1 named keeps its score; all of them come before those that are not named."""
        after = self.select([-0.9, -0.2, 0.3, 0.4, 0.5], named=(0, 1)).with_late(torch.tensor([1, 4]))
        assert after.suspected_poisoned.tolist() == [0, 4, 1]
        assert after.score[:2].tolist() == pytest.approx([-0.9, -0.2])


def test_scores_are_ranked_on_the_runs_device(monkeypatch):
    """Both choices are made where the run computes, and their ids come back to the CPU."""
    of, labels = last_entropy(scores()[0]), scores()[2]
    want = select(of, labels, CLASSES, ENTROPY)
    choose, asked = partition.ops.select, []

    def on_device(given, lowest, highest_per_class=0, labels=None, **options):
        asked.append([t.device.type for t in (given, labels) if t is not None])
        here = of.score if lowest else of.clean_score  # a tensor on "meta" has no values
        return choose(here, lowest, highest_per_class, None if labels is None else scores()[2], **options)

    monkeypatch.setattr(partition.ops, "select", on_device)
    got = select(of, labels, CLASSES, ENTROPY, torch.device("meta"))
    assert asked == [["meta"], ["meta", "meta"]]
    assert torch.equal(got.rank, want.rank) and torch.equal(got.suspected_clean, want.suspected_clean)
