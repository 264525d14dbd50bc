"""Held-out accuracy and time of stage 3 with new weights and with pretrained ones, over the step size.

    python -m studies.pretrained.run --data DIR --weights FILE.pth --out RESULT.json

A result file that is there is added to. Clean images of the training set only, and all labels trusted: what is chosen
here has seen no test image and no attack.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import add_data, add_out, add_threads, chosen, parser_of, write_result
from dlp_fast.config import FinetuningConfig
from dlp_fast.defenses.setting import accuracy_on
from dlp_fast.engine.batches import TrainingData
from dlp_fast.engine.device import choose_compute
from dlp_fast.models.from_timm import timm_network
from dlp_fast.models.starting import StartingWeights
from studies._common import held_out, train_stage3


def parser() -> argparse.ArgumentParser:
    of = parser_of(__doc__, "studies.pretrained.run")
    add_data(of)
    add_out(of)
    add_threads(of, 1)
    of.add_argument(
        "--weights", type=Path, required=True, help="state dict of EfficientNet-Lite0, as torch saved it"
    )
    of.add_argument("--model", default="timm:tf_efficientnet_lite0", help="network that the weights are of")
    of.add_argument("--new", type=float, nargs="*", default=[0.2], help="step sizes with new weights")
    of.add_argument("--rates", type=float, nargs="*", default=[0.2, 0.05, 0.02], help="with pretrained ones")
    of.add_argument("--epochs", type=float, default=10, help="passes over the images trained on")
    of.add_argument("--images", type=int, default=50, help="of each class, trained on")
    of.add_argument("--held", type=int, default=50, help="of each class, held out")
    of.add_argument("--seed", type=int, default=0, help="seed of everything")
    return of


def same_order(file: Path, model: str) -> StartingWeights:
    """The tensors of `file` under the names that timm has for them; both list the layers in the order of the network.

    Raises ValueError where a shape is another.
    """
    given = torch.load(file, map_location="cpu", weights_only=True)
    own = timm_network(model.removeprefix("timm:")).state_dict()
    if [tuple(t.shape) for t in given.values()] != [tuple(t.shape) for t in own.values()]:
        raise ValueError(f"{file}: its tensors are not those of {model}, in its order")
    return StartingWeights(dict(zip(own, given.values(), strict=True)), file.name, "")


def point(
    options: argparse.Namespace, rate: float, train: TrainingData, held: TrainingData
) -> dict[str, Any]:
    began = time.monotonic()
    config = FinetuningConfig(learning_rate=rate, epochs=options.epochs, min_steps=1)
    model, done = train_stage3(train, config, options.model)
    seconds = time.monotonic() - began
    accuracy = accuracy_on(model, held, torch.arange(len(held)))
    start = "new" if train.start is None else "pretrained"
    print(f"{start} step size {rate}: {accuracy:.4f} held-out accuracy, {seconds:.0f} s", flush=True)
    return {
        "start": start,
        "rate": rate,
        "steps": done.steps,
        "held_out_accuracy": accuracy,
        "seconds": seconds,
    }


def main() -> None:
    options = parser().parse_args()
    torch.set_num_threads(options.threads)
    train, held = held_out(options.data, options.image_size, options.images, options.held, options.seed)
    start = same_order(options.weights, options.model)
    arms = [(None, rate) for rate in options.new] + [(start, rate) for rate in options.rates]
    points = json.loads(options.out.read_text())["points"] if options.out.exists() else []
    done = {(of["start"], of["rate"]) for of in points}
    for weights, rate in arms:
        if ("new" if weights is None else "pretrained", rate) in done:
            continue
        points.append(point(options, rate, dataclasses.replace(train, start=weights), held))
        result = {"options": chosen(options), "points": points}
        write_result(options.out, result, choose_compute("auto", "auto").describe())


if __name__ == "__main__":
    main()
