"""Small sets that are learnt at once: the suspects are the poison, never the clean rest of its class."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny import threads_kept

import dlp_fast
from dlp_fast.attacks.poisoning import plan
from dlp_fast.data.storage import ResidentImages

CLASSES = ("cats", "dogs", "owls")
SIDE = 32


def coloured(each: int) -> np.ndarray:
    """Told apart by colour alone."""
    rng = np.random.default_rng(0)
    base = np.repeat(np.array([[200, 60, 60], [60, 200, 60], [60, 60, 200]]), each, 0)[:, None, None]
    return (base + rng.normal(0, 25, (3 * each, SIDE, SIDE, 3))).clip(0, 255).astype(np.uint8)


def striped(each: int) -> np.ndarray:
    """Grey, told apart by the direction of stripes under strong noise."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    pictures = []
    for angle in np.repeat([0.0, 1.0, 2.1], each):
        turned = angle + rng.normal(0, 0.12)
        wave = (x * np.cos(turned) + y * np.sin(turned)) / rng.uniform(1.5, 2.5) + rng.uniform(0, 6)
        pictures.append(128 + 35 * np.sin(wave) + rng.normal(0, 45, (SIDE, SIDE)))
    grey = np.stack(pictures).clip(0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, -1)


@pytest.mark.slow
@pytest.mark.parametrize("attack", ["badnets", None])
@pytest.mark.parametrize("make", [coloured, striped])
@pytest.mark.parametrize("each", [50])
def test_never_inverted(make, attack, each):
    images, labels = make(each), torch.arange(3).repeat_interleave(each)
    poisoned = torch.zeros(3 * each, dtype=torch.bool)
    if attack:
        base = ResidentImages(torch.from_numpy(images))
        done = plan(
            attack, labels, CLASSES, (SIDE, SIDE), rate=0.1, rate_of="auto", target="0", seed=0, images=base
        )
        images, labels, poisoned = (
            done.poison(base).get(torch.arange(len(base))).numpy(),
            done.labels,
            done.poisoned,
        )
    with threads_kept():
        result = dlp_fast.defend(
            images, labels, classes=CLASSES, quiet=True, preset="scan", threads=1, precision="fp32"
        )
    suspects = result.suspected_poisoned
    if len(suspects):
        assert attack and poisoned[suspects].float().mean() >= 0.9
        assert poisoned[suspects].sum() >= 0.5 * poisoned.sum()
    else:
        assert result.verdict == "cannot tell" if attack else result.verdict != "poisoned"
