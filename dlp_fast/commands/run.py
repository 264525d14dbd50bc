"""python -m dlp_fast.run: an image set in; a clean model, the suspected images and the figures out."""

from __future__ import annotations

import sys

from dlp_fast.api import execute
from dlp_fast.commands.dry_run import dry_run
from dlp_fast.commands.options import read_options, tell
from dlp_fast.config import at_real_places, refuse_overlaps, resolve
from dlp_fast.preparation.place import default_out
from dlp_fast.report.text import duration, notes, percent, results_table, verdict_lines
from dlp_fast.runs.writer import RunFolder


def main() -> None:
    config = at_real_places(read_options(sys.argv[1:]))
    out = config.out or default_out(resolve(config))
    refuse_overlaps(config, out)  # also where nothing is written yet: the run itself would be refused
    if config.dry_run:
        told = dry_run(config)
        for stage, seconds in told.seconds.items():
            tell(f"{stage:<12} about {duration(seconds)}")
        tell(f"{'in all':<12} about {duration(told.total)}; memory so far {told.memory / 1e9:.1f} GB")
        tell("nothing was written. Stage 1 may end earlier; where poison is found late, stage 3 begins anew.")
        return
    before = RunFolder(out).results
    result = execute(config.model_copy(update={"out": out}))
    tell("")
    if before and before["stages"] == result.results["stages"]:  # to the second: nothing was trained
        tell("this run was finished already; its results:")
    tell(results_table(result.results))
    of = result.results["detection"]
    known = of["poisoned_precision"] is not None or of["poisoned_recall"] is not None
    tell("")
    for line in [*verdict_lines(result.results["verdict"]), *notes(result.results)]:
        tell(line)
    tell(
        f"suspected poisoned: {of['suspected_poisoned']} images"
        + (
            f", {percent(of['poisoned_precision'])} of them truly"
            if of["poisoned_precision"] is not None
            else ""
        )
        + (f", {percent(of['poisoned_recall'])} of all poisoned" if known else "")
        + f"; suspected clean: {of['suspected_clean']}"
        + (f", {percent(of['clean_precision'])} of them truly" if known else "")
    )
    tell(f"\nin {out}/:")
    tell("  report.html         the verdict and the suspected images, to look at; needs no network")
    tell("  samples.csv         every image with its score; lowest rank = most suspicious")
    tell("  model.safetensors   the clean model: dlp_fast.load(folder).predict(images)")
    tell("  results.json        these figures, with configuration and versions")
    tell("next: open report.html and look at the suspected images before you trust the rest.")
    if not known:
        tell("      a trigger that was not suspected cannot be excluded; see docs/limits.md.")
