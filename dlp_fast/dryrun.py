"""`--dry-run`: two batches through every stage on the real images, and what the whole run would take."""

from __future__ import annotations

import dataclasses
import resource
import time
from dataclasses import dataclass

import torch

from dlp_fast.config import RunConfig
from dlp_fast.engine.batches import TrainingData
from dlp_fast.engine.scoring_pass import score
from dlp_fast.engine.session import Session
from dlp_fast.filtering.doubt import networks
from dlp_fast.models.registry import build_model
from dlp_fast.pipeline import LOOKS
from dlp_fast.stages import finetuning as stage3
from dlp_fast.stages import supervised as stage1
from dlp_fast.stages.unlearning import unlearning

STEPS = 2  # of each stage, after one that warms up


@dataclass(frozen=True)
class Estimate:
    """seconds of each part of a run, and the most memory that the dry run took, bytes."""

    seconds: dict[str, float]
    memory: int

    @property
    def total(self) -> float:
        return sum(self.seconds.values())


class _Few:
    """A part of an image set, under new ids."""

    def __init__(self, images, ids: torch.Tensor):
        self.images, self.ids = images, ids
        self.height, self.width = images.height, images.width

    def __len__(self) -> int:
        return len(self.ids)

    def expect(self, ids: torch.Tensor) -> None:
        self.images.expect(self.ids[ids.cpu()])

    def get(self, ids: torch.Tensor) -> torch.Tensor:
        return self.images.get(self.ids[ids.cpu()])


def _part(data: TrainingData, count: int) -> TrainingData:
    ids = torch.linspace(0, len(data) - 1, min(count, len(data))).round().long().unique()
    return dataclasses.replace(data, images=_Few(data.images, ids), labels=data.labels[ids])


def estimate(session: Session, data: TrainingData, config: RunConfig) -> Estimate:
    """Time a few batches of each stage of `config.order` and reckon what all of them take.

    The filter's own clustering and the report are small beside them. A second network of stage 1 where the first leaves
    doubt, and rounds of stage 3 that begin anew where poison is found late, come on top.
    """
    size = max(data.images.height, data.images.width)

    def new_model() -> torch.nn.Module:
        return build_model(config.model, data.classes, size, data.seed).to(session.compute.device)

    def timed(action) -> float:
        session.keep_only(())  # of an earlier trial under the same name
        began = time.monotonic()
        action()
        if session.compute.device.type == "cuda":
            torch.cuda.synchronize()
        return time.monotonic() - began

    n, seconds = len(data), {}
    model = new_model()
    small = _part(data, 512)
    score(session, model, small)
    look = timed(lambda: score(session, model, small)) / len(small) * n
    one = config.supervised
    epochs, per_epoch, batch = stage1.plan(n, one)
    few = _part(data, batch * STEPS)
    train = one.model_copy(update={"epochs": 1, "min_steps": 0, "batch": min(batch, len(few))})
    stage1.supervised(session, model, few, train)
    spent = timed(lambda: stage1.supervised(session, model, few, train)) - look * len(few) / n
    train_all = max(spent, 1e-3) / max(1, len(few) // batch) * per_epoch * epochs
    seconds["supervised"] = (train_all + look * epochs) * networks(per_epoch * epochs, config)
    if "-au" in config.order:
        two = config.unlearn
        suspects = torch.arange(min(len(few), two.batch))
        ascent = two.model_copy(update={"epochs": STEPS})
        of = timed(lambda: unlearning(session, new_model(), few, suspects, ascent)) / STEPS
        wanted = max(round(config.filter.rate * n), config.filter.floor)
        seconds["unlearning"] = of * two.epochs * max(1.0, wanted / two.batch)
    if "-assft" in config.order:
        three = config.finetune
        hardest = three.labeled == "hardest"
        labeled = round((config.filter.rate if hardest else 1 - config.filter.distrust) * n)
        labeled = max(labeled, config.filter.floor * data.classes) if hardest else labeled
        in_doubt = 0 if hardest else n - labeled
        steps = stage3.planned_steps(labeled, in_doubt, three, per_epoch * epochs)
        batch = min(three.batch, labeled)
        extra = stage3.unlabeled_batch(labeled, n - labeled, three) if hardest else batch // 10
        some = _part(data, batch + extra)
        ids = torch.arange(len(some))
        tried = {"steps": STEPS, "batch": min(batch, len(some)), "mu": extra / batch, "norm_batches": 0}
        trial = three.model_copy(update=tried)
        stage3.finetuning(session, new_model(), some, ids[:batch], ids[batch:], trial)
        of = (
            timed(lambda: stage3.finetuning(session, new_model(), some, ids[:batch], ids[batch:], trial))
            / STEPS
        )
        looks = (0 if hardest else LOOKS) + three.norm_batches * batch / n  # images that pass forward alone
        seconds["finetuning"] = of * steps + look * looks
    if session.compute.device.type == "cuda":
        memory = torch.cuda.max_memory_allocated()
    else:
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return Estimate(seconds, memory)
