"""python -m dlp_fast.export RUN --format ...: what a run found, for other tools; the original is never touched."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro
from pydantic import Field

from dlp_fast.commands.options import parse
from dlp_fast.config import Section
from dlp_fast.errors import ConfigError
from dlp_fast.runs.files import refuse_full


class ExportConfig(Section):
    """Which run, as what, and where to."""

    run: Annotated[Path, tyro.conf.Positional]
    """A finished run folder."""
    format: Literal["imagefolder", "csv", "fiftyone", "cleanlab", "onnx", "torchvision"]
    """imagefolder: the images that are not suspected; csv: lists of kept and suspected; fiftyone: FiftyOne's image
    classification format; cleanlab: its table of label issues; onnx: the model, with safetensors and a model card;
    torchvision: weights under torchvision's own names, for networks that are torchvision's."""
    out: Path
    """Folder to write; must not exist, or be empty."""
    data: str | None = None
    """Where the images are now, if not where the run found them; of shards at an address, another one."""
    copies: bool = False
    """imagefolder, fiftyone: copy files, even where hard links are possible."""
    resize: bool = False
    """onnx: resize and crop within the graph, as the run did; it then takes pictures of any size."""
    opset: int | None = Field(None, ge=18)
    """onnx: version of the operators; unset: what this PyTorch prefers."""


def main() -> None:
    config = parse(ExportConfig, "export", __doc__)
    if config.format != "onnx" and (config.resize or config.opset is not None):
        raise ConfigError("--resize and --opset are of --format onnx.")
    refuse_full(config.out)
    # what follows loads torch: not before the options are known to be right
    from dlp_fast.commands.exported import export

    export(config)
