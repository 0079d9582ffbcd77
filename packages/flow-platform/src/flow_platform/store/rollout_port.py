"""The port of deployments on their way through rings. Part of `base.Transaction`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from flow_platform.domain.release import Deployment, Ring
from flow_platform.domain.rollout import Track
from flow_platform.domain.rollout_health import Sample


@dataclass(frozen=True)
class SmokeInput:
    """What a new deployment of a component is validated with. Any JSON value, also null."""

    input_data: Any


class RolloutTable(Protocol):
    def current(self, component_id: str, ring_id: str) -> list[Deployment]:
        """The active deployment and the one on its way, as far as there are any. For each new execution."""
        ...

    def track(self, component_id: str, ring: Ring, also: Sequence[str] = (), *, for_update: bool = False) -> Track:
        """What matters of all deployments: those that are current, the one before the active one, those named.

        Args:
            for_update: Locks the current ones; of two transactions that change one track, one runs again.
        """
        ...

    def save(self, before: Sequence[Track], after: Sequence[Track]) -> None:
        """Writes what differs. Of transactions that make a second deployment active or on its way, one runs again."""
        ...

    def latest(self, component_id: str, ring_id: str) -> Deployment | None:
        """The one made last, whatever became of it."""
        ...

    def moving(self, after: str, limit: int) -> list[Deployment]:
        """Those on their way or being rolled back, of all tenants, by id."""
        ...

    def new(self, since: datetime, after: str, limit: int) -> list[Deployment]:
        """Active ones of all tenants, activated later, in rings that roll back by themselves; by id."""
        ...

    def in_set(self, set_id: str) -> list[Deployment]: ...

    def queued_in(self, ring_id: str) -> list[Deployment]: ...

    def sample(self, deployment_id: str, since: datetime) -> Sample:
        """How its executions ended since then; of very many the newest."""
        ...

    def has_live_execution(self, deployment_id: str) -> bool: ...

    def smoke_input(self, component_id: str) -> SmokeInput | None: ...

    def set_smoke_input(self, component_id: str, smoke: SmokeInput | None) -> None: ...
