"""What all sections of the configuration have in common."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from dlp_fast.config.words import expected
from dlp_fast.errors import ConfigError


class InvalidSection(ConfigError):
    """Values that a section does not take.

    section: its class; problems: (dotted name within the section, what is wrong with it).
    """

    def __init__(self, section: type[BaseModel], problems: list[tuple[str, str]]):
        super().__init__("; ".join(f"{name}: {what}" for name, what in problems))
        self.section, self.problems = section, problems


class _Worded(type(BaseModel)):
    """Where a section is made by its name, errors are in words of ours; tyro would print pydantic's as they are."""

    def __call__(cls, *args: Any, **values: Any) -> Any:
        try:
            return super().__call__(*args, **values)
        except ValidationError as error:
            told = [(".".join(map(str, one["loc"])), expected(one, cls)) for one in error.errors()]
        raise InvalidSection(cls, told)


class Section(BaseModel, metaclass=_Worded):
    """Base of all sections: unknown keys and values out of range are errors, nothing changes after reading.

    Raises InvalidSection, a ConfigError, for values that it does not take.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _homes(cls, values: Any) -> Any:
        """Paths that begin with ~ in the person's home: shells leave it as it is in --out=~/x, and a folder called ~
        would be made, which nobody can remove without fear.
        """
        if not isinstance(values, dict):
            return values
        return {name: _at_home(value) if _is_path(cls, name) else value for name, value in values.items()}


def _is_path(section: type[BaseModel], name: str) -> bool:
    field = section.model_fields.get(name)
    return field is not None and (name == "data" or "Path" in str(field.annotation))


def _at_home(value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return type(value)(map(_at_home, value))
    if isinstance(value, (str, Path)) and str(value).startswith("~") and not os.path.lexists(value):
        return type(value)(os.path.expanduser(value))
    return value
