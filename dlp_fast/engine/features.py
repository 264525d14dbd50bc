"""What a network's classifier is given, for every image: the representation that activation filters look at."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dlp_fast.engine.batches import TrainingData
from dlp_fast.engine.scoring_pass import BATCH
from dlp_fast.engine.session import Session
from dlp_fast.models.registry import classifier_of


@torch.no_grad()
def features(session: Session, model: nn.Module, data: TrainingData) -> Tensor:
    """fp32 [n, d] on the CPU: the input of the last linear layer, in eval mode; by a hook, so of any network."""
    seen: list[Tensor] = []
    layer = classifier_of(model)
    handle = layer.register_forward_pre_hook(
        lambda _module, inputs: seen.append(inputs[0].flatten(1).float().cpu())
    )
    was_training = model.training
    model.eval()
    try:
        for ids in torch.arange(len(data)).split(BATCH[data.device.type]):
            session.poll()
            model(data.plain(ids))
    finally:
        handle.remove()
        model.train(was_training)
    return torch.cat(seen)
