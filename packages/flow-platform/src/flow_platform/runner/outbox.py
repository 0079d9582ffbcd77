"""Reports of ended attempts, kept until the engine says that they are in its database.

JetStream may lose a stream, and a publication may fail while the bus is away. So a report stays here, its lease stays
in the heartbeats (`reported`), and what is not recorded after two heartbeats is published again. The engine takes a
report once; repeating it is free.

What follows from a heartbeat is done in tasks of its own: a stream that answers nobody must not hold up the next
heartbeat, or the leases of everything else here would run out.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from flow_platform.bus.connection import Bus
from flow_platform.domain import errors
from flow_sdk.wire import subjects
from flow_sdk.wire.runner import HeldLease

logger = logging.getLogger(__name__)

MAX_MESSAGE_BYTES: Final = 512 << 10  # Larger bodies travel as an object; the NATS payload limit is 1 MiB.
HEARTBEATS_BEFORE_REPEAT: Final = 2


@dataclass
class Report:
    """The end of one attempt, as published."""

    execution_id: str
    lease_epoch: int
    attempt: int
    body: bytes
    headers: dict[str, str]
    heartbeats: int = 0
    publications: int = field(default=0)
    is_on_its_way: bool = False

    @property
    def object_name(self) -> str | None:
        """Where the body is when it is too large for a message. Begins with the execution: only its own is read."""
        if len(self.body) <= MAX_MESSAGE_BYTES:
            return None
        return f"{self.execution_id}/{self.lease_epoch}/output"


class Outbox:
    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._reports: dict[str, Report] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._reports)

    def held(self) -> list[HeldLease]:
        return [
            HeldLease(execution_id=report.execution_id, lease_epoch=report.lease_epoch, reported=True)
            for report in self._reports.values()
        ]

    async def send(self, report: Report) -> None:
        """Takes the report and publishes it. Never fails: an unpublished report is repeated after heartbeats."""
        self._reports[report.execution_id] = report
        await self._publish(report)

    def supersede(self, execution_id: str) -> None:
        """A newer attempt was handed out, so the engine has settled the reported one."""
        self._reports.pop(execution_id, None)

    def settle(self, leases: Iterable[HeldLease]) -> None:
        """Forgets reports that are recorded, or that nobody wants any more; not those of newer attempts."""
        for lease in leases:
            report = self._reports.get(lease.execution_id)
            if report is None or report.lease_epoch != lease.lease_epoch:
                continue
            del self._reports[lease.execution_id]
            if report.object_name is not None:
                self._spawn(self._delete(report.object_name))

    def after_heartbeat(self, asked: Iterable[HeldLease]) -> None:
        """Publishes again what was in the heartbeat as reported and is still not recorded, for the second time."""
        for lease in asked:
            report = self._reports.get(lease.execution_id)
            if report is None or not lease.reported or report.lease_epoch != lease.lease_epoch:
                continue
            report.heartbeats += 1
            if report.heartbeats >= HEARTBEATS_BEFORE_REPEAT and not report.is_on_its_way:
                report.heartbeats = 0
                logger.warning("publishing a report again", extra={"execution_id": report.execution_id})
                self._spawn(self._publish(report))

    async def close(self) -> None:
        """Gives up what is on its way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _publish(self, report: Report) -> None:
        report.publications += 1
        report.is_on_its_way = True
        headers, body, name = report.headers, report.body, report.object_name
        # A new id for each publication: within the stream's duplicate window an equal one would be swallowed.
        message_id = f"{report.execution_id}:{report.attempt}:output:{report.publications}"
        try:
            if name is not None:
                await self._bus.put_object(name, body)
                headers, body = {**headers, subjects.HEADER_PAYLOAD_OBJECT: name}, b""
            await self._bus.publish(
                f"{subjects.EXEC_OUTPUT}.{report.execution_id}", body, headers, message_id=message_id
            )
        except errors.BusUnavailable as error:
            logger.warning("a report waits for the bus: %s", error, extra={"execution_id": report.execution_id})
        finally:
            report.is_on_its_way = False

    async def _delete(self, name: str) -> None:
        try:
            await self._bus.delete_object(name)
        except errors.FlowError as error:
            logger.info("object %s was not deleted: %s", name, error)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name="outbox")
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a report could not be handled", exc_info=error)
