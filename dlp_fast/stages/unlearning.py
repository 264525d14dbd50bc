"""Stage 2: active unlearning, gradient ascent on the suspected poisoned (DLP Eq. 6), guarded."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlp_fast.config import UnlearningConfig
from dlp_fast.engine.batches import Cycle, TrainingData
from dlp_fast.engine.session import Session, StageRun, seed_step
from dlp_fast.errors import NumericError

STREAM = 2


@dataclass(frozen=True)
class Unlearned:
    """loss: mean ascent loss of the last epoch, nats; rollbacks: steps undone; stopped_at_max_loss: whether
    `max_loss` ended it.
    """

    loss: float
    rollbacks: int
    stopped_at_max_loss: bool
    seconds: float
    images_per_second: float


def _snapshot(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def unlearning(
    session: Session, model: nn.Module, data: TrainingData, suspects: Tensor, config: UnlearningConfig
) -> Unlearned:
    """Maximise the loss of `suspects` (int64 ids) under their given labels, in place.

    Batch norm stays in train mode: with running statistics the suspects are predicted at p = 1 and their gradient
    is zero in fp32. A non-finite loss or gradient never reaches the weights: they go back to the start of the
    epoch, the step size is quartered, and after `max_rollbacks` of these NumericError is raised.
    """
    batch = min(config.batch, len(suspects))
    per_epoch = math.ceil(len(suspects) / batch)
    optimizer = torch.optim.SGD(model.parameters(), lr=config.learning_rate, momentum=config.momentum)
    good = _snapshot(model)
    progress: dict[str, float | int | bool] = dict(rollbacks=0, loss=0.0, sum=0.0, seen=0, stopped=False)
    stage = session.stage(
        "unlearning",
        "stage 2 of 3, unlearning",
        config.epochs * per_epoch,
        batch,
        model=model,
        optimizer=optimizer,
        good=good,
        progress=progress,
    )
    cycle = Cycle(suspects, batch, data.seed, STREAM)
    model.train()
    for step in stage.steps():
        if progress["stopped"]:
            break
        ids = cycle.at(step)
        seed_step(model, data.seed, STREAM, step, session.ranks.rank)
        loss = -session.update(model, optimizer, _ascent(session, model, data, ids))[0]
        norm = nn.utils.clip_grad_norm_(model.parameters(), config.max_norm)
        # The batch-norm statistics have moved in the forward pass already, so they too are put back.
        if not (torch.isfinite(loss) and torch.isfinite(norm)):
            _roll_back(session, model, optimizer, good, progress, config, step)
            continue
        optimizer.step()
        progress["sum"] += float(loss.detach())
        progress["seen"] += 1
        if (step + 1) % per_epoch == 0:
            _end_epoch(session, stage, progress, (step + 1) // per_epoch)
            good.update(_snapshot(model))
            progress["stopped"] = progress["loss"] > config.max_loss
    rate = stage.done * batch / stage.seconds
    return Unlearned(
        float(progress["loss"]), int(progress["rollbacks"]), bool(progress["stopped"]), stage.seconds, rate
    )


def _ascent(session: Session, model: nn.Module, data: TrainingData, ids: Tensor) -> Iterator[tuple[Tensor]]:
    """What is minimised, of each part of the batch `ids` that this rank works on."""
    for view in session.ranks.views:
        mine = view.part(ids)
        with session.forward(model):
            logits = model(data.plain(mine))
        yield (
            -view.weighted(F.cross_entropy(logits.float(), data.target(mine)), len(ids)),
        )  # DLP Eq. 6: ascent


def _end_epoch(
    session: Session, stage: StageRun, progress: dict[str, float | int | bool], epoch: int
) -> None:
    progress["loss"] = progress["sum"] / progress["seen"]
    progress["sum"], progress["seen"] = 0.0, 0
    session.log.event("epoch", stage="unlearning", epoch=epoch, loss=progress["loss"])
    stage.note = f"loss {progress['loss']:.2f}"


def _roll_back(
    session: Session,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    good: dict[str, Tensor],
    progress: dict[str, float | int | bool],
    config: UnlearningConfig,
    step: int,
) -> None:
    model.load_state_dict(good)
    optimizer.state.clear()
    progress["rollbacks"] += 1
    progress["sum"], progress["seen"] = 0.0, 0  # of steps that are undone
    for group in optimizer.param_groups:
        group["lr"] /= 4
    rate = optimizer.param_groups[0]["lr"]
    session.log.event(
        "rollback", stage="unlearning", step=step, rollbacks=progress["rollbacks"], learning_rate=rate
    )
    session.log.warn(f"unlearning: step {step} was not finite and is undone; step size now {rate:g}")
    if progress["rollbacks"] > config.max_rollbacks:
        raise NumericError(
            f"unlearning: {progress['rollbacks']} steps were not finite, more than unlearning.max_rollbacks = "
            f"{config.max_rollbacks}. Lower unlearning.learning_rate, or use --precision fp32."
        )
