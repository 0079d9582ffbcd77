"""Looks after deployments: those on their way go on, those that fail too often are taken back, none is ever stuck.

Nothing here is on the way of an execution. The watch subscribes to the smoke runs that it waits for, and to failures of
the deployments that are new in a ring with a rollback rule; an execution that ends well, or elsewhere, wakes nobody.
Every few seconds it looks at everything by itself: after a crash, or when a wake-up was lost, it goes on from there.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from flow_platform.domain import errors
from flow_platform.domain.clock import Clock
from flow_platform.domain.execution import Execution
from flow_platform.domain.release import Deployment, DeploymentState, Ring
from flow_platform.domain.rollout_health import MAX_WATCH, Sample, is_new, react, window_start
from flow_platform.engine.rollout_steps import RolloutSteps
from flow_platform.engine.rollouts import (
    APPROVAL_WITHIN,
    BY_ITSELF,
    LOOK_AGAIN_SECONDS,
    ROLLOUTS,
    SHARE_WITHIN,
    Rollouts,
)
from flow_platform.engine.wakeups import Wakeups
from flow_platform.store.base import Store, Transaction
from flow_sdk.wire.status import Status

logger = logging.getLogger(__name__)

PAGE: Final = 200
PAUSE_SECONDS: Final = 0.2  # Between two looks, however many failures come in.

_STATE = DeploymentState
_NOT_WELL: Final = frozenset({Status.FAILED, Status.DEAD_LETTER, Status.TIMEOUT})

Act = Callable[[RolloutSteps], None]


def failure_keys(ended: Iterable[Execution]) -> list[str]:
    """What is to be notified, besides the executions themselves: the deployments that some of them failed on."""
    return [_failure_key(execution.deployment_id) for execution in ended if execution.status in _NOT_WELL]


def _failure_key(deployment_id: str | None) -> str:
    return f"failed:{deployment_id}"


@dataclass
class _Look:
    """What one look found: what is to be done, and what to wait for."""

    acts: list[tuple[str, Act]] = field(default_factory=list[tuple[str, Act]])
    keys: set[str] = field(default_factory=set[str])


class RolloutWatch:
    def __init__(self, store: Store, clock: Clock, wakeups: Wakeups, rollouts: Rollouts) -> None:
        self._store = store
        self._clock = clock
        self._wakeups = wakeups
        self._rollouts = rollouts

    async def run(self) -> None:
        """Watches until cancelled."""
        keys: set[str] = set()
        while True:
            with self._wakeups.subscribe(ROLLOUTS, *keys) as waiter:
                found = keys
                try:
                    found = await self.look()
                except errors.FlowError as error:  # Conflicts with other engines, too: the next look sees them.
                    logger.warning("could not look after deployments: %s", error)
                if found - keys:
                    keys = found  # What ends before it is subscribed to would go unheard: look again.
                    continue
                keys = found
                await waiter.wait(LOOK_AGAIN_SECONDS)
            await asyncio.sleep(PAUSE_SECONDS)

    async def look(self) -> set[str]:
        """Acts on everything that goes on now. Returns the keys of what the rest waits for."""
        look = await self._store.read(self._find)
        for deployment_id, act in look.acts:
            try:
                await self._rollouts.change(BY_ITSELF, act)
            except errors.Conflict as error:
                logger.info("a deployment changed meanwhile: %s", error, extra={"deployment_id": deployment_id})
        return look.keys

    def _find(self, tx: Transaction) -> _Look:
        look, now = _Look(), self._clock.now()
        rings: dict[str, Ring | None] = {}

        def ring_of(deployment: Deployment) -> Ring | None:
            if deployment.ring_id not in rings:
                where = deployment.org_id, deployment.workspace_id, deployment.ring_id
                rings[deployment.ring_id] = tx.catalog.find_ring(*where)
            return rings[deployment.ring_id]

        for deployment in _pages(tx.rollouts.moving):
            if ring := ring_of(deployment):
                _look_at(tx, deployment, ring, now, look)
        for deployment in _pages(lambda after, limit: tx.rollouts.new(now - MAX_WATCH, after, limit)):
            if ring := ring_of(deployment):
                _look_at_health(tx, deployment, ring, now, look)
        return look


def _pages(page: Callable[[str, int], list[Deployment]]) -> Iterator[Deployment]:
    after = ""
    while True:
        found = page(after, PAGE)
        yield from found
        if len(found) < PAGE:
            return
        after = found[-1].id


def _look_at(tx: Transaction, deployment: Deployment, ring: Ring, now: datetime, look: _Look) -> None:
    """One that is on its way, or being rolled back."""
    within = APPROVAL_WITHIN if deployment.state is _STATE.QUEUED else SHARE_WITHIN
    if deployment.state is _STATE.ROLLING_BACK:
        if not tx.rollouts.has_live_execution(deployment.id):
            look.acts.append((deployment.id, lambda steps: steps.complete_rollback(deployment)))
    elif deployment.created_at + within <= now:
        what = "approved" if deployment.state is _STATE.QUEUED else "made active"
        reason = f"it was not {what} within {within.days} days"
        look.acts.append((deployment.id, lambda steps: steps.fail(deployment, reason)))
    elif deployment.state is _STATE.VALIDATING and deployment.share:
        _look_at_health(tx, deployment, ring, now, look)
    elif deployment.state is not _STATE.QUEUED:
        smoke = tx.executions.find(deployment.smoke_execution_id) if deployment.smoke_execution_id else None
        if smoke is not None and not smoke.status.is_terminal:
            look.keys.add(smoke.id)
        else:
            look.acts.append((deployment.id, lambda steps: steps.go_on(steps.together(deployment))))


def _look_at_health(tx: Transaction, deployment: Deployment, ring: Ring, now: datetime, look: _Look) -> None:
    rule = ring.rollback
    if rule is None or not is_new(rule, deployment, now):
        return
    look.keys.add(_failure_key(deployment.id))
    samples = {deployment.id: tx.rollouts.sample(deployment.id, window_start(rule, deployment, now))}
    track = tx.rollouts.track(deployment.component_id, ring)
    if react(track, samples, now) is not track:
        look.acts.append((deployment.id, lambda steps: _take_back(steps, deployment, samples)))


def _take_back(steps: RolloutSteps, deployment: Deployment, samples: dict[str, Sample]) -> None:
    before = steps.track_of(deployment)
    after = react(before, samples, steps.now)
    if after is before:
        return
    known = after.get(deployment.id)
    logger.warning(
        "took a deployment back: %s", known.reason, extra={"deployment_id": known.id, "ring_id": known.ring_id}
    )
    if known.state is _STATE.FAILED:
        steps.fail(deployment, known.reason)
    elif known.state is _STATE.ROLLING_BACK:
        steps.roll_back(before, known.reason)
