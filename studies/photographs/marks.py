"""What the scan for marks alone sees in the cells: no network is trained, so that a cell takes seconds.

    python -m studies.photographs.marks --packs DIR --out RESULT.json [--half choosing|once] [--cell NAME ...]

A cell that RESULT.json has already is not looked at again.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.common import add_out, parser_of, write_result
from dlp_fast.config import DataConfig, DetectionConfig
from dlp_fast.data import sources
from dlp_fast.detection.convict import is_apart
from dlp_fast.detection.marks import ABOUNDS, marks_among
from dlp_fast.detection.propose.static_patterns import static_patterns
from studies.photographs.cells import BASES, CELLS, Cell
from studies.photographs.sets import make


def parser() -> argparse.ArgumentParser:
    of = parser_of(__doc__, "studies.photographs.marks")
    of.add_argument("--packs", type=Path, required=True, help="folder of the packs, *_jpeg.npz")
    of.add_argument("--half", choices=["choosing", "once"], help="only this half")
    of.add_argument("--cell", nargs="+", default=[], help="only these cells")
    add_out(of)
    return of


def looked_at(cell: Cell, packs: Path) -> dict[str, Any]:
    """The row of one cell: its marks, those that unknown labels would convict as `apart`."""
    config = DetectionConfig()
    with tempfile.TemporaryDirectory() as folder:
        made = make(cell, packs, Path(folder))
        options = DataConfig(image_size=BASES[cell.base].side, workers=1)
        train = sources.load(folder, options).train
        groups = static_patterns(train.images, train.labels, len(train.classes), config.static_patterns)
    number = np.array([int(Path(path).stem) for path in train.paths])
    poisoned, changed = made.poisoned[number], made.changed[number]
    marks = [
        {
            "proposal": mark.proposal,
            "class": mark.label,
            "images": len(mark.core),
            "poisoned": int(poisoned[mark.core].sum()),
            "changed": int(changed[mark.core].sum()),
            "purity": round(mark.statistics["purity"], 3),
            "separation": round(mark.statistics.get("separation", 0.0), 2),
            "apart": is_apart(mark, config),
            "abounds": ABOUNDS in mark.statistics,
        }
        for mark in marks_among(groups, len(train.classes), config)
    ]
    return {
        "cell": cell.name,
        "images": len(number),
        "poisoned": int(poisoned.sum()),
        "changed": int(changed.sum()),
        "marks": marks,
    }


def main() -> None:
    options = parser().parse_args()
    torch.set_num_threads(1)
    rows = json.loads(options.out.read_text())["cells"] if options.out.exists() else []
    for cell in CELLS:
        asked = options.half in (None, cell.half) and (not options.cell or cell.name in options.cell)
        if not asked or any(row["cell"] == cell.name for row in rows):
            continue
        rows.append(looked_at(cell, options.packs))
        row = rows[-1]
        print(f"{row['cell']}: {row['poisoned']} poisoned, {row['changed']} changed", flush=True)
        for mark in row["marks"]:
            print("   ", *mark.values(), flush=True)
        write_result(options.out, {"cells": rows}, "CPU, one thread, no network")


if __name__ == "__main__":
    main()
