"""What becomes of suspects, and of the class they are taken from, at a scale of the reproduction, attack by attack.

    python benchmarks/suspects.py --data DIR --out FOLDER

Writes FOLDER/suspects.json. Cells that are done are kept there, so that the same command goes on where it stopped.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro
from dlp_fast.checkpoint import write_atomic
from dlp_fast.runlog import RunLog

from dlp_fast.config import merge
from dlp_fast.reproduce.cells import Bench, Cell
from dlp_fast.reproduce.scales import SCALES
from dlp_fast.reproduce.tables import rate_of

ARMS: dict[str, dict[str, Any]] = {
    "relabel": {},
    "leave_out": {"suspects": "leave_out"},
    "odds as learnt": {"logit_adjustment": 1.0},
}


@dataclass
class Options:
    data: str
    """Image folder, clean, with train and test."""
    out: Path
    """Folder of the cells and of suspects.json."""
    scale: Literal["smoke", "small", "full"] = "small"
    """Scale of the reproduction."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of attack and training."""
    arms: tuple[Literal["relabel", "leave_out", "odds as learnt"], ...] = ("relabel", "leave_out")
    """The default (relabel), with the clean set beside it; suspects left out; finetune.logit_adjustment 1."""
    device: str = "auto"
    """Where to compute."""


def main(options: Options) -> None:
    base = SCALES[options.scale]
    rows = []
    for arm in options.arms:
        scale = dataclasses.replace(base, config=merge(base.config, {"finetune": ARMS[arm]}))
        folder = options.out / arm.replace(" ", "_")
        bench = Bench(options.data, options.scale, scale, folder, RunLog(None), options.device)
        methods = ("clean", "dlp_fast") if arm == "relabel" else ("dlp_fast",)
        for seed in options.seeds:
            for attack in base.attacks:
                for method in methods:
                    found = bench.run(Cell(method, attack, seed, rate=rate_of(attack)))
                    what = "trained on the clean set" if method == "clean" else arm
                    keys = ("clean_accuracy", "attack_success_rate", "per_class_accuracy", "environment")
                    rows.append(
                        {"what": what, "attack": attack, "seed": seed} | {k: found.get(k) for k in keys}
                    )
                    print(what, attack, seed, *(found.get(k) for k in keys[:2]), flush=True)
    write_atomic(options.out / "suspects.json", json.dumps({"rows": rows}, indent=1).encode())


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
