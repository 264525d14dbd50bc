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
from dlp_fast.detection.propose.static_patterns import static_patterns
from dlp_fast.detection.verify.replication import ensemble_size
from dlp_fast.engine.batches import TrainingData
from dlp_fast.engine.device import choose_compute
from dlp_fast.engine.distributed import ALONE, LEAST, Ranks
from dlp_fast.engine.inference import score
from dlp_fast.engine.memory import bytes_per_image
from dlp_fast.engine.parts import Parts
from dlp_fast.engine.session import Session
from dlp_fast.engine.synced_batch_norm import batch_norms
from dlp_fast.models.registry import check_name, new_model
from dlp_fast.models.starting import check_options
from dlp_fast.power.scans import scheduled
from dlp_fast.preparation.prepare import prepare
from dlp_fast.preparation.threads import fitting_threads
from dlp_fast.preparation.work import Tuning, tuning
from dlp_fast.runs.log import RunLog
from dlp_fast.selection.labels import Labels
from dlp_fast.stages import finetuning as stage3
from dlp_fast.stages import supervised as stage1
from dlp_fast.stages.rounds import SNAPSHOTS
from dlp_fast.stages.unlearning import unlearning

STEPS = 2  # of each stage, after one that warms up
SCANNED = 2048  # images of the scan that is timed
TRIES = 2  # of each trial, averaged: a machine is never quite alone
WORLDS = (1, 8, 64)  # processes with a GPU (or a share of CPU cores) each that a run is reckoned for
NODE = 8  # of them on a machine
# what a message or an all-reduce is taken to cost, not measured: bytes a second, and seconds before the first byte
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
    worlds: Sequence[int] | None = None,
) -> list[Estimate]:
    """The same for several numbers of processes, each on a device like the one at hand: their parts of the batches are
    tried here, what they tell each other is taken to cost WITHIN or BETWEEN. `worlds`: None: WORLDS, or as many as
    `batch_parts` allows for.
    """
    if worlds is None:
        worlds = sorted({min(world, config.batch_parts or world) for world in WORLDS})
    compute = choose_compute(config.device, config.precision, config.graphs)
    check_name(config.model)
    check_options(config, None)
    log = RunLog(None, quiet=quiet)
    with fitting_threads(config, compute, None, log):
        prepared = prepare(config, resolve(config), compute, dataset, None, log)
        with Session(compute, RunLog(None, quiet=True)) as session:
            once = measure(session, prepared.data, config)
            return [estimate(session, prepared.data, config, once, world) for world in worlds]


@dataclass(frozen=True)
class Measured:
    """What does not depend on how many processes there are.

    model: the network; scoring: seconds to score all images; unlearning: seconds of stage 2, 0 where it is not run.
    """

    model: torch.nn.Module
    scoring: float
    unlearning: float


def measure(session: Session, data: TrainingData, config: RunConfig) -> Measured:
    """Time scoring and stage 2 on a few batches."""
    small, model = _part(data, 512), new_model(config.model, data, data.seed)
    scoring = _timed(session, lambda: score(session, model, small)) / len(small) * len(data)
    two = 0.0
    if "unlearning" in config.order:
        two = _unlearning(_as_one_of(session, config, 1), data, config)
    return Measured(model, scoring, two)


def estimate(
    session: Session, data: TrainingData, config: RunConfig, once: Measured, world: int = 1
) -> Estimate:
    """Time a few batches of each stage of `config.order` and reckon what all of them take.

    Looking for components and marks and the report are small beside them, and are done by one process. A second network
    of stage 1 where the first leaves doubt, and rounds of stage 3 that begin anew where poison is found late, come on
    top.
    """
    scoring, told = once.scoring, exchange(once.model, world, config.batch_parts)
    session = _as_one_of(session, config, world)
    epochs, per_epoch, batch = stage1.plan(len(data), config.supervised)
    steps = epochs * per_epoch
    network = _supervised(session, data, config, scoring, world) + scoring / world * epochs + told * steps
    networks = ensemble_size(steps, config)
    seconds = {"supervised": network * networks}
    read = networks * (steps * batch + epochs * len(data)) + 2 * len(data)
    if config.detection.power:
        seconds["power"] = config.detection.power * seconds["supervised"]
    if config.detection.power_scans:
        seconds["power scans"] = seconds_of_scans(data, config)
    if "unlearning" in config.order:
        seconds["unlearning"] = once.unlearning * _most_parts(config, world)
    images = at_once(config, batch, 0, world)
    if "finetuning" in config.order:
        three = tuning(len(data), data.classes, config, steps)
        passes = _passes(data, config, three, world)
        seconds["finetuning"] = _finetuning(session, data, config, three, scoring / world * passes, world)
        seconds["finetuning"] += told * three.steps
        read += three.steps * (three.batch + three.unlabeled) + round(passes * len(data))
        images = max(images, at_once(config, three.batch, three.unlabeled, world))
    memory = _memory(session, once.model, data, images) + _rows(session, once.model, world)
    return Estimate(seconds, memory, world, network, round(read * _file_bytes(data)))


