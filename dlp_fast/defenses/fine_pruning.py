"""FP: prune what is dormant on clean images, then fine-tune (Liu et al. 2018, "Fine-Pruning")."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dlp_fast.defenses.setting import Setting, accuracy_on, allowed_loss, copy_of, tune
from dlp_fast.engine.inference import features
from dlp_fast.models.registry import classifier_of

MOST_LOST = 0.04  # of held-out clean accuracy, that pruning may cost (the paper's stop is a drop in accuracy)
EPOCHS, RATE = 10, 0.01


def dormant_first(setting: Setting, model: nn.Module) -> Tensor:
    """Channels of the last layer before the classifier, by mean activation on the clean subset, ascending."""
    return features(setting.session, model, setting.clean).mean(0).argsort()


def prune(model: nn.Module, channels: Tensor) -> None:
    """Take `channels` away from the classifier, in place: they can no longer say anything."""
    with torch.no_grad():
        classifier_of(model).weight[:, channels] = 0


def fine_pruning(setting: Setting) -> nn.Module:
    """Stop rule: the last pruning step before held-out clean accuracy falls by more than MOST_LOST."""
    _, held = setting.split()
    order = dormant_first(setting, setting.model)
    allowed = allowed_loss(accuracy_on(setting.model, setting.clean, held), MOST_LOST)
    step, keep = max(1, len(order) // 32), 0
    for count in range(step, len(order), step):
        trial = copy_of(setting.model)
        prune(trial, order[:count])
        if accuracy_on(trial, setting.clean, held) < allowed:
            break
        keep = count
    model = copy_of(setting.model)
    weights = classifier_of(model).weight
    prune(model, order[:keep])
    # a pruned channel stays pruned while the others are tuned
    gone = order[:keep].to(weights.device)
    handle = weights.register_hook(lambda gradient: gradient.index_fill(1, gone, 0))
    tune(
        setting,
        model,
        setting.clean,
        setting.everything_clean(),  # nothing is decided any more
        title="FP, fine-tuning",
        epochs=setting.clean_epochs(EPOCHS),
        rate=lambda done: RATE,
    )
    handle.remove()
    prune(model, order[:keep])  # weight decay and momentum leave zeros zero; this says so
    return model
