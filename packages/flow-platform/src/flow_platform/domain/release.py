"""Rings and deployments: which version runs where."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from flow_sdk.wire.isolation import Isolation


class DeploymentState(enum.StrEnum):
    """Source: the platform specification, section 1. At most one deployment is active per component and ring."""

    QUEUED = "queued"
    BUILDING = "building"
    DEPLOYING = "deploying"
    VALIDATING = "validating"
    ACTIVE = "active"
    FAILED = "failed"
    ROLLING_BACK = "rolling_back"
    ROLLED_BACK = "rolled_back"
    SUPERSEDED = "superseded"


@dataclass(frozen=True)
class RollbackRule:
    """When a new deployment is taken back by itself: it fails too often, as seen by enough executions.

    Attributes:
        failure_rate: From 0 to 1; reached means too often.
        minimum_count: Executions that must have ended before the rate means anything.
        window: How far back they count.
        watch: How long after its activation a deployment is new; later failures have other causes.
    """

    failure_rate: float = 0.5
    minimum_count: int = 20
    window: timedelta = timedelta(minutes=10)
    watch: timedelta = timedelta(hours=1)


@dataclass(frozen=True)
class Ring:
    """An isolated stage of one workspace. `auto_deploy`: a component without a deployment here gets its newest one.

    Attributes:
        requires_approval: A deployment waits, queued, until somebody approved it.
        rollback: None: nothing is taken back by itself.
        minimum_isolation: What everything in it runs in at least.
    """

    id: str
    org_id: str
    workspace_id: str
    name: str
    order: int
    auto_deploy: bool
    created_at: datetime
    env: dict[str, str] = field(default_factory=dict[str, str])
    requires_approval: bool = False
    rollback: RollbackRule | None = None
    minimum_isolation: Isolation = Isolation.NAMESPACES


BUILT_IN_RINGS: Final = (("dev", 10, True), ("staging", 20, False), ("production", 30, False))
"""Name, order, auto_deploy."""


@dataclass(frozen=True)
class Deployment:
    """An immutable version placed in a ring.

    Attributes:
        digest: Of the version's content; a promotion carries it on unchanged.
        share: Percent of new executions that it takes while it is validated; meaningless in other states.
        previous_id: The deployment that it superseded, which a rollback restores.
        promoted_from_id: The deployment of another ring that it was promoted from.
        is_restored: It became active again by a rollback.
        reason: Why it failed or was rolled back.
        requested_by: Who asked for it.
        set_id: Common to deployments that turn active together or not at all.
        smoke_execution_id: The execution of the smoke input that validates it.
        first_share: The share that it takes once that one has passed; 0: it turns active instead.
    """

    id: str
    org_id: str
    workspace_id: str
    component_id: str
    version_id: str
    version: int
    ring_id: str
    state: DeploymentState
    created_at: datetime
    activated_at: datetime | None = None
    digest: str = ""
    share: int = 0
    previous_id: str | None = None
    promoted_from_id: str | None = None
    approved_by: str | None = None
    is_restored: bool = False
    reason: str = ""
    requested_by: str = ""
    set_id: str | None = None
    smoke_execution_id: str | None = None
    first_share: int = 0


def merge_variables(*scopes: dict[str, str]) -> dict[str, str]:
    """The variables that a container sees: of the organization, its workspace, the ring; the narrower one wins."""
    merged: dict[str, str] = {}
    for scope in scopes:
        merged.update(scope)
    return merged
