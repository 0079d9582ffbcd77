"""The life of one deployment: one total transition table. See `rollout` for what a step means to others.

queued ──▶ building ──▶ deploying ──▶ validating ──Activated──▶ active ──Superseded──▶ superseded
  │  └────────────────────▲  │            │  ▲ ShareChanged       │  ▲                    │
  └──────────┬───────────────┘            └──┘                    │  └──────Restored──────┘
             ▼ StepFailed (from each state before active)         ▼ RollbackStarted
           failed                                            rolling_back ──▶ rolled_back
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from flow_platform.domain import errors
from flow_platform.domain.release import Deployment, DeploymentState

# Events: what happened to one deployment.


@dataclass(frozen=True)
class Event:
    at: datetime


@dataclass(frozen=True)
class Approved(Event):
    by: str


@dataclass(frozen=True)
class BuildStarted(Event):
    pass


@dataclass(frozen=True)
class PlacementStarted(Event):
    """Its environment is there; it is being made ready in the ring."""


@dataclass(frozen=True)
class ValidationStarted(Event):
    """The smoke input runs; with a share, some of the real traffic does, too."""

    share: int = 0


@dataclass(frozen=True)
class ShareChanged(Event):
    share: int


@dataclass(frozen=True)
class StepFailed(Event):
    """Building, placing or validating went wrong, the approval was refused, or somebody withdrew it."""

    reason: str


@dataclass(frozen=True)
class Activated(Event):
    pass


@dataclass(frozen=True)
class Superseded(Event):
    pass


@dataclass(frozen=True)
class RollbackStarted(Event):
    reason: str


@dataclass(frozen=True)
class RollbackCompleted(Event):
    """Nothing runs on it any more."""


@dataclass(frozen=True)
class Restored(Event):
    pass


_STATE = DeploymentState

TRANSITIONS: Final[Mapping[DeploymentState, Mapping[type[Event], DeploymentState]]] = {
    _STATE.QUEUED: {
        Approved: _STATE.QUEUED,
        BuildStarted: _STATE.BUILDING,
        PlacementStarted: _STATE.DEPLOYING,
        StepFailed: _STATE.FAILED,
    },
    _STATE.BUILDING: {PlacementStarted: _STATE.DEPLOYING, StepFailed: _STATE.FAILED},
    _STATE.DEPLOYING: {ValidationStarted: _STATE.VALIDATING, StepFailed: _STATE.FAILED},
    _STATE.VALIDATING: {
        ShareChanged: _STATE.VALIDATING,
        Activated: _STATE.ACTIVE,
        StepFailed: _STATE.FAILED,
    },
    _STATE.ACTIVE: {Superseded: _STATE.SUPERSEDED, RollbackStarted: _STATE.ROLLING_BACK},
    _STATE.ROLLING_BACK: {RollbackCompleted: _STATE.ROLLED_BACK},
    _STATE.SUPERSEDED: {Restored: _STATE.ACTIVE},
    # Terminal: present, so that the table is total.
    _STATE.FAILED: {},
    _STATE.ROLLED_BACK: {},
}


def apply(deployment: Deployment, event: Event) -> Deployment:
    """Returns the deployment after the event.

    Raises:
        IllegalTransition: The table has no such step; nothing changes.
    """
    target = TRANSITIONS[deployment.state].get(type(event))
    if target is None:
        raise illegal(deployment, event)
    return dataclasses.replace(deployment, state=target, **_fields(event))


def _fields(event: Event) -> dict[str, Any]:
    match event:
        case Approved():
            return {"approved_by": event.by}
        case ValidationStarted() | ShareChanged():
            return {"share": event.share}
        case StepFailed():
            return {"share": 0, "reason": event.reason}
        case Activated():
            return {"share": 0, "activated_at": event.at}
        case RollbackStarted():
            return {"reason": event.reason}
        case Restored():
            return {"activated_at": event.at, "is_restored": True}
        case _:
            return {}


def illegal(deployment: Deployment, event: Event, why: str = "") -> errors.IllegalTransition:
    """The error for a step that is not possible."""
    name = type(event).__name__
    return errors.IllegalTransition(
        f"{name} is not possible for deployment {deployment.id!r} that is {deployment.state.value!r}"
        + (f": {why}" if why else "")
    )
