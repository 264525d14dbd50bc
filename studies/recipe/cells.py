"""What is trained: image sets, recipes, and which cells choose and which are looked at once. Fixed beforehand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

BASE: dict[str, Any] = {
    "optimizer": "sgd",
    "schedule": "linear",
    "learning_rate": 0.2,
    "warmup": 0.1,
    "weight_decay": 5e-4,
    "ema": 0.999,
    "label_smoothing": 0.0,
}
MUON = BASE | {"optimizer": "muon", "schedule": "trapezoid", "learning_rate": 0.05}
RECIPES: dict[str, dict[str, Any]] = {
    "before": BASE | {"schedule": "fixmatch_cosine", "learning_rate": 0.1},
    "before, 0.2": BASE | {"schedule": "fixmatch_cosine"},
    "linear 0.2": BASE,
    "linear 0.4": BASE | {"learning_rate": 0.4},
    "linear 0.1": BASE | {"learning_rate": 0.1},
    "linear 0.2, decay 1e-3": BASE | {"weight_decay": 1e-3},
    "linear 0.2, decay 2e-4": BASE | {"weight_decay": 2e-4},
    "linear 0.2, smoothing 0.05": BASE | {"label_smoothing": 0.05},
    "linear 0.2, no average": BASE | {"ema": 0.0},
    "linear 0.2, average 0.98": BASE | {"ema": 0.98},
    "trapezoid 0.1": BASE | {"schedule": "trapezoid", "learning_rate": 0.1},
    "trapezoid 0.2": BASE | {"schedule": "trapezoid"},
    "cosine 0.2": BASE | {"schedule": "cosine"},
    "trapezoid 0.2, decay 1e-3": BASE | {"schedule": "trapezoid", "weight_decay": 1e-3},
    "muon 0.05": MUON,
    "muon 0.05, decay 3": MUON | {"muon_decay": 3.0},
    "muon 0.05, decay 12": MUON | {"muon_decay": 12.0},
}


@dataclass(frozen=True)
class ImageSet:
    """data: a folder under --folders, or "digits"; side: pixels, None: their own; images, held: of each class, trained
    on and held out.
    """

    data: str
    side: int | None
    images: int
    held: int


SETS = {
    "cifar10, 16 px": ImageSet("cifar10", 16, 400, 400),
    "cifar10, 32 px": ImageSet("cifar10", None, 1000, 500),
    "tinyimagenet20, 16 px": ImageSet("tinyimagenet20", 16, 200, 200),
    "digits": ImageSet("digits", None, 90, 50),
}


@dataclass(frozen=True)
class Cell:
    """part: screen, confirm, muon and large choose, on held-out training images, and short for the preset `fast`. Those
    that begin with look are looked at once, on test images, and train on other images (the `offset` first of each class
    are passed over). leaked: this many images of BadNets at 10 % keep their labels, the others are suspected; 0: none.
    """

    part: str
    set: str
    passes: int
    seed: int
    recipe: str
    offset: int = 0
    leaked: int = 0

    @property
    def name(self) -> str:
        attack = f"{self.leaked} leaked" if self.leaked else "clean"
        values = (self.part, self.set, f"{self.passes} passes", f"seed {self.seed}", attack, self.recipe)
        return ", ".join(values).replace(" ", "_").replace(",", "")


# (set, passes, seed, images of each class passed over, leaked poison)
PARTS = {
    "screen": [("cifar10, 16 px", 24, 0, 0, 0)],
    "confirm": [("digits", 60, 2, 0, 0), ("tinyimagenet20, 16 px", 24, 2, 0, 0)],
    "muon": [
        ("cifar10, 16 px", 24, 0, 0, 0),
        ("cifar10, 16 px", 16, 0, 0, 0),
        ("digits", 60, 2, 0, 0),
        ("tinyimagenet20, 16 px", 24, 2, 0, 0),
        ("tinyimagenet20, 16 px", 16, 2, 0, 0),
    ],
    "large": [("cifar10, 32 px", 30, 3, 0, 0), ("cifar10, 32 px", 20, 3, 0, 0)],
    "short": [("cifar10, 16 px", 10, 0, 0, 0), ("tinyimagenet20, 16 px", 10, 2, 0, 0)],
    "look": [
        ("cifar10, 16 px", 24, 10, 800, 20),
        ("cifar10, 16 px", 24, 11, 800, 0),
        ("digits", 60, 10, 0, 0),
    ],
    "look at decay": [
        ("cifar10, 16 px", 24, 14, 2400, 20),
        ("cifar10, 16 px", 24, 15, 2400, 0),
        ("tinyimagenet20, 16 px", 24, 14, 300, 20),
        ("digits", 60, 14, 0, 0),
    ],
    "look again": [
        ("cifar10, 16 px", 24, 12, 1600, 20),
        ("cifar10, 16 px", 24, 13, 1600, 0),
        ("tinyimagenet20, 16 px", 24, 12, 200, 20),
        ("digits", 60, 12, 0, 0),
    ],
}


def cells(part: str, recipes: list[str]) -> list[Cell]:
    """The cells of `part` for `recipes`, set by set."""
    return [Cell(part, s, p, seed, r, *rest) for s, p, seed, *rest in PARTS[part] for r in recipes]
