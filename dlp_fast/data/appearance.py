"""What the pictures of a set have in common that a person should know before the result: the bits that are used, what
is cut off, flat pictures, transparency. One sentence each, from what the scan measured.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from dlp_fast.data.fitting import share_cut_off
from dlp_fast.data.image_index import ImageIndex
from dlp_fast.data.samples import DEPTHS, Look, used_bits
from dlp_fast.runs.names import printable

MOST = 0.99
"""Share of the 16-bit files that the bits of a set must hold: one of another depth does not turn the rest black."""
DARK = 4
"""Bits that a file uses less than its set, from which on its picture is dark: a 16th of the light, or less."""
MIXED = 0.01
"""Share of such files that is a mixture; fewer are dark pictures."""
FLAT = 1.0
"""Standard deviation, in levels of 255, under which a picture is of one colour."""
BLACK = 8.0
"""Mean, in levels of 255, under which a flat picture is black."""
SEE_THROUGH = 0.05
"""Share of a picture's pixels whose transparency is worth a word."""
CUT_OFF = 0.005
"""Share of the average picture that is cut off without a word."""
PEAK, MEAN, DEVIATION, TRANSPARENT = range(len(Look._fields))


def depth_of(index: ImageIndex, wanted: str | int) -> int:
    """Bits that the 16-bit files of a set use: `wanted`, or the fewest that `MOST` of the files make do with; 16 where
    there are no such files.
    """
    peaks = index.looks[:, PEAK]
    return common_depth([int(peak) for peak in peaks[peaks >= 0]], wanted)


def common_depth(peaks: Sequence[int], wanted: str | int) -> int:
    """The same of the largest samples of the files, in any order."""
    if wanted != "auto":
        return int(wanted)
    depths = sorted(map(used_bits, peaks))
    return depths[math.ceil(MOST * len(depths)) - 1] if depths else 16


def depth_told(split: str, index: ImageIndex, bits: int, wanted: str | int) -> str | None:
    """How 16-bit files are scaled, and which do not fit the others; None where all of 16 bits is used, as ever."""
    depths = _depths(index)
    if not len(depths):
        return None
    more, few = int((depths > bits).sum()), int((depths <= bits - DARK).sum())
    mixed = few >= MIXED * len(depths)
    if bits == 16 and not mixed and wanted == "auto":
        return None
    how, largest = "found" if wanted == "auto" else "as asked for", int(index.looks[:, PEAK].max())
    told = (
        f"{split}: {len(depths):,} file{'s' * (len(depths) > 1)} of 16-bit samples read as {bits} bits "
        f"({how}; the largest sample is {largest:,})"
    )
    if more:
        told += (
            f"; {more:,} of them use{'s' * (more == 1)} more, and {'is' if more == 1 else 'are'} scaled alone"
        )
    if mixed:
        shown = ", ".join(f"{int((depths == d).sum()):,} use {d} bits" for d in DEPTHS if (depths == d).any())
        told += f"; those of few bits come out dark or black ({shown})"
    return f"{told}. Another scale: --dataset.bit-depth 8|10|12|14|16"


def flat_told(split: str, index: ImageIndex, bits: int) -> str | None:
    """How many pictures are of one colour, and how many of those black, as the network sees them."""
    scale = _scale(index, bits)
    flat = index.looks[:, DEVIATION] * scale < FLAT
    if not flat.any():
        return None
    black = int((flat & (index.looks[:, MEAN] * scale < BLACK)).sum())
    count = int(flat.sum())
    most = _mostly_in(index, flat)
    return (
        f"{split}: {count:,} of {len(index):,} pictures {'is' if count == 1 else 'are'} of one colour or nearly so"
        + (f", {black:,} of them black" if black else "")
        + (f" (all of class {most})" if most else "")
        + ": nothing can be learnt from them, and no mark be seen"
    )


def transparent_told(split: str, index: ImageIndex) -> str | None:
    """How many pictures have much transparency, since the colours under it are shown."""
    shares = index.looks[:, TRANSPARENT]
    much = shares >= SEE_THROUGH
    if much.sum() < max(1, 0.01 * len(index)):
        return None
    return (
        f"{split}: {int(much.sum()):,} of {len(index):,} pictures are transparent in part ({shares[much].mean():.0%} "
        "of the average one): the colours stored there, which no viewer shows, are trained on; to blend them with a "
        "background, convert the files to RGB"
    )


def cut_off_told(split: str, index: ImageIndex, size: tuple[int, int], fit: str) -> str | None:
    """How much of the average picture `crop` does not show to the network."""
    if fit != "crop":
        return None
    sizes, counts = np.unique(np.stack([index.widths, index.heights]), axis=1, return_counts=True)
    shares = [share_cut_off(int(width), int(height), *size) for width, height in sizes.T]
    share = float(np.average(shares, weights=counts))
    if share < CUT_OFF:
        return None
    return (
        f"{split}: {share:.0%} of the average picture is cut off (--dataset.fit crop), and a mark there is not seen; "
        "squash and pad cut nothing off"
    )


def _depths(index: ImageIndex) -> np.ndarray:
    """int [files of deep samples]: bits that each uses."""
    peaks = index.looks[:, PEAK]
    return np.array([used_bits(int(peak)) for peak in peaks[peaks >= 0]], dtype=int)


def _scale(index: ImageIndex, bits: int) -> np.ndarray:
    """What samples are multiplied by to be levels of 255, for each file."""
    peaks = index.looks[:, PEAK]
    own = np.array([max(bits, used_bits(int(peak))) if peak >= 0 else 8 for peak in peaks], dtype=float)
    return 2.0 ** (8 - own)


def _mostly_in(index: ImageIndex, chosen: np.ndarray) -> str | None:
    """The one class of which all pictures are chosen, where there is one."""
    counts = np.bincount(index.labels, minlength=len(index.classes))
    whole = np.flatnonzero(
        (np.bincount(index.labels[chosen], minlength=len(index.classes)) == counts) & (counts > 0)
    )
    return printable(index.classes[whole[0]]) if len(whole) == 1 else None
