"""The `exec.*` messages of one attempt, in order and each once.

Every message carries the lease epoch: the engine drops what an older attempt still says. Events share one sequence
with log lines and are published one after the other, so that their order on the stream is the order in which the
component made them; a publication that the bus did not take is repeated with the same message id. Log lines of one
moment are sent without waiting for each other: only where the bus fails under them can they change places.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Sequence
from typing import Any, Final

from flow_platform.bus.connection import Bus
from flow_platform.domain import errors
from flow_platform.domain.clock import Clock
from flow_platform.runner.redaction import Redactor
from flow_sdk.wire import subjects
from flow_sdk.wire.runner import Assignment

logger = logging.getLogger(__name__)

MAX_EVENT_BYTES: Final = 512 << 10  # Half of the NATS payload limit: room for headers and the envelope.
WINDOW: Final = 32  # Events on their way at a time.
RETRY_SECONDS: Final = 0.25  # Between two tries of one event; each try itself waits for the bus's publish timeout.


class Publisher:
    """Publishes status and events of one attempt.

    Attributes:
        redactor: Takes the attempt's secrets out of everything; None when it has none.
    """

    def __init__(self, bus: Bus, assignment: Assignment, runner_id: str, clock: Clock) -> None:
        self._bus = bus
        self._clock = clock
        self._execution_id = assignment.execution_id
        self._attempt = assignment.attempt
        self._order = asyncio.Lock()
        self._is_closed = False
        self.published = 0
        self.redactor: Redactor | None = None
        self.headers: dict[str, str] = {
            subjects.HEADER_LEASE_EPOCH: str(assignment.lease_epoch),
            subjects.HEADER_ATTEMPT: str(assignment.attempt),
            subjects.HEADER_RUNNER: runner_id,
        }

    def timestamp(self) -> str:
        return self._clock.now().isoformat()

    async def status(self, status: str) -> None:
        """Says where the attempt is; for people, so it is not acknowledged."""
        shown = status if self.redactor is None else self.redactor.text(status)
        body = {"execution_id": self._execution_id, "status": shown, "timestamp": self.timestamp()}
        try:
            await self._bus.publish_core(
                f"{subjects.EXEC_STATUS}.{self._execution_id}", json.dumps(body).encode(), self.headers
            )
        except errors.BusUnavailable as error:
            logger.info("a status was not published: %s", error, extra={"execution_id": self._execution_id})

    async def event(self, event_type: str, event_data: Any, timestamp: str | None = None) -> None:
        """Publishes the next event, and returns when the stream has it or the attempt was closed."""
        await self.events(event_type, [event_data], timestamp)

    async def events(self, event_type: str, event_data: Sequence[Any], timestamp: str | None = None) -> None:
        """Publishes the next events, as `event` does for one; `WINDOW` of them are on their way at a time."""
        async with self._order:
            for start in range(0, len(event_data), WINDOW):
                if self._is_closed:
                    return
                bodies = [
                    self._body(number, event_type, data, timestamp)
                    for number, data in enumerate(event_data[start : start + WINDOW], self.published + 1)
                ]
                if len(bodies) == 1:  # The common case needs no tasks.
                    stored = [await self._patiently(bodies[0], self.published + 1)]
                else:
                    numbered = enumerate(bodies, self.published + 1)
                    stored = await asyncio.gather(*(self._patiently(body, number) for number, body in numbered))
                self.published += sum(stored)

    def close(self) -> None:
        """Nothing more is published: the attempt ended, or is no longer ours."""
        self._is_closed = True

    def _body(self, sequence: int, event_type: str, event_data: Any, timestamp: str | None) -> bytes:
        if self.redactor is not None:
            event_type, event_data, timestamp = self.redactor.value([event_type, event_data, timestamp])
        body = {
            "execution_id": self._execution_id,
            "sequence": sequence,
            "event_type": event_type,
            "event_data": event_data,
            "timestamp": timestamp or self.timestamp(),
        }
        return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()

    async def _patiently(self, body: bytes, sequence: int) -> bool:
        subject = f"{subjects.EXEC_EVENTS}.{self._execution_id}"
        message_id = f"{self._execution_id}:{self._attempt}:{sequence}"
        while not self._is_closed:
            try:
                await self._bus.publish(subject, body, self.headers, message_id=message_id)
            except errors.BusUnavailable as error:
                logger.warning("an event waits for the bus: %s", error, extra={"execution_id": self._execution_id})
                await asyncio.sleep(RETRY_SECONDS)
            else:
                return True
        return False
