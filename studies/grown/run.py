"""Poison of a small set, pictures that somebody changed, and wrong labels: what a scan says of them.

    python -m studies.grown.run --out RESULT.json [--only NAME ...] [--seeds 1 2 3]

The embedded digits after stage 1, with attacks, and honest: a tenth of all images, of all classes alike, turned round,
framed, dimmed, blurred, noisy, mirrored or upside down, under right labels; or a tenth or a fifth of them as they are,
under wrong labels. A row that RESULT.json has already is not run again.
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

ATTACKS = (
    "badnets-all-to-all", "blended-all-to-all", "ten-triggers", "none", "wanet-strong", "adaptive-patch", "blended",
    "tact",
)  # fmt: skip
PAIRS = {1: 7, 7: 1, 3: 8, 8: 3, 5: 6, 6: 5, 4: 9, 9: 4}  # digits that people take for one another
WRONG = (
    "random-0.1",
    "random-0.2",
    "next-0.1",
    "next-0.05",
    "pairs-0.1",
)  # how labels are wrong, and share of the images
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


def mirrored(x: torch.Tensor, _: torch.Generator) -> torch.Tensor:
    return x.flip(2)


def upside_down(x: torch.Tensor, _: torch.Generator) -> torch.Tensor:
    return x.flip(1, 2)


KINDS = (turned_round, framed, dimmed, blurred, noisy, mirrored, upside_down)
CHANGES = {of.__name__.replace("_", "-"): of for of in KINDS}


def wrong_labels(kind: str, labels: np.ndarray, seed: int) -> np.ndarray:
    """int64 [n]: `labels`, of which a share is random, that of the next class, or that of the digit most like it."""
    how, share = kind.rsplit("-", 1)
    generator = np.random.default_rng(seed)
    drawn = generator.permutation(len(labels))[: round(float(share) * len(labels))]
    wrong = labels.copy()
    if how == "random":
        wrong[drawn] = (labels[drawn] + generator.integers(1, 10, len(drawn))) % 10
    elif how == "next":
        wrong[drawn] = (labels[drawn] + 1) % 10
    else:
        wrong[drawn] = [PAIRS.get(int(label), int(label)) for label in labels[drawn]]
    return wrong


SETS = [*ATTACKS, *CHANGES, *WRONG]


def parser():
    of = parser_of(__doc__, "studies.grown.run")
    of.add_argument("--only", nargs="+", choices=SETS, default=SETS)
    of.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    add_out(of)
    add_threads(of, 1)
    return of


def made(name: str, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(images uint8 [n, H, W, 3], labels int64 [n], poisoned bool [n]) of the digits with an attack, a change or wrong
    labels.
    """
    train = sources.load("digits", DataConfig()).train
    ids, labels = torch.arange(len(train.labels)), train.labels
    if name in CHANGES:
        images, generator = train.images.get(ids).clone(), torch.Generator().manual_seed(seed)
        drawn = torch.randperm(len(ids), generator=generator)[: round(SHARE * len(ids))]
        images[drawn] = CHANGES[name](images[drawn], generator)
        return images.numpy(), labels.numpy(), np.zeros(len(ids), dtype=bool)
    if name in WRONG:
        given = wrong_labels(name, labels.numpy(), seed)
        return train.images.get(ids).numpy(), given, np.zeros(len(ids), dtype=bool)
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
    listed = np.flatnonzero(np.array(result.samples["decision"]) == "probably_mislabeled")
    wrong = np.flatnonzero((labels != made("none", seed)[1]) & ~poisoned)
    return {
        "set": name,
        "seed": seed,
        "verdict": verdict["kind"],
        "classes": sorted({target["class"] for target in verdict["targets"]}),
        "poisoned": int(poisoned.sum()),
        "suspected": len(suspected),
        "suspected_and_poisoned": int(poisoned[suspected].sum()),
        "wrong_labels": len(wrong),
        "probably_mislabeled": len(listed),
        "probably_mislabeled_and_wrong": int(np.isin(listed, wrong).sum()),
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
