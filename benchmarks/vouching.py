"""What a network that was not given the suspects' labels says of them, look by look: docs/verdict.md, "A false alarm".

    python -m dlp_fast.run --data DIR --attack none --preset scan --seed 0 --threads 1 --out RUN
    python benchmarks/vouching.py --data DIR --run RUN --out RESULT.json [--picture PNG]
    python benchmarks/vouching.py --data DIR --attack sig --out RESULT.json

Suspects are, of a clean set, the clouds that stage 1 of RUN came near to finding (`--least`); of an attacked one, what
was poisoned, all of it, as a filter without a fault would suspect it. Stage 3 of the default configuration is begun on
all the others and ends at the look at which it says what the suspects show.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import second_look
import torch
import tyro
from dlp_fast.checkpoint import Checkpoints, write_atomic
from dlp_fast.engine.scoring_pass import Scores
from dlp_fast.filtering.curves import strengths
from dlp_fast.filtering.scores import suspicion
from dlp_fast.filtering.vouching import words
from dlp_fast.runfolder import environment
from dlp_fast.runlog import RunLog
from second_look import part_of
from torch import Tensor
from torchvision.utils import save_image

from dlp_fast.config import FilterConfig, FinetuneConfig
from dlp_fast.data import sources
from dlp_fast.engine.batches import TrainingData, pixel_statistics
from dlp_fast.engine.device import choose_compute
from dlp_fast.engine.session import Session
from dlp_fast.models.registry import build_model
from dlp_fast.pipeline import LOOKS
from dlp_fast.stages import finetuning as stage_3

PICTURES, A_ROW = 120, 20
PLACES = ("data", "out", "run", "picture")


@dataclass
class Options:
    data: str
    """Image folder (a clean one)."""
    out: Path
    """Result file, JSON."""
    run: Path | None = None
    """Run folder whose first network has been trained on this data, clean; for clean suspects."""
    attack: str | None = None
    """Poison the set so, and suspect all that is poisoned."""
    rate: float = 0.1
    """Poisoning rate of that attack: of all images, or of the target class where labels are kept."""
    passes: int = 10
    """Passes of stage 3 that its step sizes are planned for."""
    least: float = 0.7
    """Strength from which a cloud of RUN is taken."""
    seed: int = 0
    """Of poison and training."""
    threads: int = 1
    """Of torch."""
    picture: Path | None = None
    """Draw the likeliest members of the first cloud."""


class Told(Exception):
    """The look that was waited for is over."""


def clouds(options: Options, labels: Tensor, classes: int) -> tuple[Tensor, list[dict[str, float]]]:
    """(posterior of each image in a cloud of RUN's first network, fp32 [n]; what the clouds are like)."""
    state = Checkpoints(options.run / "checkpoints").load() if options.run else None
    kept = state and state["completed"].get("supervised")
    if not kept:
        raise SystemExit(f"--run {options.run}: no run folder whose stage 1 is done; or give --attack.")
    of = kept["trajectory"]
    config = FilterConfig()
    splits = suspicion(of["entropy"], of["loss"], labels, classes, config, lambda: torch.empty(0)).splits
    posterior, told = torch.zeros(len(labels)), []
    for split, strength in zip(splits, strengths(splits, config.min_separation), strict=True):
        if strength >= options.least:
            posterior[torch.from_numpy(split.members)] = torch.from_numpy(split.posterior).float()
            members = torch.from_numpy(split.members)
            inside = members[torch.from_numpy(split.posterior > 0.5)]
            last = of["loss"][-1]
            told.append(
                {
                    "label": split.label,
                    "strength": round(strength, 3),
                    "last_loss": float(last[inside].mean()),
                    "last_loss_of_class": float(last[members].mean()),
                }
            )
    return posterior, told


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    torch.set_num_threads(options.threads)
    compute = choose_compute("auto", "auto")
    dataset = sources.load(options.data)
    images, labels, classes = dataset.train.images, dataset.train.labels, dataset.train.classes
    found: list[dict[str, float]] = []
    if options.attack:
        whole = second_look.Options(options.data, options.out, images=None)
        attack = part_of(whole, dataset, options.attack, options.rate, options.seed).attack
        labels, images, suspected = attack.labels, attack.poison(images), attack.poisoned
    else:
        posterior, found = clouds(options, labels, len(classes))
        suspected = posterior > 0.5
    if options.picture and found:
        of_first = posterior * (labels == found[0]["label"])
        likeliest = of_first.argsort(descending=True, stable=True)[
            : min(PICTURES, int((of_first > 0.5).sum()))
        ]
        shown = images.get(likeliest).permute(0, 3, 1, 2).float() / 255
        save_image(shown, options.picture, nrow=A_ROW, padding=1, pad_value=1.0)
    mean, std = pixel_statistics(images)
    data = TrainingData(images, labels, len(classes), mean, std, dataset.flip, options.seed, compute.device)
    suspects, trusted = suspected.nonzero().flatten(), (~suspected).nonzero().flatten()
    looks: list[dict[str, object]] = []
    scoring = stage_3.score

    def listening(session: Session, model: torch.nn.Module, of: TrainingData) -> Scores:
        scores = scoring(session, model, of)
        right = (scores.prediction == of.labels)[trusted].float().mean()
        looks.append({"trusted_right": float(right), "words": words(scores.loss, labels, suspects, trusted)})
        print(f"look {len(looks)}: {looks[-1]}", flush=True)
        if len(looks) == stage_3.READMIT_FROM:
            raise Told
        return scores

    stage_3.score = listening
    model = build_model("wrn-16-1", len(classes), max(images.height, images.width), options.seed + 1)
    model.to(compute.device)
    config = FinetuneConfig(epochs=options.passes)
    try:
        with Session(options.seed, compute, RunLog(None)) as session:
            stage_3.finetuning(
                session, model, data, trusted, suspects, config, looks=LOOKS, suspected=suspected
            )
    except Told:
        pass
    saved = {
        "suspects": torch.bincount(labels[suspects], minlength=len(classes)).tolist(),
        "classes": classes,
        "clouds": found,
        "looks": looks,
        "options": {k: v for k, v in asdict(options).items() if k not in PLACES},
        "environment": environment(compute.describe()),
    }
    write_atomic(options.out, json.dumps(saved, indent=1).encode() + b"\n")
    print(options.out)


if __name__ == "__main__":
    main()
