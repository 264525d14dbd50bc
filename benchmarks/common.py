"""What scripts of benchmarks/ and studies/ have in common: the command line and the result file."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from dlp_fast.runs.environment import environment
from dlp_fast.runs.files import write_atomic


class _Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """The description as it is written, and the defaults of options."""


def parser_of(description: str, module: str) -> argparse.ArgumentParser:
    """A parser whose --help shows `description`; `module`: for the usage line, `python -m module`."""
    return argparse.ArgumentParser(
        prog=f"python -m {module}", description=description, formatter_class=_Formatter
    )


def add_out(parser: argparse.ArgumentParser, what: str = "result file, JSON", metavar: str = "FILE") -> None:
    """--out PATH, required."""
    parser.add_argument("--out", type=Path, required=True, metavar=metavar, help=what)


def add_data(parser: argparse.ArgumentParser, what: str = "image folder, clean, with train and test") -> None:
    """--data NAME, required; --image-size, unset: the images' own."""
    parser.add_argument("--data", required=True, metavar="DIR", help=what)
    parser.add_argument(
        "--image-size", type=int, metavar="PIXELS", help="side in pixels; unset: the images' own"
    )


def add_threads(parser: argparse.ArgumentParser, default: int) -> None:
    """--threads N."""
    parser.add_argument("--threads", type=int, default=default, help="CPU threads")


def chosen(options: argparse.Namespace) -> dict[str, Any]:
    """The options that a result depends on: all but where things lie and how many threads share the work."""

    def is_place(value: Any) -> bool:
        return isinstance(value, Path) or (isinstance(value, list) and any(map(is_place, value)))

    return {k: v for k, v in vars(options).items() if not is_place(v) and k != "data"}


def write_result(file: Path, result: dict[str, Any], device: str) -> None:
    """`result` as JSON, whole or not at all, with the facts of the machine as `environment`; `device`: in words."""
    facts = {"environment": environment(device)}
    write_atomic(file, json.dumps(result | facts, indent=1).encode() + b"\n")
