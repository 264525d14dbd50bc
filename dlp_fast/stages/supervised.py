"""Stage 1: supervised learning on everything, and the trajectory of every image (DLP Eq. 3)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlp_fast.config import SupervisedConfig
from dlp_fast.engine.batches import TrainingData, training_order
from dlp_fast.engine.scoring_pass import Scores, score
from dlp_fast.engine.session import Session, seed_step
from dlp_fast.engine.stepping import Stepper, set_rate, sgd

STREAM = 1


@dataclass(frozen=True)
class Supervised:
    """steps: optimizer steps taken; entropy (bits), loss (nats): fp32 [epochs, n], after each epoch; prediction: int64
    [n], after the last.
    """

    steps: int
    entropy: Tensor
    loss: Tensor
    prediction: Tensor
    seconds: float
    images_per_second: float


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
    look: int = 1,
) -> Supervised:
    """Train `model` in place on all images with their labels as given; score every image after each epoch, and show
    the scores to `watch`. `look`: which network this is, where several look.

    Raises NumericError on a non-finite loss, Interrupted on a signal (after saving).
    """
    epochs, per_epoch, batch = plan(len(data), config)
    name = "supervised" if look == 1 else f"look {look}"
    optimizer = sgd(
        model.parameters(),
        session.compute,
        lr=config.learning_rate,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
    )
    entropy, loss_of = torch.zeros(epochs, len(data)), torch.zeros(epochs, len(data))
    prediction = torch.zeros(len(data), dtype=torch.int64)
    facts = {"epochs": 0, "stopped": False}
    stage = session.stage(
        "supervised",
        f"stage 1 of 3, {name}",
        epochs * per_epoch,
        batch,
        model=model,
        optimizer=optimizer,
        entropy=entropy,
        loss=loss_of,
        prediction=prediction,
        facts=facts,
    )
    set_rate(optimizer, config.learning_rate)  # as given, also where a checkpoint brought its own
    order = (-1, torch.empty(0))
    model.train()

    def body(x: Tensor, target: Tensor) -> None:
        with session.compute.forward():
            logits = model(x)
        loss = F.cross_entropy(logits.float(), target)  # DLP Eq. 3
        stage.observe(loss)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    one_step = Stepper(session.compute, model, body, session.log.warn)
    for step in stage.steps():
        if facts["stopped"]:
            break
        epoch, k = divmod(step, per_epoch)
        if order[0] != epoch:
            order = (epoch, training_order(data.seed, STREAM, epoch, len(data)))
            stage.note = f"epoch {epoch + 1}/{epochs}"
        ids = order[1][k * batch : (k + 1) * batch]
        x = data.plain(ids) if config.augment == "none" else data.views(ids, epoch, strong=False)[0]
        if k + 1 < per_epoch:
            data.expect(order[1][(k + 1) * batch : (k + 2) * batch])
        seed_step(model, data.seed, STREAM, step)
        one_step(x, data.target(ids))
        if k == per_epoch - 1:
            scores = score(session, model, data)
            entropy[epoch], loss_of[epoch] = scores.entropy, scores.loss
            prediction.copy_(scores.prediction)
            if watch:
                watch(scores)
            agreement = float((scores.prediction == data.labels).float().mean())
            facts["epochs"] = epoch + 1
            facts["stopped"] = epoch + 1 >= config.epochs and agreement >= config.enough
            session.log.event(
                "epoch",
                stage=name,
                epoch=epoch + 1,
                loss=stage.mean_loss(per_epoch),
                mean_entropy=float(scores.entropy.mean()),
                train_agreement=agreement,
            )
    done = facts["epochs"]
    steps = done * per_epoch
    rate = steps * batch / stage.seconds
    return Supervised(steps, entropy[:done].clone(), loss_of[:done].clone(), prediction, stage.seconds, rate)
