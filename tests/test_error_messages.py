"""Every option that a message or a docstring of the package names exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from pydantic import BaseModel

import dlp_fast
from dlp_fast.config import RunConfig

PACKAGE = Path(dlp_fast.__file__).parent
SECTIONS = {
    name: field.annotation
    for name, field in RunConfig.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
}


def strings(file: Path) -> list[tuple[int, str]]:
    """(line, text) of every string of `file`; an f-string's inserted values read as {}."""
    found = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.JoinedStr):
            parts = [p.value if isinstance(p, ast.Constant) else "{}" for p in node.values]
            found.append((node.lineno, "".join(map(str, parts))))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.append((node.lineno, node.value))
    return found


STAGES = ("supervised", "unlearning", "finetuning")
FILES = sorted(file for file in PACKAGE.rglob("*.py") if "reproduce" not in file.parts)
# Options of the other commands, and words of their usage.
OTHERS = {
    "triggered",
    "target",
    "format",
    "data",
    "run",
    "copies",
    "help",
    "preset",
    "config",
    "test",  # shorthand of dataset.test
    "only-done",
    "query-gpu",
    "resize",  # of dlp_fast.export
    "opset",
    "nproc_per_node",  # of torchrun
    "nproc-per-node",
    "check",  # of sha256sum
}
# What follows a section's name and a dot without being one of its options.
NOT_OPTIONS = {"md", "py", "safetensors", "npz"}


def exists(dotted: str) -> bool:
    section, _, option = dotted.partition(".")
    if not option:
        return section in RunConfig.model_fields
    return section in SECTIONS and option in SECTIONS[section].model_fields


def named(text: str) -> list[str]:
    """Options, with underscores, that `text` names as --section.option-name, --option-name or section.option_name."""
    found = []
    for option in re.findall(r"(?<![\w-])--([a-z][a-z_-]*(?:\.[a-z][a-z_-]*)?)", text):
        option = option.rstrip("-")
        if option not in OTHERS:
            found.append(option.replace("-", "_"))
    sections = "|".join(name for name in SECTIONS if name != "dataset")  # which is a word of Python code too
    for section, option in re.findall(rf"(?<![\w.-])({sections})\.([a-z_]+)\b(?!\()", text):
        if option not in NOT_OPTIONS:
            found.append(f"{section}.{option}")
    for option in re.findall(r"\{\}\.([a-z_]+)\b", text):  # of whatever stage is running
        if option not in NOT_OPTIONS and any(option in SECTIONS[s].model_fields for s in SECTIONS):
            found += [f"{stage}.{option}" for stage in STAGES]
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(PACKAGE).as_posix())
def test_options_that_a_message_names_exist(file):
    for line, text in strings(file):
        for option in named(text):
            assert exists(option), f"{file.name}, line {line}: {option} is no option ({text[:100]!r})"


def test_the_search_finds_options():
    assert named(
        "Lower {}.learning_rate, or --dataset.image-size; see detection.rate and docs/finetuning.md"
    ) == [
        "dataset.image_size",
        "detection.rate",
        *(f"{stage}.learning_rate" for stage in STAGES),
    ]