def seconds_of_scans(data: TrainingData, config: RunConfig) -> float:
    """Seconds of the scans of `detection.power_scans`: one is timed on SCANNED images, all of them where there are no
    more, and grows with their number.
    """
    few = _part(data, SCANNED)
    began = time.monotonic()
    static_patterns(few.images, few.labels, few.classes, config.detection.static_patterns)
    spent = (time.monotonic() - began) / len(few) * len(data)
    return spent * len(scheduled(data, data.classes, config.detection.power_scans))


def share(batch: int, world: int, least: int = LEAST, parts: int | None = None) -> int:
    """Images of a batch that the busiest of `world` processes works on; `least`: see Ranks.part; `parts`: of the batch,
    see engine.parts.
    """
    ids = torch.arange(batch)
    if parts is None:  # the first has one more where it does not come out even
        return len(Ranks(0, world).part(ids, least))
    return max(len(Parts(parts, rank, world).part(ids, least)) for rank in (0, world - 1))


def at_once(config: RunConfig, labeled: int, unlabeled: int, world: int) -> int:
    """Images that pass through the network together in a step on so many; of an unlabeled one, two views."""
    pieces = config.batch_parts or world  # a process takes its parts one after the other
    return share(labeled, pieces) + 2 * share(unlabeled, pieces, 0)


def _most_parts(config: RunConfig, world: int) -> float:
    """Share of a batch's parts that the busiest of `world` processes has."""
    return -(-config.batch_parts // world) / config.batch_parts if config.batch_parts else 1 / world


def _as_one_of(session: Session, config: RunConfig, world: int) -> Session:
    """A session that takes the parts of a batch, one after the other, that the busiest of `world` processes has."""
    if config.batch_parts is None:
        return session
    whole = Parts(config.batch_parts, world - 1, world, config.sync_batch_norm)
    return Session(session.compute, session.log, ranks=Parts(len(whole.views)))


def exchange(model: torch.nn.Module, world: int, parts: int | None = None) -> float:
    """Seconds that a step's exchange is taken to cost: an all-reduce; where batches have `parts`, sums that go from
    process to process, and from the last to all.
    """
    if world == 1:
        return 0.0
    rate, latency = WITHIN if world <= NODE else BETWEEN
    size = sum(p.numel() * 4 for p in model.parameters())
    if parts is None:
        return latency + 2 * (world - 1) / world * size / rate
    between = (world - 1) // NODE  # of the turns, from one machine to the next
    turns = ((WITHIN, world - 1 - between), (BETWEEN, between), ((rate, latency), 1))
    return sum(count * (seconds + size / speed) for (speed, seconds), count in turns)


def _rows(session: Session, model: torch.nn.Module, world: int) -> int:
    """Bytes of the gradients and statistics that a process keeps until its turn comes, where batches have parts."""
    if session.ranks is ALONE:
        return 0
    statistics = sum(m.running_mean.numel() + m.running_var.numel() for m in batch_norms(model))
    row = 4 * (sum(p.numel() for p in model.parameters()) + statistics)
    return row * (2 if world == 1 else len(session.ranks.views) + 1)


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
    """Mean seconds of `action`, after one that warms up."""

    def once() -> float:
        session.keep_only(())  # of an earlier trial under the same name
        began = time.monotonic()
        action()
        if session.compute.device.type == "cuda":
            torch.cuda.synchronize()
        return time.monotonic() - began

    once()
    return sum(once() for _ in range(TRIES)) / TRIES


def _supervised(session: Session, data: TrainingData, config: RunConfig, scoring: float, world: int) -> float:
    """Seconds that one network trains in stage 1; `scoring`: seconds to score all images."""
    model, one = new_model(config.model, data, data.seed), config.supervised
    epochs, per_epoch, batch = stage1.plan(len(data), one)
    mine = share(batch, world, parts=config.batch_parts)
    few = _part(data, mine * STEPS)
    trial = one.model_copy(update={"epochs": 1, "min_steps": 0, "batch": min(mine, len(few))})
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


def _passes(data: TrainingData, config: RunConfig, of: Tuning, world: int) -> float:
    """How often stage 3 has all images pass forward alone, by all of `world` processes together: for its learning
    curves and batch-norm statistics, which every process takes for itself where batches have parts.
    """
    three = config.finetuning
    snapshots = 0 if three.labeled == "hardest" else SNAPSHOTS
    takers = world if config.batch_parts else 1
    return snapshots + takers * three.norm_batches * of.batch / len(data)


def _finetuning(
    session: Session, data: TrainingData, config: RunConfig, of: Tuning, alone: float, world: int
) -> float:
    """Seconds of stage 3; `alone`: those in which images pass forward alone."""
    batch = share(of.batch, world, parts=config.batch_parts)
    extra = share(of.unlabeled, world, 0, config.batch_parts)
    some = _part(data, batch + extra)
    ids = torch.arange(len(some))
    labels = Labels(ids[:batch], ids[batch:], torch.zeros(len(some), dtype=torch.bool))
    tried = {"steps": STEPS, "batch": min(batch, len(some)), "mu": extra / batch, "norm_batches": 0}
    trial = config.finetuning.model_copy(update=tried)

    def step() -> None:
        stage3.finetuning(session, new_model(config.model, data, data.seed), some, labels, trial)

    return _timed(session, step) / STEPS * of.steps + alone
