"""Large sets a piece at a time: the same to the last bit, and few numbers an image in memory."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch

from dlp_fast.config import DetectionConfig
from dlp_fast.detection import columns
from dlp_fast.detection.columns import in_order, mean_over_epochs
from dlp_fast.detection.groups import Group
from dlp_fast.detection.mislabeled import probably_mislabeled
from dlp_fast.detection.propose import Observed
from dlp_fast.detection.suspicion import DOUBT, by_groups
from dlp_fast.detection.verify.label_support import usual_probability
from dlp_fast.errors import NumericError
from dlp_fast.selection import partition
from dlp_fast.selection.partition import ranked, select

N = 20_000


@pytest.fixture
def small_pieces(monkeypatch):
    monkeypatch.setattr(columns, "PIECE", 512)
    monkeypatch.setattr(partition, "PIECE", 512)


def values(kind, n=N):
    rng = np.random.default_rng(0)
    return {
        "drawn": rng.standard_normal(n),
        "few": rng.integers(0, 3, n).astype(float),
        "equal": np.zeros(n),
        "sorted": np.arange(n, dtype=float),
        "odd": rng.choice([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0], n),
    }[kind]


@pytest.mark.usefixtures("small_pieces")
class TestAsAtOnce:
    @pytest.mark.parametrize("kind", ["drawn", "few", "equal", "sorted", "odd"])
    @pytest.mark.parametrize("n", [1, 511, 513, N])
    def test_order(self, kind, n):
        of = values(kind, n)
        parts = list(in_order(of))
        np.testing.assert_array_equal(
            np.concatenate([ids for _, ids in parts]), np.argsort(of, kind="stable")
        )
        ends = np.cumsum([len(ids) for _, ids in parts])
        assert [first for first, _ in parts] == [0, *ends[:-1]]

    def test_parts_are_small(self):
        assert max(len(ids) for _, ids in in_order(values("drawn"))) < 4 * 512

    @pytest.mark.parametrize("epochs", [1, 4, 30])
    @pytest.mark.parametrize("kind", [np.float16, np.float32])
    def test_mean(self, epochs, kind):
        of = np.random.default_rng(0).lognormal(0, 2, (epochs, N)).astype(kind)
        np.testing.assert_array_equal(mean_over_epochs(of), of.mean(0, dtype=np.float64))

    def test_of_unclear_groups_labels_are_withheld_and_nobody_is_suspected(self):
        seen, unclear = observed(), group(500)
        of = by_groups([], seen.entropy, seen.loss, DetectionConfig(), [unclear])
        assert not of.suspected.any() and of.score.min() >= 0
        assert of.withheld.nonzero().flatten().tolist() == unclear.core.tolist()
        assert of.posterior[unclear.core].unique().tolist() == [DOUBT]
        assert not of.posterior[~of.withheld].any()
        both = by_groups([unclear], seen.entropy, seen.loss, DetectionConfig(), [unclear])
        assert both.posterior.max() > DOUBT  # what is found stays found

    def test_suspicion(self):
        seen, groups = observed(), [group(500), group(3000)]
        config = DetectionConfig(high_loss_fraction=0.1)
        found = by_groups(groups, seen.entropy, seen.loss, config)
        mean, loss = (of.numpy().mean(0, dtype=np.float64) for of in (seen.entropy, seen.loss))
        suspected = np.isin(np.arange(N), np.concatenate([of.core for of in groups]))
        share = np.argsort(np.argsort(mean, kind="stable")) / N
        assert torch.equal(found.score, torch.from_numpy((share - suspected).astype(np.float32)))
        assert torch.equal(found.suspected, torch.from_numpy(suspected))
        late = np.argsort(np.argsort(loss, kind="stable")) / N >= 0.9
        assert torch.equal(found.high_loss, torch.from_numpy(late) & ~found.withheld)
        assert found.posterior.max() > 0.9

    @pytest.mark.parametrize("quantile", [0.0, 0.2, 0.99])
    def test_mislabeled(self, quantile):
        seen, config = observed(), DetectionConfig(mislabeled_quantile=quantile)
        labels = seen.labels.numpy()
        own, other = (of.numpy().mean(0, dtype=np.float64) for of in (seen.loss, seen.other_loss))
        usual = np.array([np.median(own[labels == label]) for label in range(seen.classes)])
        least = np.sort(other - usual[seen.other_labels.numpy()])[int(quantile * N)]
        listed = probably_mislabeled(seen, config)
        np.testing.assert_array_equal(listed, own - usual[labels] >= least)
        assert listed.any()

    def test_images_learnt_alike(self, monkeypatch):
        """Their probability is, of many images, by axes fitted to fewer of them."""
        rng = np.random.default_rng(0)
        curves = rng.normal(size=(4000, 6)) * [4, 3, 2, 0.1, 0.1, 0.1]
        probability, controls = 1 / (1 + np.exp(-curves[:, 0])), rng.random(4000) < 0.1
        asked = []

        def some(of):
            asked.append(len(curves[of]))
            return curves[of]

        in_parts = usual_probability(some, probability, controls)
        assert max(asked) <= 512
        monkeypatch.setattr(columns, "PIECE", 4000)
        np.testing.assert_allclose(in_parts, usual_probability(some, probability, controls), atol=0.05)
        assert np.abs(in_parts - probability).mean() < 0.05


class TestSelection:
    """The ids and ranks are those of all images at once, with found groups and without."""

    @pytest.mark.parametrize("found", [[], [500, 3000]])
    def test_sets(self, found, monkeypatch):
        seen, config = observed(), DetectionConfig(nothing_found="suspect", high_loss_fraction=0.1)
        of = by_groups([group(size) for size in found], seen.entropy, seen.loss, config)
        of = replace(of, score=(of.score * 100).round() / 100)  # many are equal
        of = replace(of, mislabeled=torch.from_numpy(probably_mislabeled(seen, config)))
        whole = select(of, seen.labels, seen.classes, config)
        monkeypatch.setattr(columns, "PIECE", 512)
        monkeypatch.setattr(partition, "PIECE", 512)
        for one, two in zip(
            vars(select(of, seen.labels, seen.classes, config)).values(), vars(whole).values()
        ):
            assert torch.equal(one, two)
        assert torch.equal(whole.rank, of.score.argsort(stable=True).argsort())
        late = torch.arange(40, 60)
        assert torch.equal(whole.with_late(late).rank, ranked(whole.with_late(late).score))

    @pytest.mark.usefixtures("small_pieces")
    def test_scores_that_are_no_numbers_are_named(self):
        score = torch.rand(N)
        score[1234] = torch.nan
        with pytest.raises(NumericError, match="1234"):
            ranked(score)


def group(size):
    membership = np.random.default_rng(size).random(size)
    return Group("learning_curves", 0, np.arange(0, 2 * size, 2), membership, {})


def observed():
    rng = np.random.default_rng(0)
    entropy, loss, other = (torch.from_numpy(rng.random((4, N), dtype=np.float32)).half() for _ in range(3))
    labels = torch.arange(N) % 7
    return Observed(None, labels, 7, entropy, loss, other * 0.8, (labels + 1) % 7)


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize(
    ("work", "most"),
    [
        (lambda seen: by_groups([group(500)], seen.entropy, seen.loss, DetectionConfig()), 35),
        (lambda seen: probably_mislabeled(seen, DetectionConfig()), 30),
    ],
)
def test_bytes_an_image(work, most):
    """Without pieces it was 55 and 40."""
    seen = observed()
    work(seen)  # what is imported and kept once
    tracemalloc.start()
    try:
        work(seen)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < most * N
