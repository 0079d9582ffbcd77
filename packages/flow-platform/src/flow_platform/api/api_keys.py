"""API keys over HTTP: those of a workspace, and those for a whole organization."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from flow_platform.api.access import ORGANIZATION
from flow_platform.api.answers import json_answer, page_answer
from flow_platform.api.auth import require_no_api_key
from flow_platform.api.auth_routes import printable
from flow_platform.api.body import read_model
from flow_platform.api.context import context_of, principal_of, reference
from flow_platform.api.routing import WORKSPACE, Route
from flow_platform.domain.api_key import DEFAULT_LIFE, MAX_LIFE, ApiKey
from flow_platform.store.base import Page
from flow_sdk.wire.management import PageDocument
from flow_sdk.wire.secrets import ApiKeyDocument

if TYPE_CHECKING:
    from flow_platform.engine.service import Engine

_TAG: Final = "API keys"


class ApiKeyBody(BaseModel):
    """A key of this workspace, or of the whole organization. Every key expires."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: Annotated[str, Field(min_length=1, max_length=200), AfterValidator(printable)]
    role: str = Field(min_length=1, max_length=63, description="A built-in role, or a custom one of the workspace.")
    ttl_seconds: int = Field(int(DEFAULT_LIFE.total_seconds()), ge=60, le=int(MAX_LIFE.total_seconds()))


class ApiKeyRoutes:
    """The endpoints of one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def routes(self) -> list[Route]:
        return [*self._routes(WORKSPACE, ""), *self._routes(ORGANIZATION, " for the whole organization")]

    def _routes(self, place: str, of: str) -> list[Route]:
        keys = f"{place}/api-keys"
        return [
            Route(
                "POST",
                keys,
                self.create,
                f"Makes a key{of}; the answer is the only one that has it.",
                tag=_TAG,
                answers={201: ApiKeyDocument},
                body=ApiKeyBody,
            ),
            Route("GET", keys, self.list, f"All keys{of}, without themselves.", tag=_TAG, answers={200: PageDocument}),
            Route(
                "DELETE", f"{keys}/{{key_id}}", self.delete, f"Revokes a key{of}.", tag=_TAG, answers={204: "Revoked"}
            ),
        ]

    async def create(self, request: Request) -> Response:
        principal = principal_of(request)
        org_id, workspace_id = _place(request)
        require_no_api_key(context_of(request.scope), "makes no others")
        body = await read_model(request, ApiKeyBody)
        life = timedelta(seconds=body.ttl_seconds)
        role, custom_role = await self._engine.credentials.parse_role(org_id, workspace_id, body.role)
        record, key = await self._engine.api_keys.create(
            principal, org_id, workspace_id, body.name, role, life, custom_role
        )
        return json_answer(api_key_document(record, key), 201, {"Cache-Control": "no-store"})

    async def list(self, request: Request) -> Response:
        keys = await self._engine.api_keys.of_workspace(principal_of(request), *_place(request))
        return page_answer(Page([], None), [api_key_document(key) for key in keys])

    async def delete(self, request: Request) -> Response:
        key_id = reference(request, "key_id", "API key")
        await self._engine.api_keys.delete(principal_of(request), *_place(request), key_id)
        self._engine.credentials.tell()  # Requests of that key which are open now end.
        return Response(status_code=204)


def _place(request: Request) -> tuple[str, str | None]:
    """Organization and workspace of the path, which may name none."""
    return request.path_params["org_id"], request.path_params.get("workspace_id")


def api_key_document(record: ApiKey, key: str | None = None) -> ApiKeyDocument:
    return ApiKeyDocument(
        id=record.id,
        name=record.name,
        role=record.role_name,
        workspace_id=record.workspace_id,
        prefix=record.shown,
        created_at=record.created_at,
        created_by=record.created_by,
        expires_at=record.expires_at,
        last_used_at=record.last_used_at,
        key=key,
    )
