"""Tokens over HTTP: making one for a user, refreshing that of an execution, and the keys that verify them."""

from __future__ import annotations

import functools
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from flow_platform.api.answers import json_answer
from flow_platform.api.auth import bearer_token, check_is_live
from flow_platform.api.body import read_model
from flow_platform.api.context import context_of, principal_of
from flow_platform.api.routing import Route
from flow_platform.domain import errors
from flow_platform.domain.credential import Credential
from flow_platform.domain.principal import Action, Principal, Role
from flow_platform.engine.releases import check_workspace
from flow_platform.engine.workspaces import reached
from flow_sdk.wire.management import IdentityDocument, TokenDocument, WorkspaceDocument

if TYPE_CHECKING:
    from flow_platform.engine.service import Engine

DEFAULT_TTL_SECONDS: Final = 3600
MAX_TTL_SECONDS: Final = 30 * 24 * 3600  # A token cannot be taken back; it ends.
EXCHANGED_TTL_SECONDS: Final = 900  # A revoked key's tokens live on for so long, an hour at the most.
MAX_EXCHANGED_TTL_SECONDS: Final = 3600
MAX_WORKSPACES: Final = 100  # Named by one answer; who has more names the workspace.
JWKS_PATH: Final = "/.well-known/jwks.json"
_TAG: Final = "Tokens"
_ID: Final = r"^[A-Za-z0-9_-]+$"


def printable(value: str) -> str:
    if not value.isprintable():
        raise ValueError("expected printable characters")
    return value


_Subject = Annotated[str, AfterValidator(printable)]


class TokenBody(BaseModel):
    """A token of the asking admin's own organization, for the whole of it or one workspace."""

    model_config = ConfigDict(extra="forbid", strict=True)

    role: str = Field(Role.ADMIN.value, min_length=1, max_length=63, description="Built-in, or of the workspace.")
    ttl_seconds: int = Field(DEFAULT_TTL_SECONDS, ge=1, le=MAX_TTL_SECONDS)
    org_id: str | None = Field(None, min_length=1, max_length=63, pattern=_ID)
    workspace_id: str | None = Field(None, min_length=1, max_length=63, pattern=_ID)
    subject: Annotated[_Subject | None, Field(min_length=1, max_length=200)] = None


class TokenRoutes:
    """The endpoints of one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def routes(self) -> list[Route]:
        return [
            Route(
                "POST",
                "/api/v1/auth/refresh",
                self.refresh,
                "A newer token for an execution's one that is valid, or expired a short while ago.",
                tag=_TAG,
                answers={200: TokenDocument},
            ),
            Route(
                "POST",
                "/api/v1/auth/token",
                self.token,
                "Makes a token for a user: of any role for admins, of its own role for an API key.",
                tag=_TAG,
                answers={201: TokenDocument},
                body=TokenBody,
            ),
            Route(
                "GET",
                "/api/v1/auth/whoami",
                self.whoami,
                "Whose the credential is, and the workspaces that it reaches.",
                tag=_TAG,
                answers={200: IdentityDocument},
            ),
            Route(
                "GET",
                "/.well-known/jwks.json",
                self.jwks,
                "The public keys of tokens.",
                tag=_TAG,
                answers={200: "Keys"},
            ),
        ]

    async def refresh(self, request: Request) -> Response:
        token = bearer_token(request.headers.get("authorization"), request.headers.get("x-api-key"))
        newer, credential = await self._engine.tokens.refreshed(
            token, self._engine.clock.now(), functools.partial(check_is_live, self._engine)
        )
        document = TokenDocument(token=newer, expires_at=credential.expires_at)
        return json_answer(document, 200, {"X-Auth-Token": newer})

    async def token(self, request: Request) -> Response:
        principal = principal_of(request)
        credential = context_of(request.scope).credential
        if credential is not None and credential.api_key_id is not None:
            return await self._exchange(request, credential)
        principal.require(Action.ADMINISTER, principal.org_id)
        body = await read_model(request, TokenBody)
        workspace_id = await self._workspace(principal, body)
        now = self._engine.clock.now()
        ttl = timedelta(seconds=body.ttl_seconds)
        subject = body.subject or f"{body.role} of {principal.subject}"
        role, custom_role = await self._engine.credentials.parse_role(principal.org_id, workspace_id, body.role)
        token = self._engine.tokens.for_user(subject, principal.org_id, workspace_id, role, ttl, now, custom_role)
        expires_at = self._engine.tokens.inspect(token, now).expires_at
        return json_answer(TokenDocument(token=token, expires_at=expires_at), 201)

    async def _exchange(self, request: Request, credential: Credential) -> Response:
        """A token that reaches no further than the key: the same role and workspace, and not past its end."""
        body = await read_model(request, TokenBody)
        if others := sorted(body.model_fields_set - {"ttl_seconds"}):
            raise errors.Forbidden(f"an API key gives tokens like itself: expected no {', '.join(others)}")
        asked = body.ttl_seconds if body.model_fields_set else EXCHANGED_TTL_SECONDS
        now, principal = self._engine.clock.now(), credential.principal
        ttl = min(timedelta(seconds=min(asked, MAX_EXCHANGED_TTL_SECONDS)), credential.expires_at - now)
        token = self._engine.tokens.for_user(
            principal.subject,
            principal.org_id,
            principal.workspace_id,
            principal.role,
            ttl,
            now,
            principal.custom_role,
        )
        expires_at = self._engine.tokens.inspect(token, now).expires_at
        return json_answer(TokenDocument(token=token, expires_at=expires_at), 201)

    async def whoami(self, request: Request) -> Response:
        """For people and programs of every role; a container knows from its environment."""
        principal = principal_of(request)
        if principal.role is Role.EXECUTION:
            raise errors.Forbidden("an execution's token asks for nobody: expected a token of a user")
        credential = context_of(request.scope).credential
        assert credential is not None  # noqa: S101 - it is where the principal came from.
        workspaces = await self._engine.store.read(lambda tx: reached(tx, principal, MAX_WORKSPACES))
        document = IdentityDocument(
            subject=principal.subject,
            role=principal.role_name,
            org_id=principal.org_id,
            workspace_id=principal.workspace_id,
            workspaces=[WorkspaceDocument(id=each.workspace_id, name=each.name) for each in workspaces],
            expires_at=credential.expires_at,
        )
        return json_answer(document)

    async def jwks(self, _: Request) -> Response:
        keys: dict[str, Any] = self._engine.tokens.jwks(self._engine.clock.now())
        return json_answer(keys, 200, {"Cache-Control": "public, max-age=300"})

    async def _workspace(self, principal: Principal, body: TokenBody) -> str | None:
        """The workspace of the new token: never wider than that of the asking one."""
        if body.org_id is not None and body.org_id != principal.org_id:
            raise errors.NotFound("not found")
        workspace_id = body.workspace_id or principal.workspace_id
        if workspace_id is None:
            return None
        principal.require(Action.ADMINISTER, principal.org_id, workspace_id)
        await self._engine.store.read(lambda tx: check_workspace(tx, principal.org_id, workspace_id))
        return workspace_id
