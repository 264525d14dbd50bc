"""ABL: isolate what is learnt too fast, then unlearn it (Li et al. 2021, "Anti-Backdoor Learning"); no clean set."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlp_fast import ops
from dlp_fast.defenses.setting import Setting, tune
from dlp_fast.engine.inference import score

FLOOR = 0.5  # γ: the loss that local gradient ascent holds batches at
ISOLATE = 0.01  # share of the images that are isolated
FIRST, MIDDLE, UNLEARN = 20, 60, 20  # epochs
PUBLISHED_ISOLATED, BATCH_SIZE = 500, 128
FIRST_RATE, UNLEARN_RATE = 0.1, 5e-4


def held_at_floor(logits: Tensor, target: Tensor, _x: Tensor) -> Tensor:
    """LGA: sign(loss - γ) loss of the batch, as in the authors' code.

    Read sample by sample, as the paper's equation can be, poisoned samples are held at γ too, and those isolated are
    clean ones that happen to be below it: 0 of 50 were poisoned, where the batch's sign isolates 50 of 50 (BadNets,
    5,000 images of CIFAR-10 at 16 px).
    """
    loss = F.cross_entropy(logits, target)
    return (loss.detach() - FLOOR).sign() * loss


def unlearning_epochs(isolated: int) -> int:
    """Over fewer isolated images than CIFAR-10's 500, so many epochs that the ascent has its published steps."""
    published = UNLEARN * math.ceil(PUBLISHED_ISOLATED / BATCH_SIZE)
    return max(UNLEARN, math.ceil(published / math.ceil(isolated / BATCH_SIZE)))


def isolated(setting: Setting, model: nn.Module) -> Tensor:
    """Ids of the ISOLATE share of lowest loss; ties go to the smaller id."""
    loss = score(setting.session, model, setting.data).loss
    return ops.select(loss, max(1, round(ISOLATE * len(loss)))).lowest


def anti_backdoor(setting: Setting) -> nn.Module:
    """Epochs are fixed; nothing is chosen."""
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
        batch=BATCH_SIZE,
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
        batch=BATCH_SIZE,
    )
    return tune(  # one optimizer throughout: its momentum is most of what so small a step size does
        setting,
        model,
        setting.data,
        suspects,
        title="ABL, unlearning",
        epochs=unlearning_epochs(len(suspects)),
        rate=lambda done: UNLEARN_RATE,
        batch=BATCH_SIZE,
        loss_of=lambda logits, target, x: -F.cross_entropy(logits, target),
        weak=False,
    )
