"""Held-out accuracy over the step size of stage 3, and over its length.

    python -m studies.step_size.run --data DIR --image-size 16 --out RESULT.json

Clean images of the training set only, and all labels trusted: what is chosen here has seen no test image and no attack.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch

from benchmarks.common import add_data, add_out, add_threads, chosen, parser_of, write_result
from dlp_fast.config import FinetuningConfig
from dlp_fast.defenses.setting import accuracy_on
from dlp_fast.engine.batches import TrainingData
from dlp_fast.engine.device import choose_compute
from studies._common import NETWORK, held_out, train_stage3


def parser() -> argparse.ArgumentParser:
    of = parser_of(__doc__, "studies.step_size.run")
    add_data(of)
    add_out(of)
    add_threads(of, 1)
    of.add_argument("--rates", type=float, nargs="+", default=[0.03, 0.1, 0.2, 0.3], help="step sizes")
    of.add_argument("--epochs", type=float, default=20, help="passes over the images trained on")
    of.add_argument("--images", type=int, default=500, help="of each class, trained on")
    of.add_argument("--held", type=int, default=400, help="of each class, held out")
    of.add_argument("--model", default=NETWORK, help="network")
    of.add_argument("--seed", type=int, default=0, help="seed of everything")
    return of


def point(
    options: argparse.Namespace, rate: float, train: TrainingData, held: TrainingData
) -> dict[str, Any]:
    began = time.monotonic()
    config = FinetuningConfig(learning_rate=rate, epochs=options.epochs)
    model, done = train_stage3(train, config, options.model)
    accuracy = accuracy_on(model, held, torch.arange(len(held)))
    seconds = time.monotonic() - began
    print(f"{options.model} step size {rate}: {accuracy:.4f} held-out accuracy, {seconds:.0f} s", flush=True)
    return {"rate": rate, "steps": done.steps, "held_out_accuracy": accuracy, "seconds": seconds}


def main() -> None:
    options = parser().parse_args()
    torch.set_num_threads(options.threads)
    train, held = held_out(options.data, options.image_size, options.images, options.held, options.seed)
    points = []
    for rate in options.rates:
        points.append(point(options, rate, train, held))
        result = {"options": chosen(options), "points": points}
        write_result(options.out, result, choose_compute("auto", "auto").describe())


if __name__ == "__main__":
    main()
