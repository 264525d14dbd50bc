"""One cell: its image set, stage 1 on it, and the folder with both."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from dlp_fast.attacks.poisoning import plan
from dlp_fast.config import SupervisedConfig
from dlp_fast.data.storage import ResidentImages
from dlp_fast.engine.batches import TrainingData, normalise, pixel_statistics
from dlp_fast.engine.device import choose_compute
from dlp_fast.engine.inference import BATCH, accuracy
from dlp_fast.engine.session import Session
from dlp_fast.models.registry import build_model
from dlp_fast.runs.log import RunLog
from dlp_fast.stages.supervised import supervised
from studies.battery.cells import Cell
from studies.battery.honest import HONEST
from studies.battery.images import TEST_IMAGES, balanced, decoded

MODEL = "wrn-16-1"


def _image_set(cell: Cell, pool: tuple[np.ndarray, torch.Tensor], classes: tuple[str, ...]) -> dict[str, Any]:
    """images (uint8 array), labels, true_labels, poisoned, cover; attack: a Poisoning or None; told: in words."""
    if cell.kind in HONEST:
        made = HONEST[cell.kind](pool, cell.images, cell.rate, cell.seed)
        return {
            "images": made.images,
            "labels": made.labels,
            "true_labels": made.true_labels,
            "poisoned": torch.zeros(len(made.labels), dtype=torch.bool),
            "cover": made.changed,
            "attack": None,
            "told": " ".join((HONEST[cell.kind].__doc__ or "").split()),
        }
    ids = balanced(pool[1], cell.images, cell.seed)
    base = ResidentImages(torch.from_numpy(pool[0][ids.numpy()]))
    attack = plan(
        cell.kind,
        pool[1][ids],
        classes,
        (base.height, base.width),
        rate=cell.rate,
        rate_of="auto",
        target="0",
        seed=cell.seed,
        images=base,
    )
    return {
        "images": attack.poison(base).get(torch.arange(len(ids))).numpy(),
        "labels": attack.labels,
        "true_labels": attack.true_labels,
        "poisoned": attack.poisoned,
        "cover": attack.cover,
        "attack": attack,
        "told": attack.describe(classes),
    }


def _measured(
    model, attack, test: ResidentImages, labels: torch.Tensor, data: TrainingData
) -> dict[str, Any]:
    """Clean accuracy and attack success rate on the test images, 0..1."""

    def batches(images, ids, wanted):
        for part, expected in zip(ids.split(BATCH["cpu"]), wanted.split(BATCH["cpu"])):
            yield normalise(images.get(part), data.mean, data.std), expected

    found = {"clean_accuracy": accuracy(model, batches(test, torch.arange(len(labels)), labels))}
    if attack is None:
        return found | {"attack_success_rate": None, "attack_tests": 0}
    images, expected, ids = attack.triggered_test(test, labels)
    rate = accuracy(model, batches(images, ids, expected))
    return found | {"attack_success_rate": rate, "attack_tests": len(ids)}


def make(cell: Cell, pack: Path, out: Path) -> None:
    """Write the folder of `cell`."""
    began = time.monotonic()
    torch.set_num_threads(1)
    pictures, labels, classes = decoded(pack, "train", out / "decoded")
    of = _image_set(cell, (pictures, labels), classes)
    images = ResidentImages(torch.from_numpy(of["images"]))
    mean, std = pixel_statistics(images)
    compute = choose_compute("cpu", "fp32")
    data = TrainingData(images, of["labels"], len(classes), mean, std, True, cell.seed, compute.device)
    config = SupervisedConfig(epochs=cell.epochs, min_steps=0)
    model = build_model(MODEL, len(classes), images.height, cell.seed)
    with Session(compute, RunLog(None, quiet=True)) as session:
        result = supervised(session, model, data, config)
    test, test_labels, _ = decoded(pack, "test", out / "decoded")
    few = balanced(test_labels, TEST_IMAGES, 0)
    measured = _measured(
        model, of["attack"], ResidentImages(torch.from_numpy(test[few.numpy()])), test_labels[few], data
    )
    folder = out / f".{cell.name}.part"
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {name: of[name] for name in ("images", "labels", "true_labels", "poisoned", "cover")}
    arrays |= {name: getattr(result, name) for name in ("entropy", "loss", "other_loss", "prediction")}
    for name, values in arrays.items():
        np.save(folder / f"{name}.npy", np.asarray(values))
    save_file(
        {name: of.contiguous() for name, of in model.state_dict().items()}, folder / "model.safetensors"
    )
    facts = {
        "cell": asdict(cell),
        "data": pack.name,
        "what": of["told"],
        "classes": classes,
        "images": len(of["labels"]),
        "poisoned": int(of["poisoned"].sum()),
        "cover": int(of["cover"].sum()),
        "targets": of["attack"].targets if of["attack"] else (),
        "model": MODEL,
        "supervised": config.model_dump(),
        "not_as_the_default": "4,000 images, so 20 epochs of 31 steps with min_steps 0 (default: 10 and 1,000 steps)",
        "mean": mean,
        "std": std,
        "steps": result.steps,
        "epochs": len(result.entropy),
        "precision": "fp32, CPU, one thread",
        "torch": torch.__version__,
        "test_images": len(few),
        **measured,
        "seconds": time.monotonic() - began,
    }
    (folder / "cell.json").write_text(json.dumps(facts, indent=1) + "\n")
    folder.rename(out / cell.name)
