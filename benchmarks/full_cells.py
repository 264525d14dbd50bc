"""Cells of the reproduction, several at once, the most wanted first, for as long as there is time.

    python benchmarks/full_cells.py --data DIR --out FOLDER [--workers 8] [--seconds 300]

A GPU that is lent by the minute runs one small network at a fraction of its pace. So the images are loaded once,
`--workers` processes share them, and each takes the next cell whose attack is made and whose victim is trained. The
tables are written from FOLDER afterwards: python -m dlp_fast.reproduce table3 --scale full --only-done.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import tyro
from dlp_fast.runlog import RunLog

from dlp_fast.engine.device import choose_compute
from dlp_fast.reproduce.cells import Bench, Cell
from dlp_fast.reproduce.scales import ATTACKS, SCALES
from dlp_fast.reproduce.tables import RIVALS, rate_of

WAIT = 0.2  # seconds
MADE = ("lca", "trojannn", "badnets", "blended", "sig")  # those that take the attacker longest first


@dataclass
class Options:
    data: str
    """Image folder (clean), with train and test."""
    out: Path
    """Folder of the reproduction."""
    scale: Literal["smoke", "small", "full"] = "full"
    """As of dlp_fast.reproduce."""
    methods: tuple[str, ...] = ("none", "dlp_fast", "clean", "fp", "anp", "nad", "mcr", "abl", "dlp")
    """Rows, the most wanted first."""
    seeds: tuple[int, ...] = (0,)
    """Which seeds, the most wanted first."""
    attacks: tuple[str, ...] = MADE
    """Which attacks."""
    crafted: bool = False
    """The cache holds the images of TrojanNN and LCA already, so that nobody waits for them."""
    clean_set: bool = True
    """Whether every method meets the clean set as well."""
    workers: int = 8
    """Cells at once."""
    seconds: float = 300
    """No cell begins later than this after the images are loaded."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 where it is fast."""


@dataclass(frozen=True)
class Task:
    """after: a cell that makes the attack or trains the victim that this one needs as well."""

    cell: Cell
    after: Cell | None = None


def tasks(options: Options) -> list[Task]:
    found = []
    for seed in options.seeds:
        first = {a: Cell("none", a, seed, rate_of(a)) for a in (*options.attacks, "none")}
        attacks = (*options.attacks, "none") if options.clean_set else options.attacks
        for method in options.methods:
            for attack in attacks:
                cell = Cell(method, attack, seed, rate_of(attack))
                if (method, attack) == ("clean", "none"):
                    continue  # it is the cell none, none
                # without a clean set among the attacks nobody trains its victim first
                needs = first["none"] if method == "clean" and options.clean_set else first[attack]
                made = method in ("dlp", "dlp_fast") and (
                    options.crafted or attack not in ("lca", "trojannn")
                )
                found.append(Task(cell, None if made or cell == needs else needs))
    return found


def file_of(options: Options, cell: Cell) -> Path:
    return options.out / "cells" / f"{cell.name()}.json"


def work(options: Options, bench: Bench, todo: list[Task], began: float, number: int) -> None:
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
    options = tyro.cli(Options, description=__doc__)
    torch.set_num_threads(1)  # threads of OpenMP do not survive a fork
    began = time.monotonic()
    unknown = (
        set(options.attacks) - set(ATTACKS),
        set(options.methods) - {"none", "clean", "dlp", "dlp_fast", *RIVALS},
    )
    if any(unknown):
        raise SystemExit(f"unknown: {', '.join(sorted(unknown[0] | unknown[1]))}")
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
    done = sum(file_of(options, t.cell).is_file() for t in todo)
    print(f"{done} of {len(todo)} cells in {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
