"""What the commands share: reading options, errors with exit codes, the closing table."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console
from rich.table import Table

from dlp_fast.config import RunConfig, build, merge, presets, read_preset, read_yaml
from dlp_fast.errors import DlpError
from dlp_fast.runlog import error_console

FILES_HELP = (
    f"Besides the options below: --preset NAME ({', '.join(presets())}) and --config FILE.yaml. "
    "Defaults < preset < file < options."
)


def guarded(main: Callable[[], None]) -> None:
    """Run a command; an error that a person can mend ends in one message and its exit code, never a traceback."""
    try:
        main()
    except DlpError as error:
        _complain(str(error))
        _leave(error.exit_code)
    except KeyboardInterrupt:
        error_console().print("stopped; nothing was begun that is not saved.", highlight=False)
        _leave(130)
    except OSError as error:  # a place that no stage looks after
        where = f"{error.filename}: " if error.filename else ""
        reason = error.strerror or str(error)
        _complain(where + reason)
        _leave(5)
    except MemoryError:
        _complain("out of memory. Lower --dataset.resident-megabytes or the batch.")
        _leave(5)


def _complain(text: str) -> None:
    console = error_console()
    console.print("error: ", style="bold red", end="")
    console.print(text, highlight=False, markup=False)


def _leave(code: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code) if code >= 128 else sys.exit(code)


def read_options(arguments: list[str]) -> RunConfig:
    """RunConfig from the command line: defaults < preset < configuration file < options."""
    files = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    files.add_argument("--preset")
    files.add_argument("--config", type=Path)
    given, rest = files.parse_known_args(arguments)
    values: dict[str, Any] = {}
    if given.preset:
        values = merge(values, read_preset(given.preset))
    if given.config:
        values = merge(values, read_yaml(given.config))
    default = build(values, str(given.config or given.preset or "defaults"))
    return tyro.cli(
        RunConfig,
        default=default,
        args=rest,
        prog="python -m dlp_fast.run",
        description="From an image folder that is not trusted to a clean model and the list of suspected images. "
        + FILES_HELP,
    )


def tell(what: str | Table) -> None:
    """Print a result as it is: names of files and classes are never markup."""
    Console().print(what, highlight=False, markup=False, soft_wrap=isinstance(what, str))


def percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.2f} %"


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def verdict_lines(verdict: dict[str, Any]) -> list[str]:
    """The verdict of results.json for a terminal."""
    if verdict["kind"] == "poisoned":
        return [
            f"verdict: poisoned, target class {t['class']}, about {t['share_of_all']:.1%} of all images "
            f"({t['images']} images; strength {t['strength']:.1f}, 1 counts)"
            for t in verdict["targets"]
            if not t.get("perhaps_harmless")
        ] + [
            r
            for t, r in zip(verdict["targets"], verdict["reasons"], strict=True)
            if t.get("perhaps_harmless")
        ]
    first = "no sign of poisoning found" if verdict["kind"] == "nothing found" else "cannot tell"
    return [f"verdict: {first} (strongest sign {verdict['score']:.2f}, 1 counts)", *verdict["reasons"]]


BEHIND = 0.5  # of stage 1's agreement: that learns without augmentation, by heart, and no stage 3 comes quite up to it


def notes(results: dict[str, Any]) -> list[str]:
    """What a person must know to read the results: their own decisions in them, what was found too late, classes whose
    odds were raised, and a clean model that has learnt too little.
    """
    said = []
    given = {word: count for word, count in results["decisions"].items() if count}
    if given:
        told = ", ".join(f"{count} {word}" for word, count in given.items())
        said.append(
            f"a person's decisions were obeyed ({told}); the verdict is of what was measured with them."
        )
    if results["late"]:
        said.append(
            f"{results['late']} of the suspected images were found only in the last round of stage 3, after the model "
            "had learnt their labels: raise finetune.rounds (in another --out)."
        )
    for name, odds in results.get("raised_odds", {}).items():
        said.append(
            f"class {name} lost labels to suspicion; the clean model's odds for it are raised {odds:.1f} times to make "
            "up for them (finetune.logit_adjustment)."
        )
    agree = results.get("label_agreement")
    if agree and agree["clean_model"] < BEHIND * agree["supervised"]:
        said.append(
            f"the clean model gives {agree['clean_model']:.0%} of the trusted images their label, the network after "
            f"stage 1 {agree['supervised']:.0%}: stage 3 may have been too short for this network. Give it more steps, "
            "finetune.epochs or finetune.steps (in another --out)."
        )
    return said


def results_table(results: dict[str, Any]) -> Table:
    """CA and ASR after each stage, with time and rate."""
    table = Table(title=None, show_edge=False, pad_edge=False)
    for name in ("after stage", "clean accuracy", "attack success rate", "seconds", "images/s"):
        table.add_column(name, justify="left" if name == "after stage" else "right")
    for stage, of in results["stages"].items():
        table.add_row(
            stage,
            percent(of["clean_accuracy"]),
            percent(of["attack_success_rate"]),
            f"{of['seconds']:.1f}",
            f"{of['images_per_second']:,.0f}",
        )
    return table
