"""What is wrong with a value, in words of ours: which value, what was expected."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel

_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": "text",
    "path": "a path",
    "tuple": "a list",
    "list": "a list",
    "dict": "a section of options",
    "model": "a section of options",
}
_FINITE = {"finite_number": "a finite number", "none_required": "nothing"}


def expected(problem: dict[str, Any], section: type[BaseModel] | None = None) -> str:
    """ "expected a number from 8 to 256, got 3": one entry of `ValidationError.errors()`, of a field of `section`."""
    kind, context = problem["type"], problem.get("ctx", {})
    got = f", got {problem.get('input')!r}"
    if kind == "missing":
        return "is missing"
    if kind == "literal_error":
        return f"expected {context['expected']}{got}"
    if kind in ("greater_than", "greater_than_equal", "less_than", "less_than_equal"):
        field = section.model_fields.get(str(problem["loc"][-1])) if section else None
        bounds = [(name, getattr(of, name)) for of in getattr(field, "metadata", ()) for name in vars_of(of)]
        told = _range(dict(bounds)) or _range({_BOUND[kind]: next(iter(context.values()))})
        return f"expected {told}{got}"
    if kind in _FINITE:
        return f"expected {_FINITE[kind]}{got}"
    wanted = _KINDS.get(kind.partition("_")[0])
    if wanted and kind.partition("_")[2] in ("type", "parsing", "from_float", "attributes_type"):
        return f"expected {wanted}{got}"
    if kind == "value_error":
        return f"{problem['msg'].removeprefix('Value error, ')}{got}"
    return f"{problem['msg'][:1].lower()}{problem['msg'][1:]}{got}"


_BOUND = {"greater_than": "gt", "greater_than_equal": "ge", "less_than": "lt", "less_than_equal": "le"}


def vars_of(bound: object) -> Iterable[str]:
    """The names of the bounds that an entry of a field's metadata has."""
    return [name for name in _BOUND.values() if getattr(bound, name, None) is not None]


def _range(bounds: dict[str, float]) -> str:
    """ "8 to 256", "more than 0 and at most 1", ...; "" for no bounds."""
    if {"ge", "le"} <= bounds.keys():
        return f"{bounds['ge']:g} to {bounds['le']:g}"
    words = {"gt": "more than", "ge": "at least", "lt": "less than", "le": "at most"}
    return " and ".join(f"{word} {_number(bounds[name])}" for name, word in words.items() if name in bounds)


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"
