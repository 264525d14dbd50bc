"""The cells of the battery: which image sets, in which half; fixed before anything was looked at."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cell:
    """kind: an attack or a kind of honest set; rate: of all images, or what the kind calls so; half: which half of the
    battery, fixed beforehand: `held_out` is looked at once, at the end of a study.
    """

    kind: str
    rate: float
    half: str
    seed: int
    images: int = 4000
    epochs: int = 20

    @property
    def name(self) -> str:
        return f"{self.half}-{self.kind}-{self.rate:g}-seed{self.seed}"


def _half(half: str, seed: int, *cells: tuple[str, float]) -> list[Cell]:
    return [Cell(kind, rate, half, seed) for kind, rate in cells]


CELLS = [
    *_half(
        "development",
        0,
        ("clean", 0.0),
        ("wanet", 0.1),
        (
            "wanet-strong",
            0.1,
        ),  # added when `wanet` had turned out not to be learnt (attack success rate 0.13)
        ("badnets-all-to-all", 0.1),
        ("badnets", 0.01),
        ("badnets", 0.003),
        ("blended", 0.05),
        ("three-triggers", 0.09),
        ("sig", 0.5),
        ("symmetric-noise", 0.1),
        ("watermark", 0.3),
        ("adaptive-blend", 0.015),
    ),
    *_half(
        "held_out",
        2,
        ("clean", 0.0),
        ("bpp", 0.1),
        ("low-frequency", 0.1),
        ("tact", 0.03),
        ("adaptive-patch", 0.015),
        ("blended-all-to-all", 0.1),
        ("random-place", 0.05),
        ("asymmetric-noise", 0.2),
        ("near-duplicates", 0.1),
        ("long-tail", 0.05),
        ("ten-triggers", 0.1),
    ),
    # of an attacker who knows the detectors; made, and looked at once, when everything else had been chosen
    *_half("own", 3, ("soft-focus", 0.1), ("many-squares", 0.1)),
    *_half("development", 0, ("input-aware", 0.1)),  # last: it trains the attacker's generator first
]
