"""How often the clusters of learning curves find the poison, and the precision of each score, over attacks and rates.

    python -m studies.learning_curves.run --data DIR --image-size 16 --out CELLS.json
    python -m studies.learning_curves.report CELLS.json ... --out RESULT.json

Trains stage 1 once for each cell and scores the same curves by every score after every third epoch. Cells that the file
holds already are not run again. The attack is known here, to the table and to nothing that it measures.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from sklearn.metrics import roc_auc_score
from torch import Tensor

from benchmarks.common import add_data, add_out, add_threads, chosen, parser_of, write_result
from dlp_fast.config import DataConfig, DetectionConfig, SupervisedConfig
from dlp_fast.data import sources
from dlp_fast.engine.device import choose_compute
from studies._common import NETWORK, detected, prepare, train_stage1

RATES = {
    "badnets": (0.1, 0.05, 0.2),
    "blended": (0.1, 0.05, 0.2),
    "sig": (0.5, 0.8),  # of the target class, whose labels stay
}
LOW = (0.02, 0.01, 0.005)  # with the first seed only: few images carry the trigger, and it is learnt late
TESTED = 1000  # test images

Case = tuple[str, float, int]


def parser() -> argparse.ArgumentParser:
    of = parser_of(__doc__, "studies.learning_curves.run")
    add_data(of)
    add_out(of, "cells, JSON")
    add_threads(of, 1)
    of.add_argument("--images", type=int, default=5000, help="how many, the same number of each class")
    of.add_argument("--model", default=NETWORK, help="network")
    of.add_argument("--epochs", type=int, default=12, help="of stage 1")
    of.add_argument("--batch", type=int, default=64, help="images a step")
    of.add_argument("--learning-rate", type=float, default=0.05, help="step size of stage 1")
    of.add_argument("--precision", choices=["auto", "fp32", "bf16"], default="auto", help="of stage 1")
    of.add_argument("--seeds", type=int, default=3, help="how many; each is other images, target and weights")
    of.add_argument("--low", action="store_true", help="the low poisoning rates instead")
    of.add_argument(
        "--part",
        type=int,
        nargs=2,
        default=[0, 1],
        metavar=("K", "N"),
        help="every N-th cell from the K-th on: N processes share the work, each with its own --out",
    )
    of.add_argument("--keep", type=Path, metavar="FOLDER", help="keep the learning curves there")
    of.add_argument(
        "--rescore", action="store_true", help="train nothing: score the kept curves of the cells"
    )
    return of


def cases(seeds: int, low: bool) -> list[Case]:
    """(attack, rate, seed): every attack and rate with every seed, and as many clean sets."""
    if low:
        return [(attack, rate, 0) for rate in LOW for attack in ("badnets", "blended")]
    poisoned = [(a, r, s) for s in range(seeds) for k in range(3) for a in RATES for r in RATES[a][k : k + 1]]
    clean = [("none", 0.0, s) for s in range(len(poisoned))]
    return [case for pair in zip(clean, poisoned) for case in pair]


def at_epoch(
    epoch: int, entropy: Tensor, loss: Tensor, labels: Tensor, poisoned: np.ndarray
) -> dict[str, Any]:
    """What every score comes to, had stage 1 ended after `epoch` epochs."""
    entropy, loss = entropy[:epoch], loss[:epoch]
    of = detected(entropy, loss, labels, int(labels.max()) + 1)
    scores = {
        "entropy": entropy[-1].numpy(),
        "mean entropy": entropy.mean(0).numpy(),
        "mean loss": loss.mean(0).numpy(),
        "learning curves": of.suspicion.score.numpy(),
    }
    trusted = ~of.suspicion.never_clean.numpy()
    facts: dict[str, Any] = {
        "epoch": epoch,
        "found": [{"label": f.label, "score": f.score} for f in of.decision.findings],
        "max_subthreshold_score": of.decision.max_subthreshold_score,
        "withheld": int(of.suspicion.withheld.sum()),
        "trusted": int(trusted.sum()),
        "poison_trusted": int((poisoned & trusted).sum()),
    }
    k = max(1, round(DetectionConfig().rate * len(labels)))
    for name, score in scores.items() if poisoned.any() else ():
        lowest = np.argsort(score, kind="stable")[:k]
        facts[name] = {
            "precision": float(poisoned[lowest].mean()),
            "auroc": float(roc_auc_score(poisoned, -score)),
        }
    return facts


def scored(curves: dict[str, Tensor]) -> list[dict[str, Any]]:
    """Of the curves of one cell after every third epoch, and after the last."""
    entropy, loss, labels = (curves[k] for k in ("entropy", "loss", "labels"))
    last = len(loss)
    return [
        at_epoch(epoch, entropy, loss, labels, curves["poisoned"].numpy())
        for epoch in sorted({*range(3, last + 1, 3), last})
    ]


def curves_file(options: argparse.Namespace, case: Case) -> Path:
    attack, rate, seed = case
    return options.keep / f"{attack}-{rate:g}-{seed}.safetensors"


def run_cell(options: argparse.Namespace, dataset: sources.Dataset, case: Case) -> dict[str, Any]:
    began = time.monotonic()
    attack, rate, seed = case
    part = prepare(dataset, attack, rate, seed, options.images, TESTED)
    config = SupervisedConfig(
        epochs=options.epochs, min_steps=0, batch=options.batch, learning_rate=options.learning_rate
    )
    model, first = train_stage1(part.data, config, options.model, options.precision)
    measured = part.measure(model)
    curves = {
        "entropy": first.entropy,
        "loss": first.loss,
        "labels": part.data.labels,
        "poisoned": part.poisoned,
    }
    if options.keep:
        options.keep.mkdir(parents=True, exist_ok=True)
        save_file(curves, curves_file(options, case))
    seconds = round(time.monotonic() - began, 1)
    facts = {"attack": attack, "rate": rate, "seed": seed, "seconds": seconds}
    return facts | measured | {"epochs": scored(curves)}


def told(cell: dict[str, Any]) -> str:
    last = cell["epochs"][-1]
    found = [(f["label"], round(f["score"], 2)) for f in last["found"]]
    return (
        f"{cell['attack']} {cell['rate']:g} seed {cell['seed']}: ASR {cell['attack_success_rate']}, found {found}, "
        f"others {last['max_subthreshold_score']:.2f}, poison trusted {last['poison_trusted']}/{last['trusted']}, "
        f"{cell['seconds']} s"
    )


def main() -> None:
    options = parser().parse_args()
    if options.rescore and not options.keep:
        raise SystemExit("--rescore: give the folder of the kept curves, --keep FOLDER.")
    torch.set_num_threads(options.threads)
    saved: dict[str, Any] = {"cells": []}
    if options.out.is_file():
        saved = json.loads(options.out.read_text())
    device = choose_compute("auto", options.precision).describe()
    if options.rescore:
        for cell in saved["cells"]:
            case = (cell["attack"], cell["rate"], cell["seed"])
            cell["epochs"] = scored(load_file(curves_file(options, case)))
        write_result(options.out, saved, device)
        return
    dataset = sources.load(options.data, DataConfig(image_size=options.image_size))
    pixels = dataset.train.images
    saved["set"] = f"{options.images:,} of {dataset.name} at {pixels.width} px"
    saved["classes"] = len(dataset.train.classes)
    saved["options"] = {k: v for k, v in chosen(options).items() if k not in ("part", "rescore")}
    done = {(c["attack"], c["rate"], c["seed"]) for c in saved["cells"]}
    number, parts = options.part
    for case in cases(options.seeds, options.low)[number::parts]:
        if case not in done:
            saved["cells"].append(run_cell(options, dataset, case))
            write_result(options.out, saved, device)
            print(told(saved["cells"][-1]), flush=True)


if __name__ == "__main__":
    main()
