"""Wrong labels that stage 1 learns by heart: how many the first epochs would list, and what they cost the clean model.

    python -m studies.known_by_heart.run --pack cifar10_jpeg.npz --out RESULT.json [--whole]

5,000 CIFAR-10 images at 16 pixels, with right labels and with 20 % random wrong ones. --whole: the default run on both
as well, for its clean accuracy on 2,000 test images.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics import f1_score

from benchmarks.common import add_out, add_threads, chosen, parser_of, write_result
from dlp_fast.api import defend
from dlp_fast.config import DetectionConfig, SupervisedConfig
from dlp_fast.data.storage import ResidentImages
from dlp_fast.detection.mislabeled import probably_mislabeled
from dlp_fast.detection.propose import Observed
from dlp_fast.engine.batches import TrainingData, pixel_statistics
from dlp_fast.engine.device import choose_compute
from dlp_fast.engine.session import Session
from dlp_fast.models.registry import new_model
from dlp_fast.runs.log import RunLog
from dlp_fast.stages.supervised import Supervised, supervised
from studies.battery.images import balanced, decoded

IMAGES, TEST, SIDE, CLASSES = 5000, 2000, 16, 10
NOISE = (0.2, 0.0)
PREFIXES = (10, 13, 16, 20)


def parser():
    of = parser_of(__doc__, "studies.known_by_heart.run")
    of.add_argument("--pack", type=Path, required=True, help="cifar10_jpeg.npz")
    of.add_argument("--whole", action="store_true", help="the whole default run as well")
    of.add_argument("--seed", type=int, default=0, help="of the images, the wrong labels and the networks")
    add_out(of)
    add_threads(of, 1)
    return of


def small(pack: Path, split: str, count: int, seed: int, cache: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """(uint8 [count, SIDE, SIDE, 3], int64 labels), the same number of each class."""
    pictures, labels, _ = decoded(pack, split, cache)
    ids = balanced(labels, count, seed)
    planes = torch.from_numpy(pictures[ids.numpy()]).permute(0, 3, 1, 2).float()
    shrunk = torch.nn.functional.interpolate(planes, (SIDE, SIDE), mode="area").round().to(torch.uint8)
    return shrunk.permute(0, 2, 3, 1).contiguous(), labels[ids]


def noisy(labels: torch.Tensor, share: float, seed: int) -> torch.Tensor:
    """`labels` with a random share of them changed to another class."""
    rng = np.random.default_rng(seed)
    changed = labels.clone()
    ids = torch.from_numpy(rng.permutation(len(labels))[: round(share * len(labels))])
    changed[ids] = (labels[ids] + torch.from_numpy(rng.integers(1, CLASSES, len(ids)))) % CLASSES
    return changed


def first_stage(pixels: torch.Tensor, labels: torch.Tensor, seed: int) -> tuple[Supervised, torch.Tensor]:
    """(what stage 1 saw, another label of each image)."""
    images = ResidentImages(pixels)
    mean, std = pixel_statistics(images)
    data = TrainingData(images, labels, CLASSES, mean, std, True, seed, torch.device("cpu"))
    with Session(choose_compute("cpu", "fp32"), RunLog(None, quiet=True)) as session:
        seen = supervised(session, new_model("wrn-16-1", data, seed), data, SupervisedConfig())
    return seen, data.other_label(torch.arange(len(data)))


def told(pixels: torch.Tensor, labels: torch.Tensor, true: torch.Tensor, seed: int) -> dict[str, Any]:
    """How many images the first epochs list, and how many of them rightly."""
    first, others = first_stage(pixels, labels, seed)
    seen = Observed(
        ResidentImages(pixels), labels, CLASSES, first.entropy, first.loss, first.other_loss, others
    )
    wrong, rows = (labels != true).numpy(), []
    for epochs in (*PREFIXES, len(first.loss)):
        part = replace(seen, loss=seen.loss[:epochs], other_loss=seen.other_loss[:epochs])
        listed = probably_mislabeled(part, DetectionConfig())
        rows.append({
            "epochs": epochs, "listed": int(listed.sum()), "of_them_wrong": int((listed & wrong).sum()),
            "f1": float(f1_score(wrong, listed, zero_division=0.0)),
        })  # fmt: skip
    known = (first.loss < np.log(2)).float().mean(1)
    return {
        "wrong": int(wrong.sum()),
        "known": [round(float(share), 3) for share in known],
        "first_epochs": rows,
    }


def whole(pixels, labels, test, test_labels, seed: int) -> float:
    """Clean accuracy of the default run, 0 to 1."""
    result = defend(
        pixels.numpy(), labels.numpy(), test=test.numpy(), test_labels=test_labels.numpy(), quiet=True,
        seed=seed, precision="fp32", threads=1,
    )  # fmt: skip
    return result.results["stages"]["finetuning"]["clean_accuracy"]


def main() -> None:
    options = parser().parse_args()
    torch.set_num_threads(options.threads)
    rows = []
    with tempfile.TemporaryDirectory() as cache:
        pixels, true = small(options.pack, "train", IMAGES, options.seed, Path(cache))
        test, test_labels = small(options.pack, "test", TEST, options.seed, Path(cache))
    for noise in NOISE:
        labels = noisy(true, noise, options.seed)
        rows.append({"noise": noise} | told(pixels, labels, true, options.seed))
        for row in rows[-1]["first_epochs"]:
            print(f"noise {noise:.0%}, {row['epochs']} epochs: {row['listed']} listed, {row['of_them_wrong']} "
                  f"of them wrong, F1 {row['f1']:.2f}", flush=True)  # fmt: skip
        if options.whole:
            rows[-1]["clean_accuracy"] = whole(pixels, labels, test, test_labels, options.seed)
            print(f"noise {noise:.0%}: clean accuracy {rows[-1]['clean_accuracy']:.3f}", flush=True)
        write_result(options.out, {"options": chosen(options), "rows": rows}, "CPU, fp32")


if __name__ == "__main__":
    main()
