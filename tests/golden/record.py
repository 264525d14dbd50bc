"""Losses of a tiny seeded run on the digits, stage by stage: what tests/golden/test_golden.py compares.

    python tests/golden/record.py      writes tests/golden/digits.json anew

A change of the numbers belongs in one commit with the change of the code that made it, and with the reason.
"""

from __future__ import annotations

import json
import platform
import sys
import tempfile
from pathlib import Path

import torch

FILE = Path(__file__).with_name("digits.json")
CONFIG = {
    "attack": "badnets",
    "seed": 1,
    "device": "cpu",
    "precision": "fp32",
    "threads": 1,
    "model": "wrn-10-1",
    # named one by one, so that other defaults are no other numbers
    "supervised": {
        "epochs": 2,
        "min_steps": 0,
        "batch": 128,
        "learning_rate": 0.05,
        "momentum": 0.9,
        "weight_decay": 5e-4,
        "augment": "weak",
    },
    "filter": {"score": "snapshot", "rate": 0.05, "floor": 10},
    "unlearn": {
        "epochs": 3,
        "batch": 32,
        "learning_rate": 0.01,
        "momentum": 0.9,
        "max_norm": 1.0,
        "max_loss": 50,
    },
    "finetune": {
        "labeled": "hardest",
        "start": "unlearned",
        "steps": 60,
        "batch": 32,
        "mu": 2,
        "tau": 0.3,
        "lambda_u": 1.0,
        "learning_rate": 0.03,
        "momentum": 0.9,
        "weight_decay": 5e-4,
        "ema": 0.9,
    },
}


def processor() -> str:
    """The family of processors whose last bits are comparable: the maker and the widest vectors in use."""
    return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"


def losses() -> dict[str, list[float]]:
    """The loss of every epoch of stages 1 and 2, and of every 50 steps of stage 3."""
    import dlp_fast

    before = torch.get_num_threads()
    try:
        with tempfile.TemporaryDirectory() as folder:
            dlp_fast.defend("digits", out=folder + "/run", quiet=True, **CONFIG)
            lines = Path(folder, "run", "metrics.jsonl").read_text().splitlines()
    finally:
        torch.set_num_threads(before)
    found: dict[str, list[float]] = {}
    for event in map(json.loads, lines):
        if "loss" in event:
            found.setdefault(event["stage"], []).append(event["loss"])
    return found


if __name__ == "__main__":
    sys.path.insert(0, str(FILE.parents[2]))
    facts = {"torch": torch.__version__, "processor": processor(), "losses": losses()}
    FILE.write_text(json.dumps(facts, indent=1) + "\n")
    print(FILE.read_text())
