"""How far the low-frequency trigger lies from clean images, in deviations of their low-frequency cosine terms.

python -m studies.static_patterns.deviations --pack cifar10_jpeg.npz --out RESULT.json
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from benchmarks.common import add_out, chosen, parser_of, write_result
from dlp_fast.attacks.triggers import low_frequency
from dlp_fast.detection.propose.smooth import SmoothParts
from dlp_fast.detection.propose.views import View
from studies.static_patterns.run import load


def parser():
    of = parser_of(__doc__, "studies.static_patterns.deviations")
    of.add_argument("--pack", type=Path, required=True, help="cifar10_jpeg.npz")
    of.add_argument("--images", type=int, default=8000, help="the covariance of so many")
    of.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4], help="of the trigger")
    add_out(of)
    return of


def main() -> None:
    options = parser().parse_args()
    pixels, labels = load(options.pack)
    size = tuple(pixels.shape[1:3])
    parts = SmoothParts(View(0, 0, *size), pixels[: options.images], labels[: options.images])
    whitening = parts.beside_all().whitening.double()
    rows = []
    for seed in options.seeds:
        pattern = low_frequency(size, seed).terms.reshape(1, *size, 3)
        moved = (pattern + 128).clamp(0, 255).to(torch.uint8)  # terms leave the mean out
        terms = SmoothParts(View(0, 0, *size), moved, labels[:1]).terms.double()
        rows.append({"seed": seed, "deviations": float(np.linalg.norm((terms @ whitening).numpy()))})
        print(f"seed {seed}: {rows[-1]['deviations']:.1f} deviations", flush=True)
    write_result(options.out, {"options": chosen(options), "rows": rows}, "CPU")


if __name__ == "__main__":
    main()
