"""Who asks: the credential of a request, checked before any route sees it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from flow_platform.api.context import RequestContext
from flow_platform.domain import errors
from flow_platform.domain.api_key import PREFIX
from flow_platform.domain.credential import Credential
from flow_platform.domain.principal import Principal, Role
from flow_platform.engine.executions import check_token_is_live

if TYPE_CHECKING:
    from flow_platform.engine.service import Engine

API_PREFIX: Final = "/api/"
PUBLIC: Final = frozenset({"/api/v1/openapi.json", "/api/v1/auth/refresh"})
"""Below the prefix everything needs a credential, unknown paths too, but these. A refresh checks its token itself."""

OF_SERVICES: Final = re.compile(r"/api/v1/orgs/[^/]+/services/")
"""Calls of services: some endpoints are public, and some take tokens of the service; see `service_callers`."""


def needs_credential(path: str) -> bool:
    return path.startswith(API_PREFIX) and path not in PUBLIC and OF_SERVICES.match(path) is None


def bearer_token(authorization: str | None, api_key: str | None) -> str:
    """The token of the request's headers.

    Raises:
        Unauthenticated: `api_key_invalid`: an API key wins over a token, and this is not for keys; or no token.
    """
    if api_key is not None:
        raise errors.Unauthenticated("an API key is not refreshed: it lives until its end", code="api_key_invalid")
    if authorization is None:
        raise errors.Unauthenticated("no credential: expected 'Authorization: Bearer TOKEN'")
    scheme, _, token = authorization.partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token:
        raise errors.Unauthenticated("no bearer token: expected 'Authorization: Bearer TOKEN'")
    return token


async def authenticate(engine: Engine, authorization: str | None, api_key: str | None) -> tuple[Credential, str | None]:
    """The verified credential, and a newer token when the holder is an execution and it is time for one.

    Raises:
        Unauthenticated: With a code per cause.
    """
    if api_key is not None:
        return await engine.api_keys.authenticate(api_key), None
    token = bearer_token(authorization, None)
    if token.startswith(PREFIX):  # Of a client that has one place for whatever credential.
        return await engine.api_keys.authenticate(token), None
    now = engine.clock.now()
    if (issuer := engine.issuers.of(token)) is not None:
        return await engine.credentials.believe(await issuer.authenticate(token, now)), None
    credential = await engine.credentials.inspect(token)
    # People's tokens end when they say: nothing here could take back one that renews itself.
    if credential.principal.role is not Role.EXECUTION or now < credential.half_life:
        return credential, None
    await check_is_live(engine, credential.principal)
    return credential, engine.tokens.renewed(token, now)


def require_no_api_key(context: RequestContext, what: str) -> None:
    """Raises Forbidden for what would outlive a key that is revoked."""
    if context.credential is not None and context.credential.api_key_id is not None:
        raise errors.Forbidden(f"an API key {what}: expected a token of a user")


async def check_is_live(engine: Engine, principal: Principal) -> None:
    """Raises Unauthenticated (`token_revoked`) when the attempt that the token is for has ended."""
    await engine.store.read(lambda tx: check_token_is_live(tx, principal))
