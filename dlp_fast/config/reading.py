"""Configurations from presets, YAML files and plain values, checked; and compared.

Precedence: defaults < preset < configuration file < command line. The resolved configuration is written into the
run folder; running it again gives the same run.
"""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from dlp_fast.config.run import RunConfig
from dlp_fast.config.words import expected
from dlp_fast.errors import ConfigError

PRESETS = Path(__file__).resolve().parents[1] / "presets"

# What may differ between two commands that mean the same run: none of these changes a result, but for `decisions`,
# whose content is kept and compared by itself.
NOT_COMPARED = frozenset({"out", "checkpoint_seconds", "decisions", "track", "dry_run"})


def presets() -> list[str]:
    return sorted(p.stem for p in PRESETS.glob("*.yaml"))


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`base` with the keys of `over` laid on it, section by section; neither is changed."""
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def read_yaml(path: Path) -> dict[str, Any]:
    """Keys and values of a YAML file; ConfigError where it is missing, broken or no mapping."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"configuration file {path} does not exist") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"configuration file {path} cannot be read: {error}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(
            f"configuration file {path}: expected `key: value` lines, got a {type(values).__name__}"
        )
    return values


def read_preset(name: str) -> dict[str, Any]:
    if name not in presets():
        near = difflib.get_close_matches(name, presets(), n=1)
        hint = f"; perhaps you meant {near[0]}" if near else ""
        raise ConfigError(f"preset {name!r} does not exist{hint}; there are: {', '.join(presets())}")
    return read_yaml(PRESETS / f"{name}.yaml")


def _section(dotted: tuple[Any, ...]) -> type[BaseModel] | None:
    """The section that a dotted key names; None where it names none."""
    section: Any = RunConfig
    for key in dotted:
        section = getattr(section.model_fields.get(key), "annotation", None)
        if not (isinstance(section, type) and issubclass(section, BaseModel)):
            return None
    return section


def _known_keys(dotted: tuple[Any, ...]) -> list[str]:
    section = _section(dotted)
    return list(section.model_fields) if section else []


def build(values: dict[str, Any], origin: str) -> RunConfig:
    """A checked RunConfig from nested `values`; `origin` says in errors where they came from."""
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        lines = []
        for problem in error.errors():
            name = ".".join(str(part) for part in problem["loc"])
            if problem["type"] == "extra_forbidden":
                near = difflib.get_close_matches(
                    str(problem["loc"][-1]), _known_keys(problem["loc"][:-1]), n=1
                )
                hint = (
                    f"; perhaps you meant {'.'.join([*map(str, problem['loc'][:-1]), near[0]])}"
                    if near
                    else ""
                )
                lines.append(f"{name}: no such option{hint}")
            else:
                lines.append(f"{name}: {expected(problem, _section(problem['loc'][:-1]))}")
        raise ConfigError(f"{origin}: " + "; ".join(lines)) from None


STREAMED = ("s3", "gs", "gcs", "file", "memory")
_SHARDS = re.compile(rf"(--[\w.-]+=)?({'|'.join(STREAMED)})://.*\.(tar|parquet)", re.DOTALL)
_ADDRESS = re.compile(r"(--[\w.-]+=)?[A-Za-z][A-Za-z0-9+.-]*://")


def is_streamed(data: str) -> bool:
    """Whether `data` is the address of shards that are read where they lie: s3://bucket/train-*.tar, for example."""
    return bool(_SHARDS.fullmatch(data))


def refuse_address(text: str) -> None:
    """ConfigError where `text` (or OPTION=TEXT) is an address such as https://…: as a path it would lose a slash.
    Those of shards are images, and pass.
    """
    if _ADDRESS.match(text) and not is_streamed(text):
        raise ConfigError(
            f"{text} is an address, and dlp_fast fetches only .tar and .parquet shards from "
            f"{', '.join(f'{scheme}://' for scheme in STREAMED)}. Copy the files to this machine and give their folder."
        )


def differences(a: dict[str, Any], b: dict[str, Any], prefix: str = "") -> list[str]:
    """Dotted keys whose values differ between two resolved configurations, with both values."""
    found = []
    for key in sorted(a.keys() | b.keys()):
        if not prefix and key in NOT_COMPARED:
            continue
        x, y = a.get(key), b.get(key)
        if isinstance(x, dict) and isinstance(y, dict):
            found += differences(x, y, f"{prefix}{key}.")
        elif x != y:
            found.append(f"{prefix}{key}: {x} there, {y} now")
    return found


def resolve(config: RunConfig) -> dict[str, Any]:
    """The configuration as plain JSON values, with `attack: auto` decided."""
    values = config.model_dump(mode="json")
    if values["attack"] == "auto":
        values["attack"] = "badnets" if config.data == "digits" else "none"
    return values
