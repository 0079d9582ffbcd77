"""What people and programs ask of deployments: deploy, promote, approve, share, roll back; and the settings of rings.

Each is one transaction of `rollout_steps`. What a deployment waits for afterwards - its smoke run, an approval, a
share that somebody raises - is looked after by `rollout_watch`.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar

from flow_platform.domain import deployment as domain
from flow_platform.domain import errors
from flow_platform.domain.clock import Clock, Entropy, new_id, system_entropy
from flow_platform.domain.component import Component, Version
from flow_platform.domain.isolation import check_minimum, require_strong_enough
from flow_platform.domain.principal import Action, Principal
from flow_platform.domain.promotion import Promotion, promote, promote_together
from flow_platform.domain.release import Deployment, DeploymentState, Ring
from flow_platform.domain.rollout import ON_ITS_WAY
from flow_platform.domain.rollout_health import DEFAULT_RULE, Sample, check_rule, window_start
from flow_platform.engine.cancel import CancelNotices
from flow_platform.engine.ends import Ends
from flow_platform.engine.releases import (
    check_workspace,
    find_component,
    find_deployment,
    find_ring,
    require_not_execution,
)
from flow_platform.engine.rollout_steps import RolloutChanges, RolloutSteps
from flow_platform.engine.wakeups import WORK, Wakeups
from flow_platform.store.base import Store, Transaction
from flow_platform.store.rollout_port import SmokeInput

T = TypeVar("T")

ROLLOUTS: Final = "rollouts"
"""Key that the watch of deployments waits on: one of them changed."""

MAX_SET: Final = 50  # Deployments promoted together: their tracks are all read and locked in one transaction.
LOOK_AGAIN_SECONDS: Final = 5.0
APPROVAL_WITHIN: Final = timedelta(days=7)  # A deployment that nobody approves makes room for others.
SHARE_WITHIN: Final = timedelta(days=30)  # The same for one whose share nobody raises to all.
BY_ITSELF: Final = "the platform"

UNCHANGED: Final = object()
"""For a smoke input that a request does not mention; None removes it."""


@dataclass(frozen=True)
class RingChange:
    """What a request changes of a ring: names of fields of `Ring`, and their new values."""

    fields: dict[str, Any]


def place_in_auto_rings(steps: RolloutSteps, component: Component, version: Version) -> None:
    """Deploys a published version in all rings that deploy by themselves."""
    for ring in steps.tx.catalog.list_rings(component.org_id, component.workspace_id):
        if ring.auto_deploy:
            steps.replace(component, version, ring)


class Rollouts:
    """Deployments of workspaces, and their ways through the rings."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        wakeups: Wakeups,
        notices: CancelNotices,
        ends: Ends,
        entropy: Entropy = system_entropy,
    ) -> None:
        self._store = store
        self._clock = clock
        self._wakeups = wakeups
        self._notices = notices
        self._ends = ends
        self._entropy = entropy

    def steps(self, tx: Transaction, by: str) -> RolloutSteps:
        """For a transaction of somebody else, who calls `told` after its commit."""
        return RolloutSteps(tx, self._ends, self._clock.now(), self._entropy, by)

    def told(self, changes: RolloutChanges) -> None:
        """Wakes those whom the changes of a committed transaction concern."""
        self._notices.send(changes.cancelled)
        keys = [deployment.id for deployment in changes.deployments]
        if keys:
            self._wakeups.notify([*keys, ROLLOUTS, *([WORK] if changes.has_queued else [])])

    async def change(self, by: str, operation: Callable[[RolloutSteps], T]) -> T:
        """One transaction of steps, and the news of it."""

        def write(tx: Transaction) -> tuple[T, RolloutChanges]:
            steps = self.steps(tx, by)
            value = operation(steps)
            return value, steps.finish()

        value, changes = await self._store.write(write)
        self.told(changes)
        return value

    async def deploy(
        self,
        principal: Principal,
        org_id: str,
        workspace_id: str,
        component_id: str,
        ring_id: str,
        version: int | None = None,
        share: int = 0,
        smoke_input: Any = UNCHANGED,
    ) -> tuple[Deployment, bool]:
        """Brings a version (None: the newest) into a ring; without smoke input, approval and share, active at once.

        Args:
            share: Percent of new executions that it takes once validated; 0: all.
            smoke_input: Kept with the component, for all its deployments from now on.

        Returns:
            The deployment, and whether it is new: deploying what is active or on its way already changes nothing.

        Raises:
            NotFound: Component, version or ring is unknown in this workspace.
            Conflict: `deployment_in_progress`: another version is on its way there; `isolation_too_weak`.
            InvalidInput: A share where nothing is active that would take the rest.
        """
        require_not_execution(principal, Action.DEPLOY, org_id, workspace_id)

        def operation(steps: RolloutSteps) -> tuple[Deployment, bool]:
            component = find_component(steps.tx, org_id, workspace_id, component_id)
            ring = find_ring(steps.tx, org_id, workspace_id, ring_id)
            chosen = steps.tx.catalog.find_version(component.id, version)
            if chosen is None:
                raise errors.NotFound(f"version {version!r} of {component.kind.value} {component.slug!r} not found")
            if smoke_input is not UNCHANGED:
                smoke = None if smoke_input is None else SmokeInput(smoke_input)
                steps.tx.rollouts.set_smoke_input(component.id, smoke)
            track = steps.track(component.id, ring)
            there = track.on_its_way or track.active
            if there is not None and there.version_id == chosen.id:
                return there, False
            _check_share(share, track.active, ring)
            return steps.deploy(component, chosen, ring, share), True

        return await self.change(principal.subject, operation)

    async def promote(
        self,
        principal: Principal,
        org_id: str,
        workspace_id: str,
        deployment_ids: Sequence[str],
        ring_id: str | None = None,
        share: int = 0,
    ) -> list[Deployment]:
        """Brings what is active in one ring to another: the same content, not built again. Several: all or none.

        Of several, those whose content is active there already stay as they are.

        Args:
            ring_id: None: the next ring after each deployment's own.
            share: As for `deploy`.

        Returns:
            The deployments in the target, in the order of the sources.

        Raises:
            NotFound: A deployment or the ring is unknown in this workspace, or there is no next ring.
            Conflict: `not_promotable`, `deployment_in_progress`, `already_active`; of several with one detail each.
                `isolation_too_weak`.
            InvalidInput: Too many, a component twice, or a share where nothing is active that would take the rest.
        """
        require_not_execution(principal, Action.DEPLOY, org_id, workspace_id)
        if not 0 < len(deployment_ids) <= MAX_SET:
            raise _invalid("deployment_ids", f"{len(deployment_ids)} of them", f"1 to {MAX_SET}")
        now = self._clock.now()
        # Counted before: a count over many executions is nothing for the thread that writes.
        samples = await self._store.read(
            lambda tx: {
                deployment_id: _sample(tx, find_deployment(tx, org_id, workspace_id, deployment_id), now)
                for deployment_id in deployment_ids
            }
        )

        def operation(steps: RolloutSteps) -> list[Deployment]:
            return _Promoting(steps, org_id, workspace_id, ring_id, share, samples, self._entropy).promote()

        return await self.change(principal.subject, operation)

    async def approve(self, principal: Principal, org_id: str, workspace_id: str, deployment_id: str) -> Deployment:
        """Lets a deployment go on that waits for an approval; with it, all of its set. Who approved is kept.

        Raises:
            IllegalTransition: It does not wait for one.
        """

        def operation(steps: RolloutSteps, deployment: Deployment) -> None:
            if deployment.state is not DeploymentState.QUEUED:
                raise domain.illegal(deployment, domain.Approved(steps.now, steps.by))
            members = steps.together(deployment)
            steps.approve([member for member in members if member.approved_by is None])
            steps.go_on(members)

        return await self._change_one(principal, org_id, workspace_id, deployment_id, operation)

    async def share(
        self, principal: Principal, org_id: str, workspace_id: str, deployment_id: str, share: int
    ) -> Deployment:
        """Changes which percentage of new executions a deployment on its way takes; with it, all of its set.

        100: it turns active. Before it is validated, this says what it will take then.

        Raises:
            IllegalTransition: It is not on its way.
        """
        if not 0 < share <= 100:
            raise _invalid("share", share, "1 to 100 percent")

        def operation(steps: RolloutSteps, deployment: Deployment) -> None:
            members = steps.together(deployment)
            for member in members:
                track = steps.track_of(member)
                _check_share(share % 100, track.active, track.ring)
            steps.share(members, share)
            steps.go_on(members)

        return await self._change_one(principal, org_id, workspace_id, deployment_id, operation)

    async def roll_back(
        self, principal: Principal, org_id: str, workspace_id: str, deployment_id: str, reason: str = ""
    ) -> Deployment:
        """Takes a deployment back: an active one for the one before it, one on its way with all of its set.

        What runs goes on where it is.

        Raises:
            Conflict: `nothing_to_roll_back`: none was active before it.
            IllegalTransition: It is neither active nor on its way.
        """

        def operation(steps: RolloutSteps, deployment: Deployment) -> None:
            why = f"taken back by {steps.by}" + (f": {reason}" if reason else "")
            if deployment.state in ON_ITS_WAY:
                steps.fail(deployment, why)
            elif deployment.state is DeploymentState.ACTIVE:
                steps.roll_back(steps.track_of(deployment), why)
            else:
                raise domain.illegal(deployment, domain.RollbackStarted(steps.now, why))

        return await self._change_one(principal, org_id, workspace_id, deployment_id, operation)

    async def change_ring(
        self, principal: Principal, org_id: str, workspace_id: str, ring_id: str, change: RingChange
    ) -> Ring:
        """Changes a ring; from now on, for all that happens in it.

        Raises:
            InvalidInput: The rollback rule is out of bounds, or it demands less isolation than it must.
        """
        require_not_execution(principal, Action.ADMINISTER, org_id, workspace_id)

        def operation(steps: RolloutSteps) -> Ring:
            before = find_ring(steps.tx, org_id, workspace_id, ring_id)
            ring = dataclasses.replace(before, **change.fields)
            if ring.rollback is not None:
                check_rule(ring.rollback)
            check_minimum(ring.name, ring.minimum_isolation)
            steps.tx.catalog.update_ring(ring)
            if before.requires_approval and not ring.requires_approval:
                for deployment in steps.tx.rollouts.queued_in(ring.id):
                    steps.go_on(steps.together(deployment))
            return ring

        ring = await self.change(principal.subject, operation)
        self._wakeups.notify([ROLLOUTS])
        return ring

    async def wait(
        self, principal: Principal, org_id: str, workspace_id: str, deployment_id: str, hold_seconds: float
    ) -> Deployment:
        """The deployment when it goes no further by itself, or when the hold is over, whichever comes first."""
        require_not_execution(principal, Action.READ, org_id, workspace_id)
        loop = asyncio.get_running_loop()
        ends = loop.time() + hold_seconds
        with self._wakeups.subscribe(deployment_id) as waiter:
            while True:
                found = await self._store.read(lambda tx: find_deployment(tx, org_id, workspace_id, deployment_id))
                remaining = ends - loop.time()
                if remaining <= 0 or not goes_on_by_itself(found):
                    return found
                await waiter.wait(min(remaining, LOOK_AGAIN_SECONDS))

    async def _change_one(
        self,
        principal: Principal,
        org_id: str,
        workspace_id: str,
        deployment_id: str,
        operation: Callable[[RolloutSteps, Deployment], None],
    ) -> Deployment:
        require_not_execution(principal, Action.DEPLOY, org_id, workspace_id)

        def change(steps: RolloutSteps) -> Deployment:
            check_workspace(steps.tx, org_id, workspace_id)
            known = find_deployment(steps.tx, org_id, workspace_id, deployment_id)
            track = steps.track_of(known)
            operation(steps, track.get(known.id))
            return steps.track_of(known).get(known.id)

        return await self.change(principal.subject, change)


