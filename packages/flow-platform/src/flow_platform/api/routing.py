"""Routes that cost nothing but their work, described for the API's documentation where they are declared.

An endpoint is `async (Request) -> Response`: it reads and validates what it needs, and answers with bytes that were
made once. FastAPI's own machinery (dependencies, response models) would take several times as long as a submit; of
FastAPI we keep the routing and the OpenAPI document.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pydantic
from fastapi.routing import APIRoute
from flow_sdk.wire.execution import ErrorBody
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import request_response

Endpoint = Callable[[Request], Awaitable[Response]]

WORKSPACE: Final = "/api/v1/orgs/{org_id}/workspaces/{workspace_id}"
SCHEMAS: Final = "#/components/schemas/"
_PARAMETER: Final = re.compile(r"{(\w+)(?::\w+)?}")


@dataclass(frozen=True)
class Parameter:
    """A parameter of the query, or of the headers."""

    name: str
    description: str
    schema: Mapping[str, Any]
    place: str = "query"

    def document(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "in": self.place,
            "required": False,
            "description": self.description,
            "schema": dict(self.schema),
        }


PAGING: Final = (
    Parameter("cursor", "From `next_cursor` of the page before.", {"type": "string"}),
    Parameter("limit", "Items of a page.", {"type": "integer", "minimum": 1, "maximum": 200, "default": 50}),
)


class LeanRoute(APIRoute):
    """A route whose endpoint is called with the request and nothing around it.

    Attributes:
        body_model: Described in the OpenAPI document; validated by the endpoint.
        answer_models: Likewise. FastAPI is not told: it would build a serializer for each, at every start.
    """

    body_model: type[pydantic.BaseModel] | None
    answer_models: list[type[pydantic.BaseModel]]

    def __init__(
        self,
        path: str,
        endpoint: Endpoint,
        body_model: type[pydantic.BaseModel] | None,
        answer_models: list[type[pydantic.BaseModel]],
        **said: Any,
    ) -> None:
        super().__init__(path, endpoint, response_model=None, **said)
        self.body_model = body_model
        self.answer_models = answer_models
        self.app = request_response(endpoint)


def route(
    method: str,
    path: str,
    endpoint: Endpoint,
    summary: str,
    *,
    tag: str,
    answers: Mapping[int, type[pydantic.BaseModel] | str],
    body: type[pydantic.BaseModel] | None = None,
    parameters: Sequence[Parameter] = (),
) -> LeanRoute:
    """Declares one route.

    Args:
        method: Of HTTP.
        path: With `{name}` for its parameters.
        endpoint: What answers.
        summary: One line for the documentation.
        tag: Groups routes there.
        answers: By status: the model of the body, or a description when it is not one of JSON.
        body: The model of the request's body.
        parameters: Of query and headers.
    """
    in_path = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in _PARAMETER.findall(path)
    ]
    extra: dict[str, Any] = {"parameters": in_path + [parameter.document() for parameter in parameters]}
    if body is not None:
        extra["requestBody"] = {"required": True, "content": _content(body)}
    responses: dict[int | str, dict[str, Any]] = {
        status: {"description": answer}
        if isinstance(answer, str)
        else {"description": summary, "content": _content(answer)}
        for status, answer in answers.items()
    }
    responses["default"] = {"description": "Refused: see `code` and `message`.", "content": _content(ErrorBody)}
    return LeanRoute(
        path,
        endpoint,
        body,
        [ErrorBody, *(answer for answer in answers.values() if not isinstance(answer, str))],
        methods=[method],
        summary=summary,
        tags=[tag],
        status_code=min(answers),
        responses=responses,
        openapi_extra=extra,
        name=endpoint.__name__,
        operation_id=f"{method.lower()}_{re.sub(r'[^a-z0-9]+', '_', path.removeprefix('/api/v1').lower()).strip('_')}",
    )


def _content(model: type[pydantic.BaseModel]) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": SCHEMAS + model.__name__}}}
