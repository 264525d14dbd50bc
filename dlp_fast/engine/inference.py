"""What a network says of images without learning from them: scores, accuracy, features, batch-norm statistics."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import update_bn

from dlp_fast import ops
from dlp_fast.engine.batches import TrainingData, normalise
from dlp_fast.engine.session import Session
from dlp_fast.models.registry import classifier_of

# images a forward pass without gradients: on a CPU, 64 stay in the cache and run 2.5 times as fast as 512
BATCH = {"cpu": 64, "cuda": 512}


@dataclass(frozen=True)
class Scores:
    """Of one pass: entropy (bits, DLP Eq. 5), loss (cross-entropy with the given label, nats), prediction, and
    other_loss: cross-entropy with another label, drawn by id, nats; None where not asked for.
    """

    entropy: Tensor
    loss: Tensor
    prediction: Tensor
    other_loss: Tensor | None = None


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Batch norm uses its running statistics, so that no image's output depends on its neighbours."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


@torch.no_grad()
def score(session: Session, model: nn.Module, data: TrainingData, *, other: bool = False) -> Scores:
    """Entropy fp32 [n], losses fp32 [n] and predicted class int64 [n] of every image, on the CPU, in eval mode.

    Entropy and prediction come from one read of a batch's logits on their device, and no more than a batch of logits is
    ever held. Each rank scores a contiguous shard, in the same batches as one process would, so that the bits are the
    same. `other`: whether the loss with another label is asked for.
    """
    batches = session.ranks.shard(list(torch.arange(len(data)).split(BATCH[data.device.type])))
    nothing = torch.empty(0)
    empty = (nothing, nothing, nothing.long(), nothing)
    parts: list[tuple[Tensor, ...]] = [] if batches else [empty if other else empty[:3]]
    with eval_mode(model):
        for ids, following in zip(batches, [*batches[1:], None]):
            session.poll()
            x = data.plain(ids)
            if following is not None:
                data.expect(following)
            logits = model(x).float()
            entropy, top = ops.entropy_and_class(logits, first_id=int(ids[0]))
            part = (entropy, F.cross_entropy(logits, data.target(ids), reduction="none"), top)
            if other:
                part += (F.cross_entropy(logits, data.other_label(ids), reduction="none"),)
            parts.append(part)
    return Scores(*(session.ranks.gather(torch.cat(column)) for column in zip(*parts, strict=True)))


@torch.no_grad()
def predict(model: nn.Module, images: Tensor, data: TrainingData) -> Tensor:
    """Class int64 [b] of `images`, uint8 [b, H, W, 3] as those of `data` are, in eval mode."""
    with eval_mode(model):
        return model(normalise(images.to(data.device), data.mean, data.std)).argmax(1)


@torch.no_grad()
def accuracy(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> float:
    """Share of (normalised images, labels) batches whose highest logit is the label's, in eval mode; 0 of none."""
    right = seen = 0
    with eval_mode(model):
        for x, y in batches:
            right += int((model(x).argmax(1) == y).sum())
            seen += len(y)
    return right / max(seen, 1)


@torch.no_grad()
def features(session: Session, model: nn.Module, data: TrainingData, ids: Tensor | None = None) -> Tensor:
    """fp32 [n, d] on the CPU: the input of the last linear layer, in eval mode; by a hook, so of any network. `ids`:
    int64, of which images; None: of all.
    """
    parts: list[Tensor] = []
    with eval_mode(model), caught_features(model) as caught:
        for some in (torch.arange(len(data)) if ids is None else ids).split(BATCH[data.device.type]):
            session.poll()
            model(data.plain(some))
            parts.append(caught.pop().cpu())
    return torch.cat(parts)


@contextmanager
def caught_features(model: nn.Module) -> Iterator[list[Tensor]]:
    """A list to which each forward pass adds the input of the last linear layer, fp32 [b, d]; gradients flow on."""
    caught: list[Tensor] = []
    handle = classifier_of(model).register_forward_pre_hook(
        lambda _module, inputs: caught.append(inputs[0].flatten(1).float())
    )
    try:
        yield caught
    finally:
        handle.remove()


def refit_batch_norm(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Set the running mean and variance of each batch norm to those of `batches`, each of which counts alike (Izmailov
    et al. 2018, section 3.2); weights and mode stay. In fp32, as the network is used. Without batch norm nothing is
    drawn.

    Args: batches: at least one, normalised fp32 [b, 3, H, W] on the model's device.
    """
    update_bn(batches, model)
