"""python -m dlp_fast.report RUN: write the report of a finished run anew."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from dlp_fast.commands.options import parse, tell
from dlp_fast.config import Section
from dlp_fast.runs.log import RunLog
from dlp_fast.runs.sums import samples_changed


class ReportConfig(Section):
    """Which run, and where to."""

    run: Annotated[Path, tyro.conf.Positional]
    """A finished run folder."""
    out: Path | None = None
    """The file to write; unset: RUN/report.html."""


def main() -> None:
    config = parse(ReportConfig, "report", __doc__)
    # what follows loads torch: not before the options are known to be right
    from dlp_fast.report.render import write_report

    path = write_report(config.run, config.out)
    if told := samples_changed(config.run):
        RunLog(None).warn(told)
    tell(f"written: {path} ({path.stat().st_size / 1e6:.1f} MB). Open it in a browser; it needs no network.")
