"""What further networks add to stage 1: the separation score of each class by one network, by several averaged.

    python -m studies.ensemble.run --data DIR --out RESULT.json
    python -m studies.ensemble.run --data digits --networks 5 --images 0 --image-size 16 --out RESULT.json

Stage 1 of the default configuration on parts of the image set; a seed is other images, another target class, another
attack. Runs that the result file holds already are not done again.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from benchmarks.common import add_data, add_out, add_threads, parser_of, write_result
from dlp_fast.config import DataConfig
from dlp_fast.data import sources
from dlp_fast.detection.verify.replication import averaged
from dlp_fast.engine.device import choose_compute
from dlp_fast.stages.ensemble import MEMBER_SEED
from studies._common import Prepared, detected, prepare, train_stage1

CASES = (
    ("none", 0.0),
    ("badnets", 0.1),
    ("trojannn", 0.1),
    ("blended", 0.1),
    ("blended", 0.05),
    ("lca", 0.5),  # of the target class
    ("sig", 0.5),
)
TESTED = 2000  # test images
ATTACKS = tuple(dict.fromkeys(attack for attack, _ in CASES))


def parser() -> argparse.ArgumentParser:
    of = parser_of(__doc__, "studies.ensemble.run")
    add_data(of, "image folder, clean, with train and test; or digits")
    add_out(of)
    add_threads(of, 1)
    of.add_argument("--networks", type=int, default=2, help="each number of them from two on is averaged")
    of.add_argument("--images", type=int, default=5000, help="the same number of each class; 0: all")
    of.add_argument("--seeds", type=int, default=3, help="how many")
    of.add_argument("--precisions", nargs="+", default=["fp32"], choices=["fp32", "bf16"], help="of stage 1")
    of.add_argument("--attacks", nargs="+", default=list(ATTACKS), choices=ATTACKS, help="which")
    of.add_argument("--keep", type=Path, metavar="FOLDER", help="keep the learning curves there")
    return of


def facts(curves: dict[str, Tensor], part: Prepared, target: int) -> dict[str, Any]:
    """Separation score (1: found) of the target class, the highest other one, images suspected and those between."""
    of = detected(curves["entropy"], curves["loss"], part.data.labels, part.data.classes)
    by_class = {scored.group.label: scored.score for scored in of.decision.scored}
    suspected, withheld = of.suspicion.suspected, of.suspicion.withheld
    return {
        "target": round(by_class.get(target, 0.0), 3),
        "highest_other": round(max([v for c, v in by_class.items() if c != target], default=0.0), 3),
        "suspected": int(suspected.sum()),
        "poison_suspected": int((suspected & part.poisoned).sum()),
        "clean_at_the_edge": int((withheld & ~suspected & ~part.poisoned).sum()),
    }


def run_case(
    options: argparse.Namespace, part: Prepared, key: dict[str, Any]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(a row for each network alone, a row for each number of them averaged)."""
    target = key["seed"] % part.data.classes
    curves, single, together = [], [], []
    for net in range(options.networks):
        data = dataclasses.replace(part.data, seed=key["seed"] + net * MEMBER_SEED)
        model, first = train_stage1(data, precision=key["precision"])
        curves.append({"entropy": first.entropy, "loss": first.loss})
        if options.keep:
            options.keep.mkdir(parents=True, exist_ok=True)
            name = "-".join(str(v) for v in (*key.values(), net))
            save_file(curves[-1], options.keep / f"{name}.safetensors")
        measured = {"net": net, "steps": first.steps} | part.measure(model)
        single.append(key | measured | facts(curves[-1], part, target))
    for count in range(2, options.networks + 1):
        mean = {name: averaged([of[name] for of in curves[:count]]) for name in curves[0]}
        together.append(key | {"networks": count} | facts(mean, part, target))
    return single, together


def main() -> None:
    options = parser().parse_args()
    if options.networks < 2:
        raise SystemExit("--networks: two or more, else there is nothing to average.")
    torch.set_num_threads(options.threads)
    dataset = sources.load(options.data, DataConfig(image_size=options.image_size))
    saved: dict[str, Any] = {"single": [], "averaged": []}
    if options.out.is_file():
        saved = json.loads(options.out.read_text())
        held = max((row["networks"] for row in saved["averaged"]), default=options.networks)
        if held != options.networks:
            raise SystemExit(f"{options.out} holds runs with {held} networks each; choose another --out.")
    device = choose_compute("auto", options.precisions[0]).describe()
    done = {(r["attack"], r["rate"], r["seed"], r["precision"]) for r in saved["averaged"]}
    for seed in range(options.seeds):
        for attack, rate in (c for c in CASES if c[0] in options.attacks):
            left = [p for p in options.precisions if (attack, rate, seed, p) not in done]
            if not left:
                continue
            part = prepare(dataset, attack, rate, seed, options.images or None, TESTED)
            for precision in left:
                key = {"attack": attack, "rate": rate, "seed": seed, "precision": precision}
                single, together = run_case(options, part, key)
                saved["single"] += single
                saved["averaged"] += together
                write_result(options.out, saved, device)
                told = [[row["target"] for row in rows] for rows in (single, together)]
                print(*key.values(), f"alone {told[0]}, averaged {told[1]}", flush=True)


if __name__ == "__main__":
    main()
