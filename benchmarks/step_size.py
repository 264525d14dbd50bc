"""Accuracy on held-out training images over the step size of stage 3: where its default comes from.

    python benchmarks/step_size.py --data DIR --image-size 16 --images 500 --held 400 --out RESULT.json

Clean images of the training set only, and all labels trusted: what is chosen here has seen no test image and no attack.
"""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import torch
import tyro
from dlp_fast.checkpoint import write_atomic
from dlp_fast.runfolder import environment
from dlp_fast.runlog import RunLog

from dlp_fast.config import FinetuneConfig
from dlp_fast.data import sources
from dlp_fast.data.storage import ResidentImages
from dlp_fast.defenses.setting import accuracy_on
from dlp_fast.engine.batches import TrainingData, pixel_statistics
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
    rates: tuple[float, ...] = (0.03, 0.1, 0.2, 0.3)
    """Step sizes."""
    epochs: float = 20
    """Passes over the images trained on."""
    images: int = 500
    """Images of each class trained on: the first ones."""
    held: int = 400
    """Images of each class held out: those that follow."""
    image_size: int | None = None
    """Side in pixels; unset: the images' own."""
    model: str = "wrn-16-1"
    """Network."""
    seed: int = 0
    """Seed of everything."""
    threads: int = 1
    """CPU threads."""


def part(images: torch.Tensor, of: TrainingData, ids: torch.Tensor) -> TrainingData:
    return dataclasses.replace(of, images=ResidentImages(images[ids]), labels=of.labels[ids])


def point(options: Options, rate: float, train: TrainingData, held: TrainingData) -> dict[str, Any]:
    compute = choose_compute("auto", "auto")
    size = max(train.images.height, train.images.width)
    model = build_model(options.model, train.classes, size, options.seed + 1).to(compute.device)
    config = FinetuneConfig(learning_rate=rate, epochs=options.epochs)
    everything, nobody = torch.arange(len(train)), torch.empty(0, dtype=torch.int64)
    began = time.monotonic()
    with Session(options.seed, compute, RunLog(None, quiet=True)) as session:
        done = finetuning(session, model, train, everything, nobody, config)
    accuracy = accuracy_on(model, held, torch.arange(len(held)))
    seconds = time.monotonic() - began
    print(f"{options.model} step size {rate}: {accuracy:.4f} held-out accuracy, {seconds:.0f} s", flush=True)
    return {"rate": rate, "steps": done.steps, "held_out_accuracy": accuracy, "seconds": seconds}


def parts(
    data: str, image_size: int | None, images: int, held: int, seed: int
) -> tuple[str, TrainingData, TrainingData]:
    """Name of the image set; the first `images` of each class, to train on; the `held` that follow."""
    dataset = sources.load(data, image_size=image_size)
    source, classes = dataset.train, len(dataset.train.classes)
    of_class = [(source.labels == c).nonzero().flatten() for c in range(classes)]
    first = torch.cat([ids[:images] for ids in of_class]).sort().values
    then = torch.cat([ids[images : images + held] for ids in of_class]).sort().values
    pixels = source.images.get(torch.arange(len(source.labels)))
    mean, std = pixel_statistics(ResidentImages(pixels[first]))
    device = choose_compute("auto", "auto").device
    everything = TrainingData(source.images, source.labels, classes, mean, std, dataset.flip, seed, device)
    return dataset.name, part(pixels, everything, first), part(pixels, everything, then)


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    torch.set_num_threads(options.threads)
    name, train, held = parts(options.data, options.image_size, options.images, options.held, options.seed)
    points: list[dict[str, Any]] = []
    for rate in options.rates:
        points.append(point(options, rate, train, held))
        saved = {
            "data": name,
            "options": {k: v for k, v in dataclasses.asdict(options).items() if k not in ("data", "out")},
            "points": points,
            "environment": environment(choose_compute("auto", "auto").describe()),
        }
        write_atomic(options.out, json.dumps(saved, indent=1, default=str).encode())


if __name__ == "__main__":
    main()
