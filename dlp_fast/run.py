"""python -m dlp_fast.run: an image set in; a clean model, the suspected images and the figures out."""

from __future__ import annotations

import sys

from dlp_fast.api import default_out, execute
from dlp_fast.cli import guarded, percent, read_options, results_table, tell
from dlp_fast.runfolder import RunFolder


def main() -> None:
    config = read_options(sys.argv[1:])
    out = config.out or default_out(config.data)
    finished = RunFolder(out).results is not None
    result = execute(config.model_copy(update={"out": out}))
    tell("")
    if finished:
        tell("this run was finished already; its results:")
    tell(results_table(result.results))
    of = result.results["filter"]
    known = of["poisoned_precision"] is not None
    tell("")
    tell(
        f"suspected poisoned: {of['suspected_poisoned']} images"
        + (f", {percent(of['poisoned_precision'])} of them truly" if known else "")
        + f"; suspected clean: {of['suspected_clean']}"
        + (f", {percent(of['clean_precision'])} of them truly" if known else ""),
    )
    tell(f"\nin {out}/:")
    tell("  samples.csv         every image with its score; lowest rank = most suspicious")
    tell("  model.safetensors   the clean model: dlp_fast.load(folder).predict(images)")
    tell("  results.json        these figures, with configuration and versions")
    tell(
        "next: look at the images of decision suspected_poisoned in samples.csv before you trust the rest.",
    )
    if not known:
        tell("      a trigger that was not suspected cannot be excluded; see docs/limits.md.")


if __name__ == "__main__":
    guarded(main)