@dataclass(frozen=True)
class _Promoting:
    """The transaction of a promotion."""

    steps: RolloutSteps
    org_id: str
    workspace_id: str
    ring_id: str | None
    share: int
    samples: dict[str, Sample]
    entropy: Entropy

    def promote(self) -> list[Deployment]:
        steps = self.steps
        wishes = [self._wish(deployment_id) for deployment_id in self.samples]
        if len({wish.source.component_id for wish in wishes}) < len(wishes):
            raise _invalid("deployment_ids", list(self.samples), "one deployment of each component")
        new = [wish for wish in wishes if len(wishes) == 1 or not _is_there(wish)]
        if not new:
            raise errors.Conflict("all of them are active in the target already", code="already_active")
        tracks = [promote(new[0], steps.now)] if len(new) == 1 else promote_together(new, steps.now)
        set_id = new_id(steps.now, self.entropy) if len(new) > 1 else None
        made: list[Deployment] = []
        for wish, track in zip(new, tracks, strict=True):
            _check_share(self.share, track.active, track.ring)
            deployment = dataclasses.replace(
                track.get(wish.deployment_id), requested_by=steps.by, set_id=set_id, first_share=self.share
            )
            rest = tuple(one for one in track.deployments if one.id != deployment.id)
            steps.put(dataclasses.replace(track, deployments=(*rest, deployment)))
            made.append(deployment)
        steps.go_on(made)
        return [self._result(wish) for wish in wishes]

    def _wish(self, deployment_id: str) -> Promotion:
        steps = self.steps
        known = find_deployment(steps.tx, self.org_id, self.workspace_id, deployment_id)
        source_ring = find_ring(steps.tx, self.org_id, self.workspace_id, known.ring_id)
        source = steps.track(known.component_id, source_ring)
        target = steps.track(known.component_id, self._target(source_ring))
        component = find_component(steps.tx, self.org_id, self.workspace_id, known.component_id)
        definition = steps.tx.catalog.get_version(known.version_id).definition
        require_strong_enough(component, definition, target.ring)
        new = new_id(steps.now, self.entropy)
        return Promotion(source, target, self.samples[deployment_id], new, expected_id=deployment_id)

    def _target(self, source: Ring) -> Ring:
        if self.ring_id is not None:
            return find_ring(self.steps.tx, self.org_id, self.workspace_id, self.ring_id)
        rings = self.steps.tx.catalog.list_rings(self.org_id, self.workspace_id)
        later = [ring for ring in rings if ring.order > source.order]
        if not later:
            raise errors.NotFound(f"no ring comes after {source.name!r}: expected ring_id")
        return min(later, key=lambda ring: (ring.order, ring.name))

    def _result(self, wish: Promotion) -> Deployment:
        track = self.steps.track(wish.target.component_id, wish.target.ring)
        known = {one.id: one for one in track.deployments}
        there = known.get(wish.deployment_id) or track.active
        assert there is not None  # noqa: S101 - it was made, or skipped because it is there.
        return there


