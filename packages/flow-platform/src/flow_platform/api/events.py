"""The events of an execution as server-sent events: replayed from any position, then live, then `end`.

`id` is the position, so that a reader who was cut off comes back with `Last-Event-ID` and misses nothing. The last
event, `end`, carries the final status and no id; a stream that stops without it was cut.

Source: HTML standard, section 9.2 (server-sent events).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
from collections.abc import AsyncGenerator, Callable
from datetime import datetime
from typing import TYPE_CHECKING, Final, cast

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from flow_platform.api.answers import encoded, query_whole, whole
from flow_platform.api.context import context_of, principal_of, reference, workspace_of
from flow_platform.api.routing import WORKSPACE, Parameter, Route
from flow_platform.domain import errors
from flow_platform.metrics import Metrics
from flow_platform.telemetry import EXECUTION_ID
from flow_sdk.wire.execution import EventDocument, StatusDocument

if TYPE_CHECKING:
    from flow_platform.engine.service import Engine

logger = logging.getLogger(__name__)

MAX_STREAMS: Final = 2000  # Of one process; each holds a connection and a place in the engine's wake-ups.
MAX_POSITION: Final = 10**15
END: Final = "end"
KEEP_ALIVE: Final = b": keep-alive\n\n"
# What a component calls its events is its own affair; what is no plain word is sent under the name that readers listen
# to by default, and the whole type is in the data.
_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")


class EventRoutes:
    """The endpoint of one engine."""

    def __init__(self, engine: Engine, metrics: Metrics) -> None:
        self._engine = engine
        self._metrics = metrics
        self._open = 0

    def routes(self) -> list[Route]:
        return [
            Route(
                "GET",
                f"{WORKSPACE}/executions/{{execution_id}}/events",
                self.events,
                "All events, as server-sent events.",
                tag="Executions",
                answers={200: "`text/event-stream`; `id`: position, `event`: type, `data`: the event as JSON"},
                media_type="text/event-stream",
                parameters=(
                    Parameter("after", "Begin behind this position.", {"type": "integer", "minimum": 0}),
                    Parameter("Last-Event-ID", "The same; it wins.", {"type": "integer"}, "header"),
                ),
            )
        ]

    async def events(self, request: Request) -> Response:
        principal = principal_of(request)
        org_id, workspace_id = workspace_of(request)
        execution_id = reference(request, "execution_id", "execution")
        after = _after(request)
        executions = self._engine.executions
        await executions.get(principal, org_id, workspace_id, execution_id)  # Refused before the stream begins.
        if self._open >= MAX_STREAMS:
            raise errors.RateLimited(f"{self._open} event streams are open: at most {MAX_STREAMS}", retry_after=5.0)
        credential = context_of(request.scope).credential
        expires_at = credential.expires_at if credential else self._engine.clock.now()

        async def parts() -> AsyncGenerator[bytes]:
            position = after
            events = executions.events(principal, org_id, workspace_id, execution_id, after)
            async with contextlib.aclosing(cast("AsyncGenerator[EventDocument | None]", events)) as stream:
                async for event in stream:
                    if self._engine.clock.now() >= expires_at:
                        return  # A stream ends with the credential that opened it; the reader comes back with a newer.
                    if event is None:
                        yield KEEP_ALIVE
                        continue
                    position = event.position
                    yield _encoded(event)
            yield _ended(await executions.get(principal, org_id, workspace_id, execution_id), position)

        return EventStream(parts, execution_id, self._count)

    def _count(self, change: int) -> None:
        self._open += change
        self._metrics.event_streams.set(self._open)


class EventStream(Response):
    """Sends what a generator makes until it ends or the client goes away; the generator is closed in both cases."""

    media_type = "text/event-stream"

    def __init__(
        self, parts: Callable[[], AsyncGenerator[bytes]], execution_id: str, count: Callable[[int], None]
    ) -> None:
        self.status_code = 200
        self.background = None
        self._parts = parts
        self._execution_id = execution_id
        self._count = count
        # Proxies that gather an answer before they hand it on would make live events late ones.
        self.init_headers({"X-Accel-Buffering": "no"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._count(1)
        sending = asyncio.create_task(self._send(send))
        leaving = asyncio.create_task(_disconnected(receive))
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._count(-1)
            for task in (sending, leaving):
                task.cancel()
            await asyncio.gather(sending, leaving, return_exceptions=True)
        if not sending.cancelled() and (error := sending.exception()):
            raise error

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": b": events\n\n", "more_body": True})
        try:
            async with contextlib.aclosing(self._parts()) as parts:
                async for part in parts:
                    await send({"type": "http.response.body", "body": part, "more_body": True})
        except errors.FlowError as error:
            # The headers are gone; without `end` the reader knows that it was cut, and asks again.
            logger.warning("an event stream was cut: %s", error.message, extra={EXECUTION_ID: self._execution_id})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _after(request: Request) -> int:
    last = request.headers.get("last-event-id")
    if last:
        return whole("Last-Event-ID", last, 0, MAX_POSITION)
    return query_whole(request, "after", 0, 0, MAX_POSITION)


def _encoded(event: EventDocument) -> bytes:
    is_plain = _NAME.fullmatch(event.event_type) and event.event_type != END
    name = event.event_type if is_plain else "message"
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (event.position, name.encode(), encoded(event))


def _ended(document: StatusDocument, position: int) -> bytes:
    """Shaped like an event, for readers that look at nothing but the data."""
    ended: datetime | None = document.finished_at
    data = {
        "position": position,
        "execution_id": document.execution_id,
        "attempt": document.attempt,
        "event_type": END,
        "event_data": {"status": document.status.value},
        "status": document.status.value,
        "timestamp": ended.isoformat() if ended else None,
    }
    return b"event: %s\ndata: %s\n\n" % (END.encode(), json.dumps(data).encode())


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
