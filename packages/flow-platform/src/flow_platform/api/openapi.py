"""The OpenAPI document of the routes, with schemas that are those of the models themselves."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from flow_platform.api.answers import encoded
from flow_platform.api.routing import PARAMETER, Parameter, Route
from flow_sdk.wire.execution import ErrorBody

TITLE: Final = "Flow"
VERSION: Final = "1"
PATH: Final = "/api/v1/openapi.json"
_SCHEMAS: Final = "#/components/schemas/"
_WITHOUT_BODY: Final = frozenset({204, 303, 304})
_SCHEMES: Final = {
    "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
    "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}


class DocumentRoutes:
    """Serves the document. Made when it is first asked for; not at the start, which it would slow down."""

    def __init__(self, described: Sequence[Route]) -> None:
        self._described = described
        self._document: bytes | None = None

    def routes(self) -> list[Route]:
        return [
            Route(method, PATH, self.document, "This document.", tag=None, answers={200: "OpenAPI"})
            for method in ("GET", "HEAD")
        ]

    async def document(self, _: Request) -> Response:
        if self._document is None:
            self._document = encoded(document_of(self._described))
        return Response(self._document, 200, {}, "application/json")


def document_of(routes: Sequence[Route]) -> dict[str, Any]:
    """Describes all routes that have a tag."""
    from pydantic.json_schema import JsonSchemaMode, models_json_schema  # Heavy, and few ask for the document.

    described = [route for route in routes if route.tag is not None]
    bodies = {route.body for route in described if route.body}
    answers = {answer for route in described for answer in route.answers.values() if not isinstance(answer, str)}
    wanted: list[tuple[type[BaseModel], JsonSchemaMode]] = [
        *((model, "validation") for model in sorted(bodies, key=_name)),
        *((model, "serialization") for model in sorted(answers | {ErrorBody}, key=_name)),
    ]
    _, definitions = models_json_schema(wanted, ref_template=_SCHEMAS + "{model}")
    paths: dict[str, dict[str, Any]] = {}
    for route in described:
        paths.setdefault(route.path.replace(":path}", "}"), {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {"title": TITLE, "version": VERSION},
        "paths": paths,
        "components": {"schemas": definitions.get("$defs", {}), "securitySchemes": _SCHEMES},
        "security": [{name: []} for name in _SCHEMES],
    }


def _operation(route: Route) -> dict[str, Any]:
    in_path = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in PARAMETER.findall(route.path)
    ]
    responses: dict[str, dict[str, Any]] = {
        str(status): _response(route, status, answer) for status, answer in sorted(route.answers.items())
    }
    responses["default"] = {"description": "Refused: see `code` and `message`.", "content": _content(ErrorBody)}
    words = re.sub(r"[^a-z0-9]+", "_", route.path.removeprefix("/api/v1").lower()).strip("_")
    operation: dict[str, Any] = {
        "tags": [route.tag],
        "summary": route.summary,
        "operationId": f"{route.method.lower()}_{words}",
        "parameters": in_path + [_parameter(parameter) for parameter in route.parameters],
        "responses": responses,
    }
    if route.body is not None:
        operation["requestBody"] = {"required": True, "content": _content(route.body)}
    return operation


def _response(route: Route, status: int, answer: type[BaseModel] | str) -> dict[str, Any]:
    if not isinstance(answer, str):
        return {"description": route.summary, "content": _content(answer)}
    if status in _WITHOUT_BODY:
        return {"description": answer}
    return {"description": answer, "content": {one: {"schema": {}} for one in route.media_type.split(", ")}}


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": parameter.place,
        "required": False,
        "description": parameter.description,
        "schema": dict(parameter.schema),
    }


def _content(model: type[BaseModel]) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": _SCHEMAS + model.__name__}}}


def _name(model: type[BaseModel]) -> str:
    return model.__name__
