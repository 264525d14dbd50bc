"""Where a run goes that was given no folder."""

from __future__ import annotations

import datetime
import glob
from pathlib import Path
from typing import Any

from dlp_fast.config import differences, read_yaml, real_places


def default_out(settings: dict[str, Any]) -> Path:
    """runs/<date>-<data>: of today, or of the day on which an unfinished run of these settings was begun."""
    data = settings["data"]
    name = Path(data).resolve().name if Path(data).exists() else Path(data.split(":")[0]).name
    for folder in sorted(Path("runs").glob(f"????-??-??-{glob.escape(name)}"), reverse=True):
        begun = (folder / "checkpoints").is_dir() and not (folder / "results.json").exists()
        resolved = folder / "config.resolved.yaml"
        if (
            begun
            and resolved.is_file()
            and not differences(real_places(read_yaml(resolved)), real_places(settings))
        ):
            return folder
    return Path("runs") / f"{datetime.date.today():%Y-%m-%d}-{name}"
