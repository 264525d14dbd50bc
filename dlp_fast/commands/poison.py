"""python -m dlp_fast.poison: an attack written to disk, to try the defence (or another) on files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro
from pydantic import Field

from dlp_fast.commands.options import parse
from dlp_fast.config import AttackName, Section, refuse_overlap
from dlp_fast.runs.files import refuse_full


class PoisonConfig(Section):
    """What to poison, how, and where to."""

    data: str
    """digits | cifar10 | cifar10:DIR | DIR with a folder a class (or DIR/train and DIR/test)."""
    out: Path
    """Folder that train, test, test_triggered and truth.csv are written to; must not exist or be empty."""
    attack: AttackName = "badnets"
    """Which trigger."""
    poison_rate: float = Field(0.1, gt=0, le=1)
    """α, share of the training images that are poisoned."""
    poison_of: Literal["auto", "all", "class"] = "auto"
    """What `poison_rate` is a share of: all images, or the target class. auto: class where labels stay (sig, lca)."""
    target: str = "0"
    """Class that the attack aims at: its name or number."""
    seed: int = Field(0, ge=0)
    """Fixes which images are drawn, and patterns."""
    follow_links: Annotated[bool, tyro.conf.arg(aliases=["--dataset.follow-links"])] = False
    """Read what links to files and folders lead to, each folder once."""
    image_size: int | None = Field(None, ge=8, le=256)
    """Side in pixels; unset: the images' own where all are equal and at most 96, else 224."""


def main() -> None:
    config = parse(PoisonConfig, "poison", __doc__)
    refuse_full(config.out)
    refuse_overlap(config.data, config.out)
    # what follows loads torch: not before the options are known to be right
    from dlp_fast.commands.poisoned_files import poison

    poison(config)