def goes_on_by_itself(deployment: Deployment) -> bool:
    """Whether something is under way that changes it; False when it waits for people, or for nothing."""
    if deployment.state is DeploymentState.QUEUED:
        return False
    return deployment.state in ON_ITS_WAY and not deployment.share


def _is_there(wish: Promotion) -> bool:
    source, target = wish.source.active, wish.target.active
    return source is not None and target is not None and source.digest == target.digest


def _sample(tx: Transaction, deployment: Deployment, now: datetime) -> Sample:
    ring = find_ring(tx, deployment.org_id, deployment.workspace_id, deployment.ring_id)
    return tx.rollouts.sample(deployment.id, window_start(ring.rollback or DEFAULT_RULE, deployment, now))


def _check_share(share: int, active: Deployment | None, ring: Ring) -> None:
    if not 0 <= share < 100:
        raise _invalid("share", share, "0 to 99 percent")
    if share and active is None:
        raise _invalid("share", share, f"none: nothing is active in ring {ring.name!r} that would take the rest")


def _invalid(field: str, value: object, expected: str) -> errors.InvalidInput:
    return errors.InvalidInput(
        f"{field} {value!r} is not valid: expected {expected}",
        details=[{"field": field, "message": f"expected {expected}, got {value!r}"}],
    )
