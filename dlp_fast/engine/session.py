"""The state of one run while it runs: checkpoints, log, signals, and stages that go on where they were killed."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from dlp_fast.engine.allocator import freed_memory_kept
from dlp_fast.engine.device import Compute
from dlp_fast.engine.distributed import ALONE, Ranks
from dlp_fast.engine.pace import PACE
from dlp_fast.errors import ConfigError, Interrupted, NumericError
from dlp_fast.runs.checkpoint import Checkpoints
from dlp_fast.runs.log import RunLog
from dlp_fast.runs.mapped import column_table, copied

AGAIN = 3.0  # seconds: of several processes, each gets a signal from the terminal and from torchrun

RANDOM_LAYERS = ("_DropoutNd", "StochasticDepth")
"""By name: torchvision, home of the second, takes seconds to load, and is there only where a network needs it."""


class Session:
    """What the stages share. With `checkpoints` None nothing is kept (a run in memory). Of several `ranks`, rank 0
    alone has checkpoints; what it loads, all have.
    """

    def __init__(
        self,
        compute: Compute,
        log: RunLog,
        checkpoints: Checkpoints | None = None,
        every: float = 20,
        ranks: Ranks = ALONE,
    ):
        self.compute, self.log, self.every, self.ranks = compute, log, every, ranks
        self._checkpoints = checkpoints
        self._signal, self._signalled, self._told_slow = 0, 0.0, False
        self._previous: dict[int, Any] = {}
        self._held = contextlib.ExitStack()
        state = checkpoints.load() if checkpoints else None
        for warning in checkpoints.warnings if checkpoints else []:
            log.warn(warning)
        self.resumed = state is not None
        self._current: dict[str, Any] | None = state["current"] if state else None
        known = ranks.told({"resumed": self.resumed, "completed": state["completed"] if state else {}})
        self.resumed, self._completed = known["resumed"], known["completed"]
        if checkpoints:
            log.rewind(state["log_position"] if state else 0)
        if self.resumed:
            log.say("going on from the last checkpoint")

    def __enter__(self) -> Session:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                if number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
                    continue  # nohup: the run shall outlive its terminal
                self._previous[number] = signal.signal(number, self._on_signal)
        self._held.enter_context(freed_memory_kept(self.compute.device.type == "cpu"))
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._held.close()
        self.log.finish()

    def _on_signal(self, number: int, _frame: object) -> None:
        if not self.ranks.leads:
            self.ranks.pass_on(number)
            return
        now = time.monotonic()
        if self._signal and (self.ranks.world == 1 or now - self._signalled > AGAIN):
            raise SystemExit(128 + number)
        self._signal, self._signalled = number, now

    def poll(self) -> None:
        """Leave, if a signal has arrived; between steps a stage saves first."""
        number = self._signal or self.ranks.stop
        if number:
            name = signal.Signals(number).name
            raise Interrupted(
                number, f"stopped by {name}; the same command goes on from the last checkpoint."
            )

    def keep_only(self, names: tuple[str, ...]) -> None:
        """Forget what was completed but for `names`, and what was under way: it is done anew."""
        self._completed = {name: kept for name, kept in self._completed.items() if name in names}
        self._current = None

    def names(self) -> tuple[str, ...]:
        """Of everything that is completed."""
        return tuple(self._completed)

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
        self._completed[name] = copied(outcome)  # its tensors may be a model that trains on
        self._current = None
        self.save()

    def within(self, prefix: str) -> Scope:
        """The same session for work that uses the names of stages again; they are kept under `prefix`."""
        return Scope(self, prefix)

    def tell_slow(self) -> None:
        """Name a rank that all others wait for, once."""
        if self.ranks.slow and not self._told_slow:
            self._told_slow = True
            self.log.warn(self.ranks.slow)

    def columns(self, rows: int, n: int) -> Tensor:
        """Zeros [rows, n] for what is seen of n images; of a large set in a file, see runs.mapped."""
        return column_table(rows, n, self._checkpoints.folder if self._checkpoints else None)

    @property
    def stopping(self) -> bool:
        """Whether a signal has asked to stop; of several ranks, rank 0 alone saves and ends the run."""
        return bool(self._signal or self.ranks.stop)

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
        models = [of for of in tracked.values() if isinstance(of, nn.Module)]
        if self.ranks.parts and any(map(has_random_layers, models)):
            raise ConfigError(
                "batch_parts: this network draws random numbers (dropout). Take another, or leave the option out."
            )
        run = StageRun(self, name, title, steps, images, tracked)
        if self._current and self._current["name"] == name:
            run.restore(self._current)
        if self.ranks.world > 1:  # all begin where rank 0 does
            state = self.ranks.told(run.state())
            if not self.ranks.leads:
                run.restore(state)
        return run

    def update(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, losses: Iterable[tuple[Tensor, ...]]
    ) -> tuple[Tensor, ...]:
        """Gradients of the loss of the whole batch, from those of its parts here, see Ranks.backward; returns the loss,
        and what else `losses` gives, of the whole batch. The optimizer's step is the caller's.
        """
        optimizer.zero_grad(set_to_none=True)
        return self.ranks.backward(model, losses)

    @contextlib.contextmanager
    def forward(self, model: nn.Module) -> Iterator[None]:
        """Context of a training forward pass: autocast, and batch norm over all ranks where that is asked for."""
        with self.compute.forward(), self.ranks.forward(model):
            yield


class Scope(Session):
    """A session within another one: what it keeps is kept there, each name after `prefix`."""

    def __init__(self, outer: Session, prefix: str):
        self._outer, self._prefix = outer, prefix
        self.compute, self.log, self.every = outer.compute, outer.log, outer.every
        self.ranks = outer.ranks

    def completed(self, name: str) -> Any | None:
        return self._outer.completed(self._prefix + name)

    def cached(self, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        return self._outer.cached(self._prefix + name, make)

    def complete(self, name: str, outcome: dict[str, Any]) -> None:
        self._outer.complete(self._prefix + name, outcome)

    def stage(self, name: str, title: str, steps: int, images: int, **tracked: Any) -> StageRun:
        return self._outer.stage(self._prefix + name, f"{self._prefix}{title}", steps, images, **tracked)

    def columns(self, rows: int, n: int) -> Tensor:
        return self._outer.columns(rows, n)

    def tell_slow(self) -> None:
        self._outer.tell_slow()

    def poll(self) -> None:
        self._outer.poll()

    def forget(self) -> None:
        """Leave out what was kept here; the next checkpoint is without it."""
        self._outer.keep_only(tuple(n for n in self._outer.names() if not n.startswith(self._prefix)))


class StageRun:
    """Steps of one stage, with their checkpoints.

    Attributes: seconds: time spent in the stage over all processes that worked on it.
    """

    def __init__(
        self, session: Session, name: str, title: str, total: int, images: int, tracked: dict[str, Any]
    ):
        self.session, self.name, self.title, self.total, self.images = session, name, title, total, images
        self.option = name.rpartition(": ")[2]  # the section of the configuration, whatever the scope
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

    def state(self) -> dict[str, Any]:
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
        self.session.keep_stage(self.state())
        self._saved = time.monotonic()
        PACE.restart()

    def _check_weights(self) -> None:
        for item in self._tracked.values():
            # a finite loss can have an infinite gradient: such weights are caught here, before they are kept
            if isinstance(item, nn.Module) and not all(bool(p.isfinite().all()) for p in item.parameters()):
                raise NumericError(
                    f"{self.name}: the weights are not finite at step {self.done} of {self.total}. The last "
                    f"checkpoint is sound. Lower {self.option}.learning_rate (a change needs another --out)."
                )

    def observe(self, loss: Tensor) -> None:
        """Add a loss to the running sum; call it before the optimizer's step.

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
                f"sound. Lower {self.option}.learning_rate (a change needs another --out), or use --precision fp32."
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
        PACE.restart()
        if not self.done:
            self.save()
        try:
            while self.done < self.total:
                yield self.done
                self.done += 1
                self.session.log.advance(self.done, self.images, self.note)
                self.session.tell_slow()
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


def seed_step(model: nn.Module, seed: int, stage: int, step: int, rank: int = 0) -> None:
    """Give random layers their own stream a step and rank, so that a resumed run draws the same; others need none."""
    if has_random_layers(model):
        torch.manual_seed(((seed * 4 + stage) * 1_000_003 + step + (rank << 40)) % 2**63)
