"""Sets that show nothing or next to nothing: a run ends with "cannot tell" and why, and not with a warning."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from tiny import CONFIG

import dlp_fast

STAGE_1 = {"epochs": 3, "min_steps": 0, "batch": 64}


def noise(n: int, side: int = 8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, side, side, 3), dtype=np.uint8)


def constant(labels: np.ndarray, side: int = 8) -> np.ndarray:
    """One grey a class."""
    return np.broadcast_to((labels * 40 % 256)[:, None, None, None], (len(labels), side, side, 3)).astype(
        np.uint8
    )


def of(n: int, classes: int) -> np.ndarray:
    return np.arange(n) % classes


SETS = {
    "20 images": (noise(20), of(20, 2)),
    "one image a class": (noise(12), of(12, 12)),
    "one class has one image": (noise(61), np.append(of(60, 2), 2)),
    "all images equal": (np.full((120, 8, 8, 3), 77, np.uint8), of(120, 3)),
    "all black": (np.zeros((120, 8, 8, 3), np.uint8), of(120, 3)),
    "classes of constant images": (constant(of(180, 3)), of(180, 3)),
    "one class is constant, the others are not": (
        np.where((of(180, 3) == 0)[:, None, None, None], np.uint8(9), noise(180)),
        of(180, 3),
    ),
    "two pictures again and again": (noise(2)[of(160, 2)], of(160, 2)),
    "four pictures again and again": (noise(4)[of(160, 4)], of(160, 2)),
    "hundred classes of three": (noise(300), of(300, 100)),
}
FLAT = {"all images equal", "all black", "classes of constant images", "two pictures again and again"}
FLAT_ALONE = "one class is constant, the others are not"


@pytest.mark.parametrize("name", SETS)
def test_nothing_is_accused_and_nothing_warns(name):
    images, labels = SETS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = dlp_fast.defend(
            images, labels, quiet=True, **{**CONFIG, "supervised": STAGE_1, "detection": {}, "preset": "scan"}
        )
    assert len(result.suspected_poisoned) == 0
    reasons = " ".join(result.results["verdict"]["reasons"])
    small = np.bincount(labels).min() < 40
    assert small == ("too few to look at" in reasons)
    assert (name in FLAT or name == FLAT_ALONE) == ("learnt as one picture" in reasons)
    assert result.verdict == ("cannot tell" if reasons else "nothing found")
    assert reasons or name == "four pictures again and again"


@pytest.mark.slow
def test_a_thousand_classes_of_ten():
    images, labels = noise(10_000), of(10_000, 1000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = dlp_fast.defend(
            images, labels, quiet=True, **{**CONFIG, "supervised": STAGE_1, "detection": {}, "preset": "scan"}
        )
    assert result.verdict == "cannot tell" and len(result.suspected_poisoned) == 0
