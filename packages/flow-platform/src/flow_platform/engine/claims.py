"""Handing out work: leases, heartbeats, and what a runner must be told.

A runner's claim is held here until there is work and room. The lease is committed before the assignment leaves, so a
lost answer costs one lease time, and a repeated one is fenced by the epoch.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from flow_sdk.wire.runner import Assignment, Claim, Claimed

from flow_platform.domain import execution as domain
from flow_platform.domain.clock import Clock
from flow_platform.domain.component import Version
from flow_platform.domain.execution import Execution
from flow_platform.engine.stages import Stages
from flow_platform.engine.wakeups import WORK, Waiter, Wakeups
from flow_platform.store.base import Attempt, Payload, Store, Transaction

logger = logging.getLogger(__name__)

MAX_GRANT: Final = 64  # Assignments in one answer.
MAX_REPLY_BYTES: Final = 900_000  # Below the NATS payload limit of 1 MiB; larger answers travel as an object.
LOOK_AGAIN_SECONDS: Final = 5.0  # The safety net under the wake-ups: other engines queue work too.
MAX_CACHED_VERSIONS: Final = 1_000  # Immutable, up to 256 KiB of code each.

IssueToken = Callable[[Execution, datetime], str]
PutObject = Callable[[str, bytes], Awaitable[None]]


@dataclass(frozen=True)
class Leasing:
    """Times of the lease protocol. A lost runner's work is taken over after `lease` at the latest."""

    lease: timedelta = timedelta(seconds=10)
    heartbeat: timedelta = timedelta(seconds=3)
    hold: timedelta = timedelta(seconds=10)


@dataclass(frozen=True)
class _Granted:
    execution: Execution
    version: Version
    payload: Payload
    env: dict[str, str]


class Claims:
    """Answers claims."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        wakeups: Wakeups,
        stages: Stages,
        issue_token: IssueToken,
        put_object: PutObject,
        leasing: Leasing,
    ) -> None:
        self._store = store
        self._clock = clock
        self._wakeups = wakeups
        self._stages = stages
        self._issue_token = issue_token
        self._put_object = put_object
        self._leasing = leasing
        self._versions: dict[str, Version] = {}
        self._held: dict[str, Waiter] = {}  # By runner instance: its newest claim.

    async def claim(self, request: Claim) -> bytes:
        """Grants leases up to the runner's free slots; waits for work up to `hold_seconds`.

        A later claim of the same runner process replaces an earlier one that is still held: that one is answered at
        once, with nothing. So a runner that is unsure, or stops (a claim without room), cannot be granted work into
        an answer that nobody reads.

        Returns:
            A `Claimed` as JSON, encoded once.
        """
        with self._wakeups.subscribe(WORK) as waiter:
            earlier = self._held.get(request.instance)
            self._held[request.instance] = waiter
            if earlier is not None:
                earlier.wake()
            try:
                return await self._reply(await self._wait_for_work(request, waiter))
            finally:
                if self._held.get(request.instance) is waiter:
                    del self._held[request.instance]

    async def _wait_for_work(self, request: Claim, waiter: Waiter) -> list[_Granted]:
        loop = asyncio.get_running_loop()
        ends = loop.time() + min(request.hold_seconds, self._leasing.hold.total_seconds())
        while True:
            granted, available_at = await self._store.write(lambda tx: self._grant(tx, request, waiter))
            remaining = ends - loop.time()
            if granted or remaining <= 0 or self._held.get(request.instance) is not waiter:
                return granted
            pause = min(remaining, LOOK_AGAIN_SECONDS)
            if available_at is not None:
                pause = min(pause, max(0.001, (available_at - self._clock.now()).total_seconds()))
            await waiter.wait(pause)

    def _grant(self, tx: Transaction, request: Claim, waiter: Waiter) -> tuple[list[_Granted], datetime | None]:
        now = self._clock.now()
        in_use = tx.executions.slots_in_use(request.runner_id, request.instance)
        free = min(request.slots - in_use, request.room, MAX_GRANT)
        if free <= 0 or self._held.get(request.instance) is not waiter:
            return [], None
        granted = [self._lease(tx, execution, request, now) for execution in tx.executions.acquire(now, free)]
        return granted, None if granted else tx.executions.next_available_at(now)

    def _lease(self, tx: Transaction, execution: Execution, request: Claim, now: datetime) -> _Granted:
        expires_at = now + self._leasing.lease
        after = domain.apply(execution, domain.AttemptStarted(now, request.runner_id, request.instance, expires_at))
        tx.executions.update(execution, after)
        tx.executions.record_attempt(
            Attempt(after.id, after.attempt, after.lease_epoch, request.runner_id, started_at=now)
        )
        ring = tx.catalog.find_ring(after.org_id, after.workspace_id, after.ring_id) if after.ring_id else None
        return _Granted(
            after, self._version(tx, after.version_id), tx.executions.payload(after.id), ring.env if ring else {}
        )

    def _version(self, tx: Transaction, version_id: str) -> Version:
        version = self._versions.get(version_id)
        if version is None:
            version = tx.catalog.get_version(version_id)
            if len(self._versions) >= MAX_CACHED_VERSIONS:
                self._versions.pop(next(iter(self._versions)))
            self._versions[version_id] = version
        return version

    async def _reply(self, granted: list[_Granted]) -> bytes:
        for grant in granted:
            self._stages.leased(grant.execution.id)
        encoded = Claimed(assignments=[self._assignment(grant) for grant in granted]).model_dump_json().encode()
        if len(encoded) <= MAX_REPLY_BYTES:
            return encoded
        first = granted[0].execution
        name = f"{first.id}/{first.lease_epoch}/claim"
        await self._put_object(name, encoded)
        return Claimed(reply_object=name).model_dump_json().encode()

    def _assignment(self, grant: _Granted) -> Assignment:
        execution, version, payload, now = grant.execution, grant.version, grant.payload, self._clock.now()
        definition = version.definition
        return Assignment(
            execution_id=execution.id,
            lease_epoch=execution.lease_epoch,
            attempt=execution.attempt,
            org_id=execution.org_id,
            workspace_id=execution.workspace_id,
            kind=execution.kind,
            component_id=execution.component_id,
            component_slug=execution.component_slug,
            version=execution.version,
            code=definition.code,
            entry_point=definition.entry_point,
            environment=version.environment,
            limits=definition.limits,
            deployment_id=execution.deployment_id,
            ring_id=execution.ring_id,
            lifecycle_event=execution.lifecycle_event,
            billing_transaction_id=execution.billing_transaction_id,
            timeout_seconds=execution.timeout_seconds,
            remaining_seconds=max(0.0, (execution.deadline_at - now).total_seconds()),
            input={
                "input_data": payload.input_data,
                "session_id": payload.session_id,
                "messages": payload.messages,
                "state": payload.state,
            },
            config=payload.config,
            env=grant.env,
            token=self._issue_token(execution, now),
            queued_ms=round((now - execution.created_at).total_seconds() * 1000, 3),
        )
