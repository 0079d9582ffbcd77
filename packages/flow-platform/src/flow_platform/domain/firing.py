"""What became of the runs of a schedule: its history."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from flow_sdk.wire.execution import ErrorDocument
from flow_sdk.wire.status import Status

MAX_FIRINGS: Final = 1_000
"""Kept of one schedule, older ones are forgotten: six weeks of an hourly one. Its executions stay."""


class FiringStatus(enum.StrEnum):
    STARTED = "started"  # An execution was accepted; how that ended is the execution's to say.
    WAITING = "waiting"  # Starts when the one before it has ended (overlap `queue`).
    SKIPPED = "skipped"  # Left out; `reason` says why.
    FAILED = "failed"  # No execution was accepted; `error` says why.


class Cause(enum.StrEnum):
    SCHEDULE = "schedule"
    TRIGGER = "trigger"  # Somebody asked for it, besides the schedule.


@dataclass(frozen=True)
class Firing:
    """One decision about a schedule.

    Attributes:
        number: Of the schedule's firings, from 1.
        scheduled_at: When it was due; of those left out together, the first.
        until: Of those left out together: none due after `scheduled_at` up to here started.
        key: Idempotency key, for what started or may start; empty for what was left out.
        reason: Why it was left out: `overlap`, `missed` or `paused`.
        ended_at: When its execution ended; noticed when the schedule is looked at the next time.
        execution_status: As it is now; only in lists of firings.
    """

    schedule_id: str
    number: int
    cause: Cause
    scheduled_at: datetime
    decided_at: datetime
    status: FiringStatus
    until: datetime | None = None
    key: str = ""
    reason: str = ""
    execution_id: str | None = None
    ended_at: datetime | None = None
    error: ErrorDocument | None = None
    execution_status: Status | None = None
