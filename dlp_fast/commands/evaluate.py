"""python -m dlp_fast.evaluate RUN --data DIR2/test: clean accuracy and attack success rate of a run's model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from dlp_fast.commands.options import parse
from dlp_fast.config import Section
from dlp_fast.errors import ConfigError


class EvaluateConfig(Section):
    """Which model, and on what."""

    run: Annotated[Path, tyro.conf.Positional]
    """A finished run folder."""
    data: Path
    """Test images with their true labels: a folder a class, an archive of it, or a table of paths and labels."""
    triggered: Path | None = None
    """The same kind of folder with the trigger on each image, under true labels."""
    target: str | None = None
    """Class that the trigger aims at; needed with --triggered."""
    follow_links: Annotated[bool, tyro.conf.arg(aliases=["--dataset.follow-links"])] = False
    """Read what links to files and folders lead to, each folder once."""


def main() -> None:
    config = parse(EvaluateConfig, "evaluate", __doc__)
    if (config.triggered is None) != (config.target is None):
        raise ConfigError(
            "--triggered and --target belong together: the images, and the class that they should become."
        )
    # what follows loads torch: not before the options are known to be right
    from dlp_fast.commands.measured import evaluate

    evaluate(config)
