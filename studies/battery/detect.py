"""What detection says of the cells of the battery: which images it suspects, by which evidence.

    python -m studies.battery.detect --cells OUT --out RESULT.json

Learning curves and the network of stage 1 are those of each cell. Where detection asks a network that was not given the
labels in question, it is trained here, as long as stage 1 was.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from benchmarks.common import add_out, add_threads, parser_of, write_result
from dlp_fast.config import RunConfig
from dlp_fast.data.storage import ResidentImages
from dlp_fast.detection.detect import Networks, detect, look_at_curves
from dlp_fast.detection.propose import Observed
from dlp_fast.detection.verify.hold_out import HeldOutNetwork
from dlp_fast.engine.batches import TrainingData
from dlp_fast.engine.device import choose_compute
from dlp_fast.engine.inference import predict
from dlp_fast.engine.session import Session
from dlp_fast.models.registry import new_model
from dlp_fast.runs.checkpoint import Checkpoints
from dlp_fast.runs.log import RunLog
from dlp_fast.stages.ensemble import known_without
from dlp_fast.stages.supervised import Supervised


def parser() -> argparse.ArgumentParser:
    of = parser_of(__doc__, "studies.battery.detect")
    of.add_argument("--cells", type=Path, required=True, help="folder of the cells")
    of.add_argument("--cell", nargs="+", help="only these")
    add_out(of)
    add_threads(of, 1)
    return of


def _kept(
    cell: Path, ids: np.ndarray, session: Session, data: TrainingData, options: RunConfig, first: Supervised
) -> HeldOutNetwork:
    """The network trained on the labels of `ids` alone, kept in the folder of the cell: it takes as long as stage 1."""
    folder = cell / f"without_{hashlib.sha256(ids.tobytes()).hexdigest()[:12]}"
    kept = Session(session.compute, session.log, Checkpoints(folder))
    return known_without(kept, ids, data, options, first)


def told(cell: Path) -> dict[str, Any]:
    """What detection says of one cell, and how much of it is true."""
    facts = json.loads((cell / "cell.json").read_text())
    arrays = {
        name: np.load(cell / f"{name}.npy") for name in ("images", "labels", "poisoned", "entropy", "loss")
    }
    labels, device = torch.from_numpy(arrays["labels"]).long(), torch.device("cpu")
    images, classes = ResidentImages(torch.from_numpy(arrays["images"])), len(facts["classes"])
    mean, std = tuple(facts["mean"]), tuple(facts["std"])
    data = TrainingData(images, labels, classes, mean, std, True, 0, device)
    model = new_model("wrn-16-1", data, 0)
    model.load_state_dict(load_file(cell / "model.safetensors"))
    entropy, loss = (torch.from_numpy(arrays[name]) for name in ("entropy", "loss"))
    others = data.other_label(torch.arange(len(labels)))
    file = cell / "other_loss.npy"  # not there in the cells that were recorded first
    other_loss = torch.from_numpy(np.load(file)) if file.exists() else None
    seen = Observed(images, labels, classes, entropy, loss, other_loss, others)
    options = RunConfig(
        supervised=facts["supervised"], detection={"proposals": ("learning_curves", "static_patterns")}
    )
    compute = choose_compute("cpu", "fp32")
    first = Supervised(facts["steps"], entropy, loss, loss[-1].long(), 0.0, 0.0)
    with Session(compute, RunLog(None, quiet=True)) as session:
        found = detect(
            seen,
            look_at_curves(seen, options.detection),
            Networks(
                lambda x: predict(model, x, data),
                lambda: entropy,
                lambda ids: _kept(cell, ids, session, data, options, first),
            ),
            options.detection,
        )
    suspected, poisoned = found.suspicion.suspected.numpy(), arrays["poisoned"]
    listed = found.suspicion.wrongly_labeled.numpy()
    wrong = np.load(cell / "true_labels.npy") != arrays["labels"]
    return {
        "cell": cell.name,
        "clean_accuracy": facts["clean_accuracy"],
        "attack_success_rate": facts["attack_success_rate"],
        "poisoned": int(poisoned.sum()),
        "suspected": int(suspected.sum()),
        "suspected_and_poisoned": int((suspected & poisoned).sum()),
        "wrong_labels": int(wrong.sum()),
        "probably_mislabeled": int(listed.sum()),
        "probably_mislabeled_and_wrong": int((listed & wrong).sum()),
        "scores_of_learning_curves": [round(entry.score, 3) for entry in found.decision.scored],
        "findings": [finding.as_json() for finding in found.decision.findings],
        "marks": [mark.as_json() for mark in found.decision.marks],
    }


def main() -> None:
    options = parser().parse_args()
    torch.set_num_threads(options.threads)
    cells = sorted(file.parent for file in options.cells.glob("*/cell.json"))
    rows = []
    for cell in [cell for cell in cells if not options.cell or cell.name in options.cell]:
        rows.append(told(cell))
        row = rows[-1]
        print(
            f"{row['cell']}: {row['poisoned']} poisoned, {row['suspected']} suspected, "
            f"{row['suspected_and_poisoned']} of them poisoned; {len(row['marks'])} marks shown",
            flush=True,
        )
    write_result(options.out, {"cells": rows}, "CPU, fp32")


if __name__ == "__main__":
    main()
