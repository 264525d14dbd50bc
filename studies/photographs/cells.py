"""The cells: which set, what was done to it, and whether anything is chosen on it; fixed before one was looked at."""

from __future__ import annotations

from dataclasses import dataclass

MARKS = ("sticker", "small-mark")  # attacks of this study; others are those of dlp_fast.attacks


@dataclass(frozen=True)
class Base:
    """An image set. pack: file name without _jpeg.npz, for choosing and for the look at the end; classes: numbers in
    the pack, for both; images: of each class, or of the first and of the last, geometrically between; side: pixels that
    images are read at; grey: without colours; unequal: pictures of other shapes and sizes each.
    """

    packs: tuple[str, str]
    classes: tuple[tuple[int, ...], tuple[int, ...]]
    images: int | tuple[int, int]
    side: int = 64
    grey: bool = False
    unequal: bool = False


IMAGENETTE, TINY = ("imagenette_a", "imagenette_b"), ("tinyimagenet20", "tinyimagenet20")
TEN, OF_TWENTY = (tuple(range(10)),) * 2, (tuple(range(10)), tuple(range(10, 20)))
BASES = {
    "photographs": Base(IMAGENETTE, TEN, 100),
    "photographs-96": Base(IMAGENETTE, TEN, 80, side=96),
    "tiny": Base(TINY, OF_TWENTY, 100),
    "grey": Base(IMAGENETTE, TEN, 100, grey=True),
    "two": Base(IMAGENETTE, ((0, 3), (2, 7)), 300),
    "three": Base(IMAGENETTE, ((1, 4, 8), (0, 5, 6)), 300),
    "five": Base(IMAGENETTE, ((0, 2, 4, 6, 8), (1, 3, 5, 7, 9)), 200),
    "unequal-sizes": Base(IMAGENETTE, TEN, 100, unequal=True),
    "unequal-classes": Base(TINY, OF_TWENTY, (300, 45)),
}


@dataclass(frozen=True)
class Cell:
    """half: "choosing", to find mistakes on and choose by; "once", looked at when everything stands. rate: of all
    images; of the target class for attacks that keep labels, and of honest kinds what honest.py says.
    """

    half: str
    base: str
    kind: str
    rate: float = 0.0

    @property
    def name(self) -> str:
        return f"{self.half}-{self.base}-{self.kind}-{self.rate:g}"

    @property
    def seed(self) -> int:
        return 0 if self.half == "choosing" else 5


def _cells(half: str, *rows: tuple[str, str, float]) -> list[Cell]:
    return [Cell(half, *row) for row in rows]


CELLS = [
    *_cells(
        "choosing",
        ("photographs", "badnets", 0.1),
        ("photographs", "clean", 0.0),
        ("two", "badnets", 0.1),
        ("two", "clean", 0.0),
        ("photographs", "small-mark", 0.1),
        ("photographs", "watermark", 0.1),
        ("grey", "badnets", 0.03),
        ("grey", "clean", 0.0),
        ("unequal-sizes", "sticker", 0.1),
        ("photographs", "framed", 0.1),
        ("tiny", "blended", 0.03),
        ("tiny", "label-noise", 0.1),
        ("three", "blended", 0.1),
        ("photographs", "greyed", 0.1),
        ("unequal-classes", "badnets", 0.01),
        ("unequal-classes", "clean", 0.0),
        ("five", "low-frequency", 0.1),
        ("photographs", "dimmed", 0.1),
        ("photographs-96", "badnets", 0.03),
        ("photographs-96", "clean", 0.0),
        ("photographs", "sticker", 0.03),
        ("tiny", "near-duplicates", 0.1),
        ("photographs", "wanet-strong", 0.1),
        ("photographs", "merged", 0.0),
    ),
    *_cells(
        "once",
        ("photographs", "blended", 0.1),
        ("photographs", "clean", 0.0),
        ("two", "blended", 0.1),
        ("five", "clean", 0.0),
        ("photographs", "badnets-all-to-all", 0.1),
        ("photographs", "mirrored", 0.1),
        ("grey", "sticker", 0.1),
        ("grey", "label-noise", 0.1),
        ("unequal-sizes", "small-mark", 0.1),
        ("unequal-sizes", "clean", 0.0),
        ("tiny", "random-place", 0.05),
        ("tiny", "watermark", 0.1),
        ("three", "sticker", 0.03),
        ("three", "near-duplicates", 0.1),
        ("unequal-classes", "blended", 0.03),
        ("tiny", "merged", 0.0),
        ("five", "badnets", 0.03),
        ("photographs", "recompressed", 0.1),
        ("photographs-96", "sticker", 0.03),
        ("photographs-96", "class-framed", 0.3),
        ("photographs", "sticker", 0.005),
        ("photographs", "stamped", 0.1),
        ("tiny", "bpp", 0.1),
        ("tiny", "blurred", 0.1),
    ),
]
