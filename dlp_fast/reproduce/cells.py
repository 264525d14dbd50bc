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
from dlp_fast.checkpoint import write_atomic
from dlp_fast.config import FinetuneConfig, build, merge, read_preset
from dlp_fast.data import sources
from dlp_fast.data.storage import ResidentImages
from dlp_fast.defenses.registry import DEFENSES
from dlp_fast.defenses.setting import Setting
from dlp_fast.engine.batches import TrainingData, pixel_statistics, training_order
from dlp_fast.engine.device import choose_compute
from dlp_fast.engine.session import Session
from dlp_fast.errors import ConfigError, DataError
from dlp_fast.models.registry import build_model
from dlp_fast.reproduce.scales import Scale
from dlp_fast.runfolder import environment, fingerprint
from dlp_fast.runlog import RunLog
from dlp_fast.scoring import TestSet, per_class_accuracy
from dlp_fast.stages.finetuning import finetuning

CLEAN_SHARE = (
    0.05  # of the test set: what rivals that need clean images are given; not tested on, by any method
)
VERSION = 2  # of the methods: cells of an older one are not mixed with new ones
LEAST_CLEAN = 40  # images of it, however small the test set
CLEAN_LABEL = ("sig", "lca")
OURS = ("dlp_fast", "dlp")


@dataclass(frozen=True)
class Cell:
    """method: dlp_fast (our default), dlp (as published), none (no defence), clean (trained on the clean set), or a
    rival; attack: or "none"; rate: of all images, or of the target class for clean-label attacks; gamma: filtering
    rate; order: of the stages; model: network, none: the scale's.
    """

    method: str
    attack: str
    seed: int
    rate: float = 0.1
    gamma: float = 0.01
    order: str = "sl-au-assft"
    model: str | None = None

    def name(self) -> str:
        """For a file."""
        values = [str(v) for v in dataclasses.astuple(self)]
        return "-".join(values).replace(":", "_").replace("/", "_")


