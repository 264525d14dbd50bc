"""The same ids from any number of shards."""

from __future__ import annotations

import importlib

import pytest
import torch

from dlp_fast.errors import NumericError
from dlp_fast.ops import native_available, select, select_shards

sharded = importlib.import_module("dlp_fast.ops.sharded_rank")


def tied_scores(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Negative, positive and zero scores of both signs, one of them shared by a third of the rows."""
    g = torch.Generator().manual_seed(n)
    scores = torch.randn(n, generator=g)
    scores[torch.rand(n, generator=g) < 0.3] = -0.75
    scores[torch.rand(n, generator=g) < 0.1] = -0.0
    return scores, torch.randint(5, (n,), generator=g)


def joined(shards, scores, classes):
    """The winners of all shards in the order of ``select``."""
    low = torch.cat([s.lowest for s in shards])
    low = low[torch.sort(low).indices]
    high = []
    starts = [s.counts.cumsum(0) - s.counts for s in shards]
    for c in range(classes):
        ids = torch.cat([s.highest[a[c] : a[c] + s.counts[c]] for s, a in zip(shards, starts)])
        high.append(ids[torch.sort(scores[ids], descending=True, stable=True).indices])
    return low[torch.sort(scores[low], stable=True).indices], torch.cat(high)


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("shards", [1, 2, 3, 4, 7])
@pytest.mark.parametrize(("lowest", "highest"), [(0, 1), (30, 0), (400, 20), (1000, 1000)])
def test_any_number_of_shards_gives_the_same_ids(shards, lowest, highest, native, monkeypatch):
    if not (native or native_available()):
        pytest.skip("native ops are not built")
    scores, labels = tied_scores(1000)
    want = select(scores, lowest, highest, labels, 5)
    if not native:
        monkeypatch.setattr(sharded, "native_on", lambda device: False)
    bounds = torch.linspace(0, 1, shards + 1).square().mul(1000).long()  # of unequal sizes
    parts = [slice(a, b) for a, b in torch.stack([bounds[:-1], bounds[1:]], 1).tolist()]
    got = select_shards([scores[p] for p in parts], lowest, highest, [labels[p] for p in parts], 5)
    low, high = joined(got, scores, 5)
    assert torch.equal(low, want.lowest)
    assert torch.equal(high, want.highest)
    assert torch.equal(sum(s.counts for s in got), want.counts)


def test_shards_without_labels():
    scores, _ = tied_scores(300)
    got = select_shards(scores.chunk(4), 150)
    assert (
        torch.cat([s.lowest for s in got]).sort().values.tolist()
        == select(scores, 150).lowest.sort().values.tolist()
    )


def test_bad_arguments():
    scores = torch.zeros(4)
    with pytest.raises(ValueError, match="lowest must be from 0 to the number of rows, 8, got 9"):
        select_shards([scores, scores], 9)
    with pytest.raises(ValueError, match="one tensor for each of the 2 shards, got 1"):
        select_shards([scores, scores], 1, 1, [scores.long()], 3)
    with pytest.raises(ValueError, match="highest_per_class = 2 needs labels"):
        select_shards([scores], 1, 2)
    with pytest.raises(NumericError, match="first rows: 2"):
        select_shards([scores, torch.tensor([0.0, 0.0, float("nan")])], 1)
