"""Who calls a service: these paths are also for tokens of services, and for nobody in particular."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.requests import Request

from flow_platform.api.auth import authenticate, bearer_token
from flow_platform.api.context import context_of
from flow_platform.domain.service import TOKEN_PREFIX
from flow_platform.engine.service_calls import Caller

if TYPE_CHECKING:
    from flow_platform.engine.service import Engine


async def caller_of(engine: Engine, request: Request) -> Caller:
    """Who calls. A credential that is sent must be valid, also where none is needed.

    Raises:
        Unauthenticated: With a code per cause.
    """
    authorization = request.headers.get("authorization")
    key = request.headers.get("x-api-key")
    if authorization is None and key is None:
        return Caller()
    sent = key if key is not None else bearer_token(authorization, None)
    if sent.startswith(TOKEN_PREFIX):
        return Caller(token=await engine.service_tokens.authenticate(sent))
    context = context_of(request.scope)
    context.credential, context.newer_token = await authenticate(engine, authorization, key)
    return Caller(principal=context.credential.principal)
