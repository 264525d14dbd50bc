"""Accuracy on held-out training images over what the averaged weights of stage 3 get their batch-norm statistics from.

    python benchmarks/batch_norm.py --data DIR --image-size 16 --images 500 --held 400 --out RESULT.json

Clean images of the training set only, all labels trusted: what is chosen here has seen no test image and no attack.
Each network is trained once; the arms differ in what comes after. `copied`: the statistics of the last steps' weights.
"""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path
from typing import Any

import torch
import tyro
from dlp_fast.checkpoint import write_atomic
from dlp_fast.engine.batch_norm import refit_batch_norm
from dlp_fast.runfolder import environment
from dlp_fast.runlog import RunLog
from step_size import parts

from dlp_fast.config import FinetuneConfig
from dlp_fast.defenses.setting import accuracy_on
from dlp_fast.engine.batches import Cycle, TrainingData
from dlp_fast.engine.device import choose_compute
from dlp_fast.engine.session import Session
from dlp_fast.models.registry import build_model
from dlp_fast.stages.finetuning import finetuning


@dataclasses.dataclass
class Options:
    data: str
    """Image folder, clean."""
    out: Path
    """Result file, JSON."""
    batches: tuple[int, ...] = (10, 30, 100, 300)
    """Numbers of batches, of weak views and of plain images."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of everything."""
    epochs: float = 30
    """Passes over the images trained on."""
    images: int = 500
    """Images of each class trained on: the first ones."""
    held: int = 400
    """Images of each class held out: those that follow."""
    image_size: int | None = None
    """Side in pixels; unset: the images' own."""
    model: str = "wrn-16-1"
    """Network."""
    threads: int = 1
    """CPU threads."""


def arms(options: Options, seed: int, train: TrainingData, held: TrainingData) -> dict[str, float]:
    """Held-out accuracy of one network by where its statistics come from."""
    compute = choose_compute("auto", "auto")
    train = dataclasses.replace(train, seed=seed)
    size = max(train.images.height, train.images.width)
    model = build_model(options.model, train.classes, size, seed + 1).to(compute.device)
    everything, nobody = torch.arange(len(train)), torch.empty(0, dtype=torch.int64)
    config = FinetuneConfig(epochs=options.epochs, norm_batches=0)
    with Session(seed, compute, RunLog(None, quiet=True)) as session:
        finetuning(session, model, train, everything, nobody, config)
    tested = torch.arange(len(held))
    found = {"copied": accuracy_on(model, held, tested)}
    cycle = Cycle(everything, config.batch, seed, 30)
    for batches in options.batches:
        for kind in ("weak", "plain"):
            refitted = copy.deepcopy(model)
            numbers = range(batches)
            refit_batch_norm(
                refitted,
                (train.views(cycle.at(i), i, strong=False)[0] for i in numbers)
                if kind == "weak"
                else (train.plain(cycle.at(i)) for i in numbers),
            )
            found[f"{kind} {batches}"] = accuracy_on(refitted, held, tested)
    return found


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    torch.set_num_threads(options.threads)
    name, train, held = parts(
        options.data, options.image_size, options.images, options.held, options.seeds[0]
    )
    rows: list[dict[str, Any]] = []
    for seed in options.seeds:
        rows.append({"seed": seed, "held_out_accuracy": arms(options, seed, train, held)})
        print(rows[-1], flush=True)
        saved = {
            "data": name,
            "options": {k: v for k, v in dataclasses.asdict(options).items() if k not in ("data", "out")},
            "rows": rows,
            "environment": environment(choose_compute("auto", "auto").describe()),
        }
        write_atomic(options.out, json.dumps(saved, indent=1, default=str).encode())


if __name__ == "__main__":
    main()
