"""An answer of a model in chunks, as server-sent events in the shape of OpenAI's.

The first chunk is there before the headers are sent, so that whatever goes wrong until then is an answer with a status
of its own. What goes wrong later is an event with an `error`; only a whole answer ends with `[DONE]`.

Source: OpenAI's API reference, "Chat: streaming".
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from typing import Any, Final, TypeVar

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from flow_platform.api.answers import encoded
from flow_platform.domain import errors
from flow_platform.gateway.assembly import chunk_of
from flow_platform.gateway.model_gateway import Reply

T = TypeVar("T")

DONE: Final = b"data: [DONE]\n\n"


class ChunkStream(Response):
    """Sends a reply's chunks until it ends or the reader goes away; releases it in both cases."""

    media_type = "text/event-stream"

    def __init__(self, reply: Reply, headers: dict[str, str], *, include_usage: bool) -> None:
        self.status_code = 200
        self.background = None
        self._reply = reply
        self._include_usage = include_usage
        # Proxies that gather an answer before they hand it on would make the first chunk the last.
        self.init_headers({**headers, "X-Accel-Buffering": "no"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await until_disconnected(self._send(send), receive)
        finally:
            self._reply.release()

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async with aclosing(self._parts()) as parts:
            async for part in parts:
                await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _parts(self) -> AsyncGenerator[bytes]:
        flight = self._reply.flight
        count = 0
        async with aclosing(flight.chunks()) as chunks:
            async for chunk in chunks:
                count += 1
                yield _event(chunk)
        try:
            answer = flight.answer.result()
        except errors.FlowError as error:
            yield _event(error_event(error))
            return
        except Exception:  # noqa: BLE001 - logged where it happened.
            yield _event(error_event(errors.FlowError("something went wrong here")))
            return
        if not count:  # It was not streamed when it was made.
            yield _event(chunk_of(answer))
        if self._include_usage:
            head = {name: value for name, value in answer.items() if name not in ("choices", "usage")}
            yield _event({**head, "object": "chat.completion.chunk", "choices": [], "usage": answer.get("usage")})
        yield DONE


async def until_disconnected(work: Coroutine[Any, Any, T], receive: Receive) -> T | None:
    """The result of the work; None when the client went away before, which ends the work."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


def error_event(error: errors.FlowError) -> dict[str, Any]:
    """As OpenAI's clients read it: `error` in the place of `choices`."""
    return {"error": {"message": error.message, "type": "upstream_error", "code": error.error_code}}


def _event(document: Any) -> bytes:
    return b"data: %s\n\n" % encoded(document)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
