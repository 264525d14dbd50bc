"""Wrong labels in the cells of the battery: our list beside cleanlab's, which needs the package (pip install cleanlab).

    python -m studies.battery.beside --cells OUT --cell development-symmetric-noise-0.1-seed0 --out RESULT.json

cleanlab is given the held-out probabilities that it asks for: three folds of the network of stage 1, each trained as
long on the other two thirds. Our list needs no other network.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.common import add_out, add_threads, parser_of, write_result
from dlp_fast.config import DetectionConfig, SupervisedConfig
from dlp_fast.data.storage import ResidentImages
from dlp_fast.detection.mislabeled import probably_mislabeled
from dlp_fast.detection.propose import Observed
from dlp_fast.engine.batches import TrainingData
from dlp_fast.engine.device import choose_compute
from dlp_fast.engine.session import Session
from dlp_fast.models.registry import new_model
from dlp_fast.runs.log import RunLog
from dlp_fast.stages.supervised import supervised

FOLDS = 3


def parser() -> argparse.ArgumentParser:
    of = parser_of(__doc__, "studies.battery.beside")
    of.add_argument("--cells", type=Path, required=True, help="folder of the cells")
    of.add_argument("--cell", nargs="+", required=True, help="which of them")
    add_out(of)
    add_threads(of, 1)
    return of


def held_out(cell: Path, data: TrainingData, config: SupervisedConfig) -> np.ndarray:
    """fp32 [n, classes]: probabilities by a network that was not given the image; kept in the folder of the cell."""
    file = cell / "held_out_3fold.npy"
    if file.exists():
        return np.load(file)
    fold = torch.randperm(len(data), generator=torch.Generator().manual_seed(5)) % FOLDS
    found = torch.zeros(len(data), data.classes)
    for k in range(FOLDS):
        model = new_model("wrn-16-1", data, 100 + k)
        with Session(choose_compute("cpu", "fp32"), RunLog(None, quiet=True)) as session:
            own = replace(data, seed=100 + k)
            supervised(session, model, own, config, only=(fold != k).nonzero().flatten())
        model.eval()
        with torch.no_grad():
            for ids in (fold == k).nonzero().flatten().split(64):
                found[ids] = model(data.plain(ids)).float().softmax(1)
    np.save(file, found.numpy())
    return found.numpy()


def told(cell: Path) -> dict[str, Any]:
    """Precision, recall and F1 of both lists."""
    from cleanlab.filter import find_label_issues

    facts = json.loads((cell / "cell.json").read_text())
    names = ("images", "labels", "true_labels", "entropy", "loss", "other_loss")
    arrays = {name: np.load(cell / f"{name}.npy") for name in names}
    labels, images = (
        torch.from_numpy(arrays["labels"]).long(),
        ResidentImages(torch.from_numpy(arrays["images"])),
    )
    mean, std, classes = tuple(facts["mean"]), tuple(facts["std"]), len(facts["classes"])
    data = TrainingData(images, labels, classes, mean, std, True, 0, torch.device("cpu"))
    curves = (torch.from_numpy(arrays[name]) for name in ("entropy", "loss", "other_loss"))
    seen = Observed(images, labels, classes, *curves, data.other_label(torch.arange(len(labels))))
    config = SupervisedConfig(**facts["supervised"])
    theirs = find_label_issues(arrays["labels"].astype(int), held_out(cell, data, config))
    wrong = arrays["labels"] != arrays["true_labels"]
    lists = {"dlp_fast": probably_mislabeled(seen, DetectionConfig()), "cleanlab": theirs}
    return {"cell": cell.name, "wrong": int(wrong.sum())} | {
        name: _measured(listed, wrong) for name, listed in lists.items()
    }


def _measured(listed: np.ndarray, wrong: np.ndarray) -> dict[str, float]:
    hits = int((listed & wrong).sum())
    precision, recall = hits / max(int(listed.sum()), 1), hits / max(int(wrong.sum()), 1)
    f1 = 2 * precision * recall / max(precision + recall, 1e-9)
    return {"listed": int(listed.sum()), "precision": precision, "recall": recall, "f1": f1}


def main() -> None:
    options = parser().parse_args()
    torch.set_num_threads(options.threads)
    rows = [told(options.cells / name) for name in options.cell]
    for row in rows:
        print(json.dumps(row), flush=True)
    write_result(options.out, {"cells": rows}, "CPU, fp32")


if __name__ == "__main__":
    main()
