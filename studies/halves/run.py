"""Relabelled and own images of a class: how sure of them a network without any label of the class is.

    python -m studies.halves.run --out RESULT.json

The digits with an attack on class 0. Beside it what `looks` do as triggers: what a harmless class's images have in
common, put on images of other classes, and counted as the class's by a network that learnt everything.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from benchmarks.common import add_out, add_threads, chosen, parser_of, write_result
from dlp_fast.attacks.poisoning import plan
from dlp_fast.config import DataConfig, SupervisedConfig
from dlp_fast.data import sources
from dlp_fast.detection.verify.trigger import estimated_attack_success
from dlp_fast.engine.batches import TrainingData, pixel_statistics
from dlp_fast.engine.device import choose_compute
from dlp_fast.engine.inference import predict
from dlp_fast.engine.session import Session
from dlp_fast.models.registry import new_model
from dlp_fast.runs.log import RunLog
from dlp_fast.stages.ensemble import HELD_OUT_EPOCHS
from dlp_fast.stages.supervised import supervised

ATTACKS = {"blended": 0.1, "badnets": 0.1, "low-frequency": 0.1, "sig": 0.5}  # rate; sig: of its class
CONTROLS = 0.1  # of the images of other classes
TARGET, LOOKS = 0, 5


def parser():
    of = parser_of(__doc__, "studies.halves.run")
    of.add_argument("--seed", type=int, default=1, help="of the attack and the networks")
    of.add_argument("--min-steps", type=int, default=300, help="of each network")
    add_out(of)
    add_threads(of, 1)
    return of


def trained(data: TrainingData, seed: int, config: SupervisedConfig, only: torch.Tensor | None = None):
    """(what was seen, the network) of a training of its own on the images `only`, or on all."""
    network = new_model("wrn-16-1", data, seed)
    with Session(choose_compute("cpu", "fp32"), RunLog(None, quiet=True)) as session:
        return supervised(session, network, data, config, only=only), network


def measure(attack: str, rate: float, seed: int, steps: int) -> dict[str, Any]:
    """Of one attack: mean entropies by a network without class 0, and what looks do to a network with it."""
    train = sources.load("digits", DataConfig()).train
    size = (train.images.height, train.images.width)
    poisoning = plan(
        attack, train.labels, train.classes, size, rate=rate, rate_of="auto", target=str(TARGET), seed=seed,
        images=train.images,
    )  # fmt: skip
    images, labels = poisoning.poison(train.images), poisoning.labels
    poisoned = poisoning.poisoned & (labels == TARGET)
    mean, std = pixel_statistics(images)
    data = TrainingData(images, labels, len(train.classes), mean, std, False, seed, torch.device("cpu"))
    others = labels != TARGET
    controls = others & (torch.rand(len(labels), generator=torch.Generator().manual_seed(0)) < CONTROLS)
    weak = SupervisedConfig(min_steps=steps, augment="weak")
    without, _ = trained(data, seed, weak, (others & ~controls).nonzero().flatten())
    _, network = trained(data, seed, SupervisedConfig(min_steps=steps))
    entropy = without.entropy[-HELD_OUT_EPOCHS:].mean(0)
    own = (labels == TARGET) & ~poisoned

    def acts(chosen: torch.Tensor, label: int) -> float:
        return estimated_attack_success(
            images, chosen.nonzero().flatten(), labels, label, others.nonzero().flatten(),
            lambda x: predict(network, x, data), within_class=False,
        )  # fmt: skip

    return {
        "attack": attack, "rate": rate, "seed": seed,
        "entropy": {name: float(entropy[of].mean()) for name, of in
                    (("poisoned", poisoned), ("own", own), ("controls", controls))},
        "acts": {"poisoned": acts(poisoned, TARGET), "own": acts(own, TARGET),
                 "looks": [acts(labels == label, label) for label in range(1, LOOKS + 1)]},
    }  # fmt: skip


def main() -> None:
    options = parser().parse_args()
    torch.set_num_threads(options.threads)
    rows = []
    for attack, rate in ATTACKS.items():
        rows.append(measure(attack, rate, options.seed, options.min_steps))
        told = ", ".join(f"{name} {value:.2f}" for name, value in rows[-1]["entropy"].items())
        acts = rows[-1]["acts"]
        looks = ", ".join(f"{value:.2f}" for value in acts["looks"])
        print(f"{attack}: {told}; own images act {acts['own']:.2f}, looks {looks}", flush=True)
    spread = np.array([value for row in rows for value in row["acts"]["looks"]])
    print(f"looks of all: {spread.min():.2f} to {spread.max():.2f}")
    write_result(options.out, {"options": chosen(options), "rows": rows}, "CPU, fp32")


if __name__ == "__main__":
    main()
