"""The port of schedules and of the history of their firings, a part of the store's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from flow_platform.domain.firing import Firing
from flow_platform.domain.schedule import Schedule
from flow_sdk.wire.status import Kind


@dataclass(frozen=True)
class StoredSchedule:
    """A schedule with all that is known of it.

    Attributes:
        plan: When it is due, and what then; without its input in lists.
        name: For people.
        timeout_seconds: Of each execution; None: the component's own.
        created_by: Who made it.
        last_fired_at: Up to when it was decided; see `domain.schedule`.
        due_at: When it is to be decided again; None: not by itself.
        firings: How many there were, which is the number of the last one.
        last_firing: Only in lists.
    """

    plan: Schedule
    org_id: str
    workspace_id: str
    name: str
    kind: Kind
    component_slug: str
    created_by: str
    updated_at: datetime
    config: dict[str, Any] = field(default_factory=dict[str, Any])
    timeout_seconds: float | None = None
    last_fired_at: datetime | None = None
    due_at: datetime | None = None
    firings: int = 0
    last_firing: Firing | None = None

    @property
    def id(self) -> str:
        return self.plan.id


@dataclass(frozen=True)
class SchedulePage:
    """Newest first. `next_cursor` is opaque, None on the last page."""

    items: Sequence[StoredSchedule]
    next_cursor: str | None


@dataclass(frozen=True)
class FiringPage:
    items: Sequence[Firing]
    next_cursor: str | None


class ScheduleTable(Protocol):
    def insert(self, schedule: StoredSchedule) -> None: ...

    def find(
        self, org_id: str, workspace_id: str, schedule_id: str, *, for_update: bool = False
    ) -> StoredSchedule | None: ...

    def acquire(self, schedule_id: str) -> StoredSchedule | None:
        """By id alone, for the engine's own work, locked; None also when another process has locked it."""
        ...

    def update(self, schedule: StoredSchedule) -> None:
        """Writes all but its tenant, its component and what it was made with."""
        ...

    def delete(self, schedule_id: str) -> None:
        """With its firings. The executions stay."""
        ...

    def count(self, org_id: str, workspace_id: str) -> int: ...

    def list(
        self,
        org_id: str,
        workspace_id: str,
        component_id: str | None,
        execution_id: str | None,
        cursor: str | None,
        limit: int,
    ) -> SchedulePage:
        """Those of the component; the one that started the execution.

        Raises:
            InvalidInput: The cursor is not one of ours.
        """
        ...

    # What is to be done; of all tenants.
    def due(self, now: datetime, limit: int) -> Sequence[str]:
        """Ids of schedules that are due, the longest due first."""
        ...

    def freed(self, limit: int) -> Sequence[str]:
        """Ids of schedules with a run that waits for nothing any more."""
        ...

    def blockers(self, limit: int) -> Sequence[str]:
        """Executions that a run waits for."""
        ...

    def next_due_at(self) -> datetime | None: ...

    # Firings.
    def running(self, schedule_id: str) -> Sequence[str]:
        """Executions of the schedule that have not ended; notes the end of the others."""
        ...

    def waiting(self, schedule_id: str) -> Firing | None: ...

    def find_firing(self, schedule_id: str, key: str) -> Firing | None: ...

    def insert_firing(self, firing: Firing) -> None:
        """Forgets those that are too old by now, but none that waits or whose execution may not have ended.

        Raises:
            Conflict: There is one with the key; after a race the store runs the operation again first.
        """
        ...

    def finish_waiting(self, firing: Firing) -> None:
        """Writes what became of a firing that waited."""
        ...

    def list_firings(self, schedule_id: str, cursor: str | None, limit: int) -> FiringPage:
        """Newest first.

        Raises:
            InvalidInput: The cursor is not one of ours.
        """
        ...
