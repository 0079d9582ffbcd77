"""Answering the claims that runners keep outstanding.

The lease is committed before the assignment leaves, so a lost answer costs one lease time, and a repeated one is
fenced by the epoch.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Final

from flow_platform.domain import errors
from flow_platform.domain.clock import Clock
from flow_platform.domain.execution import Execution
from flow_platform.engine.agents import agent_of
from flow_platform.engine.grants import Grant, Grants, HeldClaim, Leasing
from flow_platform.engine.stages import Stages
from flow_platform.engine.wakeups import WORK, Wakeups
from flow_platform.store.base import Store
from flow_sdk.wire.runner import Assignment, Claim, Claimed

logger = logging.getLogger(__name__)

MAX_REPLY_BYTES: Final = 900_000  # Below the NATS payload limit of 1 MiB; larger answers travel as an object.
LOOK_AGAIN_SECONDS: Final = 5.0  # The safety net under the wake-ups: other engines queue work too.

IssueToken = Callable[[Execution, datetime], str]
PutObject = Callable[[str, bytes], Awaitable[None]]


class Claims:
    """Answers claims."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        wakeups: Wakeups,
        stages: Stages,
        grants: Grants,
        issue_token: IssueToken,
        put_object: PutObject,
        leasing: Leasing,
    ) -> None:
        self._store = store
        self._clock = clock
        self._wakeups = wakeups
        self._stages = stages
        self._grants = grants
        self._issue_token = issue_token
        self._put_object = put_object
        self._leasing = leasing
        self._undelivered: defaultdict[str, list[Grant]] = defaultdict(list)

    async def claim(self, request: Claim) -> bytes:
        """Grants leases up to the runner's free slots; waits for work up to `hold_seconds`.

        A later claim of the same runner process replaces an earlier one that is still held: that one is answered at
        once, with nothing. So a runner that is unsure, or stops (a claim without room), cannot be granted work into
        an answer that nobody reads.

        Returns:
            A `Claimed` as JSON, encoded once.
        """
        with self._wakeups.subscribe(WORK) as waiter:
            claim = HeldClaim(request, waiter)
            self._grants.hold(claim)
            try:
                granted = await self._wait_for_work(claim)
            finally:
                self._grants.release(claim)
        try:
            return await self._reply(granted)
        except errors.BusUnavailable:
            self.deliver(granted)  # With the next claim, while the leases last.
            raise

    def deliver(self, granted: list[Grant]) -> None:
        """Hands on what a committed transaction granted: to the held claim, else to the runner's next one."""
        for grant in granted:
            self._stages.leased(grant.execution.id)
            self._undelivered[grant.instance].append(grant)
            claim = self._grants.find(grant.instance)
            if claim is not None:
                claim.waiter.wake()
        for instance in list(self._undelivered):
            if self._grants.find(instance) is None:
                self._keep_leased(instance)
        self._grants.wake_for_later()

    async def _wait_for_work(self, claim: HeldClaim) -> list[Grant]:
        loop = asyncio.get_running_loop()
        request = claim.request
        ends = loop.time() + min(request.hold_seconds, self._leasing.hold.total_seconds())
        while self._grants.is_held(claim):
            granted = self._take(request.instance)
            available_at = None
            if not granted:
                granted, available_at = await self._store.write(lambda tx: self._grants.grant_or_next(tx, claim))
                self.deliver(granted)
                if not self._grants.is_held(claim):
                    break  # It is for the claim that replaced this one.
                granted = self._take(request.instance)
            remaining = ends - loop.time()
            if granted or remaining <= 0:
                return granted
            pause = min(remaining, LOOK_AGAIN_SECONDS)
            now = self._clock.now()
            if available_at is not None:
                pause = min(pause, max(0.001, (available_at - now).total_seconds()))
            # Exactly then where that is known: a float's rounding would look like being late.
            until = now + timedelta(seconds=pause)
            claim.looks_at = min(until, available_at) if available_at is not None else until
            await claim.waiter.wait(pause)
            claim.looks_at = None
        return []

    def _take(self, instance: str) -> list[Grant]:
        self._keep_leased(instance)
        return self._undelivered.pop(instance, [])

    def _keep_leased(self, instance: str) -> None:
        """Forgets what was not delivered within its lease: it is the sweeper's, and soon another runner's."""
        now = self._clock.now()
        undelivered = self._undelivered.pop(instance, [])
        kept = [grant for grant in undelivered if (grant.execution.lease_expires_at or now) > now]
        if kept:
            self._undelivered[instance] = kept

    async def _reply(self, granted: list[Grant]) -> bytes:
        encoded = Claimed(assignments=[self._assignment(grant) for grant in granted]).model_dump_json().encode()
        if len(encoded) <= MAX_REPLY_BYTES:
            return encoded
        first = granted[0].execution
        name = f"{first.id}/{first.lease_epoch}/claim"
        await self._put_object(name, encoded)
        return Claimed(reply_object=name).model_dump_json().encode()

    def _assignment(self, grant: Grant) -> Assignment:
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
            code="" if definition.agent is not None else definition.code,
            entry_point=definition.entry_point,
            agent=agent_of(version),
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
            network=list(definition.network),
            secrets=list(definition.secrets),
            injected=list(definition.injected),
            isolation=execution.isolation,
            token=self._issue_token(execution, now),
            queued_ms=round((now - execution.start_at).total_seconds() * 1000, 3),
        )
