"""`--dry-run`: two batches through every stage on the real images, and what the whole run would take."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import psutil
import torch

from dlp_fast.config import RunConfig, resolve
from dlp_fast.data import sources
from dlp_fast.detection.verify.replication import ensemble_size
from dlp_fast.engine.batches import TrainingData
from dlp_fast.engine.device import choose_compute
from dlp_fast.engine.distributed import LEAST
from dlp_fast.engine.inference import score
from dlp_fast.engine.memory import bytes_per_image
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
TRIES = 2  # of each trial, averaged: a machine is never quite alone
WORLDS = (1, 8, 64)  # processes with a GPU (or a share of CPU cores) each that a run is reckoned for
NODE = 8  # of them on a machine
# what one all-reduce is taken to cost, not measured: bytes a second, and seconds before the first byte
WITHIN, BETWEEN = (100e9, 50e-6), (20e9, 200e-6)
OPTIMIZER = 4  # times the weights: themselves, gradients, momentum, and the average or a copy


@dataclass(frozen=True)
class Estimate:
    """What a run takes of `world` processes.

    seconds: of each part; one_more: seconds of the network without the labels in question, which is trained where
    something is found; read: bytes of picture files that are read after the check, by all; memory: bytes that a process
    takes.
    """

    seconds: dict[str, float]
    memory: int
    world: int = 1
    one_more: float = 0.0
    read: int = 0

    @property
    def total(self) -> float:
        return sum(self.seconds.values())

    @property
    def hours(self) -> tuple[float, float]:
        """(without, with) the network without the labels in question."""
        return self.total / 3600, (self.total + self.one_more) / 3600


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
    """Try two batches of every stage of `config`, and reckon what the whole takes here; writes nothing."""
    return dry_runs(config, dataset, quiet=quiet, worlds=(1,))[0]


def dry_runs(
    config: RunConfig,
    dataset: sources.Dataset | None = None,
    *,
    quiet: bool = False,
    worlds: Sequence[int] = WORLDS,
) -> list[Estimate]:
    """The same for several numbers of processes, each on a device like the one at hand: their parts of the batches are
    tried here, what they tell each other is taken to cost WITHIN or BETWEEN.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    compute = choose_compute(config.device, config.precision, config.graphs)
    check_name(config.model)
    check_options(config, None)
    log = RunLog(None, quiet=quiet)
    prepared = prepare(config, resolve(config), compute, dataset, None, log)
    with Session(compute, RunLog(None, quiet=True)) as session:
        return [estimate(session, prepared.data, config, world) for world in worlds]


def estimate(session: Session, data: TrainingData, config: RunConfig, world: int = 1) -> Estimate:
    """Time a few batches of each stage of `config.order` and reckon what all of them take.

    Looking for components and marks and the report are small beside them, and are done by one process. A second network
    of stage 1 where the first leaves doubt, and rounds of stage 3 that begin anew where poison is found late, come on
    top.
    """
    small = _part(data, 512)
    model = new_model(config.model, data, data.seed)
    score(session, model, small)
    scoring = _timed(session, lambda: score(session, model, small)) / len(small) * len(data)
    told = _exchange(model, world)
    epochs, per_epoch, batch = stage1.plan(len(data), config.supervised)
    steps = epochs * per_epoch
    once = _supervised(session, data, config, scoring, world) + scoring / world * epochs + told * steps
    networks = ensemble_size(steps, config)
    seconds = {"supervised": once * networks}
    read = networks * (steps * batch + epochs * len(data)) + 2 * len(data)
    if config.detection.power:
        seconds["power"] = config.detection.power * seconds["supervised"]
    if "unlearning" in config.order:
        seconds["unlearning"] = _unlearning(session, data, config) / world
    if "finetuning" in config.order:
        three = _tuning(data, config, steps)
        seconds["finetuning"] = _finetuning(session, data, config, three, scoring / world, world)
        seconds["finetuning"] += told * three.steps
        read += three.steps * (three.batch + three.extra) + round(three.passes * len(data))
        batch = max(batch, three.batch + 2 * three.extra)
    return Estimate(
        seconds,
        _memory(session, model, data, _share(batch, world)),
        world,
        once,
        round(read * _file_bytes(data)),
    )


