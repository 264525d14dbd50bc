"""Samples of more than 8 bits, and what a picture looks like in numbers.

Pillow shows a 16-bit colour file by its high bytes alone, so that a picture of 8, 10 or 12 bits in 16 is black or dark.
The low bytes are there: the same file, unpacked as if it had the other byte order, gives them. Loaded by the scan's
child processes, too: nothing of torch, and numpy only where a file has deep samples.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, NamedTuple

from PIL import Image

if TYPE_CHECKING:
    import numpy as np

DEPTHS = (8, 10, 12, 14, 16)
"""Bits that cameras and scanners put into samples of 16."""
MEASURED_SIDE = 256  # means and deviations are taken on a grid of this many pixels a side, at most
_OTHER_ORDER = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
_DEEP_COLOUR = ("RGB;16", "RGBA;16", "RGBX;16")


class Look(NamedTuple):
    """What a picture looks like, for what is said of the set as a whole.

    peak: the largest sample of a file with more than 8 bits a sample, -1 of others; mean, deviation: of the samples (of
    the channel that differs most), in units of the file's samples; transparent: share of pixels with alpha under half.
    """

    peak: int = -1
    mean: float = 0.0
    deviation: float = 0.0
    transparent: float = 0.0


class UnusableSamples(ValueError):
    """Samples that cannot be shown with 8 bits; says why."""


def used_bits(peak: int) -> int:
    """The fewest of `DEPTHS` that hold the value `peak`, which is at most 65,535."""
    return next(bits for bits in DEPTHS if peak < 1 << bits)


def to_eight_bits(samples: np.ndarray, bits: int) -> np.ndarray:
    """uint8 of samples of 16 bits of which the lower `bits` are used. A picture that uses more is scaled by those,
    since it is no picture of that depth: nothing is clipped.
    """
    import numpy as np  # a tenth of a second that each of the scan's children need not pay at its start

    own = used_bits(int(samples.max(initial=0)))
    return (samples >> (max(bits, own) - 8)).astype(np.uint8)


def grey(image: Image.Image) -> np.ndarray:
    """[height, width] of an image in one of Pillow's modes of integers, 0 to 65,535.

    Raises UnusableSamples where a sample lies outside.
    """
    import numpy as np

    samples = np.asarray(image)
    if samples.dtype.itemsize > 2:
        if samples.min(initial=0) < 0:
            raise UnusableSamples("negative samples; shift and convert the file to 8 or 16 bits")
        if samples.max(initial=0) > 0xFFFF:
            raise UnusableSamples("32-bit samples; convert the file to 8 or 16 bits")
    return samples


def is_deep_colour(image: Image.Image) -> bool:
    """Whether an image that is not loaded yet has colours, or grey and alpha, of 16 bits."""
    raw = [_raw_mode(tile) for tile in getattr(image, "tile", ())]
    return bool(raw) and all(mode == "LA;16B" or mode[:-1] in _DEEP_COLOUR for mode in raw)


def deep_colour(high: Image.Image, low: Image.Image) -> np.ndarray:
    """uint16 [height, width, 1 or 3], without alpha, of one file that was opened twice and loaded at neither place."""
    import numpy as np

    grey_alpha = _raw_mode(low.tile[0]) == "LA;16B"
    low.tile = [
        tile._replace(args=_with_raw_mode(tile.args, "RGBA" if grey_alpha else _swapped(_raw_mode(tile))))
        for tile in low.tile
    ]
    if grey_alpha:  # its four bytes as they are
        low.load()
        both = np.asarray(low)
        return (both[..., :1].astype(np.uint16) << 8) | both[..., 1:2]
    high.load()
    low.load()
    samples = np.empty((high.height, high.width, 3), dtype=np.uint16)
    for channel in range(3):
        samples[..., channel] = np.asarray(high.getchannel(channel)).astype(np.uint16) << 8
        samples[..., channel] |= np.asarray(low.getchannel(channel))
    return samples


def _raw_mode(tile: object) -> str:
    args = tile.args
    return str(args[0] if isinstance(args, tuple) and args else args)


def _with_raw_mode(args: object, raw_mode: str) -> object:
    return (raw_mode, *args[1:]) if isinstance(args, tuple) else raw_mode


def _swapped(raw_mode: str) -> str:
    return raw_mode[:-1] + _OTHER_ORDER[raw_mode[-1]]


def measured(rgb: Image.Image, transparent: float = 0.0) -> Look:
    """The look of a picture of 8 bits."""
    size = (min(rgb.width, MEASURED_SIDE), min(rgb.height, MEASURED_SIDE))
    counts = (rgb.resize(size, Image.Resampling.NEAREST) if rgb.size != size else rgb).histogram()
    moments = [_moments(counts[start : start + 256]) for start in range(0, len(counts), 256)]
    return Look(
        -1,
        round(sum(m for m, _ in moments) / len(moments), 3),
        round(max(d for _, d in moments), 3),
        transparent,
    )


def measured_deep(samples: np.ndarray, least_peak: int = 0, transparent: float = 0.0) -> Look:
    """The look of samples of more than 8 bits, [height, width] or [height, width, channels]; `least_peak`: what the
    file itself says that its samples may be.
    """
    planes = samples.reshape(*samples.shape[:2], -1)[
        :: -(-samples.shape[0] // MEASURED_SIDE), :: -(-samples.shape[1] // MEASURED_SIDE)
    ]
    deviation = planes.std(axis=(0, 1)).max()
    peak = max(int(samples.max(initial=0)), least_peak)
    return Look(peak, round(float(planes.mean()), 3), round(float(deviation), 3), transparent)


def _moments(counts: list[int]) -> tuple[float, float]:
    """(mean, standard deviation) of a histogram."""
    total = sum(counts)
    mean = sum(value * count for value, count in enumerate(counts)) / total
    square = sum(value * value * count for value, count in enumerate(counts)) / total
    return mean, max(square - mean * mean, 0.0) ** 0.5


def transparent_share(image: Image.Image) -> float:
    """Share of the pixels of a loaded image whose alpha is under half."""
    if image.mode in ("P", "RGB", "L", "1") and "transparency" in image.info:
        image = image.convert("RGBA")
    if image.mode not in ("RGBA", "LA", "PA", "La", "RGBa"):
        return 0.0
    counts = image.getchannel(image.getbands()[-1]).histogram()
    return round(sum(counts[:128]) / max(sum(counts), 1), 4)
