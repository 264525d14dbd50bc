"""Metrics to TensorBoard, Weights & Biases or MLflow, imported only when asked for. A tracker never stops a run."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dlp_fast.runs.install import advice

PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb", "mlflow": "mlflow"}
PROJECT = "dlp_fast"

Log = Callable[[dict[str, float], int], None]  # (values by name, step)


def _tensorboard(folder: Path | None, _config: dict[str, Any]) -> tuple[Log, Callable[[], None]]:
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str((folder or Path("runs")) / "tensorboard"))

    def log(values: dict[str, float], step: int) -> None:
        for name, value in values.items():
            writer.add_scalar(name, value, step)

    return log, writer.close


def _wandb(folder: Path | None, config: dict[str, Any]) -> tuple[Log, Callable[[], None]]:
    wandb = importlib.import_module("wandb")
    run = wandb.init(project=PROJECT, name=folder.name if folder else None, dir=folder, config=config)
    return lambda values, _step: run.log(
        values
    ), run.finish  # stages count steps anew; W&B wants them to rise


def _mlflow(folder: Path | None, config: dict[str, Any]) -> tuple[Log, Callable[[], None]]:
    mlflow = importlib.import_module("mlflow")
    mlflow.set_experiment(PROJECT)
    mlflow.start_run(run_name=folder.name if folder else None)
    mlflow.log_dict(config, "config.json")
    return lambda values, step: mlflow.log_metrics(values, step=step), mlflow.end_run


STARTERS = {"tensorboard": _tensorboard, "wandb": _wandb, "mlflow": _mlflow}


class Tracking:
    """One tracker; at its first fault it is told of and left alone."""

    def __init__(self, name: str, log: Log, close: Callable[[], None], warn: Callable[[str], None]):
        self.name, self._log, self._close, self._warn = name, log, close, warn
        self._alive = True

    def _guard(self, action: Callable[[], None]) -> None:
        if not self._alive:
            return
        try:
            action()
        except Exception as error:  # whatever a service does, the run goes on
            self._alive = False
            self._warn(f"--track {self.name} failed and is left out from here on: {error}")

    def event(self, kind: str, values: dict[str, Any]) -> None:
        """Numbers of an event, as stage/name over its epoch or step."""
        stage = values.get("stage", kind)
        numbers = {
            f"{stage}/{name}": float(value)
            for name, value in values.items()
            if isinstance(value, (int, float)) and name not in ("epoch", "step")
        }
        step = int(values.get("epoch", values.get("step", 0)))
        if numbers:
            self._guard(lambda: self._log(numbers, step))

    def close(self) -> None:
        self._guard(self._close)


def start_trackers(
    names: tuple[str, ...], folder: Path | None, config: dict[str, Any], warn: Callable[[str], None]
) -> list[Tracking]:
    """The trackers `names`; one whose package is missing or that does not start is told of by `warn` and left out."""
    started = []
    for name in names:
        try:
            log, close = STARTERS[name](folder, config)
        except ModuleNotFoundError:
            warn(f"--track {name} is left out, its package is missing: {advice(PACKAGES[name])}")
        except Exception as error:  # no account, no network: the run matters more
            warn(f"--track {name} is left out: {error}")
        else:
            started.append(Tracking(name, log, close, warn))
    return started
