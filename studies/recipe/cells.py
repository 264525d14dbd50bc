"""What is trained: image sets, recipes, and which cells choose and which are looked at once. Fixed beforehand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

BASE: dict[str, Any] = {
    "schedule": "linear",
    "learning_rate": 0.2,
    "warmup": 0.1,
    "weight_decay": 5e-4,
    "ema": 0.999,
    "label_smoothing": 0.0,
}
RECIPES: dict[str, dict[str, Any]] = {
    "before": BASE | {"schedule": "fixmatch_cosine", "learning_rate": 0.1},
    "linear 0.1": BASE | {"learning_rate": 0.1},
    "linear 0.2": BASE,
    "linear 0.4": BASE | {"learning_rate": 0.4},
    "cosine 0.2": BASE | {"schedule": "cosine"},
    "linear 0.2, no average": BASE | {"ema": 0.0},
    "linear 0.2, average 0.98": BASE | {"ema": 0.98},
    "linear 0.2, decay 2e-4": BASE | {"weight_decay": 2e-4},
    "linear 0.2, decay 1e-3": BASE | {"weight_decay": 1e-3},
    "linear 0.2, smoothing 0.05": BASE | {"label_smoothing": 0.05},
    "linear 0.2, rise 0.2": BASE | {"warmup": 0.2},
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
    "tinyimagenet20, 16 px": ImageSet("tinyimagenet20", 16, 200, 200),
    "digits": ImageSet("digits", None, 90, 50),
    "cifar10, 32 px": ImageSet("cifar10", 32, 400, 400),
}


@dataclass(frozen=True)
class Cell:
    """part: screen and confirm choose, on held-out training images; look is looked at once, on test images, and trains
    on other images (the `offset` first of each class are passed over).
    """

    part: str
    set: str
    passes: int
    seed: int
    recipe: str
    offset: int = 0

    @property
    def name(self) -> str:
        values = (self.part, self.set, f"{self.passes} passes", f"seed {self.seed}", self.recipe)
        return ", ".join(values).replace(" ", "_").replace(",", "")


SCREEN = [
    ("cifar10, 16 px", 10, 0),
    ("tinyimagenet20, 16 px", 10, 0),
    ("digits", 30, 0),
    ("cifar10, 16 px", 10, 1),
]
CONFIRM = [("cifar10, 16 px", 30, 2), ("cifar10, 32 px", 10, 2)]
# (set, passes, seed, images of each class passed over)
LOOK = [
    ("cifar10, 16 px", 10, 10, 800),
    ("cifar10, 16 px", 30, 11, 800),
    ("tinyimagenet20, 16 px", 10, 10, 300),
    ("digits", 30, 10, 0),
]


def cells(part: str, recipes: list[str]) -> list[Cell]:
    """The cells of `part` for `recipes`, set by set."""
    if part == "look":
        return [Cell(part, s, p, seed, r, offset) for s, p, seed, offset in LOOK for r in recipes]
    chosen = SCREEN if part == "screen" else CONFIRM
    return [Cell(part, s, p, seed, r) for s, p, seed in chosen for r in recipes]
