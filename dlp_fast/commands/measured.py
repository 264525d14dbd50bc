"""Clean accuracy and attack success rate of a run's model, on images with their true labels."""

from __future__ import annotations

from pathlib import Path

import torch

from dlp_fast.attacks.poisoning import find_target
from dlp_fast.commands.evaluate import EvaluateConfig
from dlp_fast.commands.guard import tell
from dlp_fast.config import DataConfig
from dlp_fast.data import sources
from dlp_fast.data.quarantine import cannot_be_used
from dlp_fast.engine.device import choose_compute
from dlp_fast.errors import ConfigError
from dlp_fast.models.classifier import Classifier, read_model
from dlp_fast.preparation.threads import use_idle_processors
from dlp_fast.report.text import percent
from dlp_fast.runs.contents import caution, title
from dlp_fast.runs.log import RunLog
from dlp_fast.runs.writer import RunFolder


def predictions(
    model: Classifier, folder: Path, log: RunLog, follow_links: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """(predicted class, true class), int64 [n], of the images in `folder`."""
    reading = DataConfig(fit=model.fit, bit_depth=model.bit_depth, follow_links=follow_links)
    images, left_out = sources.load_split(
        folder, reading, classes=model.classes, size=model.size, progress=log.counter(), tell=log.warn
    )
    if left_out:
        told = "It is not counted" if len(left_out) == 1 else "They are not counted"
        log.warn(f"{folder}: {cannot_be_used(left_out)}. {told}")
    parts = []
    log.start(f"predicting {folder}", len(images.labels), unit="images")
    for ids in torch.arange(len(images.labels)).split(512):
        parts.append(model.predict(images.images.get(ids)).argmax(1))
        log.advance(int(ids[-1]) + 1, 1)
    log.finish()
    return torch.cat(parts), images.labels


def evaluate(config: EvaluateConfig) -> None:
    """Measure, write evaluation.json into the run folder, and tell."""
    use_idle_processors(choose_compute("cpu", "fp32"))
    model = read_model(config.run)
    target = find_target(config.target, model.classes) if config.target is not None else None
    log = RunLog(None)
    if caution(model.holds):
        log.warn(f"{config.run}: {caution(model.holds)}")
    predicted, labels = predictions(model, config.data, log, config.follow_links)
    figures = {
        "schema": 1,
        "data": str(config.data),
        "model": {"name": model.name, "holds": model.holds},
        "images": len(labels),
        "clean_accuracy": float((predicted == labels).float().mean()),
        "per_class_accuracy": {
            name: float((predicted[labels == c] == c).float().mean()) if bool((labels == c).any()) else None
            for c, name in enumerate(model.classes)
        },
        "attack_success_rate": None,
    }
    if target is not None:
        became, true = predictions(model, config.triggered, log, config.follow_links)
        others = true != target
        if not bool(others.any()):
            raise ConfigError(
                f"{config.triggered} holds only images of the target class; the others are needed."
            )
        rate = float((became[others] == target).float().mean())
        figures |= {
            "attack_success_rate": rate,
            "triggered": str(config.triggered),
            "target": model.classes[target],
        }
    log.close()
    RunFolder(config.run).write_json("evaluation.json", figures)
    tell(f"of {title(model.holds)}:")
    tell(f"clean accuracy      {percent(figures['clean_accuracy'])}  ({len(labels):,} images)")
    tell(f"attack success rate {percent(figures['attack_success_rate'])}")
    tell(f"written to {config.run / 'evaluation.json'}")
