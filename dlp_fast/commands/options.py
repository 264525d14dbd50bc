"""What the commands share: reading options, errors with exit codes, printing."""

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
from dlp_fast.runs.log import error_console

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
