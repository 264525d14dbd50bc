"""What a rival is given, and the training that several of them share."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlp_fast.engine.batches import TrainingData, training_order
from dlp_fast.engine.inference import BATCH, accuracy
from dlp_fast.engine.session import Session
from dlp_fast.engine.stepping import Stepper, set_rate, sgd
from dlp_fast.errors import DataError

STREAM = 16  # of the training order, beside those of the stages
HELD_OUT = 0.2  # of the clean subset: thresholds and stops are decided on it, and on nothing else
LEAST_CLEAN = 20  # images of a clean subset that is worth the name
PUBLISHED_CLEAN, MOST_EPOCHS = 2500, 100


@dataclass(frozen=True)
class Setting:
    """model: trained on `data` without a defence; data: the poisoned training set; clean: a small set known to be clean
    (None for a method that needs none); new_model: a network with new weights; effort: multiplies the epochs that are
    trained on the whole of `data` (ABL's), for small machines. What is trained on the clean subset takes the published
    number of steps, see `clean_epochs`: its cost is small, and fewer would cripple the method.
    """

    session: Session
    model: nn.Module
    data: TrainingData
    clean: TrainingData | None
    new_model: Callable[[], nn.Module]
    effort: float = 1.0

    def epochs(self, published: int) -> int:
        """Epochs over the whole of `data`."""
        return max(1, round(published * self.effort))

    def clean_epochs(self, published: int) -> int:
        """Epochs over the clean subset. The papers' are for 5 % of CIFAR-10, 2,500 images; over fewer images the same
        epochs are fewer steps (NAD's few at a step size of 0.1 shake a network that is then not mended), so that there
        are more of them, up to MOST_EPOCHS.
        """
        as_many_steps = (
            round(published * PUBLISHED_CLEAN / max(len(self.clean), 1)) if self.clean else published
        )
        return max(published, min(MOST_EPOCHS, as_many_steps))

    def everything_clean(self) -> Tensor:
        """Ids of the whole clean subset, for training that chooses nothing; DataError where it is too small."""
        return torch.cat(self.split()).sort().values

    def split(self) -> tuple[Tensor, Tensor]:
        """(ids to tune on, ids held out to decide on) of the clean subset; DataError where it is too small."""
        if self.clean is None or len(self.clean) < LEAST_CLEAN:
            have = 0 if self.clean is None else len(self.clean)
            raise DataError(
                f"this defence needs at least {LEAST_CLEAN} clean images, got {have}; give a larger test set or share"
            )
        order = training_order(self.clean.seed, STREAM, 0, len(self.clean))
        held = max(1, round(HELD_OUT * len(order)))
        return order[held:], order[:held]


def copy_of(model: nn.Module) -> nn.Module:
    return copy.deepcopy(model).train()


def allowed_loss(right: float, most_lost: float) -> float:
    """Accuracy down to which a drop of `most_lost` from `right` is allowed, a drop of exactly that much included."""
    return right - most_lost - 1e-9


def accuracy_on(model: nn.Module, data: TrainingData, ids: Tensor) -> float:
    """Share of `ids` that are predicted as labeled, in eval mode."""
    batches = ((data.plain(part), data.target(part)) for part in ids.split(BATCH[data.device.type]))
    return accuracy(model, batches)


def tune(
    setting: Setting,
    model: nn.Module,
    data: TrainingData,
    ids: Tensor,
    *,
    title: str,
    epochs: int,
    rate: Callable[[float], float],
    batch: int = 64,
    weight_decay: float = 1e-4,
    loss_of: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None,
    weak: bool = True,
) -> nn.Module:
    """SGD with Nesterov momentum on `ids` of `data`, in place; `rate`: step size from the share of the training done.

    `loss_of`: (logits fp32, targets, network input) -> loss; none: cross-entropy.
    """
    batch = min(batch, len(ids))
    per_epoch = math.ceil(len(ids) / batch)
    compute = setting.session.compute
    optimizer = sgd(
        model.parameters(), compute, lr=rate(0.0), momentum=0.9, nesterov=True, weight_decay=weight_decay
    )
    model.train()
    log = setting.session.log

    def body(x: Tensor, target: Tensor) -> None:
        with compute.forward():
            logits = model(x)
        loss = (
            F.cross_entropy(logits.float(), target) if loss_of is None else loss_of(logits.float(), target, x)
        )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    one_step = Stepper(compute, model, body, log.warn)
    log.start(title, epochs * per_epoch)
    for epoch in range(epochs):
        order = ids[training_order(data.seed, STREAM + 1, epoch, len(ids))]
        for k, part in enumerate(order.split(batch)):
            setting.session.poll()
            step = epoch * per_epoch + k
            set_rate(optimizer, rate(step / (epochs * per_epoch)))
            x = data.views(part, epoch, strong=False)[0] if weak else data.plain(part)
            one_step(x, data.target(part))
            log.advance(step + 1, batch)
    log.finish()
    return model
