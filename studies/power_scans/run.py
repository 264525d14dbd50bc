"""What the scan for marks alone sees of own triggers in copies of a set: no network takes part.

    python -m studies.power_scans.run --pack cifar10_jpeg.npz --out RESULT.json

On the embedded digits and on CIFAR-10 images, as `--detection.power-scans` does where nothing is suspected.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import torch

from benchmarks.common import add_out, add_threads, chosen, parser_of, write_result
from dlp_fast.config import DetectionConfig
from dlp_fast.data.sources import load
from dlp_fast.data.storage import ResidentImages
from dlp_fast.engine.batches import TrainingData, pixel_statistics
from dlp_fast.engine.device import choose_compute
from dlp_fast.engine.session import Session
from dlp_fast.power.scans import scans, scheduled
from dlp_fast.power.trials import summary
from dlp_fast.runs.log import RunLog
from studies.battery.images import balanced, decoded


def parser():
    of = parser_of(__doc__, "studies.power_scans.run")
    of.add_argument("--pack", type=Path, required=True, help="cifar10_jpeg.npz")
    of.add_argument("--images", type=int, default=4000, help="of CIFAR-10")
    of.add_argument("--trials", type=int, default=20, help="of each trigger and rate")
    of.add_argument("--seed", type=int, default=0, help="of the images and of what is planted")
    add_out(of)
    add_threads(of, 1)
    return of


def tried(images: ResidentImages, labels: torch.Tensor, trials: int, seed: int) -> dict[str, object]:
    """Rows of the trials on an image set, with the number of copies and the seconds that their scans took."""
    mean, std = pixel_statistics(images)
    classes = int(labels.max()) + 1
    data = TrainingData(images, labels, classes, mean, std, True, seed, torch.device("cpu"))
    config, free = DetectionConfig(power_scans=trials), torch.ones(len(data), dtype=torch.bool)
    began, used = time.monotonic(), time.process_time()
    with Session(choose_compute("cpu", "fp32"), RunLog(None, quiet=True)) as session:
        rows = summary(scans(session, data, free, range(classes), config))
    return {
        "images": len(data),
        "copies": len(scheduled(data, classes, trials)),
        "seconds": round(time.monotonic() - began, 1),
        "cpu_seconds": round(time.process_time() - used, 1),
        "rows": rows,
    }


def main() -> None:
    options = parser().parse_args()
    torch.set_num_threads(options.threads)
    sets = {}
    with tempfile.TemporaryDirectory() as cache:
        digits = load("digits").train
        sets["digits"] = tried(digits.images, digits.labels, options.trials, options.seed)
        pictures, labels, _ = decoded(options.pack, "train", Path(cache))
        ids = balanced(labels, options.images, options.seed)
        images = ResidentImages(torch.from_numpy(pictures[ids.numpy()]))
        sets["cifar10"] = tried(images, labels[ids], options.trials, options.seed)
    write_result(options.out, {"options": chosen(options), "sets": sets}, "CPU")
    for name, of in sets.items():
        print(f"{name}: {of['copies']} copies, {of['cpu_seconds']} s of CPU, {of['seconds']} s")
        for row in of["rows"]:
            print(
                f"  {row['trigger']} {row['rate']:.1%} ({row['images']}): {row['found']} of {row['trials']}"
            )


if __name__ == "__main__":
    main()
