"""Giving queued work to the claims that are held, inside the transaction that made it possible.

A submit, or the end of an attempt that frees a slot, grants in its own transaction: no second commit, no wake-up in
between. What was granted is delivered after the commit (`claims`).

`grant` runs in the store's thread while claims come and go on the event loop. It only ever reads the set of held
claims, and a grant for a claim that was answered meanwhile waits for the same runner's next one.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from flow_platform.domain import execution as domain
from flow_platform.domain.clock import Clock
from flow_platform.domain.component import Version
from flow_platform.domain.execution import Execution
from flow_platform.engine.turns import Turns
from flow_platform.engine.turns_of_sessions import payload_of_turn
from flow_platform.engine.wakeups import Waiter
from flow_platform.store.base import Attempt, Payload, Transaction
from flow_sdk.wire.runner import Claim

MAX_GRANT: Final = 64  # Executions granted to one runner in one transaction.
MAX_CACHED_VERSIONS: Final = 1_000  # Immutable, up to 256 KiB of code each.


@dataclass(frozen=True)
class Leasing:
    """Times of the lease protocol. A lost runner's work is taken over after `lease` at the latest."""

    lease: timedelta = timedelta(seconds=10)
    heartbeat: timedelta = timedelta(seconds=3)
    hold: timedelta = timedelta(seconds=10)


@dataclass(eq=False)
class HeldClaim:
    """A runner's question for work that is not answered yet. `looks_at`: when it looks for work again by itself."""

    request: Claim
    waiter: Waiter
    looks_at: datetime | None = None


@dataclass(frozen=True)
class Grant:
    """One leased execution with what its assignment needs. `instance`: the runner process it is for."""

    instance: str
    execution: Execution
    version: Version
    payload: Payload
    env: dict[str, str]


class Grants:
    """The held claims of this engine, and how work is given to them."""

    def __init__(self, clock: Clock, leasing: Leasing) -> None:
        self._clock = clock
        self._leasing = leasing
        self._held: dict[str, HeldClaim] = {}  # By runner instance: its newest claim.
        self._versions: dict[str, Version] = {}
        self._turns = Turns()
        self._look_again_at: datetime | None = None  # For free slots that a transaction found nothing for.

    def hold(self, claim: HeldClaim) -> None:
        """Replaces an earlier claim of the same runner process, which is woken to be answered with nothing."""
        earlier = self._held.get(claim.request.instance)
        self._held[claim.request.instance] = claim
        if earlier is not None:
            earlier.waiter.wake()

    def forget_earlier(self, runner_id: str, instance: str) -> None:
        """The runner started again: nobody reads the answers to its earlier claims."""
        for claim in list(self._held.values()):
            if claim.request.runner_id == runner_id and claim.request.instance != instance:
                self.release(claim)
                claim.waiter.wake()

    def is_held(self, claim: HeldClaim) -> bool:
        return self._held.get(claim.request.instance) is claim

    def release(self, claim: HeldClaim) -> None:
        if self.is_held(claim):
            del self._held[claim.request.instance]

    def find(self, instance: str) -> HeldClaim | None:
        return self._held.get(instance)

    def wake_for_later(self) -> None:
        """After a commit: claims that would look too late for what was found to become possible look now, and plan."""
        at, self._look_again_at = self._look_again_at, None
        if at is None:
            return
        for claim in self._held.values():
            if claim.looks_at is None or claim.looks_at > at:
                claim.waiter.wake()

    def grant_waiting(self, tx: Transaction) -> list[Grant]:
        """Gives what is queued to the claims that are held, as far as their runners have free slots."""
        now = self._clock.now()
        return [grant for claim in list(self._held.values()) for grant in self.grant(tx, claim, now)]

    def grant(self, tx: Transaction, claim: HeldClaim, now: datetime) -> list[Grant]:
        """Leases up to the runner's free slots; nothing to a claim that was replaced.

        Nor to one of a process that another one replaced, of which only the engine heard where that one registered: the
        dead one's lease would keep the work from everybody until it runs out.
        """
        granted, look_again_at = self._grant(tx, claim, now)
        if look_again_at is not None:
            self._look_again_at = min(look_again_at, self._look_again_at or look_again_at)
        return granted

    def grant_or_next(self, tx: Transaction, claim: HeldClaim) -> tuple[list[Grant], datetime | None]:
        """What is leased to a claim; if nothing, when more becomes available by itself.

        Both as of one instant: of two, what becomes available in between would be in neither answer.
        """
        granted, look_again_at = self._grant(tx, claim, self._clock.now())
        return granted, None if granted else look_again_at

    def _grant(self, tx: Transaction, claim: HeldClaim, now: datetime) -> tuple[list[Grant], datetime | None]:
        request = claim.request
        runner = tx.runners.find(request.runner_id)
        if not self.is_held(claim) or runner.instance not in ("", request.instance):
            return [], None
        in_use = tx.executions.slots_in_use(request.runner_id, request.instance)
        free = min(request.slots - in_use, request.room, MAX_GRANT)
        if free <= 0:
            return [], None
        turn = self._turns.next(tx, free, now, runner.isolations)
        granted = [self._lease(tx, execution, request, now) for execution in turn.executions]
        return granted, turn.look_again_at if len(granted) < free else None

    def _lease(self, tx: Transaction, execution: Execution, request: Claim, now: datetime) -> Grant:
        expires_at = now + self._leasing.lease
        after = domain.apply(execution, domain.AttemptStarted(now, request.runner_id, request.instance, expires_at))
        tx.executions.update(execution, after)
        tx.executions.record_attempt(
            Attempt(after.id, after.attempt, after.lease_epoch, request.runner_id, started_at=now)
        )
        env = tx.tenancy.merged_variables(after.org_id, after.workspace_id, after.ring_id)
        version = self._version(tx, after.version_id)
        payload = payload_of_turn(tx, after, version, tx.executions.payload(after.id))
        return Grant(request.instance, after, version, payload, env)

    def _version(self, tx: Transaction, version_id: str) -> Version:
        version = self._versions.get(version_id)
        if version is None:
            version = tx.catalog.get_version(version_id)
            if len(self._versions) >= MAX_CACHED_VERSIONS:
                self._versions.pop(next(iter(self._versions)))
            self._versions[version_id] = version
        return version