def _share(batch: int, world: int) -> int:
    """Images of a batch that one of `world` processes works on, as Ranks.part has it."""
    return max(1, batch // world) if batch >= LEAST * world else batch


def _exchange(model: torch.nn.Module, world: int) -> float:
    """Seconds that a step's all-reduce is taken to cost."""
    if world == 1:
        return 0.0
    rate, latency = WITHIN if world <= NODE else BETWEEN
    size = sum(p.numel() * 4 for p in model.parameters())
    return latency + 2 * (world - 1) / world * size / rate


def _memory(session: Session, model: torch.nn.Module, data: TrainingData, images: int) -> int:
    """Bytes of a process: what is held by now, the weights and what goes with them, and a step on `images`."""
    if session.compute.device.type == "cuda":
        held = torch.cuda.memory_allocated()
    else:
        held = psutil.Process().memory_info().rss
    weights = sum(p.numel() * 4 for p in model.parameters())
    a_step = images * bytes_per_image(model, (data.images.height, data.images.width), session.compute)
    return round(held + OPTIMIZER * weights + a_step)


def _file_bytes(data: TrainingData) -> float:
    """Mean size of the files; 0 where all images are in memory."""
    index = getattr(data.images, "index", None)
    return float(index.byte_sizes.mean()) if index is not None and len(index) else 0.0


def _timed(session: Session, action: Callable[[], object]) -> float:
    spent = 0.0
    for _ in range(TRIES):
        session.keep_only(())  # of an earlier trial under the same name
        began = time.monotonic()
        action()
        if session.compute.device.type == "cuda":
            torch.cuda.synchronize()
        spent += time.monotonic() - began
    return spent / TRIES


def _supervised(session: Session, data: TrainingData, config: RunConfig, scoring: float, world: int) -> float:
    """Seconds that one network trains in stage 1; `scoring`: seconds to score all images."""
    model, one = new_model(config.model, data, data.seed), config.supervised
    epochs, per_epoch, batch = stage1.plan(len(data), one)
    mine = _share(batch, world)
    few = _part(data, mine * STEPS)
    trial = one.model_copy(update={"epochs": 1, "min_steps": 0, "batch": min(mine, len(few))})
    stage1.supervised(session, model, few, trial)
    spent = _timed(session, lambda: stage1.supervised(session, model, few, trial))
    steps = max(1, len(few) // mine)
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


@dataclass(frozen=True)
class _Tuning:
    """Stage 3: its steps; labeled and unlabeled images of each; how often all images pass forward alone."""

    steps: int
    batch: int
    extra: int
    passes: float


def _tuning(data: TrainingData, config: RunConfig, steps_before: int) -> _Tuning:
    three, n = config.finetuning, len(data)
    hardest = three.labeled == "hardest"
    share = config.detection.rate if hardest else 1 - config.detection.high_loss_fraction
    labeled = round(share * n)
    labeled = max(labeled, config.detection.min_images * data.classes) if hardest else labeled
    steps = stage3.planned_steps(labeled, 0 if hardest else n - labeled, three, steps_before)
    batch = min(three.batch, labeled)
    extra = stage3.unlabeled_batch(labeled, n - labeled, three) if hardest else batch // 10
    return _Tuning(steps, batch, extra, (0 if hardest else SNAPSHOTS) + three.norm_batches * batch / n)


def _finetuning(
    session: Session, data: TrainingData, config: RunConfig, of: _Tuning, scoring: float, world: int
) -> float:
    batch, extra = _share(of.batch, world), of.extra // world if world > 1 else of.extra
    some = _part(data, batch + extra)
    ids = torch.arange(len(some))
    labels = Labels(ids[:batch], ids[batch:], torch.zeros(len(some), dtype=torch.bool))
    tried = {"steps": STEPS, "batch": min(batch, len(some)), "mu": extra / batch, "norm_batches": 0}
    trial = config.finetuning.model_copy(update=tried)

    def step() -> None:
        stage3.finetuning(session, new_model(config.model, data, data.seed), some, labels, trial)

    step()
    return _timed(session, step) / STEPS * of.steps + scoring * of.passes
