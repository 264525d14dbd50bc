"""What the learning curves of stage 3 give away where stage 1 found nothing: BadNets on the digits, every label used.

    python -m studies.recipe.curves --out FILE

Cells that FILE holds already are not run again.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import torch

from benchmarks.common import add_out, add_threads, parser_of, write_result
from dlp_fast.attacks.poisoning import plan
from dlp_fast.config import DataConfig, FinetuningConfig, RunConfig
from dlp_fast.data import sources
from dlp_fast.data.storage import ResidentImages
from dlp_fast.engine.batches import TrainingData, pixel_statistics
from dlp_fast.stages.rounds import SNAPSHOTS, late_decision
from studies._common import train_stage3
from studies.recipe.cells import RECIPES

NETWORK = "wrn-10-1"


def parser() -> argparse.ArgumentParser:
    of = parser_of(__doc__, "studies.recipe.curves")
    add_out(of)
    add_threads(of, 1)
    of.add_argument("--steps", type=int, default=100, help="of stage 3")
    of.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of attack and training")
    of.add_argument("--recipes", nargs="+", default=list(RECIPES), choices=RECIPES, help="which recipes")
    return of


def run(train: sources.ImageSet, flip: bool, seed: int, steps: int, recipe: str) -> dict[str, Any]:
    size = (train.images.height, train.images.width)
    attack = plan(
        "badnets",
        train.labels,
        train.classes,
        size,
        rate=0.1,
        rate_of="auto",
        target="0",
        seed=seed,
        images=train.images,
        device="cpu",
    )
    pixels = attack.poison(train.images)
    mean, std = pixel_statistics(ResidentImages(pixels.get(torch.arange(len(train.labels)))))
    data = TrainingData(pixels, attack.labels, len(train.classes), mean, std, flip, seed, torch.device("cpu"))
    config = FinetuningConfig(steps=steps, norm_batches=0, **RECIPES[recipe])
    done = train_stage3(data, config, NETWORK, snapshots=SNAPSHOTS)[1]
    decision = late_decision(done.labeled, done.entropy, done.loss, data, RunConfig(), found_before=False)
    groups = [done.labeled[torch.from_numpy(group.core)] for group in decision.found]
    return {
        "seed": seed,
        "steps": steps,
        "recipe": recipe,
        "poisoned": int(attack.poisoned.sum()),
        "scores": [round(entry.score, 3) for entry in decision.scored],
        "found": sum(map(len, groups)),
        "found_and_poisoned": sum(int(attack.poisoned[ids].sum()) for ids in groups),
    }


def main() -> None:
    options = parser().parse_args()
    torch.set_num_threads(options.threads)
    dataset = sources.load("digits", DataConfig())
    rows = json.loads(options.out.read_text())["rows"] if options.out.exists() else []
    for seed in options.seeds:
        for recipe in options.recipes:
            wanted = {"seed": seed, "steps": options.steps, "recipe": recipe}
            if any(wanted.items() <= row.items() for row in rows):
                continue
            rows.append(run(dataset.train, dataset.flip, seed, options.steps, recipe))
            write_result(options.out, {"rows": rows}, "CPU, fp32")
            print(time.strftime("%H:%M:%S"), rows[-1], flush=True)


if __name__ == "__main__":
    main()
