"""`fn.call(...)`: a declared function, run as a deployed component through one shared client per event loop."""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Any, Final

from flow_sdk.declare import Declaration
from flow_sdk.errors import PlatformExecutionError
from flow_sdk.platform_client import DEFAULT_EXECUTION_SECONDS, PlatformClient
from flow_sdk.wire.status import Kind, Status


class _Shared:
    """A client that lives as long as its event loop.

    asyncio closes the asynchronous generators of a loop before it closes the loop (`asyncio.run` does, and every
    runner like it); that is the only hook there is, so the client's life is one.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.client = PlatformClient()
        self.life = self._live(loop)

    async def _live(self, loop: asyncio.AbstractEventLoop) -> AsyncGenerator[None]:
        try:
            async with self.client:
                yield
        finally:
            del _SHARED[loop]


_SHARED: Final[dict[asyncio.AbstractEventLoop, _Shared]] = {}


async def call(
    function: Callable[..., Any], declaration: Declaration, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Any:
    """See `declare.Declared.call`."""
    bound = inspect.signature(function).bind(*args, **kwargs)
    if not os.environ.get("PLATFORM_API_URL"):
        result = function(*args, **kwargs)
        return await result if inspect.isawaitable(result) else result
    client = await shared_client()
    document = await _run(client, declaration, _arguments(bound, function.__name__))
    return _output_of(document, f"{declaration.kind.value} {declaration.slug!r}")


def _output_of(document: dict[str, Any], what: str) -> Any:
    status = str(document.get("status", Status.COMPLETED)).lower()
    if status != Status.COMPLETED:
        error = document.get("error")
        reason = error.get("message") if isinstance(error, dict) else error  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        raise PlatformExecutionError(
            f"{what} ended {status!r}" + (f": {reason}" if reason else ""),
            execution=document,
        )
    return document.get("output")


async def call_agent(slug: str, given: dict[str, Any], timeout_seconds: float | None) -> Any:
    """See `declare_agents.AgentDeclaration.call`."""
    if not os.environ.get("PLATFORM_API_URL"):
        raise PlatformExecutionError(f"agent {slug!r} is called outside of the platform: there is no model to ask")
    client = await shared_client()
    document = await client.execute_agent(
        slug,
        given,
        {},
        execution_mode="isolated",
        caller_deployment_id=os.environ.get("DEPLOYMENT_ID") or None,
        ring_id=os.environ.get("RING_ID") or None,
        timeout_seconds=timeout_seconds or DEFAULT_EXECUTION_SECONDS,
    )
    return _output_of(document, f"agent {slug!r}")


async def _run(client: PlatformClient, declaration: Declaration, arguments: dict[str, Any]) -> dict[str, Any]:
    ring_id, caller = os.environ.get("RING_ID") or None, os.environ.get("DEPLOYMENT_ID") or None
    timeout_seconds = declaration.timeout_seconds or DEFAULT_EXECUTION_SECONDS
    match declaration.kind:
        case Kind.TRANSFORM:
            values = list(arguments.values())
            context = arguments.get("context") if declaration.requires_context else None
            return await client.execute_transform(declaration.slug, values[0] if values else {}, context, caller)
        case Kind.WORKFLOW:
            return await client.execute_workflow(
                declaration.slug,
                arguments,
                caller_deployment_id=caller,
                ring_id=ring_id,
                timeout_seconds=timeout_seconds,
            )
        case _:
            return await client.execute_code_block(
                declaration.slug,
                arguments,
                {},
                caller_deployment_id=caller,
                ring_id=ring_id,
                timeout_seconds=timeout_seconds,
            )


def _arguments(bound: inspect.BoundArguments, name: str) -> dict[str, Any]:
    """The arguments by name, as input of an execution carries them.

    Raises:
        TypeError: Some have no name (`*args`).
    """
    arguments: dict[str, Any] = {}
    for parameter in bound.signature.parameters.values():
        if parameter.name not in bound.arguments:
            continue
        value = bound.arguments[parameter.name]
        if parameter.kind is parameter.VAR_KEYWORD:
            arguments |= value
        elif parameter.kind is parameter.VAR_POSITIONAL:
            raise TypeError(f"{name}() takes {value!r} by position: expected arguments that have a name")
        else:
            arguments[parameter.name] = value
    return arguments


async def shared_client() -> PlatformClient:
    """The client of the running event loop; closed with it."""
    loop = asyncio.get_running_loop()
    shared = _SHARED.get(loop)
    if shared is None:
        shared = _SHARED[loop] = _Shared(loop)
        await anext(shared.life)
    return shared.client
