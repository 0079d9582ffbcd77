"""Secrets of a workspace over HTTP: written, named, deleted. No route reads a value."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from flow_platform.api.answers import json_answer, page_answer, query_text
from flow_platform.api.body import read_model
from flow_platform.api.context import principal_of, workspace_of
from flow_platform.api.routing import WORKSPACE, Parameter, Route
from flow_platform.domain.principal import Action
from flow_platform.domain.secrets import SecretInfo
from flow_platform.domain.variable_names import check_variable
from flow_platform.engine.releases import require_not_execution
from flow_platform.engine.validation import invalid
from flow_platform.store.base import Page
from flow_sdk.wire.management import PageDocument
from flow_sdk.wire.secrets import SecretDocument

if TYPE_CHECKING:
    from flow_platform.engine.service import Engine

_TAG: Final = "Secrets"


class SecretBody(BaseModel):
    """A value, for the whole workspace or for one ring."""

    model_config = ConfigDict(extra="forbid", strict=True)

    # Checked by the engine: a validator's message would show it.
    value: Any = Field(repr=False, json_schema_extra={"type": "string", "writeOnly": True})
    ring_id: str | None = Field(None, min_length=1, max_length=63, pattern=r"^[A-Za-z0-9_-]+$")


class SecretRoutes:
    """The endpoints of one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def routes(self) -> list[Route]:
        one = f"{WORKSPACE}/secrets/{{name}}"
        ring = Parameter("ring_id", "The value of that ring; else the workspace's.", {"type": "string"})
        return [
            Route(
                "GET",
                f"{WORKSPACE}/secrets",
                self.list,
                "All secrets, without their values.",
                tag=_TAG,
                answers={200: PageDocument},
            ),
            Route(
                "PUT",
                one,
                self.put,
                "Sets a value: the next version.",
                tag=_TAG,
                answers={200: SecretDocument},
                body=SecretBody,
            ),
            Route(
                "DELETE",
                one,
                self.delete,
                "Deletes a value.",
                tag=_TAG,
                answers={204: "Deleted"},
                parameters=[ring],
            ),
        ]

    async def list(self, request: Request) -> Response:
        infos = await self._engine.secrets.of_workspace(principal_of(request), *workspace_of(request))
        return page_answer(Page([], None), [secret_document(info) for info in infos])

    async def put(self, request: Request) -> Response:
        principal = principal_of(request)
        org_id, workspace_id = workspace_of(request)
        require_not_execution(principal, Action.DEPLOY, org_id, workspace_id)  # Before the body is read.
        name = _name(request)
        body = await read_model(request, SecretBody)
        info = await self._engine.secrets.put(principal, org_id, workspace_id, name, body.value, body.ring_id)
        return json_answer(secret_document(info))

    async def delete(self, request: Request) -> Response:
        principal = principal_of(request)
        ring = query_text(request, "ring_id")
        await self._engine.secrets.delete(principal, *workspace_of(request), _name(request), ring)
        return Response(status_code=204)


def _name(request: Request) -> str:
    name: str = request.path_params["name"]
    try:
        return check_variable(name)
    except ValueError as error:
        raise invalid("name", name, str(error).removeprefix("expected ")) from None


def secret_document(info: SecretInfo) -> SecretDocument:
    return SecretDocument(
        name=info.name,
        ring_id=info.ring_id or None,
        version=info.version,
        created_at=info.created_at,
        created_by=info.created_by,
    )
