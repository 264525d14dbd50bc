"""What a scan says of sets of photographs, attacked and honest, beside the truth.

    python -m studies.photographs.run --packs DIR --out OUT [--half choosing|once] [--cell NAME ...] [--again]

Each cell is made and scanned by a process of its own, one at a time; its row is kept in OUT, so that the same command
goes on where it stopped, and all rows together are OUT/result.json. --again: rows are made anew, with the networks that
were trained before. See README.md.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.common import parser_of, write_result
from studies.photographs.cells import BASES, CELLS, Cell

SUPERVISED = {"batch": 32, "min_steps": 400}  # default: 128 and 1,000; see README.md
NETWORKS = ("supervised", "ensemble", "held_out", "sides")  # what --again does not train again


def parser() -> argparse.ArgumentParser:
    of = parser_of(__doc__, "studies.photographs.run")
    of.add_argument("--packs", type=Path, required=True, help="folder of the packs, *_jpeg.npz")
    of.add_argument("--out", type=Path, required=True, help="folder of the rows, of the sets and of the runs")
    of.add_argument("--half", choices=["choosing", "once"], help="only this half")
    of.add_argument("--cell", nargs="+", default=[], help="only these cells")
    of.add_argument("--again", action="store_true", help="make rows anew that are there")
    of.add_argument("--here", action="store_true", help="in this process")
    return of


def scanned(cell: Cell, packs: Path, out: Path) -> dict[str, Any]:
    """The row of one cell."""
    from dlp_fast.api import defend
    from dlp_fast.models.classifier import read_model
    from dlp_fast.runs.checkpoint import Checkpoints
    from studies.photographs.sets import make

    folder, run = out / "sets" / cell.name, out / "runs" / cell.name
    shutil.rmtree(folder, ignore_errors=True)
    made = make(cell, packs, folder)
    _only_networks(run)
    began = time.monotonic()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        result = defend(
            folder,
            preset="scan",
            out=run,
            quiet=True,
            seed=cell.seed,
            threads=1,
            device="cpu",
            precision="fp32",
            supervised=SUPERVISED,
            dataset={"image_size": BASES[cell.base].side, "workers": 1},
        )
    seconds = time.monotonic() - began
    stage1 = Checkpoints(run / "checkpoints").load()["completed"]["supervised"]
    classifier = read_model(run)
    classifier.net.load_state_dict(stage1["weights"])
    success = None
    if made.wanted is not None:
        counted = made.wanted >= 0
        given = classifier.predict(torch.from_numpy(made.triggered[counted])).argmax(1).numpy()
        success = float((given == made.wanted[counted]).mean())
    right = classifier.predict(torch.from_numpy(made.test)).argmax(1).numpy() == made.test_labels
    number = {int(Path(path).stem): i for i, path in enumerate(result.paths)}
    place = np.array([number[k] for k in range(len(made.labels))])
    told = {name: _by_number(ids, place) for name, ids in (("suspected", result.suspected_poisoned),)}
    results, suspected = result.results, told["suspected"]
    shutil.rmtree(folder)
    return {
        "cell": cell.name,
        "images": len(made.labels),
        "classes": len(made.classes),
        "seconds": round(seconds),
        "steps": stage1["steps"],
        "epochs": len(stage1["loss"]),
        "clean_accuracy": round(float(right.mean()), 3),
        "attack_success_rate": success if success is None else round(success, 3),
        "poisoned": int(made.poisoned.sum()),
        "suspected": int(suspected.sum()),
        "suspected_and_poisoned": int((suspected & made.poisoned).sum()),
        "changed": int(made.changed.sum()),
        "suspected_and_changed": int((suspected & made.changed).sum()),
        "verdict": results["verdict"]["kind"],
        "reasons": results["verdict"]["reasons"],
        "findings": results["detection"]["findings"],
        "marks": results["detection"]["marks"],
        "warnings": sorted({f"{w.category.__name__}: {w.message}" for w in warned}),
    }


def _by_number(ids: torch.Tensor, place: np.ndarray) -> np.ndarray:
    chosen = np.zeros(len(place), dtype=bool)
    chosen[ids.numpy()] = True
    return chosen[place]


def _only_networks(run: Path) -> None:
    """Forget what an earlier run concluded, and keep the networks that it trained."""
    from dlp_fast.runs.checkpoint import Checkpoints
    from dlp_fast.runs.writer import RunFolder

    kept = run / "checkpoints"
    if not kept.is_dir():
        return
    checkpoints = Checkpoints(kept)
    state = checkpoints.load()
    RunFolder(run).unfinish()
    if state:
        state["completed"] = {name: of for name, of in state["completed"].items() if name in NETWORKS}
        state["current"] = None
        state["log_position"] = 0
        manifest = json.loads(next(kept.glob("*/manifest.json")).read_text())
        Checkpoints(kept, manifest["run"]).save(state)


def line(row: dict[str, Any]) -> str:
    success, estimated = row["attack_success_rate"], [f["attack_success"] for f in row["findings"]]
    parts = [
        row["verdict"],
        *([] if success is None else [f"ASR {success:.0%}, estimated {estimated}"]),
        f"{row['poisoned']} poisoned, {row['suspected']} suspected, {row['suspected_and_poisoned']} of them poisoned",
        f"{len(row['marks'])} marks shown",
        f"CA {row['clean_accuracy']:.0%}, {row['steps']} steps, {row['seconds']} s",
        *row["warnings"],
    ]
    return f"{row['cell']}: " + "; ".join(parts)


def main() -> None:
    options = parser().parse_args()
    rows = options.out / "rows"
    rows.mkdir(parents=True, exist_ok=True)
    for cell in CELLS:
        file = rows / f"{cell.name}.json"
        asked = options.half in (None, cell.half) and (not options.cell or cell.name in options.cell)
        if not asked or (file.exists() and not options.again):
            continue
        if options.here:
            torch.set_num_threads(1)
            row = scanned(cell, options.packs, options.out)
            file.write_text(json.dumps(row, indent=1))
            print(time.strftime("%H:%M:%S"), line(row), flush=True)
            continue
        command = [
            sys.executable,
            "-m",
            "studies.photographs.run",
            "--packs",
            options.packs,
            "--out",
            options.out,
        ]
        done = subprocess.run([*command, "--cell", cell.name, "--here", "--again"], check=False)
        if done.returncode:
            print(time.strftime("%H:%M:%S"), cell.name, f"ended, exit code {done.returncode}", flush=True)
    found = [
        json.loads((rows / f"{cell.name}.json").read_text())
        for cell in CELLS
        if (rows / f"{cell.name}.json").exists()
    ]
    settings = {"supervised": SUPERVISED, "precision": "fp32"}
    write_result(
        options.out / "result.json", {"not_as_the_default": settings, "cells": found}, "CPU, one thread"
    )


if __name__ == "__main__":
    main()
