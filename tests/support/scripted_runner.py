"""A runner that does what a test says. It stands at the runner's port: real NATS, the real wire records, no sandbox."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections import Counter
from collections.abc import Sequence
from typing import Any

from flow_platform.bus.connection import Bus, Message
from flow_platform.domain import errors
from flow_sdk.wire import subjects
from flow_sdk.wire.isolation import Isolation
from flow_sdk.wire.runner import (
    Assignment,
    AttemptMetrics,
    BuildReply,
    Claim,
    Claimed,
    Heartbeat,
    HeartbeatReply,
    HeldLease,
    Register,
    Registered,
)


class ScriptedRunner:
    """Registers, claims and reports by explicit calls; answers every build with an empty environment."""

    def __init__(
        self, bus: Bus, runner_id: str = "scripted", slots: int = 4, isolations: Sequence[str] = ("namespaces",)
    ) -> None:
        self.bus = bus
        self.runner_id = runner_id
        self.instance = uuid.uuid4().hex
        self.slots = slots
        self.isolations = isolations
        self.cancelled: list[str] = []
        self._events: Counter[str] = Counter()

    async def start(self) -> Registered:
        for isolation in Isolation:  # It looks at nothing.
            await self.bus.serve(subjects.build_request(isolation), subjects.RUNNER_QUEUE, self._build)
        await self.bus.subscribe(subjects.runner_cancel(self.runner_id), self._on_cancel)
        return await self.register()

    async def live(self) -> None:
        """Answers when it is asked whether it lives, as long as its connection does."""
        alive = subjects.runner_alive(self.runner_id, self.instance)
        await self.bus.serve(alive, subjects.RUNNER_QUEUE, self._alive)

    async def register(self) -> Registered:
        request = Register(
            runner_id=self.runner_id, instance=self.instance, slots=self.slots, capabilities=list(self.isolations)
        )
        return Registered.model_validate_json(await self._ask(subjects.RUNNER_REGISTER, request))

    async def claim(self, hold_seconds: float = 5.0) -> list[Assignment]:
        request = Claim(
            runner_id=self.runner_id, instance=self.instance, slots=self.slots, room=100, hold_seconds=hold_seconds
        )
        claimed = Claimed.model_validate_json(await self._ask(subjects.RUNNER_CLAIM, request))
        if claimed.reply_object:
            claimed = Claimed.model_validate_json(await self.bus.get_object(claimed.reply_object))
        return claimed.assignments

    async def heartbeat(self, leases: Sequence[HeldLease]) -> HeartbeatReply:
        request = Heartbeat(runner_id=self.runner_id, instance=self.instance, leases=list(leases))
        return HeartbeatReply.model_validate_json(await self._ask(subjects.RUNNER_HEARTBEAT, request))

    async def report(
        self,
        assignment: Assignment,
        output: Any = None,
        error: dict[str, Any] | None = None,
        *,
        measured: dict[str, Any] | None = None,
        **changes: Any,
    ) -> None:
        """Publishes the end of the attempt."""
        metrics = AttemptMetrics(**(measured or {"cpu_ms": 1.5}), events=self._events[assignment.execution_id])
        body = {"execution_id": assignment.execution_id, "output": output, "error": error, **changes}
        await self.bus.publish(
            f"{subjects.EXEC_OUTPUT}.{assignment.execution_id}",
            json.dumps(body).encode(),
            {**self._origin(assignment), subjects.HEADER_METRICS: metrics.model_dump_json()},
        )

    async def event(self, assignment: Assignment, sequence: int, data: Any, event_type: str = "message") -> None:
        self._events[assignment.execution_id] = max(sequence, self._events[assignment.execution_id])
        body = {"sequence": sequence, "event_type": event_type, "event_data": data}
        await self.bus.publish(
            f"{subjects.EXEC_EVENTS}.{assignment.execution_id}", json.dumps(body).encode(), self._origin(assignment)
        )

    def _origin(self, assignment: Assignment) -> dict[str, str]:
        return {
            subjects.HEADER_LEASE_EPOCH: str(assignment.lease_epoch),
            subjects.HEADER_ATTEMPT: str(assignment.attempt),
            subjects.HEADER_RUNNER: self.runner_id,
        }

    async def _ask(self, subject: str, request: Any) -> bytes:
        """Asks again while nobody serves the subject: an engine that lost its connection comes back by itself."""
        for pause in (0.05, 0.1, 0.25, 0.5, 1.0, 2.0):
            try:
                return await self.bus.request(subject, request.model_dump_json().encode(), timeout=15)
            except errors.BusUnavailable:
                await asyncio.sleep(pause)
        return await self.bus.request(subject, request.model_dump_json().encode(), timeout=15)

    async def _build(self, _: bytes) -> bytes:
        return BuildReply().model_dump_json().encode()

    async def _alive(self, _: bytes) -> bytes:
        return b""

    async def _on_cancel(self, message: Message) -> None:
        self.cancelled.append(json.loads(message.body)["execution_id"])


def held(assignment: Assignment, *, reported: bool = False) -> HeldLease:
    return HeldLease(execution_id=assignment.execution_id, lease_epoch=assignment.lease_epoch, reported=reported)
