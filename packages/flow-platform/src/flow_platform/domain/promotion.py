"""Promotion: the same content, not rebuilt, from a ring where it proved itself to a later one; alone or as a set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from flow_platform.domain import errors
from flow_platform.domain.deployment import Activated
from flow_platform.domain.release import Deployment, DeploymentState
from flow_platform.domain.rollout import Track, begin, step
from flow_platform.domain.rollout_health import Sample, is_healthy


@dataclass(frozen=True)
class Promotion:
    """A wish to bring what is active in one ring to another.

    Attributes:
        sample: What the source's active deployment did lately.
        deployment_id: Of the deployment to be made.
        expected_id: The deployment that was looked at; None: whichever is active.
    """

    source: Track
    target: Track
    sample: Sample
    deployment_id: str
    expected_id: str | None = None


def promote(wish: Promotion, at: datetime) -> Track:
    """Begins a promotion. Returns the target's track with the new deployment, queued.

    Raises:
        Conflict: `not_promotable`: the rings are not in order, nothing is active in the source or something else than
            was expected, or it is not healthy; and as `rollout.begin`.
    """
    active = _promotable(wish)
    deployment = Deployment(
        id=wish.deployment_id,
        org_id=active.org_id,
        workspace_id=active.workspace_id,
        component_id=active.component_id,
        version_id=active.version_id,
        version=active.version,
        ring_id=wish.target.ring.id,
        state=DeploymentState.QUEUED,
        created_at=at,
        digest=active.digest,
        promoted_from_id=active.id,
    )
    return begin(wish.target, deployment)


def promote_together(wishes: Sequence[Promotion], at: datetime) -> list[Track]:
    """Begins the promotion of a set of components, all or none.

    Raises:
        Conflict: One of them cannot be promoted; all that cannot are in the details.
    """
    tracks: list[Track] = []
    problems: list[dict[str, Any]] = []
    for wish in wishes:
        try:
            tracks.append(promote(wish, at))
        except errors.Conflict as error:
            problems.append({"field": wish.target.component_id, "message": error.message, "code": error.error_code})
    if problems:
        raise errors.Conflict(
            f"{len(problems)} of {len(wishes)} components cannot be promoted: {problems[0]['message']}",
            code="not_promotable",
            details=problems,
        )
    return tracks


def activate_together(tracks: Sequence[Track], deployment_ids: Sequence[str], at: datetime) -> list[Track]:
    """Turns a set of validated deployments active, all or none.

    Raises:
        IllegalTransition: One of them is not validated.
    """
    return [step(track, found, Activated(at)) for track, found in zip(tracks, deployment_ids, strict=True)]


def _promotable(wish: Promotion) -> Deployment:
    source, target = wish.source, wish.target
    active = source.active
    if source.component_id != target.component_id:
        raise _refused(f"expected one component, got {source.component_id!r} and {target.component_id!r}")
    if source.ring.order >= target.ring.order:
        raise _refused(
            f"ring {source.ring.name!r} (order {source.ring.order}) is not before "
            f"ring {target.ring.name!r} (order {target.ring.order})"
        )
    if active is None:
        raise _refused(f"nothing is active in ring {source.ring.name!r}")
    if wish.expected_id not in (None, active.id):
        raise _refused(f"deployment {wish.expected_id!r} is not the active one in ring {source.ring.name!r} any more")
    if not is_healthy(source.ring.rollback, wish.sample):
        raise _refused(
            f"version {active.version!r} is not healthy in ring {source.ring.name!r}: "
            f"{wish.sample.failed} of {wish.sample.ended} executions failed"
        )
    return active


def _refused(why: str) -> errors.Conflict:
    return errors.Conflict(f"cannot be promoted: {why}", code="not_promotable")
