"""Two seeded runs with the default method on the digits: what tests/golden/test_default.py compares.

    python tests/golden/record_default.py   adds this machine's record to tests/golden/default.json

In both stage 1 gives the poison away (ensemble, unlearning, held-out agreement, suspects without their labels), of seed
0 only just. A change of the numbers belongs in one commit with the change of the code that made it, and with the
reason.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

FILE = Path(__file__).with_name("default.json")
SEEDS = (0, 1)
# Fewer steps than by default, so that a test can wait for it; the method is the default one.
CONFIG = {
    "attack": "badnets",
    "device": "cpu",
    "precision": "fp32",
    "threads": 1,
    "model": "wrn-10-1",
    "supervised": {"min_steps": 400},
    "finetuning": {"epochs": 4.0, "min_steps": 100},
    "detection": {"proposals": ("learning_curves",)},  # a mark would leave the curves nothing to tell
}


def weights_hash(model: torch.nn.Module) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode() + value.contiguous().numpy().tobytes())
    return digest.hexdigest()


def outcome(seed: int) -> dict[str, Any]:
    """Losses of every stage, verdict, findings, suspects, and a hash of the clean model's weights."""
    import dlp_fast

    before = torch.get_num_threads()
    try:
        with tempfile.TemporaryDirectory() as folder:
            result = dlp_fast.defend("digits", out=folder + "/run", quiet=True, seed=seed, **CONFIG)
            lines = Path(folder, "run", "metrics.jsonl").read_text().splitlines()
    finally:
        torch.set_num_threads(before)
    losses: dict[str, list[float]] = {}
    for event in map(json.loads, lines):
        if "loss" in event:
            losses.setdefault(event["stage"], []).append(event["loss"])
    verdict = result.results["verdict"]
    return {
        "losses": losses,
        "verdict": verdict["kind"],
        "score": verdict["score"],
        "findings": [[t["stage"], t["label"], t["images"], t["separation"]] for t in verdict["targets"]],
        "suspects": result.suspected_poisoned.tolist(),
        "weights": weights_hash(result.model),
    }


if __name__ == "__main__":
    sys.path[:0] = [str(FILE.parents[2]), str(FILE.parent)]
    from record import machine

    records = json.loads(FILE.read_text()) if FILE.exists() else {}
    records[machine()] = {str(seed): outcome(seed) for seed in SEEDS}
    FILE.write_text(json.dumps(records, indent=None) + "\n")
