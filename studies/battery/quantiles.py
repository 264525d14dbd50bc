"""How many images each `mislabeled_quantile` lists, and how many of them are wrong, in the cells of the battery.

python -m studies.battery.quantiles --cells OUT --cell NAME … --out RESULT.json
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics import f1_score, roc_auc_score

from benchmarks.common import add_out, parser_of, write_result
from dlp_fast.config import DetectionConfig
from dlp_fast.data.storage import ResidentImages
from dlp_fast.detection.mislabeled import probably_mislabeled
from dlp_fast.detection.propose import Observed
from dlp_fast.engine.batches import TrainingData

QUANTILES = (0.05, 0.1, 0.2, 0.3, 0.4)


def parser() -> argparse.ArgumentParser:
    of = parser_of(__doc__, "studies.battery.quantiles")
    of.add_argument("--cells", type=Path, required=True, help="folder of the cells")
    of.add_argument("--cell", nargs="+", required=True, help="which of them")
    add_out(of)
    return of


def told(cell: Path) -> dict[str, Any]:
    """Of one cell: AUROC of two losses for wrong labels, and share listed and F1 by quantile (None: none is wrong)."""
    names = ("labels", "true_labels", "entropy", "loss", "other_loss")
    arrays = {name: torch.from_numpy(np.load(cell / f"{name}.npy")) for name in names}
    labels, images = arrays["labels"].long(), ResidentImages(torch.from_numpy(np.load(cell / "images.npy")))
    classes, cpu = int(labels.max()) + 1, torch.device("cpu")
    data = TrainingData(images, labels, classes, (0.5,) * 3, (0.5,) * 3, True, 0, cpu)
    curves = (arrays[name] for name in ("entropy", "loss", "other_loss"))
    seen = Observed(images, labels, classes, *curves, data.other_label(torch.arange(len(labels))))
    wrong, loss = (arrays["true_labels"] != labels).numpy(), arrays["loss"].numpy()
    any_wrong = bool(wrong.any())
    rows = []
    for quantile in QUANTILES:
        listed = probably_mislabeled(seen, DetectionConfig(mislabeled_quantile=quantile))
        f1 = f1_score(wrong, listed) if any_wrong else None
        rows.append({"quantile": quantile, "share_listed": float(listed.mean()), "f1": f1})
    auroc = {"mean": loss.mean(0), "last": loss[-1]}
    return {
        "cell": cell.name,
        "wrong": int(wrong.sum()),
        "auroc_of_loss": {name: roc_auc_score(wrong, of) for name, of in auroc.items()}
        if any_wrong
        else None,
        "quantiles": rows,
    }


def main() -> None:
    options = parser().parse_args()
    rows = [told(options.cells / name) for name in options.cell]
    write_result(options.out, {"cells": rows}, "CPU, fp32")


if __name__ == "__main__":
    main()