class Bench:
    """The data, the scale and the place of one reproduction."""

    def __init__(
        self, data: str, scale_name: str, scale: Scale, out: Path, log: RunLog, device: str = "auto"
    ):
        self.scale, self.out, self.log = scale, out, log
        self.compute = choose_compute(device, "auto")
        self.dataset = self._load(data)
        settings = dataclasses.asdict(scale)
        del settings["attacks"]  # cells of one attack do not depend on which others are run
        self._facts = {"version": VERSION, "data": data, "scale": scale_name, "settings": settings}
        self._check()

    def _load(self, data: str) -> sources.Dataset:
        dataset = sources.load(data, progress=self.log.counter())
        if dataset.test is None:
            raise DataError(
                f"{data} has no test set; a reproduction measures on one. Give DIR/train and DIR/test."
            )
        chosen = []
        for of, limit in ((dataset.train, self.scale.images), (dataset.test, self.scale.test)):
            chosen.append(_part(of, limit))
        return dataclasses.replace(dataset, train=chosen[0], test=chosen[1])

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

    def parts_of_test(self) -> tuple[Tensor, Tensor]:
        """(ids of the test set that are tested on, ids of the clean subset that rivals are given)."""
        n = len(self.dataset.test.labels)
        order = training_order(0, 21, 0, n)
        few = min(n // 2, max(LEAST_CLEAN, round(CLEAN_SHARE * n)))
        return order[few:].sort().values, order[:few].sort().values

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
        _, few = self.parts_of_test()
        test = self.dataset.test
        images = ResidentImages(test.images.get(few)).to(self.compute.device)
        return dataclasses.replace(data, images=images, labels=test.labels[few])

    def measure(self, model: nn.Module, data: TrainingData, attack: Poisoning | None) -> dict[str, Any]:
        ids, _ = self.parts_of_test()
        test = self.dataset.test
        images = ResidentImages(test.images.get(ids)).to(self.compute.device)
        of = TestSet(images, test.labels[ids], attack and attack.table, attack and attack.target)
        figures = of.measure(model, self.compute.device, data.mean, data.std)
        of_class = per_class_accuracy(model, of, data, len(self.dataset.train.classes))
        return figures | {"per_class_accuracy": of_class}

    # what is run

    def network(self, cell: Cell) -> str:
        return cell.model or self.scale.model

    def victim(self, cell: Cell, attack: Poisoning | None, poisoned: bool) -> tuple[nn.Module, TrainingData]:
        """The recipe of our stage 3 on all images with all labels; trained once for all the rivals."""
        data = self.training_data(cell, attack, poisoned)
        size = max(data.images.height, data.images.width)
        model = build_model(self.network(cell), data.classes, size, cell.seed + 1).to(self.compute.device)
        key = ["victim", cell.attack if poisoned else "none", cell.rate, cell.seed, self.network(cell)]
        file = (
            self.out
            / "victims"
            / (hashlib.sha256(json.dumps(key).encode()).hexdigest()[:24] + ".safetensors")
        )
        if file.is_file():
            model.load_state_dict(load_file(file))
            return model.to(self.compute.device), data
        everything, nobody = torch.arange(len(data)), torch.empty(0, dtype=torch.int64)
        config = FinetuneConfig(
            **{k: v for k, v in self.scale.config.get("finetune", {}).items() if k != "rounds"}
        )
        with Session(cell.seed, self.compute, self.log) as session:
            finetuning(session, model, data, everything, nobody, config)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(file, save({k: v.contiguous() for k, v in model.state_dict().items()}))
        return model, data

    def configured(self, cell: Cell) -> dict[str, Any]:
        """RunConfig values of our method for `cell`."""
        values = merge(read_preset("paper"), {"finetune": {"steps": self.scale.paper_steps}})
        if cell.method == "dlp_fast":
            values = dict(self.scale.config)
        elif "supervised" in self.scale.config:  # smoke: as few epochs, for either
            values = merge(values, {k: self.scale.config[k] for k in ("supervised", "unlearn")})
        over = {
            "data": "reproduction",
            "attack": cell.attack,
            "poison_rate": cell.rate,
            "seed": cell.seed,
            "device": self.compute.device.type,
            "order": cell.order,
            "model": self.network(cell),
            "filter": {"rate": cell.gamma},
        }
        return merge(values, over)

    def run(self, cell: Cell) -> dict[str, Any]:
        """The figures of `cell`: from its file, or measured and kept."""
        file = self.out / "cells" / f"{cell.name()}.json"
        if file.is_file():
            return json.loads(file.read_text())
        began = time.monotonic()
        figures = self._measure(cell)
        figures = {
            "cell": dataclasses.asdict(cell),
            **figures,
            "seconds": time.monotonic() - began,
            "environment": environment(self.compute.describe()),
        }
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(file, json.dumps(figures, indent=1).encode())
        return figures

    def _measure(self, cell: Cell) -> dict[str, Any]:
        if cell.method in OURS:
            ids, _ = self.parts_of_test()
            test = self.dataset.test
            tested = dataclasses.replace(
                test,
                images=ResidentImages(test.images.get(ids)),
                labels=test.labels[ids],
                paths=tuple(test.paths[i] for i in ids.tolist()),
                sha256=tuple(test.sha256[i] for i in ids.tolist()),
            )
            dataset = dataclasses.replace(self.dataset, test=tested)
            result = execute(build(self.configured(cell), "reproduce"), dataset, quiet=True, keep=False)
            last = list(result.results["stages"].values())[-1]
            kept = ("stages", "filter", "verdict")
            return {k: last[k] for k in ("clean_accuracy", "attack_success_rate")} | {
                k: result.results[k] for k in kept
            }
        attack = self.attack(cell)
        if cell.method == "clean":
            model, data = self.victim(cell, attack, poisoned=False)
            return self.measure(model, data, attack)
        model, data = self.victim(cell, attack, poisoned=True)
        if cell.method != "none":
            size = max(data.images.height, data.images.width)

            def new_model() -> nn.Module:
                return build_model(self.network(cell), data.classes, size, cell.seed + 2).to(
                    self.compute.device
                )

            with Session(cell.seed, self.compute, self.log) as session:
                setting = Setting(session, model, data, self.clean_subset(data), new_model, self.scale.effort)
                model = DEFENSES[cell.method](setting)
        return self.measure(model, data, attack)


def _part(of: sources.ImageSet, limit: int | None) -> sources.ImageSet:
    """The first limit // classes images of each class."""
    if limit is None or limit >= len(of.labels):
        return of
    classes = len(of.classes)
    parts = [(of.labels == c).nonzero().flatten()[: limit // classes] for c in range(classes)]
    ids = torch.cat(parts).sort().values
    return dataclasses.replace(
        of,
        images=ResidentImages(of.images.get(ids)),
        labels=of.labels[ids],
        paths=tuple(of.paths[i] for i in ids.tolist()),
        sha256=tuple(of.sha256[i] for i in ids.tolist()),
        conflicts=(),
    )
