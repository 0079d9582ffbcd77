"""Input mappings of graph nodes: JSON in which some strings are paths to data of the run.

    "$.inputs"                      the workflow's input          "$.inputs.user.name"
    "$.nodes.fetch.output"          what a node gave              "$.nodes.fetch.output.rows[0]['a key']"
    "$.nodes.fetch.error"           why a node failed: {code, type, message}

A path is a whole string that begins with `$.` or `$[`; nothing is ever evaluated. Any other string means itself; one
that must begin like a path is written with a second dollar sign (`"$$.x"` is the text `$.x`). A node that did not
run, or has no output or error, counts as null at any depth; a key that is missing from data that exists is an error.

    {"title": "$.nodes.fetch.output.title", "tags": ["new", "$.inputs.tag"], "limit": 10}
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from flow_platform.domain import errors

MAX_PATH: Final = 500
"""Characters of one path."""

MAX_DEPTH: Final = 20
MAX_VALUES: Final = 2_000
"""Levels and values of one mapping: it is written by a person; data belongs into the workflow's input."""

MAX_GATHERED_BYTES: Final = 32 << 20
"""Of JSON that the paths of one mapping read together: as much as the body of a submit may have."""

Segment = str | int
Source = Literal["inputs", "output", "error"]

_SEGMENT: Final = re.compile(
    r"""
      \.(?P<name>[A-Za-z_][A-Za-z0-9_-]*)
    | \[(?P<index>[0-9]{1,9})\]
    | \["(?P<double>[^"]*)"\]
    | \['(?P<single>[^']*)'\]
    """,
    re.VERBOSE,
)
_EXPECTED: Final = "'$.inputs...', '$.nodes.<id>.output...' or '$.nodes.<id>.error...', with .name, ['name'] and [0]"


@dataclass(frozen=True)
class Reference:
    """A parsed path. `node` is None when it reads the workflow's inputs."""

    text: str
    source: Source
    node: str | None
    path: tuple[Segment, ...]


@dataclass(frozen=True)
class Template:
    """A parsed mapping; make it with `parse_template`. In `value`, each path is a `Reference`."""

    value: Any

    def references(self) -> Iterator[tuple[str, Reference]]:
        """Each path with the field that it fills, such as `tags[1]`; empty for the mapping as a whole."""
        yield from _references(self.value, "")

    def resolve(self, inputs: Any, outputs: Mapping[str, Any], failures: Mapping[str, Any]) -> Any:
        """The JSON value with each path replaced by what it reads.

        Args:
            outputs, failures: Of the nodes that have one.

        Raises:
            InvalidInput: `input_mapping_failed`: a key or an index is missing; names the path and what is there. Or
                all that is read is larger than `MAX_GATHERED_BYTES`.
        """
        return _Resolution(inputs, outputs, failures).of(self.value)


def parse_template(value: Any) -> Template:
    """Parses a mapping.

    Raises:
        InvalidInput: A path is malformed, or the mapping is too large; its details have the field within the mapping.
    """
    return Template(_parse(value, "", 0, _Counter()))


def parse_reference(text: str) -> Reference:
    """Parses one path.

    Raises:
        InvalidInput: Not of the form above.
    """
    segments = _segments(text)
    match segments:
        case ["inputs", *path]:
            return Reference(text, "inputs", None, tuple(path))
        case ["nodes", str(node), ("output" | "error") as source, *path]:
            return Reference(text, source, node, tuple(path))
        case _:
            raise _malformed(text)


def _segments(text: str) -> list[Segment]:
    if len(text) > MAX_PATH:
        raise _malformed(text[:40] + "...", f" of at most {MAX_PATH} characters")
    segments: list[Segment] = []
    position = 1
    while position < len(text):
        match = _SEGMENT.match(text, position)
        if match is None:
            raise _malformed(text)
        kind = match.lastgroup or "name"
        segments.append(int(match[kind]) if kind == "index" else match[kind])
        position = match.end()
    return segments


class _Counter:
    def __init__(self) -> None:
        self.values = 0


