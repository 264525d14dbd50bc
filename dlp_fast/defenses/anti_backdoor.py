"""ABL: isolate what is learnt too fast, then unlearn it (Li et al. 2021, "Anti-Backdoor Learning"); no clean set."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlp_fast import ops
from dlp_fast.defenses.setting import Setting, tune
from dlp_fast.engine.batches import TrainingData
from dlp_fast.engine.scoring_pass import BATCH, score

FLOOR = 0.5  # γ: the loss that local gradient ascent holds samples at
ISOLATE = 0.01  # share of the images that are isolated
FIRST, MIDDLE, UNLEARN = 20, 60, 20  # epochs; unlearning ends early where the loss passes chance
FIRST_RATE, UNLEARN_RATE = 0.1, 5e-4


def held_at_floor(logits: Tensor, target: Tensor, _x: Tensor) -> Tensor:
    """LGA: sign(loss - γ) loss, sample by sample; below γ the loss is climbed."""
    loss = F.cross_entropy(logits, target, reduction="none")
    return ((loss.detach() - FLOOR).sign() * loss).mean()


def isolated(setting: Setting, model: nn.Module) -> Tensor:
    """Ids of the ISOLATE share of lowest loss; ties go to the smaller id."""
    loss = score(setting.session, model, setting.data).loss
    return ops.select(loss, max(1, round(ISOLATE * len(loss)))).lowest


def anti_backdoor(setting: Setting) -> nn.Module:
    """Ours, where the paper has a fixed number of epochs: the ascent may end before, when the loss of the isolated
    images passes that of chance, ln C.
    """
    everything = torch.arange(len(setting.data))
    model = setting.new_model()
    tune(
        setting,
        model,
        setting.data,
        everything,
        title="ABL, isolation",
        epochs=setting.epochs(FIRST),
        rate=lambda done: FIRST_RATE,
        batch=128,
        loss_of=held_at_floor,
        weak=False,  # as published: a crop would hide the trigger
    )
    suspects = isolated(setting, model)
    rest = everything[~torch.isin(everything, suspects)]
    tune(
        setting,
        model,
        setting.data,
        rest,
        title="ABL, fine-tuning",
        epochs=setting.epochs(MIDDLE),
        rate=lambda done: 0.1 if done < 2 / 3 else 0.01,
        batch=128,
    )
    chance = math.log(setting.data.classes)
    tune(  # one optimizer throughout: its momentum is most of what so small a step size does
        setting,
        model,
        setting.data,
        suspects,
        title="ABL, unlearning",
        epochs=UNLEARN,
        rate=lambda done: UNLEARN_RATE,
        batch=128,
        loss_of=lambda logits, target, x: -F.cross_entropy(logits, target),
        weak=False,
        enough=lambda: loss_on(model, setting.data, suspects) > chance,
    )
    return model


@torch.no_grad()
def loss_on(model: nn.Module, data: TrainingData, ids: Tensor) -> float:
    """Mean loss of `ids` in eval mode, nats."""
    model.eval()
    total = 0.0
    for part in ids.split(BATCH[data.device.type]):
        total += float(F.cross_entropy(model(data.plain(part)).float(), data.target(part), reduction="sum"))
    model.train()
    return total / len(ids)
