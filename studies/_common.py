"""What the studies share: a part of an image set, the attack on it, stage 1 and stage 3 alone, arms of a comparison."""

from __future__ import annotations

import argparse
import dataclasses
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.common import add_out, write_result
from dlp_fast.attacks.poisoning import Poisoning, plan
from dlp_fast.config import DataConfig, DetectionConfig, FinetuningConfig, SupervisedConfig, merge
from dlp_fast.data import sources
from dlp_fast.data.storage import ResidentImages
from dlp_fast.detection.detect import Detection, look_at_curves
from dlp_fast.detection.propose import Observed
from dlp_fast.detection.suspicion import by_groups
from dlp_fast.engine.batches import TrainingData, pixel_statistics, training_order
from dlp_fast.engine.device import choose_compute
from dlp_fast.engine.session import Session
from dlp_fast.evaluation.metrics import TestSet
from dlp_fast.models.registry import new_model
from dlp_fast.reproduce.cells import Bench, Cell
from dlp_fast.reproduce.scales import ATTACKS, SCALES
from dlp_fast.reproduce.tables import rate_of
from dlp_fast.runs.log import RunLog
from dlp_fast.selection.labels import Labels
from dlp_fast.stages.finetuning import Finetuned, finetuning
from dlp_fast.stages.supervised import Supervised, supervised

STREAM = 9  # of the draw of images, beside those of the stages
NETWORK = "wrn-16-1"
ARM = ("clean_accuracy", "attack_success_rate", "per_class_accuracy")


@dataclass(frozen=True)
class Prepared:
    """A part of an image set, with the attack on it made.

    data: as the stages see it; poisoned: bool [n], all False without an attack; attack: None without one; test: what
    is measured on.
    """

    data: TrainingData
    poisoned: Tensor
    attack: Poisoning | None
    test: TestSet

    def measure(self, model: nn.Module) -> dict[str, float | None]:
        """Clean accuracy and attack success rate of `model`, 0 to 1; None for the latter without an attack."""
        return self.test.measure(model, self.data.device, self.data.mean, self.data.std)


