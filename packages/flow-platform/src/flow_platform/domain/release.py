"""Rings and deployments: which version runs where."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final


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
class Ring:
    """An isolated stage of one workspace. `auto_deploy`: a component without a deployment here gets its newest one."""

    id: str
    org_id: str
    workspace_id: str
    name: str
    order: int
    auto_deploy: bool
    created_at: datetime
    env: dict[str, str] = field(default_factory=dict[str, str])


BUILT_IN_RINGS: Final = (("dev", 10, True), ("staging", 20, False), ("production", 30, False))
"""Name, order, auto_deploy."""


@dataclass(frozen=True)
class Deployment:
    """An immutable version placed in a ring."""

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
