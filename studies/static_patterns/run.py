"""Recall and precision of static patterns on poisoned CIFAR-10, and the purity of what they report of a clean set.

python -m studies.static_patterns.run --pack cifar10_jpeg.npz --out RESULT.json
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.common import add_out, parser_of
from dlp_fast.attacks import triggers
from dlp_fast.attacks.poisoning import TriggeredImages, plan
from dlp_fast.data.storage import ResidentImages
from dlp_fast.detection.propose.static_patterns import static_patterns

CASES = [
    ("badnets", 0.001), ("badnets", 0.003), ("badnets", 0.01), ("badnets", 0.1),
    ("blended", 0.002), ("blended", 0.01), ("blended", 0.1),
    ("sig", 0.1), ("sig", 0.5),
    ("low-frequency", 0.003), ("low-frequency", 0.01), ("low-frequency", 0.1),
    ("all-to-all badnets", 0.003), ("all-to-all badnets", 0.01), ("all-to-all badnets", 0.1),
]  # fmt: skip


def parser() -> argparse.ArgumentParser:
    of = parser_of(__doc__, "studies.static_patterns.run")
    of.add_argument(
        "--pack", type=Path, required=True, help="an .npz with train_jpeg, train_offsets, train_labels"
    )
    add_out(of)
    of.add_argument("--attacks", nargs="+", help="only these")
    of.add_argument("--images", type=int, default=10_000, help="drawn for each run")
    of.add_argument("--seeds", type=int, nargs="+", default=[0, 1], help="of the poisoned sets")
    of.add_argument("--clean-seeds", type=int, nargs="+", default=[0, 1, 2], help="of the clean sets")
    return of


def load(path: Path) -> tuple[torch.Tensor, torch.Tensor]:
    pack = np.load(path)
    data, offsets = pack["train_jpeg"], pack["train_offsets"]
    pictures = [
        np.asarray(Image.open(io.BytesIO(data[start:end].tobytes())).convert("RGB"))
        for start, end in itertools.pairwise(offsets)
    ]
    return torch.from_numpy(np.stack(pictures)), torch.from_numpy(pack["train_labels"].astype(np.int64))


def poisoned_set(attack: str, rate: float, seed: int, pixels: torch.Tensor, labels: torch.Tensor):
    """(images, labels, bool [n] poisoned); the rate of sig is of the target class, else of all images."""
    images, nobody = ResidentImages(pixels), torch.zeros(len(labels), dtype=torch.bool)
    classes = int(labels.max()) + 1
    if attack == "clean":
        return images, labels, nobody
    if attack.startswith("all-to-all"):
        chosen = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed + 7))
        nobody[chosen[: round(rate * len(labels))]] = True
        table = triggers.badnets((images.height, images.width), seed)
        moved = torch.where(nobody, (labels + 1) % classes, labels)
        return TriggeredImages(images, nobody, table), moved, nobody
    names = tuple(str(c) for c in range(classes))
    size = (images.height, images.width)
    planned = plan(attack, labels, names, size, rate=rate, rate_of="auto", target="0", seed=seed)
    return planned.poison(images), planned.labels, planned.poisoned


def measure(
    attack: str, rate: float, seed: int, options: argparse.Namespace, pixels, labels
) -> dict[str, object]:
    drawn = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))[: options.images]
    images, seen, poisoned = poisoned_set(attack, rate, seed, pixels[drawn], labels[drawn])
    wall, cpu = time.perf_counter(), time.process_time()
    groups = static_patterns(images, seen, int(labels.max()) + 1)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    truth, found = poisoned.numpy(), []
    for group in groups:
        hit = int(truth[group.ids].sum())
        found.append({
            "proposal": group.proposal, "label": group.label, "images": len(group.ids), "poisoned": hit,
            "purity": round(group.statistics["purity"], 3),
        })  # fmt: skip
    mostly = np.unique(
        np.concatenate([g.ids for g, f in zip(groups, found) if 2 * f["poisoned"] > f["images"]] or [[]])
    )
    best = max(found, key=lambda f: f["poisoned"] ** 2 / max(1, f["images"]), default=None)
    clean = [f["purity"] for f in found if f["poisoned"] == 0 and not f["proposal"].endswith("windows")]
    return {
        "attack": attack, "rate": rate, "seed": seed, "poisoned": int(truth.sum()), "best": best,
        "recall_of_all_groups_mostly_poison": float(truth[mostly.astype(np.int64)].sum() / max(1, truth.sum())),
        "groups": len(groups), "clean_purities": sorted(clean, reverse=True), "found": found,
        "seconds": round(wall, 1), "cpu_seconds": round(cpu, 1),
    }  # fmt: skip


def main() -> None:
    options = parser().parse_args()
    pixels, labels = load(options.pack)
    runs = [(attack, rate, seed) for attack, rate in CASES for seed in options.seeds]
    runs = [run for run in runs if options.attacks is None or run[0] in options.attacks]
    runs += [("clean", 0.0, seed) for seed in options.clean_seeds]
    print(
        "| attack | rate | seed | poisoned | best group: poisoned of images | recall | precision | clean purities | s |"
    )
    print("|---|---:|---:|---:|---|---:|---:|---|---:|")
    rows = []
    for run in runs:
        rows.append(measure(*run, options, pixels, labels))
        print(table_row(rows[-1]), flush=True)
    facts = {"images": options.images, "threads": torch.get_num_threads(), "torch": torch.__version__}
    options.out.write_text(json.dumps({"facts": facts, "rows": rows}, indent=1) + "\n")


def table_row(row: dict) -> str:
    cells = [row["attack"], f"{row['rate']:g}", row["seed"], row["poisoned"], "", "", ""]
    best = row["best"]
    if row["poisoned"] and best:
        kind = best["proposal"].split(".")[1]
        cells[4] = f"{best['poisoned']} of {best['images']} ({kind}, purity {best['purity']})"
        cells[5] = f"{best['poisoned'] / row['poisoned']:.3f}"
        cells[6] = f"{best['poisoned'] / best['images']:.3f}"
    purities = ", ".join(map(str, row["clean_purities"]))
    return (
        "| " + " | ".join(map(str, [*cells, purities, f"{row['seconds']} ({row['cpu_seconds']} cpu)"])) + " |"
    )


if __name__ == "__main__":
    main()
