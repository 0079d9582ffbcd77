"""The way of versions through a ring: what happens to one deployment, and what follows from it for others.

A `Track` holds all deployments of one component in one ring, and every change is a change of the track, because no
deployment changes alone: activating one supersedes another, rolling back restores exactly the one before. Whoever
calls reads the track, and writes `changed(before, after)` in one transaction; a step that is not possible raises and
changes nothing. Invariants of every track: at most one deployment is active, at most one is on its way.

A percentage rollout is validation with real traffic: the deployment that is validated takes `share` percent of the
new executions, the active one the rest. `rolling_back` means that nothing new starts on it while what runs ends.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from flow_platform.domain import errors
from flow_platform.domain.deployment import (
    Activated,
    BuildStarted,
    Event,
    PlacementStarted,
    Restored,
    RollbackStarted,
    ShareChanged,
    Superseded,
    ValidationStarted,
    apply,
    illegal,
)
from flow_platform.domain.release import Deployment, DeploymentState, Ring

_STATE = DeploymentState

ON_ITS_WAY: Final = frozenset({_STATE.QUEUED, _STATE.BUILDING, _STATE.DEPLOYING, _STATE.VALIDATING})

_PAIRED: Final = (Superseded, RollbackStarted, Restored)
"""Happen to one deployment because of another, so only as part of a track's step."""

_BUCKETS: Final = 10_000


@dataclass(frozen=True)
class Track:
    """All deployments of one component in one ring, oldest first."""

    component_id: str
    ring: Ring
    deployments: tuple[Deployment, ...] = ()

    @property
    def active(self) -> Deployment | None:
        return next((found for found in self.deployments if found.state is _STATE.ACTIVE), None)

    @property
    def on_its_way(self) -> Deployment | None:
        return next((found for found in self.deployments if found.state in ON_ITS_WAY), None)

    def get(self, deployment_id: str) -> Deployment:
        """Raises NotFound when the track has no such deployment."""
        for found in self.deployments:
            if found.id == deployment_id:
                return found
        raise errors.NotFound(f"deployment {deployment_id!r} not found")


def begin(track: Track, deployment: Deployment) -> Track:
    """Adds a deployment, queued.

    Raises:
        Conflict: `deployment_in_progress`: another one is on its way; `already_active`: the same content is active.
    """
    busy = track.on_its_way
    if busy is not None:
        raise errors.Conflict(
            f"deployment {busy.id!r} of version {busy.version!r} is {busy.state.value!r} in ring {track.ring.name!r}: "
            "expected none on its way",
            code="deployment_in_progress",
            hint="wait for it, or withdraw it",
        )
    if track.active is not None and track.active.digest and track.active.digest == deployment.digest:
        raise errors.Conflict(
            f"version {track.active.version!r} is active in ring {track.ring.name!r} already", code="already_active"
        )
    queued = dataclasses.replace(
        deployment,
        component_id=track.component_id,
        ring_id=track.ring.id,
        state=_STATE.QUEUED,
        share=0,
        previous_id=None,
        activated_at=None,
        approved_by=None,
        is_restored=False,
        reason="",
    )
    return dataclasses.replace(track, deployments=(*track.deployments, queued))


def step(track: Track, deployment_id: str, event: Event) -> Track:
    """Applies what happened to one deployment, and what follows from it for others.

    Raises:
        NotFound: There is no such deployment.
        IllegalTransition: The table has no such step, it awaits approval, or it is no step of its own; see `roll_back`.
        InvalidInput: The share is none.
    """
    deployment = track.get(deployment_id)
    if isinstance(event, _PAIRED):
        raise illegal(deployment, event, "this is part of a step of another deployment")
    awaits_approval = track.ring.requires_approval and deployment.approved_by is None
    if awaits_approval and deployment.state is _STATE.QUEUED and isinstance(event, (BuildStarted, PlacementStarted)):
        raise illegal(deployment, event, f"ring {track.ring.name!r} requires an approval first")
    if isinstance(event, (ValidationStarted, ShareChanged)):
        _check_share(track, deployment, event)
    changes = {deployment_id: apply(deployment, event)}
    if isinstance(event, Activated) and track.active is not None:
        changes[track.active.id] = apply(track.active, Superseded(event.at))
        changes[deployment_id] = dataclasses.replace(changes[deployment_id], previous_id=track.active.id)
    return _with(track, changes)


def roll_back(track: Track, at: datetime, reason: str) -> Track:
    """Takes the active deployment back and restores exactly the one that it superseded.

    One that is on its way goes on: once it is activated, it supersedes what was restored.

    Raises:
        Conflict: `nothing_to_roll_back`: none is active, or there was none before it.
    """
    active = track.active
    if active is None or active.previous_id is None:
        there = "none is active" if active is None else f"version {active.version!r} is the first one there"
        raise errors.Conflict(
            f"ring {track.ring.name!r} has no earlier deployment to go back to: {there}", code="nothing_to_roll_back"
        )
    previous = track.get(active.previous_id)
    return _with(
        track,
        {active.id: apply(active, RollbackStarted(at, reason)), previous.id: apply(previous, Restored(at))},
    )


def choose(track: Track, execution_id: str) -> Deployment | None:
    """Which deployment a new execution runs on; None when none is active.

    The same execution always gets the same answer, and raising the share never moves one back to the active one.
    """
    candidate = track.on_its_way
    if candidate is not None and candidate.state is _STATE.VALIDATING and candidate.share and track.active:
        digest = hashlib.sha256(f"{candidate.id}:{execution_id}".encode()).digest()
        if int.from_bytes(digest[:8], "big") % _BUCKETS < candidate.share * (_BUCKETS // 100):
            return candidate
    return track.active


def changed(before: Sequence[Track], after: Sequence[Track]) -> list[Deployment]:
    """The deployments to write, in this order: new ones and those that are not as they were.

    What turns active comes last, so that a store that allows one active deployment never sees two.
    """
    known = {deployment.id: deployment for track in before for deployment in track.deployments}
    found = [found for track in after for found in track.deployments if known.get(found.id) != found]
    return sorted(found, key=lambda deployment: deployment.state is _STATE.ACTIVE)


def _check_share(track: Track, deployment: Deployment, event: ValidationStarted | ShareChanged) -> None:
    if not 0 <= event.share < 100:
        raise errors.InvalidInput(
            f"share {event.share!r} is not valid: expected 0 to 99 percent",
            details=[{"field": "share", "message": f"expected 0 to 99, got {event.share!r}"}],
        )
    if event.share and track.active is None:
        raise illegal(deployment, event, "no deployment is active that would take the rest")


def _with(track: Track, changes: Mapping[str, Deployment]) -> Track:
    return dataclasses.replace(track, deployments=tuple(changes.get(found.id, found) for found in track.deployments))
