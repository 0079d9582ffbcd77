"""What a client sees of schedules and of their firings."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from flow_sdk.wire.execution import Document, ErrorDocument
from flow_sdk.wire.status import Kind, Status


class FiringDocument(Document):
    """What became of one run of a schedule, or of several that were left out together.

    Attributes:
        number: Of the schedule's firings, from 1.
        cause: `schedule`, or `trigger`: somebody asked for it.
        scheduled_at: When it was due; of several, the first.
        until: None of those due after `scheduled_at` up to here started; null for one that was not left out.
        decided_at: When the platform acted on it.
        status: `started`, `waiting`, `skipped` or `failed`.
        reason: Of what was skipped: `overlap`, `missed` or `paused`.
        execution_id, execution_status: What it started, and where that is now; the latter not in lists of schedules.
        error: Of one that failed: why no execution was accepted.
    """

    schedule_id: str
    number: int
    cause: str
    scheduled_at: datetime
    until: datetime | None = None
    decided_at: datetime
    status: str
    reason: str | None = None
    execution_id: str | None = None
    execution_status: Status | None = None
    error: ErrorDocument | None = None


class ScheduledComponent(Document):
    """The component that a schedule starts."""

    kind: Kind
    id: str
    slug: str


class ScheduleDocument(Document):
    """A schedule.

    Attributes:
        input_data, config, next_firings: Null in lists.
        next_firing_at: When it is due next; null while it is paused, or when it is never due again.
        next_firings: The next five of these.
        last_firing: The newest entry of its history.
    """

    id: str
    name: str
    component: ScheduledComponent
    ring_id: str
    cron: str | None
    interval_seconds: float | None
    time_zone: str
    overlap: str
    catch_up_seconds: float
    timeout_seconds: float | None
    paused: bool
    starts_at: datetime | None
    ends_at: datetime | None
    created_at: datetime
    created_by: str
    updated_at: datetime
    input_data: Any = None
    config: dict[str, Any] | None = None
    next_firing_at: datetime | None = None
    next_firings: list[datetime] | None = None
    last_firing: FiringDocument | None = None
