"""Stage 1: supervised learning on everything, and the trajectory of every image (DLP Eq. 3)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlp_fast.config import SupervisedConfig
from dlp_fast.engine.batches import TrainingData, training_order
from dlp_fast.engine.distributed import Ranks
from dlp_fast.engine.inference import Scores, score
from dlp_fast.engine.schedule import Schedule
from dlp_fast.engine.session import Session, StageRun, seed_step
from dlp_fast.engine.stepping import Stepper, set_rate, sgd
from dlp_fast.runs.mapped import is_mapped

STREAM = 1


@dataclass(frozen=True)
class Supervised:
    """steps: optimizer steps taken; entropy (bits), loss (nats): fp32 [epochs, n], after each epoch; prediction: int64
    [n], after the last; other_loss (nats): fp32 [epochs, n], with another label of each image, see Scores. Of large
    sets these are fp16, see runs.mapped.
    """

    steps: int
    entropy: Tensor
    loss: Tensor
    prediction: Tensor
    seconds: float
    images_per_second: float
    other_loss: Tensor | None = None


def plan(n: int, config: SupervisedConfig) -> tuple[int, int, int]:
    """(epochs, steps an epoch, images a step): E1, or more where a small set would see fewer than `min_steps`."""
    batch = min(config.batch, n)
    per_epoch = n // batch
    return max(config.epochs, math.ceil(config.min_steps / per_epoch)), per_epoch, batch


def supervised(
    session: Session,
    model: nn.Module,
    data: TrainingData,
    config: SupervisedConfig,
    watch: Callable[[Scores], None] | None = None,
    member: int = 1,
    only: Tensor | None = None,
    name: str | None = None,
    scored_from: int = 0,
) -> Supervised:
    """Train `model` in place on all images with their labels as given; score every image after each epoch, and show
    the scores to `watch`. `member`: which network of an ensemble this is; only: int64 ids of the images to train on,
    where it is not all; name: what the bar and the log call it; scored_from: number of the first epoch that is scored,
    before `config.epochs`: the rows of earlier ones are 0.

    Raises NumericError on a non-finite loss, Interrupted on a signal (after saving).
    """
    used = torch.arange(len(data)) if only is None else only
    epochs, per_epoch, batch = plan(len(used), config)
    name = name or _name(member, only is None)
    optimizer = _optimizer(session, model, config)
    seen = {of: session.columns(epochs, len(data)) for of in ("entropy", "loss", "other_loss")}
    prediction = torch.zeros(len(data), dtype=torch.int64)
    progress = {"epochs": 0, "stopped": False}
    stage = session.stage(
        "supervised",
        f"stage 1 of 3, {name}",
        epochs * per_epoch,
        batch,
        model=model,
        optimizer=optimizer,
        **seen,
        prediction=prediction,
        progress=progress,
    )
    schedule = Schedule(config.schedule, stage.total, config.learning_rate, config.warmup, config.final_share)
    batches = _Batches(session.ranks, data, used, config, per_epoch, batch)
    one_step = _step(session, stage, model, optimizer, batch)
    model.train()
    for step in stage.steps():
        if progress["stopped"]:
            break
        epoch, k = divmod(step, per_epoch)
        inputs, stage.note = batches.at(epoch, k), f"epoch {epoch + 1}/{epochs}"
        set_rate(optimizer, schedule.at(step))
        seed_step(model, data.seed, STREAM, step, session.ranks.rank)
        one_step(*inputs)
        if k < per_epoch - 1:
            continue
        loss, progress["epochs"] = stage.mean_loss(per_epoch), epoch + 1
        if epoch < scored_from:
            session.log.event("epoch", stage=name, epoch=epoch + 1, loss=loss)
        else:
            scores = _scored(session, model, data, epoch, seen, prediction, watch)
            agreement = _log_epoch(session, name, epoch, loss, scores, data.labels, used)
            progress["stopped"] = epoch + 1 >= config.epochs and agreement >= config.target_train_accuracy
    entropy, loss, other = (_done(values[: progress["epochs"]]) for values in seen.values())
    done = len(loss) * per_epoch
    return Supervised(done, entropy, loss, prediction, stage.seconds, done * batch / stage.seconds, other)


def _scored(
    session: Session,
    model: nn.Module,
    data: TrainingData,
    epoch: int,
    seen: dict[str, Tensor],
    prediction: Tensor,
    watch: Callable[[Scores], None] | None,
) -> Scores:
    """Scores of all images, which are written into the rows of `epoch` in `seen` and into `prediction`, and shown to
    `watch`.
    """
    scores = score(session, model, data, other=True)
    for of, values in seen.items():
        values[epoch] = getattr(scores, of)
    prediction.copy_(scores.prediction)
    if watch:
        watch(scores)
    return scores


def _name(member: int, of_all: bool) -> str:
    if not of_all:
        return "network without the labels in question"
    return "supervised" if member == 1 else f"ensemble member {member}"


def _done(values: Tensor) -> Tensor:
    """The epochs that there were, without the room of those that there were not."""
    return values if is_mapped(values) else values.clone()


def _optimizer(session: Session, model: nn.Module, config: SupervisedConfig) -> torch.optim.Optimizer:
    return sgd(
        model.parameters(),
        session.compute,
        lr=config.learning_rate,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
    )


class _Batches:
    """Network input and targets, each image once an epoch; the next batch is asked for ahead. Of several ranks, each
    has its part of every batch.
    """

    def __init__(
        self,
        ranks: Ranks,
        data: TrainingData,
        used: Tensor,
        config: SupervisedConfig,
        per_epoch: int,
        batch: int,
    ):
        self.ranks, self.data, self.used, self.weak = ranks, data, used, config.augment != "none"
        self.per_epoch, self.batch = per_epoch, batch
        self._epoch, self._order = -1, torch.empty(0)

    def at(self, epoch: int, k: int) -> tuple[Tensor, Tensor]:
        """Batch number k of `epoch`: (fp32 [b, 3, H, W], int64 [b])."""
        data = self.data
        if self._epoch != epoch:
            order = training_order(data.seed, STREAM, epoch, len(self.used))
            self._epoch, self._order = epoch, self.used[order]
        ids = self._ids(k)
        x = data.views(ids, epoch, strong=False)[0] if self.weak else data.plain(ids)
        if k + 1 < self.per_epoch:
            data.expect(self._ids(k + 1))
        return x, data.target(ids)

    def _ids(self, k: int) -> Tensor:
        return self.ranks.part(self._order[k * self.batch : (k + 1) * self.batch])


def _step(
    session: Session, stage: StageRun, model: nn.Module, optimizer: torch.optim.Optimizer, batch: int
) -> Callable[[Tensor, Tensor], None]:
    """One optimizer step on (network input, target), captured as a graph on a GPU; `batch`: images of all ranks."""
    views, sizes = session.ranks.views, session.ranks.sizes(batch)

    def losses(x: Tensor, target: Tensor) -> Iterator[tuple[Tensor]]:
        for view, images, labels in zip(views, x.split(sizes), target.split(sizes), strict=True):
            with session.forward(model):
                logits = model(images)
            yield (view.weighted(F.cross_entropy(logits.float(), labels), batch),)  # DLP Eq. 3

    def body(x: Tensor, target: Tensor) -> None:
        stage.observe(*session.update(model, optimizer, losses(x, target)))
        optimizer.step()

    return Stepper(session.compute, model, body, session.log.warn)


def _log_epoch(
    session: Session, name: str, epoch: int, loss: float, scores: Scores, labels: Tensor, used: Tensor
) -> float:
    """Log an epoch of mean `loss`; returns the share of the images trained on that are predicted as labeled."""
    agreement = float((scores.prediction == labels)[used].float().mean())
    session.log.event(
        "epoch",
        stage=name,
        epoch=epoch + 1,
        loss=loss,
        mean_entropy=float(scores.entropy.mean()),
        train_agreement=agreement,
    )
    return agreement
