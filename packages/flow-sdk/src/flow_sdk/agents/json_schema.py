"""Holds values against JSON Schemas, for arguments of tools and for answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, cast

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError, best_match  # pyright: ignore[reportUnknownVariableType]
from referencing import Registry
from referencing.exceptions import Unresolvable

_NOTHING_ELSE: Final[Registry[Any]] = Registry()
"""Knows no other document, and fetches none."""

WRAPPER: Final = "input"
ANSWER: Final = "answer"


def problem_with(schema: Mapping[str, Any], value: Any, what: str) -> str | None:
    """What does not fit, with its place; None: it fits."""
    if not schema:
        return None
    validator = Draft202012Validator(dict(schema), registry=_NOTHING_ELSE)
    try:
        problems = cast("Iterable[ValidationError]", validator.iter_errors(value))  # pyright: ignore[reportUnknownMemberType]
        error = cast("ValidationError | None", best_match(problems))  # pyright: ignore[reportUnknownVariableType]
    except (SchemaError, Unresolvable, RecursionError) as exc:
        return f"its schema cannot be used: {exc}"
    if error is None:
        return None
    place = ".".join([what, *(str(part) for part in error.absolute_path)])
    return f"{place}: {error.message:.500}"


def is_object(schema: Mapping[str, Any]) -> bool:
    return schema.get("type") == "object"


def wrapped(schema: Mapping[str, Any], name: str) -> dict[str, Any]:
    """An object with the one property; models answer and call with objects only. Definitions stay at the top."""
    inner = {key: value for key, value in schema.items() if key != "$defs"}
    made: dict[str, Any] = {"type": "object", "properties": {name: inner}, "required": [name]}
    return {**made, "$defs": schema["$defs"]} if "$defs" in schema else made
