"""Whether data of one JSON Schema can go where another is expected; says no only when it surely cannot.

Looks at types, members and items, through local `$ref`s and `anyOf`/`oneOf`. What it does not understand fits: the
component validates its real input in any case. Output schemas are derived from annotations, which name every member,
so an object schema with `properties` and no word on `additionalProperties` counts as closed for reading.

Source: JSON Schema draft 2020-12, as pydantic writes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

Schema = dict[str, Any]

MAX_DEPTH: Final = 10
"""Levels that are compared; schemas may refer to themselves."""

_NUMBERS: Final = frozenset({"integer", "number"})
_NAMES: Final[tuple[tuple[type, str], ...]] = (
    (bool, "boolean"),
    (int, "integer"),
    (float, "number"),
    (str, "string"),
    (list, "array"),
    (dict, "object"),
    (type(None), "null"),
)


@dataclass(frozen=True)
class Located:
    """A schema within the document that its `$ref`s point into. `schema` None: unknown."""

    schema: Schema | None
    document: Schema

    def at(self, schema: Any) -> Located:
        found: Schema | None = schema if isinstance(schema, dict) else None  # pyright: ignore[reportUnknownVariableType] - JSON.
        return Located(found, self.document)


class NoSuchMember(Exception):
    """A path names a member that the schema does not have. The text says which, and what there is."""


def locate(document: Schema | None, path: Sequence[str | int]) -> Located:
    """The schema of what a path leads to.

    Raises:
        NoSuchMember: Nothing can be there.
    """
    here = _followed(Located(document or None, document or {}))
    for segment in path:
        kinds = _types(here, 0)
        if here.schema is None or kinds is None:
            return Located(None, here.document)
        if isinstance(segment, int):
            if "array" not in kinds:
                raise NoSuchMember(f"[{segment}] of {_shown(kinds)}")
            here = _followed(here.at(here.schema.get("items")))
            continue
        if "object" not in kinds:
            raise NoSuchMember(f"{segment!r} of {_shown(kinds)}")
        properties = _properties(here)
        if segment in properties:
            here = _followed(here.at(properties[segment]))
            continue
        if properties and _is_closed(here):
            raise NoSuchMember(f"{segment!r}: it has {', '.join(sorted(properties))}")
        return Located(None, here.document)
    return here


def misfit(source: Located, target: Located, depth: int = 0) -> str | None:
    """Why data of the source can never be valid for the target; None when it may be."""
    source, target = _followed(source), _followed(target)
    given, wanted = _types(source, 0), _types(target, 0)
    if depth > MAX_DEPTH or source.schema is None or target.schema is None or given is None or wanted is None:
        return None
    # Every integer is a number, and a number may be whole.
    both_numbers = given & _NUMBERS and wanted & _NUMBERS
    if not given & wanted and not both_numbers:
        return f"expected {_shown(wanted)}, got {_shown(given)}"
    if given == wanted == {"object"}:
        return _object_misfit(source, target, depth)
    if given == wanted == {"array"}:
        problem = misfit(source.at(source.schema.get("items")), target.at(target.schema.get("items")), depth + 1)
        return problem and f"items: {problem}"
    return None


def value_misfit(value: Any, target: Located) -> str | None:
    """Why a literal value can never be valid for the target, judged by its type and allowed values."""
    target = _followed(target)
    wanted = _types(target, 0)
    if target.schema is None or wanted is None:
        return None
    kind = next(name for kind, name in _NAMES if isinstance(value, kind))
    fits = kind in wanted or (kind == "integer" and "number" in wanted)
    if isinstance(value, float) and "integer" in wanted:
        fits = fits or value.is_integer()
    if not fits:
        return f"expected {_shown(wanted)}, got {value!r:.100}"
    allowed = target.schema.get("enum")
    if isinstance(allowed, list) and value not in allowed:
        return f"expected one of {allowed!r:.200}, got {value!r:.100}"
    return None


def data_misfit(value: Any, target: Located, depth: int = 0) -> str | None:
    """Why data, looked at in all its parts, can never be valid for the target; says where."""
    target = _followed(target)
    problem = value_misfit(value, target)
    if problem or depth > MAX_DEPTH or target.schema is None:
        return problem
    if isinstance(value, dict):
        members: dict[str, Any] = value  # pyright: ignore[reportUnknownVariableType] - JSON: keys are strings.
        parts = [(name, members[name], schema) for name, schema in _properties(target).items() if name in members]
        problem = members_misfit(set(members), target)
    else:
        items: list[Any] = value if isinstance(value, list) else []  # pyright: ignore[reportUnknownVariableType] - JSON.
        parts = [(f"[{index}]", item, target.schema.get("items")) for index, item in enumerate(items)]
    for name, part, schema in parts if problem is None else ():
        problem = data_misfit(part, target.at(schema), depth + 1)
        if problem:
            return f"{name}: {problem}"
    return problem


def members_misfit(names: set[str], target: Located) -> str | None:
    """Why an object with exactly these members can never be valid for the target."""
    target = _followed(target)
    if target.schema is None or _types(target, 0) != {"object"}:
        return None
    properties = _properties(target)
    missing = [name for name in _required(target) if name not in names]
    if missing:
        return f"expected also {', '.join(repr(name) for name in missing)}: required"
    unknown = sorted(names - set(properties))
    if unknown and target.schema.get("additionalProperties") is False:
        return f"expected only {', '.join(sorted(properties)) or 'no members'}, got {unknown[0]!r}"
    return None


def _object_misfit(source: Located, target: Located, depth: int) -> str | None:
    given, wanted = _properties(source), _properties(target)
    for name in _required(target):
        if name in given and name in wanted:
            problem = misfit(source.at(given[name]), target.at(wanted[name]), depth + 1)
            if problem:
                return f"{name}: {problem}"
        elif name not in given and given and _is_closed(source):
            return f"expected {name!r}, which is required; got {', '.join(sorted(given))}"
    return None


def _properties(located: Located) -> Schema:
    found = (located.schema or {}).get("properties")
    return found if isinstance(found, dict) else {}  # pyright: ignore[reportUnknownVariableType] - JSON.


def _required(located: Located) -> list[str]:
    found = (located.schema or {}).get("required")
    names: list[Any] = found if isinstance(found, list) else []  # pyright: ignore[reportUnknownVariableType] - JSON.
    return [name for name in names if isinstance(name, str)]


def _is_closed(located: Located) -> bool:
    schema = located.schema or {}
    return not schema.get("additionalProperties", False) and not schema.keys() & {"anyOf", "oneOf", "allOf"}


def _followed(located: Located) -> Located:
    """The schema that a `$ref` stands for; unknown when it points elsewhere or in a circle."""
    for _ in range(MAX_DEPTH):
        reference = located.schema.get("$ref") if located.schema else None
        if reference is None:
            return located
        found: Any = located.document
        for part in str(reference).removeprefix("#/").split("/"):
            found = found.get(part) if isinstance(found, dict) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType] - JSON.
        located = located.at(found)
    return located.at(None)


def _types(located: Located, depth: int) -> set[str] | None:
    """The JSON types that a schema allows; None when unknown."""
    located = _followed(located)
    schema = located.schema
    if not schema or depth > MAX_DEPTH:
        return None
    named = schema.get("type")
    if isinstance(named, str):
        return {named}
    if isinstance(named, list):
        return {str(name) for name in named}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType] - JSON.
    options = schema.get("anyOf") or schema.get("oneOf")
    if isinstance(options, list):
        types: set[str] = set()
        for option in options:  # pyright: ignore[reportUnknownVariableType] - JSON.
            found = _types(located.at(option), depth + 1)
            if found is None:
                return None
            types |= found
        return types
    return None


def _shown(kinds: set[str]) -> str:
    return " or ".join(sorted(kinds))