def subset(labels: Tensor, classes: int, images: int | None, seed: int) -> Tensor:
    """images // classes ids of each class, int64, ascending, drawn by `seed`; None: all."""
    if images is None:
        return torch.arange(len(labels))
    order = training_order(seed, STREAM, 0, len(labels))
    return torch.cat([order[labels[order] == c][: images // classes] for c in range(classes)]).sort().values


def prepare(
    dataset: sources.Dataset,
    attack: str,
    rate: float,
    seed: int,
    images: int | None = None,
    tested: int | None = None,
) -> Prepared:
    """`images` training images of `dataset`, the same number of each class, with `attack` ("none": clean) at `rate` of
    all or, where it keeps labels, of the target class. `seed` draws the images and the attack; the target class is
    number `seed` mod the number of classes. `tested`: test images that are measured on, None: all.
    """
    train, device = dataset.train, choose_compute("auto", "auto").device
    classes = len(train.classes)
    ids = subset(train.labels, classes, images, seed)
    pixels, labels = train.images, train.labels[ids]
    if images is not None:
        pixels = ResidentImages(pixels.get(ids))
    poisoned, of = torch.zeros(len(labels), dtype=torch.bool), None
    if attack != "none":
        of = plan(
            attack,
            labels,
            train.classes,
            (pixels.height, pixels.width),
            rate=rate,
            rate_of="auto",
            target=str(seed % classes),
            seed=seed,
            images=pixels,
            device=str(device),
        )
        poisoned, labels = of.poisoned, of.labels
    pixels = pixels.to(device)
    pixels = of.poison(pixels) if of else pixels
    mean, std = pixel_statistics(pixels)
    data = TrainingData(pixels, labels, classes, mean, std, dataset.flip, seed, device)
    few = subset(dataset.test.labels, classes, tested, seed)
    seen = dataset.test.images if tested is None else ResidentImages(dataset.test.images.get(few))
    shown = dataset.test.labels[few]
    test = TestSet(seen, shown, of and of.triggered_test(seen, shown))
    return Prepared(data, poisoned, of, test)


def train_stage1(
    data: TrainingData,
    config: SupervisedConfig | None = None,
    network: str = NETWORK,
    precision: str = "auto",
) -> tuple[nn.Module, Supervised]:
    """Stage 1 on `data`, weights and order by its seed: (the network, its learning curves)."""
    model = new_model(network, data, data.seed)
    compute = choose_compute("auto", precision)
    with Session(compute, RunLog(None, quiet=True)) as session:
        return model, supervised(session, model, data, config or SupervisedConfig())


def detected(entropy: Tensor, loss: Tensor, labels: Tensor, classes: int) -> Detection:
    """What learning curves alone say, entropy (bits), loss (nats): fp32 [epochs, n]; nothing is verified."""
    no_images = ResidentImages(torch.zeros(len(labels), 8, 8, 3, dtype=torch.uint8))
    seen = Observed(no_images, labels, classes, entropy, loss)
    options = DetectionConfig(proposals=("learning_curves",))
    decision = look_at_curves(seen, options)
    return Detection(by_groups(decision.found, entropy, loss, options), decision)


def train_stage3(
    data: TrainingData,
    config: FinetuningConfig,
    network: str = NETWORK,
    suspected: Tensor | None = None,
    snapshots: int = 0,
) -> tuple[nn.Module, Finetuned]:
    """Stage 3 from fresh weights, as the pipeline begins it: all labels are used but those of the `suspected`, bool
    [n], whose images come without theirs. `snapshots`: times that every image is scored on the way.
    """
    model = new_model(network, data, data.seed + 1)
    suspected = torch.zeros(len(data), dtype=torch.bool) if suspected is None else suspected
    labels = Labels((~suspected).nonzero().flatten(), suspected.nonzero().flatten(), suspected)
    with Session(choose_compute("auto", "auto"), RunLog(None, quiet=True)) as session:
        return model, finetuning(session, model, data, labels, config, snapshots)


def held_out(
    data: str, image_size: int | None, images: int, held: int, seed: int
) -> tuple[TrainingData, TrainingData]:
    """Two parts of a clean training set: the first `images` of each class, to train on, and the `held` that follow. The
    statistics of the pixels are those of the first.
    """
    dataset = sources.load(data, DataConfig(image_size=image_size))
    train, classes = dataset.train, len(dataset.train.classes)
    of_class = [(train.labels == c).nonzero().flatten() for c in range(classes)]
    first = torch.cat([ids[:images] for ids in of_class]).sort().values
    then = torch.cat([ids[images : images + held] for ids in of_class]).sort().values
    mean, std = pixel_statistics(ResidentImages(train.images.get(first)))
    device = choose_compute("auto", "auto").device

    def part(ids: Tensor) -> TrainingData:
        pixels = ResidentImages(train.images.get(ids))
        return TrainingData(pixels, train.labels[ids], classes, mean, std, dataset.flip, seed, device)

    return part(first), part(then)


def add_arms(
    parser: argparse.ArgumentParser, arms: tuple[str, ...], attacks: tuple[str, ...] = ATTACKS
) -> None:
    """Options of `compare_arms`."""
    parser.add_argument(
        "--data", required=True, metavar="DIR", help="image folder, clean, with train and test"
    )
    add_out(parser, "folder of the cells and of result.json", "FOLDER")
    parser.add_argument("--scale", choices=SCALES, default="small", help="of dlp_fast.reproduce")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of attack and training")
    parser.add_argument("--attacks", nargs="+", default=list(attacks), choices=ATTACKS, help="which attacks")
    parser.add_argument("--arms", nargs="+", default=list(arms), choices=arms, help="what is compared")


def compare_arms(
    options: argparse.Namespace, arms: dict[str, dict[str, Any]], method: str = "dlp_fast"
) -> None:
    """Cells of a reproduction under several configurations: writes --out/result.json, and keeps what is done in
    --out/<arm>/cells, so that the same command goes on where it stopped.

    `arms`: {name: {"config": sections of RunConfig, and any other field of `Scale`, or "method": of `Cell`}}.
    """
    base = SCALES[options.scale]
    rows = []
    for arm in options.arms:
        over = dict(arms[arm])
        which = over.pop("method", method)
        over["config"] = merge(base.config, over.get("config", {}))
        folder = options.out / arm.replace(" ", "_")
        bench = Bench(
            options.data, options.scale, dataclasses.replace(base, **over), folder, RunLog(None, quiet=True)
        )
        for seed, attack in product(options.seeds, options.attacks):
            found = bench.run(Cell(which, attack, seed, rate=rate_of(attack)))
            rows.append({"arm": arm, "attack": attack, "seed": seed} | {k: found.get(k) for k in ARM})
            print(arm, attack, seed, *(found.get(k) for k in ARM[:2]), flush=True)
    file = options.out / "result.json"
    write_result(file, {"scale": options.scale, "rows": rows}, choose_compute("auto", "auto").describe())
