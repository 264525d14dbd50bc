"""Held-out accuracy over what the averaged weights of stage 3 get their batch-norm statistics from.

    python -m studies.batch_norm_statistics.run --data DIR --image-size 16 --out RESULT.json

Clean images of the training set only, all labels trusted: what is chosen here has seen no test image and no attack.
Each network is trained once; the arms differ in what comes after. `copied`: the statistics of the last steps' weights.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses

import torch

from benchmarks.common import add_data, add_out, add_threads, chosen, parser_of, write_result
from dlp_fast.config import FinetuningConfig
from dlp_fast.defenses.setting import accuracy_on
from dlp_fast.engine.batches import Cycle, TrainingData
from dlp_fast.engine.device import choose_compute
from dlp_fast.engine.inference import refit_batch_norm
from studies._common import NETWORK, held_out, train_stage3

STREAM = 30  # of the batches that the statistics are taken from


def parser() -> argparse.ArgumentParser:
    of = parser_of(__doc__, "studies.batch_norm_statistics.run")
    add_data(of)
    add_out(of)
    add_threads(of, 1)
    of.add_argument("--batches", type=int, nargs="+", default=[10, 30, 100, 300], help="numbers of batches")
    of.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="seeds of everything")
    of.add_argument("--epochs", type=float, default=30, help="passes over the images trained on")
    of.add_argument("--images", type=int, default=500, help="of each class, trained on")
    of.add_argument("--held", type=int, default=400, help="of each class, held out")
    of.add_argument("--model", default=NETWORK, help="network")
    return of


def arms(options: argparse.Namespace, seed: int, train: TrainingData, held: TrainingData) -> dict[str, float]:
    """Held-out accuracy of one network by where its statistics come from."""
    train = dataclasses.replace(train, seed=seed)
    config = FinetuningConfig(epochs=options.epochs, norm_batches=0)
    model, _ = train_stage3(train, config, options.model)
    tested = torch.arange(len(held))
    found = {"copied": accuracy_on(model, held, tested)}
    cycle = Cycle(torch.arange(len(train)), config.batch, seed, STREAM)
    for batches in options.batches:
        views = {
            "weak": (train.views(cycle.at(i), i, strong=False)[0] for i in range(batches)),
            "plain": (train.plain(cycle.at(i)) for i in range(batches)),
        }
        for kind, inputs in views.items():
            refitted = copy.deepcopy(model)
            refit_batch_norm(refitted, inputs)
            found[f"{kind} {batches}"] = accuracy_on(refitted, held, tested)
    return found


def main() -> None:
    options = parser().parse_args()
    torch.set_num_threads(options.threads)
    train, held = held_out(options.data, options.image_size, options.images, options.held, options.seeds[0])
    rows = []
    for seed in options.seeds:
        rows.append({"seed": seed, "held_out_accuracy": arms(options, seed, train, held)})
        print(rows[-1], flush=True)
        result = {"options": chosen(options), "rows": rows}
        write_result(options.out, result, choose_compute("auto", "auto").describe())


if __name__ == "__main__":
    main()
