"""Learning curves as stage 1 would see them, and groups as a proposal would find them."""

from __future__ import annotations

import numpy as np

from dlp_fast.detection.groups import Group

EPOCHS = 8


def component(
    rng: np.random.Generator, n: int, learnt_at: float = 0.0, depth: float = 0.0, spread: float = 2.0
) -> np.ndarray:
    """[epochs, n] losses of labels whose log-odds rise by and by, each at its own level, with noise as SGD makes it.

    From epoch `learnt_at` on they lie `depth` higher: what a shortcut does to all that carry the trigger.
    """
    epochs = np.arange(EPOCHS)[:, None]
    odds = -1 + 0.3 * epochs + spread * rng.standard_normal(n) + 0.7 * rng.standard_normal((EPOCHS, n))
    odds += depth / (1 + np.exp(-3 * (epochs - learnt_at)))
    return np.log1p(np.exp(-odds))


def two_components(
    seed: int = 0, clean: int = 300, poisoned: int = 60, learnt_at: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Entropy, loss [epochs, n] of a class whose last images were learnt together and deeply."""
    rng = np.random.default_rng(seed)
    loss = np.concatenate([component(rng, clean), component(rng, poisoned, learnt_at, 7.0, 0.7)], axis=1)
    return 0.8 * loss, loss


def group(
    separation: float, count: int = 50, size: int = 100, label: int = 0, rare: bool = False, first: int = 0
) -> Group:
    """Of a class of `size` images, from id `first` on, the first `count`, `separation` apart from the others."""
    membership = (np.arange(size) < count).astype(float)
    statistics = {"separation": separation, "posterior_entropy": 0.0, "rare": float(rare)}
    return Group("made", label, first + np.arange(size), membership, statistics)
