"""The demo (digits, BadNets 10 %) with other seeds and precisions: how often it ends as `make demo` does.

python -m studies.demo_seeds.run --out RESULT.json
"""

from __future__ import annotations

import argparse
from typing import Any

from benchmarks.common import add_out, add_threads, chosen, parser_of, write_result
from dlp_fast.api import execute
from dlp_fast.config import build
from dlp_fast.engine.device import choose_compute


def parser() -> argparse.ArgumentParser:
    of = parser_of(__doc__, "studies.demo_seeds.run")
    of.add_argument("--data", default="digits", metavar="NAME", help="image set")
    add_out(of)
    add_threads(of, 1)
    of.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4], help="seeds of everything")
    of.add_argument("--precisions", nargs="+", default=["bf16", "fp32"], choices=["bf16", "fp32"])
    return of


def row(options: argparse.Namespace, precision: str, seed: int) -> dict[str, Any]:
    values = {"data": options.data, "precision": precision, "seed": seed, "threads": options.threads}
    results = execute(build(values, "demo_seeds"), quiet=True, keep=False).results
    last, found = results["stages"]["finetuning"], results["detection"]
    return {
        "precision": precision,
        "seed": seed,
        "networks": results["stages"]["supervised"].get("networks", 1),
        "clean_accuracy": last["clean_accuracy"],
        "attack_success_rate": last["attack_success_rate"],
        "poisoned_precision": found["poisoned_precision"],
        "poisoned_recall": found["poisoned_recall"],
        "verdict": results["verdict"]["kind"],
        "targets": results["verdict"]["targets"],
    }


def main() -> None:
    options = parser().parse_args()
    rows = []
    for precision in options.precisions:
        for seed in options.seeds:
            rows.append(row(options, precision, seed))
            print(rows[-1], flush=True)
            result = {"options": chosen(options), "rows": rows}
            write_result(options.out, result, choose_compute("auto", "auto").describe())


if __name__ == "__main__":
    main()
