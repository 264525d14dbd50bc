"""The state of one run while it runs: checkpoints, log, signals, and stages that go on where they were killed."""

from __future__ import annotations

import copy
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from dlp_fast.engine.device import Compute
from dlp_fast.errors import Interrupted, NumericError
from dlp_fast.runs.checkpoint import Checkpoints
from dlp_fast.runs.log import RunLog

RANDOM_LAYERS = ("_DropoutNd", "StochasticDepth")
"""By name: torchvision, home of the second, takes seconds to load, and is there only where a network needs it."""


class Session:
    """What the stages share. With `checkpoints` None nothing is kept (a run in memory)."""

    def __init__(
        self, compute: Compute, log: RunLog, checkpoints: Checkpoints | None = None, every: float = 20
    ):
        self.compute, self.log, self.every = compute, log, every
        self._checkpoints = checkpoints
        self._signal = 0
        self._previous: dict[int, Any] = {}
        state = checkpoints.load() if checkpoints else None
        for warning in checkpoints.warnings if checkpoints else []:
            log.warn(warning)
        self.resumed = state is not None
        self._completed: dict[str, Any] = state["completed"] if state else {}
        self._current: dict[str, Any] | None = state["current"] if state else None
        if checkpoints:
            log.rewind(state["log_position"] if state else 0)

    def __enter__(self) -> Session:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self.log.finish()

    def _on_signal(self, number: int, _frame: object) -> None:
        if self._signal:
            raise SystemExit(128 + number)
        self._signal = number

    def poll(self) -> None:
        """Leave, if a signal has arrived; between steps a stage saves first."""
        if self._signal:
            name = signal.Signals(self._signal).name
            raise Interrupted(
                self._signal, f"stopped by {name}; the same command goes on from the last checkpoint."
            )

    def keep_only(self, names: tuple[str, ...]) -> None:
        """Forget what was completed but for `names`, and what was under way: it is done anew."""
        self._completed = {name: kept for name, kept in self._completed.items() if name in names}
        self._current = None

    def completed(self, name: str) -> Any | None:
        """What `complete(name, …)` was given in this or an earlier process, or None."""
        return self._completed.get(name)

    def cached(self, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What `make` gave for `name` in this or an earlier process; called once in the life of a run.

        Outcomes are dicts of tensors and JSON values, nested as you like.
        """
        if name not in self._completed:
            self.complete(name, make())
        return dict(self._completed[name])

    def complete(self, name: str, outcome: dict[str, Any]) -> None:
        """Keep the outcome of a finished stage (tensors, JSON values)."""
        self._completed[name] = copy.deepcopy(outcome)  # its tensors may be a model that trains on
        self._current = None
        self.save()

    @property
    def stopping(self) -> bool:
        """Whether a signal has asked to stop."""
        return bool(self._signal)

    def keep_stage(self, state: dict[str, Any]) -> None:
        """Keep the state of the stage that is under way, in the next checkpoint."""
        self._current = state
        self.save()

    def save(self) -> None:
        """Write a checkpoint, where the session keeps any."""
        if self._checkpoints:
            state = {
                "completed": self._completed,
                "current": self._current,
                "log_position": self.log.position(),
            }
            self._checkpoints.save(state)

    def stage(self, name: str, title: str, steps: int, images: int, **tracked: Any) -> StageRun:
        """Begin stage `name`, or go on with it; `tracked` objects are restored in place and saved as it runs.

        Args: steps: optimizer steps in all; images: how many a step trains on, for the rate; tracked: modules and
        optimizers (state_dict), tensors (in place) or dicts (in place).
        """
        run = StageRun(self, name, title, steps, images, tracked)
        if self._current and self._current["name"] == name:
            run.restore(self._current)
        return run


class StageRun:
    """Steps of one stage, with their checkpoints.

    Attributes: seconds: time spent in the stage over all processes that worked on it.
    """

    def __init__(
        self, session: Session, name: str, title: str, total: int, images: int, tracked: dict[str, Any]
    ):
        self.session, self.name, self.title, self.total, self.images = session, name, title, total, images
        self.done = 0
        self.note = ""
        self._tracked = tracked
        self._before = 0.0
        self._began = time.monotonic()
        self._saved = time.monotonic()
        self._loss = torch.zeros((), device=session.compute.device)

    @property
    def seconds(self) -> float:
        return self._before + time.monotonic() - self._began

    def restore(self, state: dict[str, Any]) -> None:
        self.done, self._before = state["done"], state["seconds"]
        self._loss.copy_(state["loss"])
        for name, item in self._tracked.items():
            saved = state["tracked"][name]
            if isinstance(item, Tensor):
                item.copy_(saved)
            elif isinstance(item, dict):
                item.clear()
                item.update(saved)
            else:
                item.load_state_dict(saved)

    def _state(self) -> dict[str, Any]:
        tracked = {
            name: item if isinstance(item, (Tensor, dict)) else item.state_dict()
            for name, item in self._tracked.items()
        }
        return {
            "name": self.name,
            "done": self.done,
            "seconds": self.seconds,
            "loss": self._loss,
            "tracked": tracked,
        }

    def save(self) -> None:
        self.check()
        self._check_weights()
        self.session.keep_stage(self._state())
        self._saved = time.monotonic()

    def _check_weights(self) -> None:
        for item in self._tracked.values():
            # a finite loss can have an infinite gradient: such weights are caught here, before they are kept
            if isinstance(item, nn.Module) and not all(bool(p.isfinite().all()) for p in item.parameters()):
                raise NumericError(
                    f"{self.name}: the weights are not finite at step {self.done} of {self.total}. The last "
                    f"checkpoint is sound. Lower {self.name}.learning_rate (a change needs another --out)."
                )

    def observe(self, loss: Tensor) -> None:
        """Add a loss to the running sum; call it before the backward pass.

        On a CPU a non-finite loss ends the stage here, before it reaches the weights. On a GPU that would be a
        host sync in each step, so the sum is read when something is saved: no such state is ever kept.
        """
        self._loss += loss.detach()
        if self._loss.device.type == "cpu":
            self.check()

    def check(self) -> None:
        if not torch.isfinite(self._loss):
            raise NumericError(
                f"{self.name}: the loss is not finite at step {self.done} of {self.total}. The last checkpoint is "
                f"sound. Lower {self.name}.learning_rate (a change needs another --out), or use --precision fp32."
            )

    def mean_loss(self, steps: int) -> float:
        """Mean of the losses observed since the last call, over `steps` steps; starts a new sum."""
        mean = float(self._loss) / max(steps, 1)
        self.check()
        self._loss.zero_()
        return mean

    def steps(self) -> Iterator[int]:
        """Numbers of the steps still to be done; checkpoints are written between them."""
        self.session.log.start(self.title, self.total, self.done)
        if not self.done:
            self.save()
        try:
            while self.done < self.total:
                yield self.done
                self.done += 1
                self.session.log.advance(self.done, self.images, self.note)
                if self.session.stopping:
                    self.save()
                    self.session.poll()
                if time.monotonic() - self._saved >= self.session.every:
                    self.save()
            self._check_weights()
        finally:
            self.session.log.finish()


def has_random_layers(model: nn.Module) -> bool:
    """Whether a forward pass in training draws random numbers (dropout, stochastic depth)."""
    return any(
        getattr(m, "p", 0)
        for m in model.modules()
        if any(kind.__name__ in RANDOM_LAYERS for kind in type(m).__mro__)
    )


def seed_step(model: nn.Module, seed: int, stage: int, step: int) -> None:
    """Give random layers their own stream a step, so that a resumed run draws the same; others need none."""
    if has_random_layers(model):
        torch.manual_seed(((seed * 4 + stage) * 1_000_003 + step) % 2**63)
