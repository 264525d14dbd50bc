"""One cell of a table: a method, an attack, a seed. Each is run once, kept as JSON, and shared by every table."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from dlp_fast.api import execute
from dlp_fast.attacks.poisoning import Poisoning, plan
from dlp_fast.config import DataConfig, FinetuningConfig, build, merge, read_preset
from dlp_fast.data import sources
from dlp_fast.data.storage import ResidentImages
from dlp_fast.defenses.registry import DEFENSES
from dlp_fast.defenses.setting import Setting
from dlp_fast.engine.batches import TrainingData, pixel_statistics, training_order
from dlp_fast.engine.device import choose_compute
from dlp_fast.engine.session import Session
from dlp_fast.errors import ConfigError, DataError, NumericError
from dlp_fast.evaluation.metrics import TestSet, per_class_accuracy
from dlp_fast.models.registry import new_model
from dlp_fast.reproduce.scales import Scale
from dlp_fast.runs.environment import environment
from dlp_fast.runs.files import write_atomic
from dlp_fast.runs.log import RunLog
from dlp_fast.runs.writer import fingerprint
from dlp_fast.selection.labels import Labels
from dlp_fast.stages.finetuning import finetuning

MOST_OF_TEST = 0.25  # share of the test set that may become the clean images that rivals are given
VERSION = 12  # of the methods: cells of an older one are not mixed with new ones
LEAST_CLEAN = 40  # images of it, however small the test set
CLEAN_LABEL = ("sig", "lca")
PRESET_OF = {"dlp": "paper", "dlp_per_class": "paper-per-class"}
OURS = ("dlp_fast", *PRESET_OF)
FROM_SCRATCH = ("abl",)  # trains its own network, so the victim's training is not its cost


@dataclass(frozen=True)
class Cell:
    """method: dlp_fast (our default), dlp or dlp_per_class (as published, read in either way, see
    `detection.clean_of`), none (no defence), clean (trained on the clean set), or a rival; attack: or "none"; rate: of
    all images, or of the target class for clean-label attacks; gamma: filtering rate; order: of the stages; model:
    network, none: the scale's.
    """

    method: str
    attack: str
    seed: int
    rate: float = 0.1
    gamma: float = 0.01
    order: str = "supervised-unlearning-finetuning"
    model: str | None = None

    def name(self) -> str:
        """For a file."""
        values = [str(v) for v in dataclasses.astuple(self)]
        return "-".join(values).replace(":", "_").replace("/", "_")


class Bench:
    """The data, the scale and the place of one reproduction; at_once: cells that share the machine with each other;
    machines: where the cells that were asked for have been run.
    """

    at_once = 1

    def __init__(
        self,
        data: str,
        scale_name: str,
        scale: Scale,
        out: Path,
        log: RunLog,
        device: str = "auto",
        precision: str = "auto",
    ):
        self.scale, self.out, self.log, self.precision = scale, out, log, precision
        self.compute = choose_compute(device, precision)
        self.machines: set[str] = set()
        self.dataset, self.clean_images = self._load(data)
        settings = dataclasses.asdict(scale)
        del settings["attacks"], settings["networks"]  # cells do not depend on which others are run
        self._facts = {
            "version": VERSION,
            "data": self.dataset.name,
            "scale": scale_name,
            "settings": settings,
        }
        self._check()

    def _load(self, data: str) -> tuple[sources.Dataset, sources.ImageSet]:
        """(what is trained and tested on, the clean images that rivals are given)."""
        options = DataConfig(image_size=self.scale.image_size, fit="crop")  # as it always was
        dataset = sources.load(data, options, progress=self.log.counter())
        if dataset.test is None:
            raise DataError(
                f"{data} has no test set; a reproduction measures on one. Give DIR/train and DIR/test."
            )
        train, test = _part(dataset.train, self.scale.images), dataset.test
        wanted = round(self.scale.clean_share * len(train.labels))
        tested, few = parts_of_test(len(test.labels), wanted)
        return (
            dataclasses.replace(dataset, train=train, test=_part(_chosen(test, tested), self.scale.test)),
            _chosen(test, few),
        )

    def _check(self) -> None:
        """A folder holds one reproduction: another scale or image set is refused, never mixed."""
        train = self.dataset.train
        facts = {**self._facts, "images": fingerprint(train.paths, train.labels, train.sha256)}
        facts["settings"] = json.loads(json.dumps(facts["settings"]))
        file = self.out / "reproduction.json"
        if file.is_file():
            kept = json.loads(file.read_text())
            different = sorted(k for k in facts if kept.get(k) != facts[k])
            if different:
                raise ConfigError(
                    f"{self.out} holds a reproduction with another {', '.join(different)}. Choose another --out; "
                    "nothing is overwritten."
                )
            return
        self.out.mkdir(parents=True, exist_ok=True)
        write_atomic(file, json.dumps(facts, indent=1).encode())

    # what is measured on

    def attack(self, cell: Cell) -> Poisoning | None:
        if cell.attack == "none":
            return None
        train = self.dataset.train
        return plan(
            cell.attack,
            train.labels,
            train.classes,
            (train.images.height, train.images.width),
            rate=cell.rate,
            rate_of="auto",
            target="0",
            seed=cell.seed,
            images=train.images,
            device=str(self.compute.device),
            progress=self.log.counter(),
        )

    def training_data(self, cell: Cell, attack: Poisoning | None, poisoned: bool = True) -> TrainingData:
        train = self.dataset.train
        images, labels = train.images.to(self.compute.device), train.labels
        if attack and poisoned:
            images, labels = attack.poison(images), attack.labels
        mean, std = pixel_statistics(images)
        classes = len(train.classes)
        return TrainingData(
            images, labels, classes, mean, std, self.dataset.flip, cell.seed, self.compute.device
        )

    def clean_subset(self, data: TrainingData) -> TrainingData:
        few = self.clean_images
        return dataclasses.replace(data, images=few.images.to(self.compute.device), labels=few.labels)

    def measure(self, model: nn.Module, data: TrainingData, attack: Poisoning | None) -> dict[str, Any]:
        test = self.dataset.test
        images = test.images.to(self.compute.device)
        of = TestSet(images, test.labels, attack.triggered_test(images, test.labels) if attack else None)
        figures = of.measure(model, self.compute.device, data.mean, data.std)
        of_class = per_class_accuracy(model, of, data, len(self.dataset.train.classes))
        return figures | {"per_class_accuracy": of_class}

    # what is run

    def network(self, cell: Cell) -> str:
        return cell.model or self.scale.model

    def victim(
        self, cell: Cell, attack: Poisoning | None, poisoned: bool
    ) -> tuple[nn.Module, TrainingData, float]:
        """The recipe of our stage 3 on all images with all labels, trained once for all the rivals; the data; and the
        seconds of its training, which every rival is charged.
        """
        data = self.training_data(cell, attack, poisoned)
        model = new_model(self.network(cell), data, cell.seed + 1)
        key = ["victim", cell.attack if poisoned else "none", cell.rate, cell.seed, self.network(cell)]
        file = (
            self.out
            / "victims"
            / (hashlib.sha256(json.dumps(key).encode()).hexdigest()[:24] + ".safetensors")
        )
        taken = file.with_suffix(".json")
        if file.is_file() and taken.is_file():
            model.load_state_dict(load_file(file))
            return model.to(self.compute.device), data, json.loads(taken.read_text())["seconds"]
        everything, nobody = torch.arange(len(data)), torch.empty(0, dtype=torch.int64)
        config = FinetuningConfig(
            **{k: v for k, v in self.scale.config.get("finetuning", {}).items() if k != "rounds"}
        )
        began = time.monotonic()
        labels = Labels(everything, nobody, torch.zeros(len(data), dtype=torch.bool))
        with Session(self.compute, self.log) as session:
            finetuning(session, model, data, labels, config)
        seconds = time.monotonic() - began
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(taken, json.dumps({"seconds": seconds, "of": key}).encode())
        write_atomic(file, save({k: v.contiguous() for k, v in model.state_dict().items()}))
        return model, data, seconds

    def configured(self, cell: Cell) -> dict[str, Any]:
        """RunConfig values of our method for `cell`."""
        values = dict(self.scale.config)
        if cell.method in PRESET_OF:
            steps = {"finetuning": {"steps": self.scale.paper_steps}}
            short = {
                k: v for k, v in self.scale.config.items() if k != "finetuning"
            }  # smoke: as few epochs, for either
            values = merge(merge(read_preset(PRESET_OF[cell.method]), steps), short)
        over = {
            "data": "reproduction",
            "attack": cell.attack,
            "poison_rate": cell.rate,
            "seed": cell.seed,
            "device": self.compute.device.type,
            "precision": self.precision,
            "order": cell.order,
            "model": self.network(cell),
            "detection": {"rate": cell.gamma},
        }
        return merge(values, over)

    def run(self, cell: Cell) -> dict[str, Any]:
        """The figures of `cell`: from its file, or measured and kept. A method that diverges is a result too:
        {"failed": why} stands in place of the figures.
        """
        file = self.out / "cells" / f"{cell.name()}.json"
        if file.is_file():
            return self.noted(json.loads(file.read_text()))
        attack = self.attack(cell)  # what the attacker spends is nobody's cost
        try:
            figures = self._ours(cell, attack) if cell.method in OURS else self._theirs(cell, attack)
        except NumericError as error:
            self.log.warn(f"{cell.name()}: {error}")
            figures = {"failed": str(error)}
        figures = {"cell": dataclasses.asdict(cell), **figures, "environment": self.environment()}
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(file, json.dumps(figures, indent=1).encode())
        return self.noted(figures)

    def environment(self) -> dict[str, Any]:
        return environment(self.compute.describe()) | {"at_once": self.at_once}

    def noted(self, figures: dict[str, Any]) -> dict[str, Any]:
        """`figures`, with the machine they are of kept for the head of the page."""
        of = figures.get("environment")
        if of is None:
            self.machines.add("a machine that its cells do not name")
        else:
            beside = f", {of['at_once']} cells at once" if of.get("at_once", 1) > 1 else ""
            self.machines.add(f"{of['device']}, torch {of['torch']}, threads: {of['threads']}{beside}")
        return figures

    def _ours(self, cell: Cell, attack: Poisoning | None) -> dict[str, Any]:
        began = time.monotonic()
        config = build(self.configured(cell), "reproduce")
        result = execute(config, self.dataset, quiet=True, keep=False)
        seconds = time.monotonic() - began
        data = self.training_data(cell, attack)
        kept = {k: result.results[k] for k in ("stages", "detection", "verdict")}
        return self.measure(result.model.net, data, attack) | kept | {"seconds": seconds}

    def _theirs(self, cell: Cell, attack: Poisoning | None) -> dict[str, Any]:
        model, data, seconds = self.victim(cell, attack, poisoned=cell.method != "clean")
        if cell.method in DEFENSES:

            def another() -> nn.Module:
                return new_model(self.network(cell), data, cell.seed + 2)

            began = time.monotonic()
            with Session(self.compute, self.log) as session:
                setting = Setting(session, model, data, self.clean_subset(data), another, self.scale.effort)
                model = DEFENSES[cell.method](setting)
            own = time.monotonic() - began
            seconds = own if cell.method in FROM_SCRATCH else seconds + own
        return self.measure(model, data, attack) | {"seconds": seconds}


def parts_of_test(test: int, wanted: int) -> tuple[Tensor, Tensor]:
    """(ids of the test set that are tested on, ids of the `wanted` clean images that rivals are given)."""
    order = training_order(0, 21, 0, test)
    few = min(test // 2, max(LEAST_CLEAN, min(wanted, round(MOST_OF_TEST * test))))
    return order[few:].sort().values, order[:few].sort().values


def _chosen(of: sources.ImageSet, ids: Tensor) -> sources.ImageSet:
    return dataclasses.replace(
        of,
        images=ResidentImages(of.images.get(ids)),
        labels=of.labels[ids],
        paths=tuple(of.paths[i] for i in ids.tolist()),
        sha256=tuple(of.sha256[i] for i in ids.tolist()),
        conflicts=(),
    )


def _part(of: sources.ImageSet, limit: int | None) -> sources.ImageSet:
    """The first limit // classes images of each class."""
    if limit is None or limit >= len(of.labels):
        return of
    classes = len(of.classes)
    parts = [(of.labels == c).nonzero().flatten()[: limit // classes] for c in range(classes)]
    return _chosen(of, torch.cat(parts).sort().values)
