"""How often a network that was not given the suspects' labels gives them these labels, snapshot by snapshot.

    python -m studies.held_out_agreement.run --data DIR --out RESULT.json [--picture PNG]
    python -m studies.held_out_agreement.run --data DIR --attack sig --out RESULT.json

Suspects are, of a clean set, the groups that stage 1 comes near to finding (`--least`); of an attacked one, what was
poisoned, all of it, as a filter without a fault would suspect it. Stage 3 of the default configuration is trained on
the labels of all the others. It has learnt from no suspect until its third evaluation snapshot: the first three count.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision.utils import save_image

from benchmarks.common import add_data, add_out, add_threads, chosen, parser_of, write_result
from dlp_fast.config import DataConfig, FinetuningConfig
from dlp_fast.data import sources
from dlp_fast.detection.verify.held_out import held_out_agreement
from dlp_fast.engine.batches import TrainingData
from dlp_fast.engine.device import choose_compute
from dlp_fast.reproduce.scales import ATTACKS
from dlp_fast.stages.label_policy import ASK_FROM
from dlp_fast.stages.rounds import SNAPSHOTS
from studies._common import detected, prepare, train_stage1, train_stage3

PICTURES, A_ROW = 120, 20


def parser() -> argparse.ArgumentParser:
    of = parser_of(__doc__, "studies.held_out_agreement.run")
    add_data(of)
    add_out(of)
    add_threads(of, 1)
    of.add_argument(
        "--attack", choices=["none", *ATTACKS], default="none", help="and suspect what is poisoned"
    )
    of.add_argument("--rate", type=float, default=0.1, help="of that attack: of all, or of the target class")
    of.add_argument(
        "--least", type=float, default=0.7, help="separation score from which a group of a clean set counts"
    )
    of.add_argument("--passes", type=float, default=10, help="passes of stage 3")
    of.add_argument(
        "--seed", type=int, default=0, help="of attack and training; target class: seed mod classes"
    )
    of.add_argument(
        "--picture", type=Path, metavar="PNG", help="draw the likeliest members of the first group"
    )
    return of


def groups(data: TrainingData, least: float) -> tuple[Tensor, list[dict[str, Any]]]:
    """(membership of each image in a group of score `least` or more, fp32 [n]; what these groups are like)."""
    _, first = train_stage1(data)
    membership, found = torch.zeros(len(data)), []
    for scored in detected(first.entropy, first.loss, data.labels, data.classes).decision.scored:
        if scored.score < least:
            continue
        group, last = scored.group, first.loss[-1]
        membership[torch.from_numpy(group.ids)] = torch.from_numpy(group.membership).float()
        found.append(
            {
                "label": group.label,
                "score": round(scored.score, 3),
                "last_loss": float(last[torch.from_numpy(group.core)].mean()),
                "last_loss_of_class": float(last[data.labels == group.label].mean()),
            }
        )
    return membership, found


def draw(data: TrainingData, likelihood: Tensor, path: Path) -> None:
    """The images of highest `likelihood`, fp32 [n], of those above one half."""
    count = min(PICTURES, int((likelihood > 0.5).sum()))
    ids = likelihood.argsort(descending=True, stable=True)[:count]
    shown = data.images.get(ids).permute(0, 3, 1, 2).float().cpu() / 255
    save_image(shown, path, nrow=A_ROW, padding=1, pad_value=1.0)


def main() -> None:
    options = parser().parse_args()
    torch.set_num_threads(options.threads)
    dataset = sources.load(options.data, DataConfig(image_size=options.image_size))
    part = prepare(dataset, options.attack, options.rate, options.seed)
    data, suspected, found = part.data, part.poisoned, []
    if options.attack == "none":
        membership, found = groups(data, options.least)
        suspected = membership > 0.5
        if options.picture and found:
            draw(data, membership * (data.labels == found[0]["label"]), options.picture)
    suspects, trusted = suspected.nonzero().flatten(), (~suspected).nonzero().flatten()
    if not len(suspects):
        raise SystemExit(f"no group of this set comes to a score of {options.least}; lower --least.")
    config = FinetuningConfig(epochs=options.passes)
    _, third = train_stage3(data, config, suspected=suspected, snapshots=SNAPSHOTS)
    snapshots = []
    for loss in third.loss[:ASK_FROM]:
        heard = held_out_agreement(loss, data.labels, suspects, trusted)
        snapshots.append({label: asdict(agreement) for label, agreement in heard.items()})
    for number, of in enumerate(snapshots, start=1):
        print(f"snapshot {number}: {of}", flush=True)
    result = {
        "options": chosen(options),
        "classes": dataset.train.classes,
        "suspects": torch.bincount(data.labels[suspects], minlength=data.classes).tolist(),
        "groups": found,
        "snapshots": snapshots,
    }
    write_result(options.out, result, choose_compute("auto", "auto").describe())


if __name__ == "__main__":
    main()
