"""python -m dlp_fast.run: an image set in; a clean model, the suspected images and the figures out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from dlp_fast import __version__
from dlp_fast.commands.guard import begin
from dlp_fast.commands.options import read_options, tell
from dlp_fast.config import RunConfig, at_real_places, refuse_overlaps, resolve
from dlp_fast.preparation.place import default_out
from dlp_fast.report.text import notes, percent, power_table, results_table, verdict_lines
from dlp_fast.runs.contents import CLEAN, holds_of, title
from dlp_fast.runs.launched import launched
from dlp_fast.runs.names import printable
from dlp_fast.runs.schema import samples_name
from dlp_fast.runs.time_left import duration


def main() -> None:
    config = at_real_places(read_options(sys.argv[1:]))
    out = config.out or default_out(resolve(config))
    refuse_overlaps(config, out)  # also where nothing is written yet: the run itself would be refused
    if not launched().rank:
        aim = (
            "a dry run, which writes nothing"
            if config.dry_run
            else f"the run folder is {printable(str(out))}"
        )
        begin(f"dlp_fast {__version__}: images of {printable(config.data)}; {aim}")
    # what follows loads torch: not before the options are known to be right
    from dlp_fast.api import execute
    from dlp_fast.runs.writer import RunFolder

    if config.dry_run:
        _dry_run(config)
        return
    if launched().rank:  # rank 0 tells of what all did
        execute(config.model_copy(update={"out": out}))
        return
    before = RunFolder(out).results
    results = execute(config.model_copy(update={"out": out})).results
    tell("")
    if before and before["stages"] == results["stages"]:  # to the second: nothing was trained
        tell("this run was finished already; its results:")
    tell(results_table(results))
    tell("")
    if results["detection"].get("power_scans"):
        tell(power_table(results["detection"]["power_scans"]))
        tell("")
    for line in [*verdict_lines(results["verdict"]), *notes(results), *summary(results, out)]:
        tell(line)


def _dry_run(config: RunConfig) -> None:
    if launched().rank:
        return
    from dlp_fast.commands.dry_run import dry_runs

    told = dry_runs(config)
    here = told[0]
    for stage, seconds in here.seconds.items():
        tell(f"{stage:<12} about {duration(seconds)}")
    tell(f"{'in all':<12} about {duration(here.total)}; memory {here.memory / 1e9:.1f} GB")
    tell(
        f"{'one more':<12} about {duration(here.one_more)}: a network without the labels in question, if any are"
        + (
            ""
            if config.detection.heart_share == 1
            else "; as long again if stage 1 knows the labels by heart"
        )
    )
    tell("\nprocesses with a device like this one each (docs/scale.md says what is measured):")
    tell("  processes     hours    device-hours   memory each   read in all")
    for one in told:
        low, high = one.hours
        tell(
            f"  {one.world:>9}  {low:5.2f}–{high:5.2f}  {low * one.world:6.1f}–{high * one.world:<6.1f}"
            f"  {one.memory / 1e9:8.1f} GB  {one.read / 1e9:9.1f} GB"
        )
    tell("nothing was written. Stage 1 may end earlier; where poison is found late, stage 3 begins anew.")


def summary(results: dict[str, Any], out: Path) -> list[str]:
    """Lines for the end of a run: the suspected images in numbers, what lies where, and what to do next."""
    of = results["detection"]
    known = of["poisoned_precision"] is not None or of["poisoned_recall"] is not None
    holds = holds_of(results["stages"])
    use = "dlp_fast.load(folder).predict(images)" if holds == CLEAN else "not to be used as one, see above"
    lines = [
        f"suspected poisoned: {of['suspected_poisoned']} images"
        + (
            f", {percent(of['poisoned_precision'])} of them truly"
            if of["poisoned_precision"] is not None
            else ""
        )
        + (f", {percent(of['poisoned_recall'])} of all poisoned" if known else "")
        + f"; suspected clean: {of['suspected_clean']}"
        + (f", {percent(of['clean_precision'])} of them truly" if known else "")
        + (f"; probably mislabeled: {of['probably_mislabeled']}" if of["probably_mislabeled"] else ""),
        f"\nin {out}/:",
        "  report.html         the verdict and the suspected images, to look at; needs no network",
        f"  {samples_name(out):<18}  every image with its score; lowest rank = most suspicious",
        f"  model.safetensors   {title(holds)}: {use}",
        "  results.json        these figures, with configuration and versions",
    ]
    lines.append("next: open report.html and look at the suspected images before you trust the rest.")
    if not known:
        lines.append("      a trigger that was not suspected cannot be excluded; see docs/limits.md.")
    return lines
