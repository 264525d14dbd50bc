"""From a configuration to images that the stages can work on: loaded, checked, and poisoned where that is asked for."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlp_fast.attacks.poisoning import Poisoning, plan
from dlp_fast.config import RunConfig
from dlp_fast.data import sources
from dlp_fast.data.index import write_quarantine
from dlp_fast.data.quarantine import cannot_be_used
from dlp_fast.engine.batches import TrainingData, pixel_statistics
from dlp_fast.engine.device import Compute
from dlp_fast.engine.distributed import ALONE, Ranks
from dlp_fast.engine.schedule import peak_of
from dlp_fast.errors import DataError
from dlp_fast.models.registry import how_it_starts
from dlp_fast.models.starting import starting_weights
from dlp_fast.runs.environment import environment
from dlp_fast.runs.log import RunLog
from dlp_fast.runs.names import counted
from dlp_fast.runs.writer import RunFolder, fingerprint

SCANS = ("scan.jsonl", "scan_test.jsonl")  # what the scans of the image set and of another test folder found
GENTLE = 0.05  # step size of stage 3 from which on starting weights are lost (studies/pretrained)


@dataclass(frozen=True)
class Prepared:
    """dataset: as loaded; attack: None where there is none; data: as the stages see it; start: what results.json says
    of the weights that networks start from, {} where they are new.
    """

    dataset: sources.Dataset
    attack: Poisoning | None
    data: TrainingData
    start: dict[str, Any]


def prepare(
    config: RunConfig,
    settings: dict[str, Any],
    compute: Compute,
    dataset: sources.Dataset | None,
    folder: RunFolder | None,
    log: RunLog,
    ranks: Ranks = ALONE,
) -> Prepared:
    """Load the images, check that they are those of the run folder, and poison them where that is asked for. Of several
    ranks, each loads them, rank 0 first, and has to find what rank 0 found.
    """
    # before the scan, which may take long
    start = ranks.in_turn(lambda: starting_weights(config, folder.path if folder else None))
    if dataset is None:
        dataset = load_in_turn(config, folder, log, ranks)
    announce(log, dataset, folder)
    images = dataset.train.images.to(compute.device)
    attack = attack_of(settings, dataset, str(compute.device), log.counter())
    labels = attack.labels if attack else dataset.train.labels
    if folder or ranks.world > 1:
        seen = fingerprint(dataset.train.paths, labels, dataset.train.sha256)
        ranks.alike("the image set", seen)
    if folder:
        folder.check_data(seen)
        folder.write_json("environment.json", environment(compute.describe()))
    if attack:
        log.say(f"attack: {attack.describe(dataset.train.classes)}")
        images = attack.poison(images)
    log.say(f"computing on {compute.describe()}")
    for side in (images.height, images.width):
        if not 8 <= side <= 256:
            raise DataError(
                f"images of {images.width} x {images.height} pixels: expected sides of 8 to 256 pixels. Resize "
                "them, or give --dataset.image-size."
            )
    mean, std = map(tuple, ranks.agreed(lambda: pixel_statistics(images)))
    classes = len(dataset.train.classes)
    data = TrainingData(images, labels, classes, mean, std, dataset.flip, config.seed, compute.device, start)
    return Prepared(dataset, attack, data, told_start(config, data, log))


def told_start(config: RunConfig, data: TrainingData, log: RunLog) -> dict[str, Any]:
    """Say what networks take from their starting weights; the same for results.json, {} where there are none."""
    if data.start is None:
        return {}
    filled, told = how_it_starts(config.model, data)
    log.say(told)
    stage, rate = config.finetuning, peak_of(config.finetuning)
    if stage.start == "fresh" and (stage.optimizer == "muon" or rate > GENTLE):
        log.warn(
            f"at finetuning.learning_rate {rate:g} with {stage.optimizer} stage 3 loses what starting weights know; "
            "--preset pretrained has gentler steps"
        )
    return {"source": data.start.source, "sha256": data.start.sha256} | filled.as_json()


def load_in_turn(config: RunConfig, folder: RunFolder | None, log: RunLog, ranks: Ranks) -> sources.Dataset:
    """The image set of `config`, by rank 0 first; the others take what its scan found, where they see the same disk."""
    caches = ranks.agreed(lambda: [str(folder.path.absolute() / name) for name in SCANS] if folder else [])
    with contextlib.ExitStack() as stack:

        def load() -> sources.Dataset:
            if ranks.leads:
                return load_images(config, folder, log, folder.path / SCANS[0] if folder else None)
            own = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            for cache in filter(os.path.isfile, caches):
                shutil.copy(cache, own)
            return load_images(config, folder, log, own / SCANS[0])

        return ranks.in_turn(load)


def load_images(
    config: RunConfig, folder: RunFolder | None, log: RunLog, cache: Path | None
) -> sources.Dataset:
    """The image set of `config`; what cannot be used is listed in the run folder, also where nothing can."""
    try:
        return sources.load(
            config.data,
            config.dataset,
            loader=config.loader,
            cache=cache,
            progress=log.counter(),
        )
    except DataError as error:
        log.finish()
        if folder and getattr(error, "quarantine", None):
            listed = folder.path / "quarantine.csv"
            write_quarantine(listed, error.quarantine)
            count = counted(len(error.quarantine), "file")
            raise DataError(f"{error}. {listed} lists the {count} that cannot be used") from None
        raise


def announce(log: RunLog, dataset: sources.Dataset, folder: RunFolder | None) -> None:
    """Say what was loaded, and what cannot be used."""
    of = dataset.train
    log.say(
        f"{dataset.name}: {len(of.labels):,} training images, {len(of.classes)} classes, "
        f"{of.images.width} x {of.images.height} px"
        + (f", {len(dataset.test.labels):,} test images" if dataset.test else ", no test set")
    )
    log.say(f"loader {dataset.loader}")
    for warning in dataset.warnings:
        log.warn(warning)
    if folder:
        write_quarantine(folder.path / "quarantine.csv", dataset.quarantine)
    if dataset.quarantine:
        where = f". Listed in {folder.path / 'quarantine.csv'}" if folder else ""
        log.warn(f"{cannot_be_used(dataset.quarantine)}{where}")


def attack_of(
    settings: dict[str, Any], dataset: sources.Dataset, device: str = "cpu", progress: Any = None
) -> Poisoning | None:
    """The attack that a resolved configuration asks for, on its image set; None where it asks for none."""
    if settings["attack"] == "none":
        return None
    images = dataset.train.images
    return plan(
        settings["attack"],
        dataset.train.labels,
        dataset.train.classes,
        (images.height, images.width),
        rate=settings["poison_rate"],
        rate_of=settings["poison_of"],
        target=settings["target"],
        seed=settings["seed"],
        images=images,
        device=device,
        progress=progress,
    )
