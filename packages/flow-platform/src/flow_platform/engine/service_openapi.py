"""The OpenAPI 3.1 document of a published service."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final, cast

from flow_platform.domain.service import AuthMode, Endpoint, PublishedService, Service
from flow_platform.engine.service_input import body_schema, parameter_schema, query_schema
from flow_platform.engine.skills import base_path

_ERROR: Final = {
    "type": "object",
    "required": ["code", "message", "details", "request_id"],
    "properties": {
        "code": {"type": "string"},
        "message": {"type": "string"},
        "details": {"type": "array", "items": {"type": "object"}},
        "request_id": {"type": "string"},
    },
}
_SCHEMES: Final = {
    "token": {"type": "http", "scheme": "bearer", "description": "A token of the platform."},
    "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "serviceToken": {"type": "http", "scheme": "bearer", "description": "A token of this service."},
}
_SECURITY: Final[dict[AuthMode, list[dict[str, list[str]]]]] = {
    AuthMode.PLATFORM: [{"token": []}, {"apiKey": []}],
    AuthMode.SERVICE_TOKEN: [{"serviceToken": []}, {"token": []}, {"apiKey": []}],
    AuthMode.PUBLIC: [],
}
_REFUSALS: Final = {
    "401": "There is no valid credential.",
    "422": "The input does not fit the schemas: `details` names the fields.",
    "502": "The component failed: `details` has the id of the execution.",
    "504": "It did not end in time.",
}


_DEFINITIONS: Final = re.compile(r"#/(?:\$defs|definitions)/([^/]+)(.*)", re.DOTALL)
_SCHEMAS: Final = "#/components/schemas/"
_ERRORS: Final = {"$ref": _SCHEMAS + "Error"}
_WORDS: Final = ("$defs", "definitions")


def openapi_of(service: Service, version: PublishedService) -> dict[str, Any]:
    """The document of one version. Its server is that version's address."""
    paths: dict[str, dict[str, Any]] = {}
    schemas: dict[str, Any] = {"Error": _ERROR}
    for endpoint in version.endpoints:
        operation = _Operation(endpoint, schemas)
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = operation.document()
    return {
        "openapi": "3.1.0",
        "info": {"title": version.name, "version": str(version.number), "description": version.description},
        "servers": [{"url": base_path(service, version.number)}],
        "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": _SCHEMES},
    }


class _Operation:
    """One endpoint. The definitions of its schemas go to those of the document, under its name."""

    def __init__(self, endpoint: Endpoint, schemas: dict[str, Any]) -> None:
        self._endpoint = endpoint
        self._schemas = schemas

    def document(self) -> dict[str, Any]:
        endpoint = self._endpoint
        answer = self._embedded("response", endpoint.response_schema or {})
        operation: dict[str, Any] = {
            "operationId": endpoint.name,
            "summary": endpoint.shown_title,
            "description": endpoint.description,
            "tags": list(endpoint.tags),
            "security": _SECURITY[endpoint.auth],
            "parameters": [*self._path_parameters(), *self._query_parameters()],
            "responses": {
                "200": {"description": "The output.", "content": _json(answer)},
                **{status: {"description": text, "content": _json(_ERRORS)} for status, text in _REFUSALS.items()},
            },
        }
        body = body_schema(endpoint)
        if body is not None:
            content = _json(self._embedded("request", body))
            operation["requestBody"] = {"required": bool(body.get("required")), "content": content}
        return operation

    def _path_parameters(self) -> list[dict[str, Any]]:
        names = self._endpoint.parameters
        return [self._parameter(name, parameter_schema(self._endpoint, name), "path", True) for name in names]

    def _query_parameters(self) -> list[dict[str, Any]]:
        schema = query_schema(self._endpoint) or {}
        required: list[str] = schema.get("required") or []
        properties = cast("dict[str, Any]", schema.get("properties") or {})
        return [self._parameter(name, part, "query", name in required) for name, part in properties.items()]

    def _parameter(self, name: str, part: Any, place: str, required: bool) -> dict[str, Any]:
        schema = cast("dict[str, Any]", part) if isinstance(part, dict) else {}
        whole = self._endpoint.schema
        definitions = {word: whole[word] for word in _WORDS if word in whole}
        embedded = self._embedded("request", {**definitions, **schema})
        return {"name": name, "in": place, "required": required, "schema": embedded}

    def _embedded(self, what: str, schema: dict[str, Any]) -> dict[str, Any]:
        """The schema, with references that are right in this document.

        What refers to anything but its definitions stays whole, as a resource with an id of its own.
        """
        references = list(_references(schema))
        if any(_DEFINITIONS.fullmatch(reference) is None for reference in references):
            return {"$id": f"urn:flow:endpoint:{self._endpoint.name}:{what}", **schema}
        prefix = f"{self._endpoint.name}.{what}."
        for word in _WORDS:
            definitions = schema.get(word)
            if isinstance(definitions, dict):
                for name, part in cast("dict[str, Any]", definitions).items():
                    self._schemas[prefix + _plain(name)] = _referring(part, prefix)
        return _referring({name: part for name, part in schema.items() if name not in _WORDS}, prefix)


def _references(schema: Any) -> Iterator[str]:
    if isinstance(schema, list):
        for item in cast("list[Any]", schema):
            yield from _references(item)
    elif isinstance(schema, dict):
        for name, part in cast("dict[str, Any]", schema).items():
            if name in ("$ref", "$dynamicRef") and isinstance(part, str):
                yield part
            yield from _references(part)


def _referring(schema: Any, prefix: str) -> Any:
    if isinstance(schema, list):
        return [_referring(item, prefix) for item in cast("list[Any]", schema)]
    if not isinstance(schema, dict):
        return schema
    made: dict[str, Any] = {}
    for name, part in cast("dict[str, Any]", schema).items():
        found = _DEFINITIONS.fullmatch(part) if name == "$ref" and isinstance(part, str) else None
        made[name] = _SCHEMAS + prefix + _plain(found[1]) + found[2] if found else _referring(part, prefix)
    return made


def _plain(name: str) -> str:
    """As names of components are written there."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", name)


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
