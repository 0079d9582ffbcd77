"""Reports of ended attempts, kept until the engine says that they are in its database.

JetStream may lose a stream, and a publication may fail while the bus is away. So a report stays here, its lease stays
in the heartbeats (`reported`), and what is not recorded after two heartbeats is published again. The engine takes a
report once; repeating it is free.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from flow_sdk.wire import subjects
from flow_sdk.wire.runner import HeldLease

from flow_platform.bus.connection import Bus
from flow_platform.domain import errors

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

    async def settle(self, execution_ids: Iterable[str]) -> None:
        """Forgets reports that are recorded, or that nobody wants any more."""
        for execution_id in execution_ids:
            report = self._reports.pop(execution_id, None)
            if report is not None and report.object_name is not None:
                await self._delete(report.object_name)

    async def after_heartbeat(self, asked: Iterable[HeldLease]) -> None:
        """Publishes again what was in the heartbeat as reported and is still not recorded, for the second time."""
        for lease in asked:
            report = self._reports.get(lease.execution_id)
            if report is None or not lease.reported or report.lease_epoch != lease.lease_epoch:
                continue
            report.heartbeats += 1
            if report.heartbeats >= HEARTBEATS_BEFORE_REPEAT:
                report.heartbeats = 0
                logger.warning("publishing a report again", extra={"execution_id": report.execution_id})
                await self._publish(report)

    async def _publish(self, report: Report) -> None:
        report.publications += 1
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

    async def _delete(self, name: str) -> None:
        try:
            await self._bus.delete_object(name)
        except errors.FlowError as error:
            logger.info("object %s was not deleted: %s", name, error)
