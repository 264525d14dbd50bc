"""What all sections of the configuration have in common."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

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

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)
