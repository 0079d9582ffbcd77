"""Holding JSON values against JSON Schemas that users wrote. Schemas are untrusted, too: bounded, and never fetched."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, cast

import jsonschema
from jsonschema.exceptions import SchemaError, UndefinedTypeCheck, ValidationError
from referencing import Registry
from referencing.exceptions import Unresolvable

from flow_platform.domain import errors
from flow_platform.engine.validation import MAX_DETAILS, invalid

MAX_DEPTH: Final = 64
MAX_MESSAGE: Final = 500
_NOTHING_ELSE: Final[Registry[Any]] = Registry()
"""Knows no other document, and fetches none."""


def check_schema(field: str, schema: dict[str, Any]) -> None:
    """Raises InvalidInput when it is no JSON Schema (2020-12) that can be used here."""
    if _is_deeper(schema, MAX_DEPTH):
        raise invalid(field, schema, f"at most {MAX_DEPTH} levels")
    try:
        jsonschema.Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        raise invalid(field, schema, f"a JSON Schema: {error.message}") from error


def check_value(what: str, schema: dict[str, Any], value: Any) -> None:
    """Holds a value against a schema.

    Raises:
        InvalidInput: It does not fit; one detail per place.
    """
    validator = jsonschema.Draft202012Validator(schema, registry=_NOTHING_ELSE)
    try:
        problems = sorted(cast("Iterable[ValidationError]", validator.iter_errors(value)), key=_place)  # pyright: ignore[reportUnknownMemberType]
    except (RecursionError, Unresolvable, UndefinedTypeCheck) as error:
        raise invalid("schema", schema, f"a schema that can be checked: {error}") from error
    if problems:
        details = [
            {"field": _place(problem) or what, "message": problem.message[:MAX_MESSAGE]}
            for problem in problems[:MAX_DETAILS]
        ]
        raise errors.InvalidInput(
            f"the {what} does not fit its schema: {details[0]['field']}: {details[0]['message']}", details=details
        )


def _place(problem: ValidationError) -> str:
    return ".".join(str(part) for part in problem.absolute_path)


def _is_deeper(value: Any, levels: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    inner = cast("dict[str, Any]", value).values() if isinstance(value, dict) else cast("list[Any]", value)
    return levels == 0 or any(_is_deeper(one, levels - 1) for one in inner)
