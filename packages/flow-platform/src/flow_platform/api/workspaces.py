"""Workspaces of an organization over HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from flow_platform.api.answers import json_answer
from flow_platform.api.auth_routes import printable
from flow_platform.api.body import read_model
from flow_platform.api.context import principal_of
from flow_platform.api.routing import Route
from flow_platform.engine.workspaces import require_creation
from flow_platform.store.base import Workspace
from flow_sdk.wire.management import PageDocument, WorkspaceDocument

if TYPE_CHECKING:
    from flow_platform.engine.service import Engine

_TAG: Final = "Rings"


class WorkspaceBody(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    name: Annotated[str, Field(min_length=1, max_length=100), AfterValidator(printable)]


class WorkspaceRoutes:
    """The endpoints of one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def routes(self) -> list[Route]:
        path = "/api/v1/orgs/{org_id}/workspaces"
        return [
            Route(
                "GET",
                path,
                self.list,
                "The workspaces of the organization that the credential reaches.",
                tag=_TAG,
                answers={200: PageDocument},
            ),
            Route(
                "POST",
                path,
                self.create,
                "Makes a workspace, with the built-in rings.",
                tag=_TAG,
                answers={201: WorkspaceDocument},
                body=WorkspaceBody,
            ),
        ]

    async def list(self, request: Request) -> Response:
        found = await self._engine.workspaces.list(principal_of(request), request.path_params["org_id"])
        return json_answer({"items": [_document(each) for each in found], "next_cursor": None})

    async def create(self, request: Request) -> Response:
        principal, org_id = principal_of(request), request.path_params["org_id"]
        require_creation(principal, org_id)  # Before the body is read.
        body = await read_model(request, WorkspaceBody)
        return json_answer(_document(await self._engine.workspaces.create(principal, org_id, body.name)), 201)


def _document(workspace: Workspace) -> WorkspaceDocument:
    return WorkspaceDocument(id=workspace.workspace_id, name=workspace.name)
