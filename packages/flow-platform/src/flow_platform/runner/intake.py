"""What a container says about its attempt, by either channel, held against its limits.

Frames on the inherited socket and publications through the gateway end here, so one attempt has one count of events
and one result, whatever mixture of the two its code uses.
"""

from __future__ import annotations

import asyncio
from typing import Final

from flow_platform.domain import errors
from flow_platform.runner import ending
from flow_platform.runner.publisher import MAX_EVENT_BYTES, Publisher
from flow_platform.runner.result import BadResult, Result, parse_object, parse_result
from flow_sdk.wire.execution import ErrorDocument
from flow_sdk.wire.harness import PLATFORM_EVENTS
from flow_sdk.wire.runner import Limits

MAX_TYPE_CHARACTERS: Final = 64
THREAD_FROM_BYTES: Final = 256 << 10  # A redaction of that much would hold up the other attempts.
ENVELOPE_BYTES: Final = 64 << 10  # Around an output, or instead of it: an error with its traceback has some 20 KiB.


class Refused(errors.FlowError):
    """The container broke a limit or its protocol; says with which error the attempt would end."""

    http_status = 422

    def __init__(self, error: ErrorDocument) -> None:
        super().__init__(error.message, code=error.code)
        self.error = error


class Intake:
    """Takes events and the result of one attempt."""

    def __init__(self, publisher: Publisher, limits: Limits) -> None:
        self._publisher = publisher
        self._limits = limits
        self._events = 0
        self._has_output = False
        self.result: Result | None = None

    async def event(self, body: bytes) -> None:
        """Publishes one event of the component; returns when the stream has it.

        Raises:
            Refused: Too large, too many, or not an event.
        """
        if len(body) > MAX_EVENT_BYTES:
            raise Refused(ending.event_too_large(len(body), MAX_EVENT_BYTES))
        self._events += 1
        if self._events > self._limits.events:
            raise Refused(ending.too_many_events(self._limits.events))
        content = _object(body, "an event")
        event_type, timestamp = content.get("event_type"), content.get("timestamp")
        if not isinstance(event_type, str) or not 0 < len(event_type) <= MAX_TYPE_CHARACTERS:
            raise Refused(ending.protocol_error(f"an event of type {str(event_type)[:80]!r}: expected 1 to 64 letters"))
        if event_type in PLATFORM_EVENTS:
            raise Refused(ending.protocol_error(f"an event of type {event_type!r}: only the platform emits those"))
        await self._publisher.event(
            event_type, content.get("event_data"), timestamp if isinstance(timestamp, str) else None
        )

    async def status(self, body: bytes) -> None:
        """Publishes the container's own word on its status.

        Raises:
            Refused: Too large, or not a status.
        """
        if len(body) > MAX_EVENT_BYTES:
            raise Refused(ending.event_too_large(len(body), MAX_EVENT_BYTES))
        status = _object(body, "a status").get("status")
        if not isinstance(status, str) or not 0 < len(status) <= MAX_TYPE_CHARACTERS:
            raise Refused(ending.protocol_error(f"a status {str(status)[:80]!r}: expected 1 to 64 letters"))
        await self._publisher.status(status)

    async def output(self, body: bytes) -> None:
        """Takes the result. The first one counts: later ones change nothing.

        Raises:
            Refused: Too large, or not a result.
        """
        if self._has_output:
            return
        if len(body) > self._limits.output_bytes + ENVELOPE_BYTES:
            raise Refused(ending.output_too_large(len(body), self._limits.output_bytes))
        self._has_output = True
        redactor = self._publisher.redactor
        if redactor is not None and len(body) >= THREAD_FROM_BYTES:
            body = await asyncio.to_thread(redactor.result, body)
        elif redactor is not None:
            body = redactor.result(body)
        try:
            self.result = parse_result(body)
        except BadResult as error:
            raise Refused(ending.protocol_error(f"its result is {error}")) from error


def _object(body: bytes, what: str) -> dict[str, object]:
    try:
        return parse_object(body)
    except BadResult as error:
        raise Refused(ending.protocol_error(f"{what} is {error}")) from error
