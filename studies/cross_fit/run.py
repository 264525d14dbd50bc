"""Wrong labels that stage 1 knows by heart, told by networks of the other half of the images.

    python -m studies.cross_fit.run --pack cifar10_jpeg.npz --cell cifar10-symmetric-0.2-0 --keep KEPT --out RESULT.json

A cell is SET-KIND-SHARE-SEED. Sets: digits (the embedded ones), cifar10 (4,000 images at 16 pixels). Kinds: symmetric,
asymmetric (in five classes, to the next one), poisoned (as symmetric, and a patch on 5 % of all images). What networks
say is kept in KEPT for beside.py; a cell that is kept there is not trained again.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from benchmarks.common import add_out, add_threads, chosen, parser_of, write_result
from dlp_fast.config import DetectionConfig, SupervisedConfig
from dlp_fast.data.sources import load
from dlp_fast.data.storage import ResidentImages
from dlp_fast.detection.mislabeled import (
    HeldOutLoss,
    known_by_heart,
    mislabeled_by_held_out,
    probably_mislabeled,
)
from dlp_fast.detection.propose import Observed
from dlp_fast.engine.batches import TrainingData, pixel_statistics
from dlp_fast.engine.device import choose_compute
from dlp_fast.engine.inference import eval_mode
from dlp_fast.engine.session import Session
from dlp_fast.models.registry import new_model
from dlp_fast.runs.log import RunLog
from dlp_fast.stages.cross_fit import LAST, SEED, half_options, halves, last_half
from dlp_fast.stages.supervised import supervised
from studies.known_by_heart.run import noisy, small

CLASSES, IMAGES, POISONED, HEART = 10, 4000, 0.05, 0.8


def parser():
    of = parser_of(__doc__, "studies.cross_fit.run")
    of.add_argument("--pack", type=Path, required=True, help="cifar10_jpeg.npz")
    of.add_argument("--cell", nargs="+", required=True, help="SET-KIND-SHARE-SEED")
    of.add_argument("--keep", type=Path, required=True, help="folder for what networks say")
    add_out(of)
    add_threads(of, 1)
    return of


def asymmetric(labels: torch.Tensor, share: float, seed: int) -> torch.Tensor:
    """`labels` with a random share of those of every other class changed to the next class."""
    rng, changed = np.random.default_rng(seed), labels.clone()
    for label in range(0, CLASSES, 2):
        ids = rng.permutation((labels == label).nonzero().flatten().numpy())
        changed[torch.from_numpy(ids[: round(share * len(ids))])] = label + 1
    return changed


def cell_of(name: str, pack: Path) -> tuple[TrainingData, np.ndarray, np.ndarray]:
    """(data, true labels, bool [n]: poisoned) of a cell."""
    source, kind, share, seed = (
        name.split("-")[0],
        name.split("-")[1],
        float(name.split("-")[2]),
        int(name.split("-")[3]),
    )
    if source == "digits":
        digits = load("digits").train
        pixels, true = digits.images.get(torch.arange(len(digits))).clone(), digits.labels
    else:
        with tempfile.TemporaryDirectory() as cache:
            pixels, true = small(pack, "train", IMAGES, seed, Path(cache))
    labels = (asymmetric if kind == "asymmetric" else noisy)(true, share, seed)
    poisoned = np.zeros(len(labels), dtype=bool)
    if kind == "poisoned":
        rng = np.random.default_rng(seed + 5)
        ids = rng.permutation(np.flatnonzero(labels.numpy() != 0))[: round(POISONED * len(labels))]
        poisoned[ids] = True
        square = torch.tensor([[255, 0, 255], [0, 255, 0], [255, 0, 255]], dtype=torch.uint8)
        pixels[ids, -3:, -3:], labels[ids] = square[..., None], 0
    images = ResidentImages(pixels.contiguous())
    mean, std = pixel_statistics(images)
    data = TrainingData(images, labels, CLASSES, mean, std, source != "digits", seed, torch.device("cpu"))
    return data, true.numpy(), poisoned


def recorded(data: TrainingData, file: Path) -> dict[str, np.ndarray]:
    """What stage 1 and both networks say of `data`: loss, other_loss [epochs, n] of stage 1; own, other [n], means of
    the held-out losses; probability [n, classes], the mean of the held-out ones, by which cleanlab is asked.
    """
    if file.exists():
        return dict(np.load(file))
    half = halves(data.labels.numpy(), CLASSES, data.seed + SEED)
    own, other = np.zeros(len(data)), np.zeros(len(data))
    probability, seconds = np.zeros((len(data), CLASSES)), []
    with Session(choose_compute("cpu", "fp32"), RunLog(None, quiet=True)) as session:
        first = supervised(session, new_model("wrn-16-1", data, data.seed), data, SupervisedConfig())
        options = half_options(SupervisedConfig(), len(first.loss), first.steps)
        for k in (0, 1):
            session.keep_only(())
            fold = replace(data, seed=data.seed + SEED * (k + 1))
            model, held = new_model("wrn-16-1", fold, fold.seed), torch.from_numpy(half == k)
            said: list[np.ndarray] = []

            def add(_scores, fold=fold, model=model, held=held, said=said) -> None:
                with torch.no_grad(), eval_mode(model):
                    logits = [model(fold.plain(ids)) for ids in held.nonzero().flatten().split(64)]
                said.append(F.softmax(torch.cat(logits).float(), 1).numpy())

            ids = (~held).nonzero().flatten()
            seen = supervised(session, model, fold, options, watch=add, only=ids, name="half")
            own[half == k], other[half == k] = (of[held].numpy() for of in last_half(seen))
            probability[half == k] = np.mean(said[-max(1, round(LAST * len(said))) :], 0)
            seconds.append(seen.seconds)
    told = {"loss": first.loss.numpy(), "other_loss": first.other_loss.numpy(), "own": own, "other": other}
    told |= {"probability": probability, "seconds": np.array([first.seconds, *seconds])}
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez(file, **told)
    return told


def row_of(
    name: str, data: TrainingData, true: np.ndarray, poisoned: np.ndarray, told: dict[str, Any]
) -> dict[str, Any]:
    """Who is listed by stage 1 alone, and by the networks of the other halves."""
    labels, others = data.labels.numpy(), data.other_label(torch.arange(len(data))).numpy()
    loss, other_loss, config = (
        torch.from_numpy(told["loss"]),
        torch.from_numpy(told["other_loss"]),
        DetectionConfig(heart_share=HEART),
    )
    alone = probably_mislabeled(
        Observed(data.images, data.labels, CLASSES, loss, loss, other_loss, torch.from_numpy(others)), config
    )
    held = HeldOutLoss(told["own"], told["other"])
    asked = mislabeled_by_held_out(held, told["loss"], labels, others, CLASSES, config)
    wrong = (labels != true) & ~poisoned
    return {
        "cell": name,
        "images": len(labels),
        "known_by_heart": known_by_heart(loss, config),
        "wrong": int(wrong.sum()),
        "stage_1_alone": judged(alone, wrong, poisoned),
        "held_out": judged(asked, wrong, poisoned),
        "held_out_accuracy": round(float((told["probability"].argmax(1) == true).mean()), 3),
        "seconds": [round(float(of), 1) for of in told["seconds"]],
    }


def judged(listed: np.ndarray, wrong: np.ndarray, poisoned: np.ndarray) -> dict[str, Any]:
    """How many images are listed, how many of them are under wrong labels, how many poisoned, and F1."""
    hits = int((listed & wrong).sum())
    both = int(listed.sum() + wrong.sum())
    f1 = round(2 * hits / both, 3) if wrong.any() else None
    return {"listed": int(listed.sum()), "wrong": hits, "poisoned": int((listed & poisoned).sum()), "f1": f1}


def main() -> None:
    options = parser().parse_args()
    torch.set_num_threads(options.threads)
    rows = []
    for name in options.cell:
        data, true, poisoned = cell_of(name, options.pack)
        told = recorded(data, options.keep / f"{name}.npz")
        rows.append(row_of(name, data, true, poisoned, told))
        print(json.dumps(rows[-1]), flush=True)
        write_result(options.out, {"options": chosen(options), "rows": rows}, "CPU, fp32")


if __name__ == "__main__":
    main()
