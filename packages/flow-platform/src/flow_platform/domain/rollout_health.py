"""Whether a deployment does well, told from how its executions end; and taking it back when it does not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from flow_platform.domain import errors
from flow_platform.domain.deployment import StepFailed
from flow_platform.domain.release import Deployment, DeploymentState, RollbackRule
from flow_platform.domain.rollout import Track, roll_back, step

DEFAULT_RULE: Final = RollbackRule()
"""For the health of a ring that takes nothing back by itself."""

MAX_WINDOW: Final = timedelta(days=1)
MAX_WATCH: Final = timedelta(days=30)


@dataclass(frozen=True)
class Sample:
    """How many executions of a deployment ended in the window, and how many of them not well.

    Failed, dead letter and timeout count as not well; cancelled ones count as nothing: the caller wanted it.
    """

    ended: int = 0
    failed: int = 0


def window_start(rule: RollbackRule, deployment: Deployment, now: datetime) -> datetime:
    """From when on executions count for a sample: the window, but nothing of an earlier time of being active."""
    since = deployment.activated_at or deployment.created_at
    return max(since, now - rule.window)


def is_healthy(rule: RollbackRule | None, sample: Sample) -> bool:
    """Whether a deployment may be promoted. One that ran too little to tell is healthy: its validation passed."""
    return not _fails_too_often(rule or DEFAULT_RULE, sample)


def is_new(rule: RollbackRule, deployment: Deployment, now: datetime) -> bool:
    """Whether failures are still put down to the deployment.

    One that a rollback restored is not new: it did well before, so if it fails as well the cause is elsewhere, and
    going back further and further would only hide it.
    """
    if deployment.state is DeploymentState.VALIDATING:
        return True
    return (
        deployment.state is DeploymentState.ACTIVE
        and not deployment.is_restored
        and deployment.activated_at is not None
        and now < deployment.activated_at + rule.watch
    )


def react(track: Track, samples: Mapping[str, Sample], now: datetime) -> Track:
    """The track after its ring's rule was applied; the same one when there is nothing to take back.

    A deployment that is validated with real traffic fails; an active one is rolled back, if one was before it.

    Args:
        samples: By deployment, counted from `window_start`.
    """
    rule = track.ring.rollback
    if rule is None:
        return track
    for deployment in (track.on_its_way, track.active):
        if deployment is None or not is_new(rule, deployment, now):
            continue
        sample = samples.get(deployment.id, Sample())
        if not _fails_too_often(rule, sample):
            continue
        reason = f"{sample.failed} of {sample.ended} executions failed; the limit is {rule.failure_rate:.0%}"
        if deployment.state is DeploymentState.VALIDATING:
            return step(track, deployment.id, StepFailed(now, reason))
        if deployment.previous_id is not None:
            return roll_back(track, now, reason)
    return track


def check_rule(rule: RollbackRule) -> RollbackRule:
    """Returns the rule.

    Raises:
        InvalidInput: A field is out of bounds.
    """
    bounds = {
        "failure_rate": (0 < rule.failure_rate <= 1, "more than 0, at most 1"),
        "minimum_count": (1 <= rule.minimum_count <= 1_000_000, "1 to 1000000"),
        "window": (timedelta(seconds=1) <= rule.window <= MAX_WINDOW, f"1 second to {MAX_WINDOW}"),
        "watch": (timedelta() <= rule.watch <= MAX_WATCH, f"0 to {MAX_WATCH}"),
    }
    for field, (is_within, expected) in bounds.items():
        if not is_within:
            value = getattr(rule, field)
            raise errors.InvalidInput(
                f"rollback.{field} {str(value)!r} is not valid: expected {expected}",
                details=[{"field": f"rollback.{field}", "message": f"expected {expected}, got {str(value)!r}"}],
            )
    return rule


def _fails_too_often(rule: RollbackRule, sample: Sample) -> bool:
    return sample.ended >= rule.minimum_count and sample.failed >= rule.failure_rate * sample.ended
