"""The whole method beside what a user would do otherwise, on one image folder, one network, one recipe.

    python -m benchmarks.system.end_to_end --data DIR --out benchmarks/results/end_to_end_cifar10_cpu_DATE.json

Rows, for each attack: `default` and any preset, such as `paper` (the stages of dlp_fast), `no defence` (the recipe of
our stage 3, labels as given, all images), and once `clean set` (the same recipe on the images before the attack; its
attack success rate is natural confusion). Rows that the result file holds already are not run again.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import torch

from benchmarks.common import add_data, add_out, add_threads, parser_of, write_result
from dlp_fast.api import execute
from dlp_fast.config import DataConfig, FinetuningConfig, build, merge, read_preset
from dlp_fast.data import sources
from dlp_fast.engine.device import choose_compute
from dlp_fast.runs.files import write_atomic
from studies._common import prepare, train_stage3

ROWS = ("default", "clean set", "no defence", "paper")
RATES = {
    "badnets": 0.1,
    "blended": 0.1,
    "trojannn": 0.1,
    "sig": 0.5,
    "lca": 0.5,
}  # sig: of the target class, whose labels stay


def parser() -> argparse.ArgumentParser:
    of = parser_of(__doc__, "benchmarks.system.end_to_end")
    add_data(of)
    add_out(of, "result file, JSON; a Markdown table is written beside it")
    add_threads(of, 2)
    of.add_argument(
        "--attacks", nargs="+", default=["badnets", "blended", "sig"], choices=RATES, help="which"
    )
    of.add_argument("--rows", nargs="+", default=list(ROWS), help="which, in this order; any preset is a row")
    of.add_argument(
        "--paper-steps",
        type=int,
        default=400,
        help="steps of FixMatch in the row `paper`; 16384 in the preset",
    )
    of.add_argument("--seed", type=int, default=0, help="seed of everything")
    return of


def defended(
    options: argparse.Namespace, dataset: sources.Dataset, attack: str, preset: str
) -> dict[str, Any]:
    values: dict[str, Any] = {"data": options.data, "attack": attack, "poison_rate": RATES[attack]}
    values |= {"seed": options.seed, "threads": options.threads}
    if preset != "default":
        values = merge(values, read_preset(preset))
    if preset == "paper":
        values = merge(values, {"finetuning": {"steps": options.paper_steps}})
    result = execute(build(values, "benchmark"), dataset, quiet=True, keep=False)
    return {k: result.results[k] for k in ("stages", "detection", "verdict")}


def recipe(
    options: argparse.Namespace, dataset: sources.Dataset, attacks: list[str], poisoned: bool
) -> dict[str, Any]:
    """Our stage 3 on all images with all labels; measured with every attack in `attacks`."""
    plans = {attack: prepare(dataset, attack, RATES[attack], options.seed) for attack in attacks}
    data = (plans[attacks[0]] if poisoned else prepare(dataset, "none", 0.0, options.seed)).data
    model, result = train_stage3(data, FinetuningConfig())
    figures: dict[str, Any] = {"seconds": result.seconds, "steps": result.steps, "attack_success_rate": {}}
    for attack, part in plans.items():
        measured = part.test.measure(model, data.device, data.mean, data.std)
        figures["clean_accuracy"] = measured["clean_accuracy"]
        figures["attack_success_rate"][attack] = measured["attack_success_rate"]
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
            chosen = [row["detection"][f"{name}_precision"] for name in ("poisoned", "clean", "trusted")]
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
    options = parser().parse_args()
    torch.set_num_threads(options.threads)
    dataset = sources.load(options.data, DataConfig(image_size=options.image_size))
    saved: dict[str, Any] = json.loads(options.out.read_text()) if options.out.is_file() else {"rows": []}
    saved["images"] = {"train": len(dataset.train.labels), "test": len(dataset.test.labels)}
    saved["options"] = {"paper_steps": options.paper_steps, "threads": options.threads, "seed": options.seed}
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
            figures = recipe(options, dataset, options.attacks, poisoned=False)
        elif row == "no defence":
            figures = recipe(options, dataset, [attack], poisoned=True)
        else:
            figures = defended(options, dataset, attack, row)
        saved["rows"].append({"attack": attack, "row": row, **figures, "seconds": time.monotonic() - began})
        write_result(options.out, saved, choose_compute("auto", "auto").describe())
        write_atomic(options.out.with_suffix(".md"), table(saved).encode())
        print(table({"rows": saved["rows"][-1:]}).splitlines()[-1], flush=True)


if __name__ == "__main__":
    main()
