"""The whole method beside what a user would do otherwise, on one image folder, one network, one recipe.

    python benchmarks/end_to_end.py --data DIR --out benchmarks/results/end_to_end_cifar10_cpu_DATE.json

Rows, for each attack: `default` and any preset, such as `paper` (the stages of dlp_fast), `no defence` (the recipe of
our stage 3, labels as given, all images), and once `clean set` (the same recipe on the images before the attack; its
attack success rate is natural confusion). Rows that the result file holds already are not run again.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from dlp_fast.checkpoint import write_atomic
from dlp_fast.runfolder import environment
from dlp_fast.runlog import RunLog
from dlp_fast.scoring import TestSet

from dlp_fast.api import execute
from dlp_fast.attacks.poisoning import Poisoning, plan
from dlp_fast.config import FinetuneConfig, RunConfig, build, merge, read_preset
from dlp_fast.data import sources
from dlp_fast.engine.batches import TrainingData, pixel_statistics
from dlp_fast.engine.device import choose_compute
from dlp_fast.engine.session import Session
from dlp_fast.models.registry import build_model
from dlp_fast.stages.finetuning import finetuning

RATES = {
    "badnets": 0.1,
    "blended": 0.1,
    "trojannn": 0.1,
    "sig": 0.5,
    "lca": 0.5,
}  # sig: of the target class, whose labels stay


@dataclass
class Options:
    data: str
    """Image folder, clean, with train and test."""
    out: Path
    """Result file, JSON; a Markdown table is written beside it."""
    attacks: tuple[str, ...] = ("badnets", "blended", "sig")
    """Which attacks."""
    rows: tuple[str, ...] = ("default", "clean set", "no defence", "paper")
    """Which rows, in this order."""
    paper_steps: int = 400
    """Steps of FixMatch in the row `paper` (16384 in the preset: hours on a CPU)."""
    threads: int = 2
    """CPU threads."""
    seed: int = 0
    """Seed of everything."""
    image_size: int | None = None
    """Side in pixels; unset: the images' own."""


def attack_plan(options: Options, dataset: sources.Dataset, attack: str) -> Poisoning:
    images = dataset.train.images
    return plan(
        attack,
        dataset.train.labels,
        dataset.train.classes,
        (images.height, images.width),
        rate=RATES[attack],
        rate_of="auto",
        target="0",
        seed=options.seed,
        images=images,
        device=str(choose_compute("auto", "auto").device),
    )


def defended(options: Options, dataset: sources.Dataset, attack: str, preset: str) -> dict[str, Any]:
    values: dict[str, Any] = {"data": options.data, "attack": attack, "poison_rate": RATES[attack]}
    values |= {"seed": options.seed, "threads": options.threads}
    if preset != "default":
        values = merge(values, read_preset(preset))
    if preset == "paper":
        values = merge(values, {"finetune": {"steps": options.paper_steps}})
    result = execute(build(values, "benchmark"), dataset, quiet=True, keep=False)
    return {k: result.results[k] for k in ("stages", "filter", "verdict")}


def recipe(
    options: Options, dataset: sources.Dataset, attacks: list[Poisoning], poisoned: bool
) -> dict[str, Any]:
    """Our stage 3 on all images with all labels; measured with every attack in `attacks`."""
    config = RunConfig()
    compute = choose_compute(config.device, config.precision)
    images, labels = dataset.train.images.to(compute.device), dataset.train.labels
    if poisoned:
        images, labels = attacks[0].poison(images), attacks[0].labels
    mean, std = pixel_statistics(images)
    classes = len(dataset.train.classes)
    data = TrainingData(images, labels, classes, mean, std, dataset.flip, options.seed, compute.device)
    size = max(images.height, images.width)
    model = build_model(config.model, classes, size, options.seed + 1).to(compute.device)
    everything, nothing = torch.arange(len(labels)), torch.empty(0, dtype=torch.int64)
    with Session(options.seed, compute, RunLog(None, quiet=True)) as session:
        result = finetuning(session, model, data, everything, nothing, FinetuneConfig())
    figures: dict[str, Any] = {"seconds": result.seconds, "steps": result.steps, "attack_success_rate": {}}
    for attack in attacks:
        test = TestSet(dataset.test.images, dataset.test.labels, attack.table, attack.target)
        measured = test.measure(model, compute.device, mean, std)
        figures["clean_accuracy"] = measured["clean_accuracy"]
        figures["attack_success_rate"][attack.trigger.name] = measured["attack_success_rate"]
    return figures


def table(saved: dict[str, Any]) -> str:
    """Markdown of all rows."""
    lines = [
        "| attack | row | CA % | ASR % | after stage 1 | after unlearning | precision poisoned, clean, trusted | s |",
        "|---|---|---:|---:|---|---|---|---:|",
    ]
    for row in saved["rows"]:
        if "stages" in row:
            of = row["stages"]
            pair = {
                k: f"{100 * v['clean_accuracy']:.1f}, {100 * v['attack_success_rate']:.1f}"
                for k, v in of.items()
            }
            chosen = [row["filter"][f"{name}_precision"] for name in ("poisoned", "clean", "trusted")]
            precisions = ", ".join("–" if value is None else f"{value:.3f}" for value in chosen)
            last = list(of.values())[-1]
            lines.append(
                f"| {row['attack']} | {row['row']} | {100 * last['clean_accuracy']:.2f} | "
                f"{100 * last['attack_success_rate']:.2f} | {pair['supervised']} | {pair['unlearning']} | "
                f"{precisions} | {row['seconds']:.0f} |"
            )
        else:
            for attack, rate in row["attack_success_rate"].items():
                lines.append(
                    f"| {attack} | {row['row']} | {100 * row['clean_accuracy']:.2f} | {100 * rate:.2f} | | | | "
                    f"{row['seconds']:.0f} |"
                )
    return "\n".join(lines) + "\n"


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    torch.set_num_threads(options.threads)
    dataset = sources.load(options.data, image_size=options.image_size)
    saved: dict[str, Any] = json.loads(options.out.read_text()) if options.out.is_file() else {"rows": []}
    saved["environment"] = environment(choose_compute("auto", "auto").describe())
    saved["images"] = {"train": len(dataset.train.labels), "test": len(dataset.test.labels)}
    saved["options"] = {"paper_steps": options.paper_steps, "threads": options.threads, "seed": options.seed}
    plans = {attack: attack_plan(options, dataset, attack) for attack in options.attacks}
    cells = [
        (attack, row)
        for row in options.rows
        for attack in (("all",) if row == "clean set" else options.attacks)
    ]
    for attack, row in cells:
        if any((r["attack"], r["row"]) == (attack, row) for r in saved["rows"]):
            continue
        began = time.monotonic()
        if row == "clean set":
            figures = recipe(options, dataset, list(plans.values()), poisoned=False)
        elif row == "no defence":
            figures = recipe(options, dataset, [plans[attack]], poisoned=True)
        else:
            figures = defended(options, dataset, attack, row)
        saved["rows"].append({"attack": attack, "row": row, **figures, "seconds": time.monotonic() - began})
        write_atomic(options.out, json.dumps(saved, indent=1).encode())
        write_atomic(options.out.with_suffix(".md"), table(saved).encode())
        print(table({"rows": saved["rows"][-1:]}).splitlines()[-1], flush=True)


if __name__ == "__main__":
    main()
