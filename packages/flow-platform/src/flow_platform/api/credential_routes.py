"""Signing keys, revocations and custom roles over HTTP."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from flow_platform.api.answers import json_answer, page_answer
from flow_platform.api.auth_routes import printable
from flow_platform.api.body import read_model
from flow_platform.api.context import context_of, principal_of, workspace_of
from flow_platform.api.routing import WORKSPACE, Route
from flow_platform.domain import errors
from flow_platform.domain.credential import MAX_TOKEN_LENGTH
from flow_platform.domain.principal import Action, Principal, Role
from flow_platform.domain.roles import MAX_TOKEN_LIFE, CustomRole
from flow_platform.engine.validation import missing
from flow_platform.store.base import Page, SigningKey
from flow_sdk.wire.management import PageDocument

if TYPE_CHECKING:
    from flow_platform.engine.service import Engine

_TAG: Final = "Tokens"
_ROLES: Final = "Roles"
_LIFE_SECONDS: Final = int(MAX_TOKEN_LIFE.total_seconds())
_Subject = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(printable)]


class RotationBody(BaseModel):
    """How long tokens of the keys before go on being believed: as long as there may be any, unless it is said."""

    model_config = ConfigDict(extra="forbid", strict=True)

    retire_after_seconds: int = Field(_LIFE_SECONDS, ge=0, le=_LIFE_SECONDS)


class RevocationBody(BaseModel):
    """One of the three; nothing: the token that asks."""

    model_config = ConfigDict(extra="forbid", strict=True)

    token: str | None = Field(None, min_length=1, max_length=MAX_TOKEN_LENGTH, repr=False, description="Itself.")
    token_id: str | None = Field(None, min_length=1, max_length=200, description="Its claim `jti`.")
    subject: _Subject | None = Field(None, description="All tokens that it has until now.")


class RoleBody(BaseModel):
    """What those who have the role may. It holds from their next request on."""

    model_config = ConfigDict(extra="forbid", strict=True)

    actions: Annotated[list[Annotated[Action, Field(strict=False)]], Field(min_length=1, max_length=len(Action))]
    description: Annotated[str, Field(max_length=500), AfterValidator(printable)] = ""


class SigningKeyDocument(BaseModel):
    kid: str
    created_at: datetime
    retired_at: datetime | None = Field(description="From when on it is not believed; null: it signs, or will verify.")


class RevocationDocument(BaseModel):
    kind: str
    name: str
    revoked_at: datetime


class RoleDocument(BaseModel):
    name: str
    actions: list[str]
    description: str
    updated_at: datetime
    updated_by: str


class CredentialRoutes:
    """The endpoints of one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def routes(self) -> list[Route]:
        keys, roles = "/api/v1/auth/keys", f"{WORKSPACE}/roles"
        role = f"{roles}/{{name}}"
        return [
            Route(
                "GET", keys, self.keys, "The keys that sign and verify tokens.", tag=_TAG, answers={200: PageDocument}
            ),
            Route(
                "POST",
                keys,
                self.rotate,
                "Makes a key that signs from now on.",
                tag=_TAG,
                answers={201: PageDocument},
                body=RotationBody,
            ),
            Route(
                "POST",
                "/api/v1/auth/revoke",
                self.revoke,
                "Revokes a token, or all of a subject.",
                tag=_TAG,
                answers={200: RevocationDocument},
                body=RevocationBody,
            ),
            Route("GET", roles, self.roles, "All custom roles.", tag=_ROLES, answers={200: PageDocument}),
            Route(
                "PUT",
                role,
                self.save_role,
                "Makes a role, or changes it.",
                tag=_ROLES,
                answers={200: RoleDocument},
                body=RoleBody,
            ),
            Route("DELETE", role, self.delete_role, "Deletes a role.", tag=_ROLES, answers={204: "Deleted"}),
        ]

    async def keys(self, request: Request) -> Response:
        return _keys(await self._engine.credentials.keys(principal_of(request)))

    async def rotate(self, request: Request) -> Response:
        principal = principal_of(request)
        await self._engine.credentials.keys(principal)  # Refused before the body is read.
        body = await read_model(request, RotationBody)
        answer = _keys(await self._engine.credentials.rotate(principal, timedelta(seconds=body.retire_after_seconds)))
        answer.status_code = 201
        return answer

    async def revoke(self, request: Request) -> Response:
        principal = principal_of(request)
        body = await read_model(request, RevocationBody)
        if len(body.model_fields_set) > 1:
            raise errors.InvalidInput("expected one of token, token_id and subject")
        credentials = self._engine.credentials
        if body.token is None and body.token_id is None and body.subject is None:
            credential = context_of(request.scope).credential
            if credential is None or not credential.token_id:
                raise missing("token", "the token to revoke; an API key is deleted instead")
            done = await credentials.revoke(principal, "token", credential.token_id, credential.expires_at)
        elif body.token is not None:
            target = self._engine.tokens.inspect(body.token, self._engine.clock.now())
            _check_may_revoke(principal, target.principal)
            done = await credentials.revoke(principal, "token", target.token_id, target.expires_at)
        else:
            # Whose token it is cannot be told from its id: only who administers all of the organization may.
            principal.require(Action.ADMINISTER, principal.org_id)
            if principal.workspace_id is not None:
                raise errors.Forbidden("the token is for one workspace: expected one for the whole organization")
            kind = "token" if body.token_id is not None else "subject"
            done = await credentials.revoke(principal, kind, body.token_id or body.subject or "")
        return json_answer(RevocationDocument(kind=done.kind, name=done.name, revoked_at=done.revoked_at))

    async def roles(self, request: Request) -> Response:
        found = await self._engine.credentials.roles(principal_of(request), *workspace_of(request))
        return page_answer(Page([], None), [role_document(role) for role in found])

    async def save_role(self, request: Request) -> Response:
        body = await read_model(request, RoleBody)
        name: str = request.path_params["name"]
        role = await self._engine.credentials.save_role(
            principal_of(request), *workspace_of(request), name, frozenset(body.actions), body.description
        )
        return json_answer(role_document(role))

    async def delete_role(self, request: Request) -> Response:
        name: str = request.path_params["name"]
        await self._engine.credentials.delete_role(principal_of(request), *workspace_of(request), name)
        return Response(status_code=204)


def role_document(role: CustomRole) -> RoleDocument:
    return RoleDocument(
        name=role.name,
        actions=sorted(action.value for action in role.actions),
        description=role.description,
        updated_at=role.updated_at,
        updated_by=role.updated_by,
    )


def _keys(keys: list[SigningKey]) -> Response:
    documents = [SigningKeyDocument(kid=key.kid, created_at=key.created_at, retired_at=key.retired_at) for key in keys]
    return page_answer(Page([], None), documents)


def _check_may_revoke(principal: Principal, holder: Principal) -> None:
    """One's own, or of those whom one administers.

    Raises:
        NotFound: The token is another tenant's.
        Forbidden: Not an administrator; or the token is an execution's.
    """
    if holder.role is Role.EXECUTION:
        raise errors.Forbidden("an execution's token ends with its attempt: cancel the execution")
    if (holder.org_id, holder.subject) == (principal.org_id, principal.subject) and holder.role is principal.role:
        return
    principal.require(Action.ADMINISTER, holder.org_id, holder.workspace_id)
    if holder.workspace_id is None and principal.workspace_id is not None:
        raise errors.Forbidden("the token is for one workspace: expected one for the whole organization")
