"""Losses of a tiny seeded run on the digits, stage by stage: what tests/golden/test_golden.py compares.

    python tests/golden/record.py          adds this machine's to tests/golden/digits.json
    python tests/golden/record.py --anew   forgets those of other machines, which a change has made wrong

A change of the numbers belongs in one commit with the change of the code that made it, and with the reason.
"""

from __future__ import annotations

import json
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
    "detection": {"method": "entropy", "rate": 0.05, "min_images": 10},
    "unlearning": {
        "epochs": 3,
        "batch": 32,
        "learning_rate": 0.01,
        "momentum": 0.9,
        "max_norm": 1.0,
        "max_loss": 50,
    },
    "finetuning": {
        "labeled": "hardest",
        "start": "unlearned",
        "steps": 60,
        "batch": 32,
        "mu": 2,
        "tau": 0.3,
        "lambda_u": 1.0,
        "optimizer": "sgd",
        "learning_rate": 0.03,
        "warmup": 0.0,
        "momentum": 0.9,
        "weight_decay": 5e-4,
        "ema": 0.9,
    },
}


def machine() -> str:
    """What the last bits of a loss depend on: torch, and the processor that its kernels are chosen and tiled for."""
    facts = {}
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        facts.setdefault(name.strip(), value.strip())
    model = " ".join(facts.get(name, "?") for name in ("vendor_id", "cpu family", "model"))
    return f"torch {torch.__version__}, {model}, {torch.backends.cpu.get_cpu_capability()}"


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
    records = json.loads(FILE.read_text()) if FILE.exists() else {}
    if "--anew" in sys.argv:
        records = {}
    records[machine()] = losses()
    FILE.write_text(json.dumps(records, indent=1) + "\n")
    print(FILE.read_text())
