"""Cells of the reproduction, several at once, the most wanted first, for as long as there is time.

    python -m studies.full_scale.run --data DIR --out FOLDER --workers 8 --seconds 300

A GPU that is lent by the minute runs one small network at a fraction of its pace. So the images are loaded once,
`--workers` processes share them, and each takes the next cell whose attack is made and whose victim is trained. The
tables are written from FOLDER afterwards: python -m dlp_fast.reproduce table3 --scale full --only-done.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import add_out, parser_of, write_result
from dlp_fast.engine.device import choose_compute
from dlp_fast.reproduce.cells import Bench, Cell
from dlp_fast.reproduce.scales import SCALES
from dlp_fast.reproduce.tables import rate_of
from dlp_fast.runs.log import RunLog

WAIT = 0.2  # seconds
METHODS = ("none", "dlp_fast", "clean", "fp", "anp", "nad", "mcr", "abl", "dlp")
MADE = ("lca", "trojannn", "badnets", "blended", "sig")  # those that take the attacker longest first


def parser() -> argparse.ArgumentParser:
    of = parser_of(__doc__, "studies.full_scale.run")
    of.add_argument("--data", required=True, metavar="DIR", help="image folder, clean, with train and test")
    add_out(of, "folder of the reproduction", "FOLDER")
    of.add_argument("--scale", choices=SCALES, default="full", help="as of dlp_fast.reproduce")
    of.add_argument(
        "--methods", nargs="+", default=list(METHODS), choices=METHODS, help="rows, the most wanted first"
    )
    of.add_argument("--seeds", type=int, nargs="+", default=[0], help="the most wanted first")
    of.add_argument("--attacks", nargs="+", default=list(MADE), choices=MADE, help="which")
    of.add_argument(
        "--crafted",
        action="store_true",
        help="the cache holds the images of TrojanNN and LCA already, so that nobody waits for them",
    )
    of.add_argument("--no-clean-set", action="store_true", help="no method meets the clean set")
    of.add_argument("--workers", type=int, default=8, help="cells at once")
    of.add_argument(
        "--seconds",
        type=float,
        default=300,
        help="no cell begins later than this after the images are loaded",
    )
    of.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="where")
    of.add_argument(
        "--precision", choices=["auto", "fp32", "bf16"], default="auto", help="auto: bf16 where it is fast"
    )
    return of


@dataclass(frozen=True)
class Task:
    """after: a cell that makes the attack or trains the victim that this one needs as well."""

    cell: Cell
    after: Cell | None = None


def tasks(options: argparse.Namespace) -> list[Task]:
    found = []
    for seed in options.seeds:
        first = {a: Cell("none", a, seed, rate_of(a)) for a in (*options.attacks, "none")}
        attacks = (*options.attacks, "none") if not options.no_clean_set else options.attacks
        for method in options.methods:
            for attack in attacks:
                cell = Cell(method, attack, seed, rate_of(attack))
                if (method, attack) == ("clean", "none"):
                    continue  # it is the cell none, none
                # without a clean set among the attacks nobody trains its victim first
                needs = first["none"] if method == "clean" and not options.no_clean_set else first[attack]
                made = method in ("dlp", "dlp_fast") and (
                    options.crafted or attack not in ("lca", "trojannn")
                )
                found.append(Task(cell, None if made or cell == needs else needs))
    return found


def file_of(options: argparse.Namespace, cell: Cell) -> Path:
    return options.out / "cells" / f"{cell.name()}.json"


def rows_of(cells: Path) -> list[dict[str, Any]]:
    """Accuracy and attack success rate of every cell that is done, by method, attack and seed."""
    rows = []
    for file in sorted(cells.glob("*.json")):
        saved = json.loads(file.read_text())
        if "clean_accuracy" in saved:  # a method that diverged and the curves of a figure have none
            keys = {k: saved["cell"][k] for k in ("method", "attack", "seed")}
            rows.append(keys | {k: saved[k] for k in ("clean_accuracy", "attack_success_rate")})
    return rows


def work(options: argparse.Namespace, bench: Bench, todo: list[Task], began: float, number: int) -> None:
    """Take one cell after the other; a file that only one process can create says whose it is."""
    torch.set_num_threads(1)
    # only now: a GPU does not survive a fork
    bench.compute, bench.at_once = choose_compute(options.device, options.precision), options.workers
    claims = options.out / "claims"
    left = list(todo)
    while left and time.monotonic() - began < options.seconds:
        ready = [t for t in left if t.after is None or file_of(options, t.after).is_file()]
        if not ready:
            time.sleep(WAIT)
            continue
        task = ready[0]
        left.remove(task)
        try:
            os.close(os.open(claims / task.cell.name(), os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            continue
        start = time.monotonic()
        try:
            figures = bench.run(task.cell)
        except Exception as error:
            print(f"[{number}] {task.cell.name()} failed: {type(error).__name__}: {error}", flush=True)
            continue
        print(
            f"[{number}] {time.monotonic() - began:5.0f} s: {task.cell.name()}, {time.monotonic() - start:.0f} s: "
            + (
                figures["failed"]
                if "failed" in figures
                else f"CA {100 * figures['clean_accuracy']:.2f}, "
                f"ASR {100 * (figures['attack_success_rate'] or 0):.2f}"
            ),
            flush=True,
        )


def main() -> None:
    options = parser().parse_args()
    torch.set_num_threads(1)  # threads of OpenMP do not survive a fork
    began = time.monotonic()
    log = RunLog(None, quiet=True)
    bench = Bench(
        options.data, options.scale, SCALES[options.scale], options.out, log, "cpu", options.precision
    )
    print(f"loaded in {time.monotonic() - began:.0f} s", flush=True)
    began = time.monotonic()
    (options.out / "claims").mkdir(exist_ok=True)
    for claim in (options.out / "claims").iterdir():
        claim.unlink()  # of a run that was killed
    todo = [t for t in tasks(options) if not file_of(options, t.cell).is_file()]
    context = multiprocessing.get_context("fork")
    crew = [
        context.Process(target=work, args=(options, bench, todo, began, k)) for k in range(options.workers)
    ]
    for one in crew:
        one.start()
    for one in crew:
        one.join()
    rows = rows_of(options.out / "cells")
    write_result(options.out / "result.json", {"rows": rows}, bench.compute.describe())
    done = sum(file_of(options, t.cell).is_file() for t in todo)
    print(f"{done} of {len(todo)} cells in {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
