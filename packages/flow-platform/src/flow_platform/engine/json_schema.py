"""Holding JSON values against JSON Schemas that users wrote. Schemas are untrusted, too: bounded, and never fetched.

A check runs between other people's requests, so neither a pattern nor a chain of references may keep it for long:
patterns are matched in linear time (Rust's `regex`, which has no look-around and no back-references), and a check that
follows too many references is given up.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from typing import Any, Final, cast

import jsonschema
from jsonschema.exceptions import SchemaError, UndefinedTypeCheck, ValidationError
from jsonschema.validators import extend  # pyright: ignore[reportUnknownVariableType]
from pydantic_core import SchemaError as PatternError
from pydantic_core import SchemaValidator
from pydantic_core import ValidationError as NoMatch
from pydantic_core.core_schema import str_schema
from referencing import Registry
from referencing.exceptions import Unresolvable

from flow_platform.domain import errors
from flow_platform.engine.validation import MAX_DETAILS, invalid

MAX_DEPTH: Final = 64
MAX_MESSAGE: Final = 500
MAX_REFERENCES: Final = 20_000  # That one check follows.
MAX_PATTERN: Final = 1000  # Characters.
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
    for pattern in _patterns(schema):
        try:
            _matcher(pattern)
        except PatternError as error:
            raise invalid(field, pattern, "a pattern without look-around and back-references") from error


def check_value(what: str, schema: dict[str, Any], value: Any) -> None:
    """Holds a value against a schema.

    Raises:
        InvalidInput: It does not fit; one detail per place.
    """
    try:
        details = misfits(what, schema, value)
    except SchemaUnusable as error:
        raise invalid("schema", schema, f"a schema that can be checked: {error}") from error
    if details:
        raise errors.InvalidInput(
            f"the {what} does not fit its schema: {details[0]['field']}: {details[0]['message']}", details=details
        )


class SchemaUnusable(Exception):
    """Values cannot be held against it, e.g. for a pattern, or as it would take too long."""


def misfits(what: str, schema: dict[str, Any], value: Any) -> list[dict[str, Any]]:
    """Where the value does not fit, by place; at most `MAX_DETAILS`. Empty: it fits.

    Raises:
        SchemaUnusable: Nobody can say.
    """
    validator = _Validator(schema, registry=_NOTHING_ELSE)
    _references.set([0])
    try:
        problems = sorted(cast("Iterable[ValidationError]", validator.iter_errors(value)), key=_place)  # pyright: ignore[reportUnknownMemberType]
    except (RecursionError, Unresolvable, UndefinedTypeCheck, _TooManyReferences, PatternError) as error:
        raise SchemaUnusable(str(error)) from error
    return [
        {"field": _place(problem) or what, "message": problem.message[:MAX_MESSAGE]}
        for problem in problems[:MAX_DETAILS]
    ]


class _TooManyReferences(Exception):
    """The check would take too long."""

    def __init__(self) -> None:
        super().__init__(f"it follows more than {MAX_REFERENCES} references")


_references: ContextVar[list[int]] = ContextVar("references")
"""How many the check that goes on has followed."""


def _pattern(_: Any, pattern: Any, value: Any, __: Any) -> Iterator[ValidationError]:
    if isinstance(value, str) and isinstance(pattern, str):
        try:
            _matcher(pattern).validate_python(value)
        except NoMatch:
            yield ValidationError(f"{value[:100]!r} does not match {pattern!r}")


def _counted(keyword: Callable[..., Iterable[ValidationError]]) -> Callable[..., Iterator[ValidationError]]:
    def check(validator: Any, reference: Any, value: Any, schema: Any) -> Iterator[ValidationError]:
        count = _references.get()
        count[0] += 1
        if count[0] > MAX_REFERENCES:
            raise _TooManyReferences
        yield from keyword(validator, reference, value, schema)

    return check


def _nothing(*_: Any) -> Iterator[ValidationError]:
    """Keywords whose patterns would go to Python's own, exponential matcher. The component may still check them."""
    return iter(())


def _additional(validator: Any, allowed: Any, value: Any, schema: Any) -> Iterable[ValidationError]:
    if "patternProperties" in schema:
        return iter(())
    return _KEYWORDS["additionalProperties"](validator, allowed, value, schema)


_KEYWORDS: Final[dict[str, Any]] = dict(jsonschema.Draft202012Validator.VALIDATORS)
_Validator: Any = extend(  # pyright: ignore[reportUnknownVariableType]
    jsonschema.Draft202012Validator,
    {
        "pattern": _pattern,
        "patternProperties": _nothing,
        "unevaluatedProperties": _nothing,
        "unevaluatedItems": _nothing,
        "additionalProperties": _additional,
        "$ref": _counted(_KEYWORDS["$ref"]),
        "$dynamicRef": _counted(_KEYWORDS["$dynamicRef"]),
    },
)


@functools.lru_cache(maxsize=1000)
def _matcher(pattern: str) -> SchemaValidator:
    """Raises PatternError when it is none that can be matched in linear time."""
    if len(pattern) > MAX_PATTERN:
        raise PatternError(f"it has more than {MAX_PATTERN} characters")
    return SchemaValidator(str_schema(pattern=pattern, regex_engine="rust-regex"))


def _patterns(schema: Any) -> Iterator[str]:
    if isinstance(schema, list):
        for item in cast("list[Any]", schema):
            yield from _patterns(item)
    elif isinstance(schema, dict):
        for name, value in cast("dict[str, Any]", schema).items():
            if name == "pattern" and isinstance(value, str):
                yield value
            yield from _patterns(value)


def _place(problem: ValidationError) -> str:
    return ".".join(str(part) for part in problem.absolute_path)


def _is_deeper(value: Any, levels: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    inner = cast("dict[str, Any]", value).values() if isinstance(value, dict) else cast("list[Any]", value)
    return levels == 0 or any(_is_deeper(one, levels - 1) for one in inner)
