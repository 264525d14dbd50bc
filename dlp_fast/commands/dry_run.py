"""`--dry-run`: two batches through every stage on the real images, and what the whole run would take."""

from __future__ import annotations

import dataclasses
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from dlp_fast.config import RunConfig, resolve
from dlp_fast.data import sources
from dlp_fast.detection.verify.replication import ensemble_size
from dlp_fast.engine.batches import TrainingData
from dlp_fast.engine.device import choose_compute
from dlp_fast.engine.inference import score
from dlp_fast.engine.session import Session
from dlp_fast.models.registry import check_name, new_model
from dlp_fast.models.starting import check_options
from dlp_fast.preparation.prepare import prepare
from dlp_fast.runs.log import RunLog
from dlp_fast.selection.labels import Labels
from dlp_fast.stages import finetuning as stage3
from dlp_fast.stages import supervised as stage1
from dlp_fast.stages.rounds import SNAPSHOTS
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


def dry_run(config: RunConfig, dataset: sources.Dataset | None = None, *, quiet: bool = False) -> Estimate:
    """Try two batches of every stage of `config`, and reckon time and memory of the whole; writes nothing."""
    if config.threads:
        torch.set_num_threads(config.threads)
    compute = choose_compute(config.device, config.precision, config.graphs)
    check_name(config.model)
    check_options(config, None)
    log = RunLog(None, quiet=quiet)
    prepared = prepare(config, resolve(config), compute, dataset, None, log)
    with Session(compute, RunLog(None, quiet=True)) as session:
        return estimate(session, prepared.data, config)


def estimate(session: Session, data: TrainingData, config: RunConfig) -> Estimate:
    """Time a few batches of each stage of `config.order` and reckon what all of them take.

    Clustering the learning curves and the report are small beside them. A second network of stage 1 where the first
    leaves doubt, and rounds of stage 3 that begin anew where poison is found late, come on top.
    """
    small = _part(data, 512)
    model = new_model(config.model, data, data.seed)
    score(session, model, small)
    scoring = _timed(session, lambda: score(session, model, small)) / len(small) * len(data)
    epochs, per_epoch, _ = stage1.plan(len(data), config.supervised)
    steps = epochs * per_epoch
    once = _supervised(session, data, config, scoring) + scoring * epochs
    seconds = {"supervised": once * ensemble_size(steps, config)}
    if config.detection.power:
        seconds["power"] = config.detection.power * seconds["supervised"]
    if "unlearning" in config.order:
        seconds["unlearning"] = _unlearning(session, data, config)
    if "finetuning" in config.order:
        seconds["finetuning"] = _finetuning(session, data, config, scoring, steps)
    if session.compute.device.type == "cuda":
        memory = torch.cuda.max_memory_allocated()
    else:
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return Estimate(seconds, memory)


def _timed(session: Session, action: Callable[[], object]) -> float:
    session.keep_only(())  # of an earlier trial under the same name
    began = time.monotonic()
    action()
    if session.compute.device.type == "cuda":
        torch.cuda.synchronize()
    return time.monotonic() - began


def _supervised(session: Session, data: TrainingData, config: RunConfig, scoring: float) -> float:
    """Seconds that one network trains in stage 1; `scoring`: seconds to score all images."""
    model, one = new_model(config.model, data, data.seed), config.supervised
    epochs, per_epoch, batch = stage1.plan(len(data), one)
    few = _part(data, batch * STEPS)
    trial = one.model_copy(update={"epochs": 1, "min_steps": 0, "batch": min(batch, len(few))})
    stage1.supervised(session, model, few, trial)
    spent = _timed(session, lambda: stage1.supervised(session, model, few, trial))
    steps = max(1, len(few) // batch)
    return max(spent - scoring * len(few) / len(data), 1e-3) / steps * per_epoch * epochs


def _unlearning(session: Session, data: TrainingData, config: RunConfig) -> float:
    two = config.unlearning
    few = _part(data, config.supervised.batch * STEPS)
    suspects = torch.arange(min(len(few), two.batch))
    trial = two.model_copy(update={"epochs": STEPS})
    model = new_model(config.model, data, data.seed)
    spent = _timed(session, lambda: unlearning(session, model, few, suspects, trial)) / STEPS
    wanted = max(round(config.detection.rate * len(data)), config.detection.min_images)
    return spent * two.epochs * max(1.0, wanted / two.batch)


def _finetuning(
    session: Session, data: TrainingData, config: RunConfig, scoring: float, steps_before: int
) -> float:
    three, n = config.finetuning, len(data)
    hardest = three.labeled == "hardest"
    share = config.detection.rate if hardest else 1 - config.detection.high_loss_fraction
    labeled = round(share * n)
    labeled = max(labeled, config.detection.min_images * data.classes) if hardest else labeled
    steps = stage3.planned_steps(labeled, 0 if hardest else n - labeled, three, steps_before)
    batch = min(three.batch, labeled)
    extra = stage3.unlabeled_batch(labeled, n - labeled, three) if hardest else batch // 10
    some = _part(data, batch + extra)
    ids = torch.arange(len(some))
    labels = Labels(ids[:batch], ids[batch:], torch.zeros(len(some), dtype=torch.bool))
    tried = {"steps": STEPS, "batch": min(batch, len(some)), "mu": extra / batch, "norm_batches": 0}
    trial = three.model_copy(update=tried)

    def step() -> None:
        stage3.finetuning(session, new_model(config.model, data, data.seed), some, labels, trial)

    step()
    spent = _timed(session, step) / STEPS
    # images that pass forward alone
    passes = (0 if hardest else SNAPSHOTS) + three.norm_batches * batch / n
    return spent * steps + scoring * passes
