"""The OpenAPI document: FastAPI's, with the models of request bodies and the ways to say who one is."""

from __future__ import annotations

from typing import Any, Final

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from flow_platform.api.routing import SCHEMAS, LeanRoute

TITLE: Final = "Flow"
VERSION: Final = "1"
PATH: Final = "/api/v1/openapi.json"
_SCHEMES: Final = {
    "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
    "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}


def describe(app: FastAPI) -> None:
    """Makes the application describe itself when it is first asked to; not at its start, which it would slow down."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is not None:
            return app.openapi_schema
        document = generate()
        routes = [route for route in app.routes if isinstance(route, LeanRoute)]
        bodies = {route.body_model for route in routes if route.body_model}
        answers = {model for route in routes for model in route.answer_models}
        wanted: list[tuple[type[BaseModel], JsonSchemaMode]] = [
            *((model, "validation") for model in sorted(bodies, key=_name)),
            *((model, "serialization") for model in sorted(answers, key=_name)),
        ]
        _, definitions = models_json_schema(wanted, ref_template=SCHEMAS + "{model}")
        components = document.setdefault("components", {})
        components.setdefault("schemas", {}).update(definitions.get("$defs", {}))
        components["securitySchemes"] = _SCHEMES
        document["security"] = [{name: []} for name in _SCHEMES]
        return document

    app.openapi = openapi


def _name(model: type[BaseModel]) -> str:
    return model.__name__
