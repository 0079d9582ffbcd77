"""Paths of endpoints: templates such as `/orders/{order_id}`, and which of several a request means."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, TypeVar

from flow_platform.domain import errors

T = TypeVar("T")

MAX_PATH: Final = 512  # Characters.
MAX_SEGMENTS: Final = 20
RESERVED: Final = frozenset({"async", "jobs", "tools", "skills", "skills.json", "skills.zip", "openapi.json"})
"""First segments that the platform answers itself; so is every `v` with a number."""

_PARAMETER: Final = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]{0,62})\}")
_LITERAL: Final = re.compile(r"[A-Za-z0-9._~-]+")
_VERSION: Final = re.compile(r"v[0-9]+")


def segments_of(path: str) -> tuple[str, ...]:
    """The parts between the slashes; none for `/`."""
    return () if path in ("", "/") else tuple(path.removeprefix("/").split("/"))


def parameters_of(path: str) -> tuple[str, ...]:
    """The names of its parameters, in order."""
    return tuple(_PARAMETER.findall(path))


def check_path(path: str) -> str:
    """Returns the path of an endpoint.

    Raises:
        InvalidInput: It is none.
    """
    segments = segments_of(path)
    names = parameters_of(path)
    if not path.startswith("/") or len(path) > MAX_PATH or len(segments) > MAX_SEGMENTS:
        raise _refused(path, f"'/' and at most {MAX_SEGMENTS} segments, {MAX_PATH} characters in all")
    for segment in segments:
        if not (_PARAMETER.fullmatch(segment) or (_LITERAL.fullmatch(segment) and segment not in (".", ".."))):
            raise _refused(path, "segments of letters, digits, '.', '_', '~' and '-', or one {parameter} each")
    if len(set(names)) != len(names):
        raise _refused(path, "each parameter once")
    if segments and (segments[0] in RESERVED or _VERSION.fullmatch(segments[0])):
        raise _refused(path, f"a first segment that the platform does not use itself, as it does {segments[0]!r}")
    return path


def shape_of(path: str) -> tuple[str | None, ...]:
    """The path without the names of its parameters: two endpoints of one method and one shape are never told apart."""
    return tuple(None if _PARAMETER.fullmatch(segment) else segment for segment in segments_of(path))


def match(path: str, template: str) -> dict[str, str] | None:
    """The parameters of a path, if it is one of the template's. None of them is empty."""
    segments, wanted = segments_of(path), segments_of(template)
    if len(segments) != len(wanted):
        return None
    found: dict[str, str] = {}
    for segment, part in zip(segments, wanted, strict=True):
        parameter = _PARAMETER.fullmatch(part)
        if parameter is None:
            if segment != part:
                return None
        elif segment:
            found[parameter[1]] = segment
        else:
            return None
    return found


def most_literal_first(items: Iterable[tuple[str, T]]) -> list[tuple[str, T]]:
    """Templates in the order in which they are tried: `/orders/open` before `/orders/{order_id}`."""
    return sorted(items, key=lambda item: tuple(part is None for part in shape_of(item[0])))


def _refused(path: str, expected: str) -> errors.InvalidInput:
    return errors.InvalidInput(
        f"path {path[:80]!r} is not valid: expected {expected}",
        details=[{"field": "path", "message": f"expected {expected}"}],
    )
