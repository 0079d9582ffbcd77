"""Deployments on their way, inside one transaction: from the wish over the smoke run to the active deployment.

What goes together - one deployment, or the set of a promotion - goes on together: all are approved, then all are
validated, then all turn active, and when one fails all fail. Each step looks at what is in the store, so it does not
matter who takes it: the request that began it, the watch that heard its smoke run end, or another engine after a crash.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from flow_platform.domain import deployment as domain
from flow_platform.domain.clock import Entropy
from flow_platform.domain.component import Component, Version
from flow_platform.domain.release import Deployment, DeploymentState, Ring
from flow_platform.domain.rollout import ON_ITS_WAY, Track, begin, changed, roll_back, step
from flow_platform.engine.accept import Submission, accept
from flow_platform.engine.cancel import Cancelled, cancel_tree
from flow_platform.engine.ends import Ends
from flow_platform.engine.releases import find_component, find_ring, new_deployment
from flow_platform.store.base import Transaction
from flow_platform.store.rollout_port import SmokeInput
from flow_sdk.wire.status import Status

MAX_REASON: Final = 1000  # Characters; a component's error may be of any length.
_STATE = DeploymentState


@dataclass
class RolloutChanges:
    """What a transaction changed, for those to be told who wait for it."""

    deployments: list[Deployment] = field(default_factory=list[Deployment])
    cancelled: Cancelled = field(default_factory=Cancelled)
    has_queued: bool = False


class RolloutSteps:
    """The steps of one transaction. `finish` writes them.

    Args:
        by: Who asks; for reasons and cancellations.
    """

    def __init__(self, tx: Transaction, ends: Ends, now: datetime, entropy: Entropy, by: str) -> None:
        self.tx = tx
        self.now = now
        self.by = by
        self.changes = RolloutChanges()
        self._ends = ends
        self._entropy = entropy
        self._before: dict[tuple[str, str], Track] = {}
        self._after: dict[tuple[str, str], Track] = {}

    def track(self, component_id: str, ring: Ring, also: Sequence[str] = ()) -> Track:
        """The track as it is after the steps so far."""
        key = (component_id, ring.id)
        found = self._after.get(key)
        if found is None:
            found = self.tx.rollouts.track(component_id, ring, also, for_update=True)
            self._before[key] = self._after[key] = found
        return found

    def track_of(self, deployment: Deployment) -> Track:
        known = self._after.get((deployment.component_id, deployment.ring_id))
        if known is not None:
            return known
        ring = find_ring(self.tx, deployment.org_id, deployment.workspace_id, deployment.ring_id)
        return self.track(deployment.component_id, ring, [deployment.id])

    def put(self, track: Track) -> None:
        self._after[track.component_id, track.ring.id] = track

    def deploy(self, component: Component, version: Version, ring: Ring, share: int = 0) -> Deployment:
        """Begins a deployment and takes it as far as it goes now.

        Raises:
            Conflict: `deployment_in_progress`, `already_active`.
        """
        made = new_deployment(component, version, ring, self.now, self._entropy, self.by)
        made = dataclasses.replace(made, first_share=share)
        self.put(begin(self.track(component.id, ring), made))
        self.go_on([made])
        return self._now(made)

    def replace(self, component: Component, version: Version, ring: Ring) -> Deployment:
        """The same for a version that was published: whatever is on its way gives way to it."""
        track = self.track(component.id, ring)
        busy = track.on_its_way
        if busy is not None and busy.version_id == version.id:
            return busy
        if busy is not None:
            self.fail(busy, f"version {version.number!r} was published meanwhile")
            track = self.track(component.id, ring)
        if track.active is not None and track.active.version_id == version.id:
            return track.active
        return self.deploy(component, version, ring)

    def together(self, deployment: Deployment) -> list[Deployment]:
        """The deployment, and those on their way of the same set."""
        members = self.tx.rollouts.in_set(deployment.set_id) if deployment.set_id else [deployment]
        members = sorted(members, key=lambda one: (one.component_id, one.ring_id))  # Locks in one order.
        found = [self.track_of(one).get(one.id) for one in members]
        return [one for one in found if one.state in ON_ITS_WAY or one.id == deployment.id]

    def go_on(self, members: Sequence[Deployment]) -> None:
        """Takes deployments that go together as far as they go now."""
        if any(self._awaits_approval(member) for member in members):
            return
        for member in members:
            self._validate(member)
        verdicts = [self._verdict(member) for member in members]
        for member, (verdict, reason) in zip(members, verdicts, strict=True):
            if verdict is False:
                self.fail(member, reason, members)
                return
        if all(verdict for verdict, _ in verdicts):
            for member in members:
                self._release(member)

    def approve(self, members: Iterable[Deployment]) -> None:
        for member in members:
            self._step(member, domain.Approved(self.now, self.by))

    def share(self, members: Sequence[Deployment], share: int) -> None:
        """Changes the share of deployments that go together; 100: they turn active, as soon as they may.

        Raises:
            IllegalTransition: One of them is not being validated.
        """
        for member in members:
            known = self._now(member)
            if known.share and share < 100:
                self._step(member, domain.ShareChanged(self.now, share))
            elif known.share:
                self._step(member, domain.Activated(self.now))
            elif known.state in ON_ITS_WAY:
                self._set(dataclasses.replace(known, first_share=share % 100))
            else:
                raise domain.illegal(known, domain.ShareChanged(self.now, share))

    def fail(self, deployment: Deployment, reason: str, members: Sequence[Deployment] | None = None) -> None:
        """Ends a deployment on its way, and all that go with it; the smoke runs still running are cancelled."""
        for member in members if members is not None else self.together(deployment):
            known = self._now(member)
            if known.state not in ON_ITS_WAY:
                continue
            why = reason if member.id == deployment.id else f"{reason} (deployment {deployment.id} of the same set)"
            self._step(member, domain.StepFailed(self.now, why))
            smoke = self.tx.executions.find(known.smoke_execution_id) if known.smoke_execution_id else None
            if smoke is not None and not smoke.status.is_terminal:
                self.changes.cancelled.add(cancel_tree(self.tx, self._ends, smoke, self.by, self.now))

    def roll_back(self, track: Track, reason: str) -> None:
        """Raises Conflict: `nothing_to_roll_back`."""
        active = track.active
        self.put(roll_back(track, self.now, reason))
        if active is not None:
            self.complete_rollback(active)

    def complete_rollback(self, deployment: Deployment) -> None:
        """Ends the rollback if nothing runs on the deployment any more."""
        is_over = not self.tx.rollouts.has_live_execution(deployment.id)
        if is_over and self._now(deployment).state is _STATE.ROLLING_BACK:
            self._step(deployment, domain.RollbackCompleted(self.now))

    def finish(self) -> RolloutChanges:
        """Writes all steps; those so far have been written when it is called in between."""
        before, after = list(self._before.values()), list(self._after.values())
        self.tx.rollouts.save(before, after)
        self.changes.deployments += changed(before, after)
        self._before = dict(self._after)
        return self.changes

    def _awaits_approval(self, member: Deployment) -> bool:
        known = self._now(member)
        ring = self.track_of(member).ring
        return known.state is _STATE.QUEUED and ring.requires_approval and known.approved_by is None

    def _validate(self, member: Deployment) -> None:
        """Begins the validation of a deployment that is not so far yet."""
        known = self._now(member)
        if known.state not in (_STATE.QUEUED, _STATE.BUILDING, _STATE.DEPLOYING):
            return
        if known.state is not _STATE.DEPLOYING:
            self._step(member, domain.PlacementStarted(self.now))
        self._step(member, domain.ValidationStarted(self.now))
        smoke = self.tx.rollouts.smoke_input(member.component_id)
        if smoke is not None:
            self._start_smoke_run(member, smoke)

    def _start_smoke_run(self, member: Deployment, smoke: SmokeInput) -> None:
        self.finish()  # The execution refers to the deployment.
        component = find_component(self.tx, member.org_id, member.workspace_id, member.component_id)
        submission = Submission(
            component.kind,
            component.id,
            smoke.input_data,
            lifecycle_event="test",
            auto_deploy=False,
            deployment_id=member.id,
        )
        ring = self.track_of(member).ring
        execution = accept(self.tx, submission, component, ring, None, now=self.now, entropy=self._entropy)
        self._set(dataclasses.replace(self._now(member), smoke_execution_id=execution.id))
        self.changes.has_queued = True

    def _verdict(self, member: Deployment) -> tuple[bool | None, str]:
        """Whether the validation has passed; None: it goes on."""
        execution_id = self._now(member).smoke_execution_id
        if execution_id is None:
            return True, ""
        execution = self.tx.executions.find(execution_id)
        if execution is None:
            return False, f"its smoke run {execution_id} is gone"
        if not execution.status.is_terminal:
            return None, ""
        if execution.status is Status.COMPLETED:
            return True, ""
        error = execution.error
        said = ": ".join(word for word in (error.type, error.message) if word) if error else ""
        reason = f"its smoke run {execution_id} ended as {execution.status.value!r}" + (said and f": {said}")
        return False, reason[:MAX_REASON]

    def _release(self, member: Deployment) -> None:
        known = self._now(member)
        if known.state is not _STATE.VALIDATING or known.share:
            return  # One with a share waits for somebody to raise it.
        if known.first_share and self.track_of(member).active is not None:
            self._step(member, domain.ShareChanged(self.now, known.first_share))
        else:
            self._step(member, domain.Activated(self.now))

    def _now(self, deployment: Deployment) -> Deployment:
        return self.track_of(deployment).get(deployment.id)

    def _step(self, deployment: Deployment, event: domain.Event) -> None:
        self.put(step(self.track_of(deployment), deployment.id, event))

    def _set(self, deployment: Deployment) -> None:
        track = self.track_of(deployment)
        found = tuple(deployment if one.id == deployment.id else one for one in track.deployments)
        self.put(dataclasses.replace(track, deployments=found))
