"""Stands at the port of the runner: answers its three requests on a real NATS server and reads what it reports."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from flow_platform.bus.connection import Bus, Message
from flow_sdk.wire import subjects
from flow_sdk.wire.runner import (
    Assignment,
    AttemptMetrics,
    CancelNotice,
    Claim,
    Claimed,
    Heartbeat,
    HeartbeatReply,
    Register,
    Registered,
)
from flow_sdk.wire.status import Kind
from tests.support.eventually import eventually

T = TypeVar("T")

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Output:
    """One message of `exec.output`."""

    content: dict[str, Any]
    headers: dict[str, str]

    @property
    def error(self) -> dict[str, Any]:
        assert self.content["error"] is not None, self.content
        return self.content["error"]

    @property
    def metrics(self) -> AttemptMetrics:
        return AttemptMetrics.model_validate_json(self.headers[subjects.HEADER_METRICS])


@dataclass
class FakeEngine:
    bus: Bus
    heartbeat_seconds: float = 0.2
    hold_seconds: float = 1.0
    is_recording: bool = True
    knows_runners: bool = True
    is_id_taken: bool = False
    registers: list[Register] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)
    heartbeats: list[Heartbeat] = field(default_factory=list)
    cancel: set[str] = field(default_factory=set)
    lost: set[str] = field(default_factory=set)
    outputs: dict[str, list[Output]] = field(default_factory=dict)
    events: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    statuses: dict[str, list[str]] = field(default_factory=dict)
    undelivered: list[Assignment] = field(default_factory=list)  # Granted; in the answer to the withdrawal of a claim.
    work: asyncio.Queue[Assignment] = field(default_factory=asyncio.Queue)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)
    _held: set[asyncio.Task[Assignment]] = field(default_factory=set)

    async def start(self) -> None:
        await self.bus.ensure_streams()
        for stream in (subjects.STREAM_OUTPUT, subjects.STREAM_EVENTS, subjects.STREAM_STATUS):
            # The server is every test's. Another one's outputs are read again here, and their objects may be gone.
            await self.bus.api(f"STREAM.PURGE.{stream}", {})
        for subject, handler in (
            (subjects.RUNNER_REGISTER, self._register),
            (subjects.RUNNER_CLAIM, self._claim),
            (subjects.RUNNER_HEARTBEAT, self._heartbeat),
        ):
            await self.bus.serve(subject, subjects.ENGINE_QUEUE, handler)
        name = f"fake-{next(_numbers)}"
        for stream, read in (
            (subjects.STREAM_OUTPUT, self._read_outputs),
            (subjects.STREAM_EVENTS, self._read_events),
            (subjects.STREAM_STATUS, self._read_statuses),
        ):
            self._tasks.append(asyncio.create_task(self.bus.consume(stream, name, read)))

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def ended(self, execution_id: str, seconds: float = 60.0) -> Output:
        """The first output of the execution."""

        async def probe() -> list[Output]:
            return self.outputs.get(execution_id, [])

        return (await eventually(probe, bool, seconds))[0]

    @property
    def last_heartbeat(self) -> Heartbeat:
        """An empty one before the first."""
        return self.heartbeats[-1] if self.heartbeats else Heartbeat(runner_id="", instance="", containers=-1)

    async def run(self, assignment: Assignment) -> Output:
        await self.work.put(assignment)
        return await self.ended(assignment.execution_id)

    async def notify_cancel(self, assignment: Assignment, runner_id: str, reason: str = "cancelled") -> None:
        notice = CancelNotice(execution_id=assignment.execution_id, lease_epoch=assignment.lease_epoch, reason=reason)
        await self.bus.publish_core(subjects.runner_cancel(runner_id), notice.model_dump_json().encode())

    async def _register(self, body: bytes) -> bytes:
        self.registers.append(Register.model_validate_json(body))
        answer = Registered(
            lease_seconds=10,
            heartbeat_seconds=self.heartbeat_seconds,
            hold_seconds=self.hold_seconds,
            error="runner_id_taken" if self.is_id_taken else "",
        )
        return answer.model_dump_json().encode()

    async def _claim(self, body: bytes) -> bytes:
        claim = Claim.model_validate_json(body)
        self.claims.append(claim)
        if not self.knows_runners:
            return Claimed(error="unknown_runner").model_dump_json().encode()
        assignments: list[Assignment] = []
        if claim.room == 0:  # The runner drains: what it left held is void.
            for held in self._held:
                held.cancel()
            return Claimed(assignments=self.undelivered).model_dump_json().encode()
        with contextlib.suppress(TimeoutError, asyncio.CancelledError):
            assignments.append(await self._next(claim.hold_seconds))
            while not self.work.empty() and len(assignments) < claim.room:
                assignments.append(self.work.get_nowait())
        return Claimed(assignments=assignments).model_dump_json().encode()

    async def _next(self, seconds: float) -> Assignment:
        taking = asyncio.create_task(self.work.get())
        self._held.add(taking)
        try:
            return await asyncio.wait_for(taking, seconds)
        finally:
            self._held.discard(taking)

    async def _heartbeat(self, body: bytes) -> bytes:
        heartbeat = Heartbeat.model_validate_json(body)
        self.heartbeats.append(heartbeat)
        if not self.knows_runners:
            return HeartbeatReply(error="unknown_runner").model_dump_json().encode()
        held = {lease.execution_id: lease for lease in heartbeat.leases}
        recorded = [name for name, lease in held.items() if lease.reported and name in self.outputs]
        reply = HeartbeatReply(
            cancel=sorted(self.cancel & held.keys()),
            lost=sorted(self.lost & held.keys()),
            recorded=recorded if self.is_recording else [],
        )
        return reply.model_dump_json().encode()

    async def _read_outputs(self, messages: list[Message]) -> None:
        for message in messages:
            name = message.headers.get(subjects.HEADER_PAYLOAD_OBJECT)
            body = await self.bus.get_object(name) if name else message.body
            output = Output(json.loads(body), dict(message.headers))
            self.outputs.setdefault(_execution(message), []).append(output)

    async def _read_events(self, messages: list[Message]) -> None:
        for message in messages:
            self.events.setdefault(_execution(message), []).append(json.loads(message.body))

    async def _read_statuses(self, messages: list[Message]) -> None:
        for message in messages:
            self.statuses.setdefault(_execution(message), []).append(json.loads(message.body)["status"])

    def log_text(self, execution_id: str) -> str:
        return "\n".join(
            event["event_data"]["text"] for event in self.events.get(execution_id, []) if event["event_type"] == "log"
        )


def assignment(code: str, input_data: Any = None, **changes: Any) -> Assignment:
    """An assignment of a code block whose entry point is `main`."""
    number = next(_numbers)
    values: dict[str, Any] = {
        "execution_id": f"00000000-0000-7000-8000-{number:012d}",
        "lease_epoch": 1,
        "attempt": 1,
        "org_id": "org",
        "workspace_id": "workspace",
        "kind": Kind.CODE_BLOCK,
        "component_id": "component",
        "component_slug": "main",
        "version": 1,
        "code": code,
        "entry_point": "main",
        "deployment_id": "deployment",
        "ring_id": "ring",
        "lifecycle_event": "workflow",
        "billing_transaction_id": "transaction",
        "timeout_seconds": 30.0,
        "remaining_seconds": 30.0,
        "input": {"input_data": input_data or {}, "session_id": None, "messages": [], "state": {}},
        "token": f"token-{number}",
    }
    return Assignment(**(values | changes))


async def becomes(read: Callable[[], T], expected: T, seconds: float = 60.0) -> None:
    """Waits until the value read is the expected one."""

    async def probe() -> T:
        return read()

    await eventually(probe, lambda value: value == expected, seconds)


def _execution(message: Message) -> str:
    return message.subject.rsplit(".", 1)[1]
