"""What the commands share: reading options."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, TypeVar

import tyro
from pydantic import BaseModel

from dlp_fast.commands.guard import guarded, tell
from dlp_fast.config import (
    InvalidSection,
    RunConfig,
    build,
    is_streamed,
    merge,
    presets,
    read_preset,
    read_yaml,
    refuse_address,
)
from dlp_fast.errors import ConfigError

__all__ = ["guarded", "parse", "read_options", "tell"]

Options = TypeVar("Options", bound=BaseModel)

PLACES = ("--data", "--out", "--test", "--dataset.test", "--dataset.images", "--decisions", "--triggered")
FILES_HELP = (
    f"Besides the options below: --preset NAME ({', '.join(presets())}) and --config FILE.yaml. "
    "Defaults < preset < file < options."
)


def parse(
    options: type[Options],
    command: str,
    description: str | None,
    arguments: list[str] | None = None,
    default: Options | None = None,
) -> Options:
    """The options of `python -m dlp_fast.<command>` from the command line.

    Raises ConfigError for a value that is out of range or empty, and for an address of the web where a place is wanted.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    for before, argument in zip(["", *arguments], arguments):
        refuse_address(argument)
        if is_streamed(argument) and not (before == "--data" or argument.startswith("--data=")):
            raise ConfigError(
                f"{argument} is an address; only --data takes those of .tar and .parquet shards"
            )
        if is_streamed(argument) and not _takes_addresses(options):
            raise ConfigError(
                f"{argument} is an address, and {command} reads files of this machine alone; copy the shards to it"
            )
        if not argument.strip() or (argument.startswith("--") and argument.endswith("=")):
            named = argument.strip().rstrip("=") or (before if before.startswith("-") else "an argument")
            raise ConfigError(f"{named}: empty; a variable of the shell that is not set may have been meant")
    _refuse_places(options, arguments)
    given = {} if default is None else {"default": default}
    prog = f"python -m dlp_fast.{command}"
    try:
        return tyro.cli(options, args=arguments, prog=prog, description=description, **given)
    except InvalidSection as error:
        at = _place_of(error.section, options)
        told = "; ".join(f"--{at}{name.replace('_', '-')}: {what}" for name, what in error.problems)
        raise ConfigError(f"{told}. See {prog} --help.") from None


def _takes_addresses(options: type[BaseModel]) -> bool:
    """Whether `data` may be one: where it is a Path, an address would lose a slash."""
    return "data" in options.model_fields and options.model_fields["data"].annotation in (str, str | None)


def _refuse_places(options: type[BaseModel], arguments: list[str]) -> None:
    """ConfigError where a place is given twice, of which the last alone would count, or several where one is taken, as
    a shell makes of a pattern.
    """
    words = [argument.partition("=")[0].replace("_", "-") for argument in arguments]
    for option in PLACES:
        at = [i for i, word in enumerate(words) if word == option]
        if len(at) > 1:
            raise ConfigError(
                f"{option} is given {len(at)} times, and the last alone would count; give it once"
            )
    positional = any("Positional" in repr(field.metadata) for field in options.model_fields.values())
    one = "data" in options.model_fields and options.model_fields["data"].annotation in (str, Path)
    if one and not positional and "--data" in arguments:
        more = arguments[arguments.index("--data") + 2 :]
        if more and not more[0].startswith("-"):
            raise ConfigError(
                f"--data takes one place, and {more[0]} follows it. Give the folder that holds the class folders; the "
                "shell may have made many names of a pattern"
            )


def _place_of(section: type[BaseModel], options: type[BaseModel]) -> str:
    """The prefix of a section's options, such as "dataset.", within `options`; "" for itself."""
    for name, field in options.model_fields.items():
        of = field.annotation
        if isinstance(of, type) and issubclass(of, BaseModel):
            if of is section:
                return f"{name}."
            inside = _place_of(section, of)
            if inside:
                return f"{name}.{inside}"
    return ""


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
    description = (
        "From an image folder that is not trusted to a clean model and the list of suspected images. "
    )
    return parse(RunConfig, "run", description + FILES_HELP, rest, default)
