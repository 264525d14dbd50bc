"""Poison that is rare in every class of a small set, and pictures that somebody changed: what a scan says of them.

    python -m studies.grown.run --out RESULT.json [--only NAME ...] [--seeds 1 2 3]

The embedded digits after stage 1, with attacks on all classes, and honest: a tenth of all images, of all classes alike,
turned round, framed, dimmed, blurred or noisy, under right labels. A row that RESULT.json has already is not run again.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.common import add_out, add_threads, parser_of, write_result
from dlp_fast.api import defend
from dlp_fast.attacks.poisoning import plan
from dlp_fast.config import DataConfig
from dlp_fast.data import sources

ATTACKS = ("badnets-all-to-all", "blended-all-to-all", "ten-triggers", "none")
SHARE = 0.1


def turned_round(x: torch.Tensor, _: torch.Generator) -> torch.Tensor:
    return 255 - x


def framed(x: torch.Tensor, _: torch.Generator) -> torch.Tensor:
    x = x.clone()
    x[:, :1] = x[:, -1:] = x[:, :, :1] = x[:, :, -1:] = 200
    return x


def dimmed(x: torch.Tensor, _: torch.Generator) -> torch.Tensor:
    return (x.float() * 0.4).round().to(torch.uint8)


def blurred(x: torch.Tensor, _: torch.Generator) -> torch.Tensor:
    planes = torch.nn.functional.avg_pool2d(x.permute(0, 3, 1, 2).float(), 3, 1, 1)
    return planes.permute(0, 2, 3, 1).round().to(torch.uint8)


def noisy(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return (x.float() + 40 * torch.randn(x.shape, generator=generator)).clamp(0, 255).round().to(torch.uint8)


CHANGES = {of.__name__.replace("_", "-"): of for of in (turned_round, framed, dimmed, blurred, noisy)}


def parser():
    of = parser_of(__doc__, "studies.grown.run")
    of.add_argument("--only", nargs="+", choices=[*ATTACKS, *CHANGES], default=[*ATTACKS, *CHANGES])
    of.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    add_out(of)
    add_threads(of, 1)
    return of


def made(name: str, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(images uint8 [n, H, W, 3], labels int64 [n], poisoned bool [n]) of the digits with an attack or a change."""
    train = sources.load("digits", DataConfig()).train
    ids, labels = torch.arange(len(train.labels)), train.labels
    if name in CHANGES:
        images, generator = train.images.get(ids).clone(), torch.Generator().manual_seed(seed)
        drawn = torch.randperm(len(ids), generator=generator)[: round(SHARE * len(ids))]
        images[drawn] = CHANGES[name](images[drawn], generator)
        return images.numpy(), labels.numpy(), np.zeros(len(ids), dtype=bool)
    if name == "none":
        return train.images.get(ids).numpy(), labels.numpy(), np.zeros(len(ids), dtype=bool)
    size = (train.images.height, train.images.width)
    attack = plan(
        name, labels, train.classes, size, rate=SHARE, rate_of="auto", target="0", seed=seed, images=train.images
    )  # fmt: skip
    return attack.poison(train.images).get(ids).numpy(), attack.labels.numpy(), attack.poisoned.numpy()


def row(name: str, seed: int, threads: int) -> dict[str, Any]:
    images, labels, poisoned = made(name, seed)
    result = defend(
        images, labels, preset="scan", flip=False, quiet=True, seed=seed, threads=threads, device="cpu"
    )
    suspected = result.suspected_poisoned.numpy()  # ids
    verdict = result.results["verdict"]
    return {
        "set": name,
        "seed": seed,
        "verdict": verdict["kind"],
        "classes": sorted({target["class"] for target in verdict["targets"]}),
        "poisoned": int(poisoned.sum()),
        "suspected": len(suspected),
        "suspected_and_poisoned": int(poisoned[suspected].sum()),
        "changed": sum(mark["images"] for mark in result.results["detection"]["marks"] if mark["changed"]),
    }


def main() -> None:
    options = parser().parse_args()
    torch.set_num_threads(options.threads)
    rows = json.loads(Path(options.out).read_text())["rows"] if Path(options.out).exists() else []
    for name in options.only:
        for seed in options.seeds:
            if any((one["set"], one["seed"]) == (name, seed) for one in rows):
                continue
            rows.append(row(name, seed, options.threads))
            print(json.dumps(rows[-1]), flush=True)
            write_result(options.out, {"images": "digits, a tenth", "rows": rows}, "CPU")


if __name__ == "__main__":
    main()