def _parse(value: Any, field: str, depth: int, counter: _Counter) -> Any:
    counter.values += 1
    if depth > MAX_DEPTH or counter.values > MAX_VALUES:
        limit = f"at most {MAX_DEPTH} levels and {MAX_VALUES} values"
        raise errors.InvalidInput(f"mapping is too large: expected {limit}", details=[_detail(field, limit)])
    if isinstance(value, dict):
        members: dict[str, Any] = value  # pyright: ignore[reportUnknownVariableType] - JSON: keys are strings.
        return {key: _parse(item, f"{field}.{key}".lstrip("."), depth + 1, counter) for key, item in members.items()}
    if isinstance(value, list):
        items: list[Any] = value  # pyright: ignore[reportUnknownVariableType] - JSON.
        return [_parse(item, f"{field}[{index}]", depth + 1, counter) for index, item in enumerate(items)]
    if isinstance(value, str) and value.startswith("$$"):
        return value[1:]
    if isinstance(value, str) and value.startswith(("$.", "$[")):
        try:
            return parse_reference(value)
        except errors.InvalidInput as error:
            raise errors.InvalidInput(error.message, details=[_detail(field, error.message)]) from None
    return value


def _references(value: Any, field: str) -> Iterator[tuple[str, Reference]]:
    if isinstance(value, Reference):
        yield field, value
    elif isinstance(value, dict):
        members: dict[str, Any] = value  # pyright: ignore[reportUnknownVariableType] - JSON: keys are strings.
        for key, item in members.items():
            yield from _references(item, f"{field}.{key}".lstrip("."))
    elif isinstance(value, list):
        items: list[Any] = value  # pyright: ignore[reportUnknownVariableType] - JSON.
        for index, item in enumerate(items):
            yield from _references(item, f"{field}[{index}]")


class _Resolution:
    """One resolving of a mapping; counts what it reads."""

    def __init__(self, inputs: Any, outputs: Mapping[str, Any], failures: Mapping[str, Any]) -> None:
        self._inputs = inputs
        self._outputs = outputs
        self._failures = failures
        self._gathered = 0

    def of(self, value: Any) -> Any:
        if isinstance(value, Reference):
            return self._read(value)
        if isinstance(value, dict):
            members: dict[str, Any] = value  # pyright: ignore[reportUnknownVariableType] - JSON: keys are strings.
            return {key: self.of(item) for key, item in members.items()}
        if isinstance(value, list):
            items: list[Any] = value  # pyright: ignore[reportUnknownVariableType] - JSON.
            return [self.of(item) for item in items]
        return value

    def _read(self, reference: Reference) -> Any:
        value = _look_up(reference, self._inputs, self._outputs, self._failures)
        self._gathered += len(json.dumps(value))
        if self._gathered > MAX_GATHERED_BYTES:
            raise errors.InvalidInput(
                f"with {reference.text!r} more than {MAX_GATHERED_BYTES} bytes are read: expected at most that many",
                code="input_mapping_failed",
            )
        return value


def _look_up(reference: Reference, inputs: Any, outputs: Mapping[str, Any], failures: Mapping[str, Any]) -> Any:
    if reference.node is None:
        value = inputs
    else:
        known = outputs if reference.source == "output" else failures
        if reference.node not in known:
            return None
        value = known[reference.node]
    for segment in reference.path:
        if isinstance(value, dict) and isinstance(segment, str):
            members: dict[str, Any] = value  # pyright: ignore[reportUnknownVariableType] - JSON: keys are strings.
            if segment not in members:
                raise _missing(reference, segment, f"an object with the keys {sorted(members)!r:.200}")
            value = members[segment]
        elif isinstance(value, list) and isinstance(segment, int):
            items: list[Any] = value  # pyright: ignore[reportUnknownVariableType] - JSON.
            if segment >= len(items):
                raise _missing(reference, segment, f"a list of {len(items)}")
            value = items[segment]
        else:
            raise _missing(reference, segment, f"{value!r:.100}")
    return value


def _missing(reference: Reference, segment: Segment, there: str) -> errors.InvalidInput:
    return errors.InvalidInput(
        f"path {reference.text!r} leads nowhere: expected {segment!r} in {there}", code="input_mapping_failed"
    )


def _malformed(text: str, more: str = "") -> errors.InvalidInput:
    return errors.InvalidInput(f"path {text!r} is not valid: expected {_EXPECTED}{more}")


def _detail(field: str, message: str) -> dict[str, Any]:
    return {"field": field, "message": message}
