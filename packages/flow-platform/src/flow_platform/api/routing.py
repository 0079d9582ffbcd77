"""Routes, described for the API's documentation where they are declared, and the router that finds them.

An endpoint is `async (Request) -> Response`: it reads and validates what it needs, and answers with bytes that were
made once. The router only finds it: to call it, and to translate what it raises, is the onion's.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pydantic
from starlette.requests import Request
from starlette.responses import Response

Endpoint = Callable[[Request], Awaitable[Response]]

WORKSPACE: Final = "/api/v1/orgs/{org_id}/workspaces/{workspace_id}"
PARAMETER: Final = re.compile(r"{(\w+)(?::path)?}")
_PARTS: Final = re.compile(r"{(\w+)(:path)?}")


@dataclass(frozen=True)
class Parameter:
    """A parameter of the query, or of the headers."""

    name: str
    description: str
    schema: Mapping[str, Any]
    place: str = "query"


PAGING: Final = (
    Parameter("cursor", "From `next_cursor` of the page before.", {"type": "string"}),
    Parameter("limit", "Items of a page.", {"type": "integer", "minimum": 1, "maximum": 200, "default": 50}),
)


@dataclass(frozen=True)
class Route:
    """One method of one path.

    Attributes:
        method: Of HTTP.
        path: With `{name}` for its parameters, none of which has a slash or is empty, and `{name:path}` for one that
            may be both.
        endpoint: What answers.
        summary: One line for the documentation.
        tag: Groups routes there; routes without one are not documented.
        answers: By status: the model of the body, or a description when there is none.
        body: The model of the request's body.
        parameters: Of query and headers.
        media_type: Of the answers that have no model; several with ", " between them.
    """

    method: str
    path: str
    endpoint: Endpoint
    summary: str
    tag: str | None
    answers: Mapping[int, type[pydantic.BaseModel] | str]
    body: type[pydantic.BaseModel] | None = None
    parameters: Sequence[Parameter] = ()
    media_type: str = "application/json"


class Router:
    """Finds routes by method and path. Paths are tried in the order of their declaration: the hottest come first."""

    def __init__(self, routes: Iterable[Route]) -> None:
        paths: dict[str, dict[str, Route]] = {}
        for route in routes:
            paths.setdefault(route.path, {})[route.method] = route
        self._paths = [(_pattern(path).fullmatch, methods) for path, methods in paths.items()]

    def find(self, method: str, path: str) -> tuple[Route, dict[str, str]] | None:
        """The route and the parameters of its path."""
        for match, methods in self._paths:
            found = match(path)
            if found is not None and (route := methods.get(method)) is not None:
                return route, found.groupdict()
        return None

    def methods(self, path: str) -> dict[str, Route]:
        """All methods that a path has, for a request with another one; empty when there is no such path."""
        return {method: route for match, methods in self._paths if match(path) for method, route in methods.items()}


def _pattern(path: str) -> re.Pattern[str]:
    parts = _PARTS.split(path)  # Literal, name, ":path" or None, literal, ..., literal.
    pattern = re.escape(parts[0])
    for i in range(1, len(parts), 3):
        pattern += f"(?P<{parts[i]}>{'.*' if parts[i + 1] else '[^/]+'})" + re.escape(parts[i + 2])
    return re.compile(pattern, re.DOTALL)
