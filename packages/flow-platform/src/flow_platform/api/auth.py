"""Who asks: the credential of a request, checked before any route sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from flow_platform.domain import errors
from flow_platform.domain.principal import Principal, Role
from flow_platform.engine.executions import check_token_is_live
from flow_platform.engine.tokens import Credential

if TYPE_CHECKING:
    from flow_platform.engine.service import Engine

API_PREFIX: Final = "/api/"
PUBLIC: Final = frozenset({"/api/v1/openapi.json", "/api/v1/auth/refresh"})
"""Below the prefix everything needs a credential, unknown paths too, but these. A refresh checks its token itself."""


def needs_credential(path: str) -> bool:
    return path.startswith(API_PREFIX) and path not in PUBLIC


def bearer_token(authorization: str | None, api_key: str | None) -> str:
    """The token of the request's headers.

    Raises:
        Unauthenticated: `api_key_invalid`: an API key wins over a token, and there are none yet; or no token.
    """
    if api_key is not None:
        raise errors.Unauthenticated("the API key is not valid", code="api_key_invalid")
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
    token = bearer_token(authorization, api_key)
    now = engine.clock.now()
    credential = engine.tokens.inspect(token, now)
    # People's tokens end when they say: nothing here could take back one that renews itself.
    if credential.principal.role is not Role.EXECUTION or now < credential.half_life:
        return credential, None
    await check_is_live(engine, credential.principal)
    return credential, engine.tokens.renewed(token, now)


async def check_is_live(engine: Engine, principal: Principal) -> None:
    """Raises Unauthenticated (`token_revoked`) when the attempt that the token is for has ended."""
    await engine.store.read(lambda tx: check_token_is_live(tx, principal))
