"""Where the references of a JSON Schema lead. A dead one is its author's mistake, so it is told at publish."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, cast
from urllib.parse import unquote

from flow_platform.engine.validation import invalid

DEFINITIONS: Final = "#/$defs/"
_DATA: Final = frozenset({"const", "default", "enum", "examples"})
"""Keywords whose values are no schemas."""
_MISSING: Final = object()


def check_references(field: str, schema: dict[str, Any], *, to_definitions_only: bool = False) -> None:
    """Holds each `$ref` against the schema. References in circles are fine.

    A schema that names itself or parts of it (`$id`, `$anchor`) is left to whoever checks values with it.

    Args:
        to_definitions_only: The schema will be put into another, so that only `#/$defs/NAME` stays what it is.

    Raises:
        InvalidInput: One leads nowhere, or out of the schema.
    """
    references, has_names = _found(schema)
    for reference in references:
        if has_names:
            continue
        if not reference.startswith("#") or _at(schema, reference[1:]) is _MISSING:
            raise invalid(f"{field}.$ref", reference, f"a place in this schema, such as {DEFINITIONS}NAME")
    for reference in references if to_definitions_only else ():
        if not reference.startswith(DEFINITIONS):
            raise invalid(f"{field}.$ref", reference, f"{DEFINITIONS}NAME, or a schema of type 'object'")


def _found(schema: dict[str, Any]) -> tuple[list[str], bool]:
    """All references, and whether there are other names than places."""
    references: list[str] = []
    has_names = False
    for part in _parts(schema):
        reference = part.get("$ref")
        if isinstance(reference, str):
            references.append(reference)
        has_names = has_names or any(isinstance(part.get(name), str) for name in ("$id", "$anchor", "$dynamicAnchor"))
    return references, has_names


def _parts(value: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(value, list):
        for item in cast("list[Any]", value):
            yield from _parts(item)
    elif isinstance(value, Mapping):
        part = cast("Mapping[str, Any]", value)
        yield part
        for name, inner in part.items():
            if name not in _DATA:
                yield from _parts(inner)


def _at(schema: Any, pointer: str) -> Any:
    """What is there (RFC 6901)."""
    found = schema
    for segment in pointer.split("/")[1:] if pointer else ():
        name = unquote(segment).replace("~1", "/").replace("~0", "~")
        if isinstance(found, Mapping):
            found = cast("Mapping[str, Any]", found).get(name, _MISSING)
        elif isinstance(found, list) and name.isdecimal() and int(name) < len(cast("list[Any]", found)):
            found = cast("list[Any]", found)[int(name)]
        else:
            return _MISSING
    return found if not pointer or pointer.startswith("/") else _MISSING
