"""The OpenAPI document: FastAPI's, with the models of request bodies and the ways to say who one is."""

from __future__ import annotations

from typing import Any, Final

from fastapi import FastAPI
from pydantic.json_schema import models_json_schema

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
        models = {route.body_model for route in app.routes if isinstance(route, LeanRoute) and route.body_model}
        wanted = sorted(models, key=lambda model: model.__name__)
        _, definitions = models_json_schema(
            [(model, "validation") for model in wanted], ref_template=SCHEMAS + "{model}"
        )
        components = document.setdefault("components", {})
        components.setdefault("schemas", {}).update(definitions.get("$defs", {}))
        components["securitySchemes"] = _SCHEMES
        document["security"] = [{name: []} for name in _SCHEMES]
        return document

    app.openapi = openapi
