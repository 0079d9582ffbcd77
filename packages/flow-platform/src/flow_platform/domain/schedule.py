"""Schedules: which runs are due, and what to do when one still runs or when nobody looked for a while.

What is due follows from `last_fired_at`, the instant up to which a schedule was decided. Whoever decides stores
`decided_until` of the answer in the same transaction in which the runs are submitted, so that a crash in between
repeats or loses nothing; `key` makes a repeated submit find the first one.

**Overlap**, when a run is due while an earlier one has not ended:
- `skip`: the run is left out.
- `queue`: it waits until the earlier one has ended. One waits at most; what is due meanwhile is left out.
- `cancel`: the earlier one is cancelled and the run starts.

**Catching up**, when runs became due that nobody started (the platform was down): those within `catch_up` are made up
for, older ones are missed. With `queue` the first of them runs and the second waits for it; otherwise only the latest
runs, because the others would overlap with it. While a schedule is paused, its runs are missed, not saved up. A run
that waits was decided in time: the window does not count for it.

Source: Temporal, "Schedules" (overlap policies `Skip`, `BufferOne`, `CancelOther`; catchup window), whose words these
are; Kubernetes CronJob for starting only the latest of several missed runs.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, Final, Literal

from flow_platform.domain import errors
from flow_platform.domain.cron import Cron, parse_cron

SHORTEST_INTERVAL: Final = timedelta(seconds=1)
LONGEST_INTERVAL: Final = timedelta(days=366)
LONGEST_CATCH_UP: Final = timedelta(days=366)

DEFAULT_CATCH_UP: Final = timedelta(minutes=10)
"""An upgrade or a restart in a usual time loses no run; a weekend's outage does not start last Friday's on Monday."""

_SECOND: Final = timedelta(seconds=1)


class Overlap(enum.StrEnum):
    SKIP = "skip"
    QUEUE = "queue"
    CANCEL = "cancel"


@dataclass(frozen=True)
class Schedule:
    """Starts a component in a ring again and again; check it with `check_schedule`.

    Attributes:
        cron: Five fields or an `@` name, in `time_zone`. Either this or `interval`.
        interval: Counted from `created_at`, in elapsed time; no clock is ever changed for it.
        starts_at, ends_at: No run before the first, none at or after the second.
    """

    id: str
    component_id: str
    ring_id: str
    created_at: datetime
    cron: str | None = None
    interval: timedelta | None = None
    time_zone: str = "UTC"
    input_data: Any = None
    overlap: Overlap = Overlap.SKIP
    catch_up: timedelta = DEFAULT_CATCH_UP
    is_paused: bool = False
    starts_at: datetime | None = None
    ends_at: datetime | None = None

    def next_after(self, instant: datetime) -> datetime | None:
        """The first run strictly after an instant, in UTC, paused or not; None when there is none any more."""
        floor = max(instant, self.created_at)
        if self.starts_at is not None:
            floor = max(floor, self.starts_at - timedelta(microseconds=1))
        found = self._next_after(floor)
        return None if found is None or (self.ends_at is not None and found >= self.ends_at) else found

    def _next_after(self, instant: datetime) -> datetime | None:
        if self.interval is not None:
            count = (instant - self.created_at) // self.interval + 1
            return (self.created_at + count * self.interval).astimezone(UTC)
        return self._cron.next_after(instant)

    @cached_property
    def _cron(self) -> Cron:
        return parse_cron(self.cron or "", self.time_zone)


@dataclass(frozen=True)
class Start:
    """Submit an execution for the run that was due at `scheduled_at`. `key`: its idempotency key."""

    scheduled_at: datetime
    key: str


@dataclass(frozen=True)
class Wait:
    """The run that was due at `scheduled_at` starts when the one before it has ended: `decide` is told of it then."""

    scheduled_at: datetime
    key: str


@dataclass(frozen=True)
class Cancel:
    """Cancel these executions: a later run takes their place."""

    executions: tuple[str, ...]


@dataclass(frozen=True)
class Skip:
    """No run due in (`after`, `until`] will start; at least one was.

    Attributes:
        reason: `overlap` (an earlier or later one runs instead), `missed` (older than `catch_up`) or `paused`.
    """

    after: datetime
    until: datetime
    reason: Literal["overlap", "missed", "paused"]


Action = Start | Wait | Cancel | Skip


def decide(
    schedule: Schedule,
    last_fired_at: datetime | None,
    running: Sequence[str],
    now: datetime,
    waiting: datetime | None = None,
) -> list[Action]:
    """What to do now, in this order. Empty: nothing is due, and nothing that waits can start.

    Args:
        last_fired_at: `decided_until` of the answer before; None at first.
        running: Executions of this schedule that have not ended.
        waiting: The `scheduled_at` of a `Wait` that was not started yet; only with `queue`.
    """
    after = max(last_fired_at or schedule.created_at, schedule.created_at)
    if schedule.is_paused:
        return [Skip(after, now, "paused")] if _is_due(schedule, after, now) else []
    actions: list[Action] = []
    if waiting is not None and not running:
        actions.append(_start(schedule, waiting))
        waiting = None
    if not _is_due(schedule, after, now):
        return actions
    oldest = now - schedule.catch_up
    if after < oldest:
        # A run exactly as old as the window is still made up for.
        before = oldest - timedelta(microseconds=1)
        if _is_due(schedule, after, before):
            actions.append(Skip(after, before, "missed"))
            after = before
    if not _is_due(schedule, after, now):
        return actions
    if schedule.overlap is Overlap.QUEUE:
        is_free = not running and not any(isinstance(action, Start) for action in actions)
        return actions + _line_up(schedule, after, now, is_free=is_free, has_waiting=waiting is not None)
    if running and schedule.overlap is Overlap.SKIP:
        return [*actions, Skip(after, now, "overlap")]
    latest = _latest(schedule, after, now)
    before = latest - timedelta(microseconds=1)
    if _is_due(schedule, after, before):
        actions.append(Skip(after, before, "overlap"))
    if running:
        actions.append(Cancel(tuple(running)))
    return [*actions, _start(schedule, latest)]


def decided_until(actions: Iterable[Action], last_fired_at: datetime | None) -> datetime | None:
    """The `last_fired_at` to store with these actions; never earlier than the one before."""
    found = last_fired_at
    for action in actions:
        match action:
            case Start() | Wait():
                until = action.scheduled_at
            case Skip():
                until = action.until
            case Cancel():
                continue
        found = until if found is None else max(found, until)
    return found


def next_due_at(schedule: Schedule, last_fired_at: datetime | None) -> datetime | None:
    """When `decide` next has something to look at: the due time of the schedule's row. None: never again.

    With a run that waits, `decide` is also asked when the one before it ends.
    """
    return None if schedule.is_paused else schedule.next_after(last_fired_at or schedule.created_at)


def check_schedule(schedule: Schedule) -> Schedule:
    """Returns the schedule.

    Raises:
        InvalidInput: Not exactly one of cron and interval, or one of its values is out of bounds.
    """
    if (schedule.cron is None) == (schedule.interval is None):
        raise _invalid("cron", schedule.cron, "either cron or interval_seconds")
    if schedule.cron is not None:
        parse_cron(schedule.cron, schedule.time_zone)
    if schedule.interval is not None and not SHORTEST_INTERVAL <= schedule.interval <= LONGEST_INTERVAL:
        raise _invalid("interval_seconds", _seconds(schedule.interval), f"1 to {_seconds(LONGEST_INTERVAL)} (366 days)")
    if not timedelta() <= schedule.catch_up <= LONGEST_CATCH_UP:
        raise _invalid("catch_up_seconds", _seconds(schedule.catch_up), f"0 to {_seconds(LONGEST_CATCH_UP)} (366 days)")
    if schedule.starts_at and schedule.ends_at and schedule.starts_at >= schedule.ends_at:
        raise _invalid(
            "ends_at", schedule.ends_at.isoformat(), f"later than starts_at {schedule.starts_at.isoformat()}"
        )
    return schedule


def _is_due(schedule: Schedule, after: datetime, until: datetime) -> bool:
    following = schedule.next_after(after)
    return following is not None and following <= until


def _latest(schedule: Schedule, after: datetime, now: datetime) -> datetime:
    """The last run in (`after`, `now`]; there is one. Halves the span, so that a year of minutes takes 25 looks."""
    first = schedule.next_after(after)
    if first is not None and not _is_due(schedule, first, now):
        return first  # The usual case: one.
    low, high = after, now
    while high - low > _SECOND:
        middle = low + (high - low) / 2
        if _is_due(schedule, middle, now):
            low = middle
        else:
            high = middle
    found = schedule.next_after(low)
    while found is not None and (following := schedule.next_after(found)) is not None and following <= now:
        found = following
    return found or now


def _line_up(schedule: Schedule, after: datetime, now: datetime, *, is_free: bool, has_waiting: bool) -> list[Action]:
    """The runs due in (`after`, `now`] that start or wait, each at most one; the others are left out."""
    actions: list[Action] = []
    following = schedule.next_after(after)
    while following is not None and following <= now:
        if is_free:
            actions.append(_start(schedule, following))
            is_free = False
        elif not has_waiting:
            actions.append(Wait(following, _run_key(schedule, following)))
            has_waiting = True
        else:
            return [*actions, Skip(after, now, "overlap")]
        after, following = following, schedule.next_after(following)
    return actions


def _run_key(schedule: Schedule, scheduled_at: datetime) -> str:
    """The idempotency key of one run."""
    return f"schedule:{schedule.id}:{scheduled_at.astimezone(UTC).isoformat()}"


def _start(schedule: Schedule, scheduled_at: datetime) -> Start:
    return Start(scheduled_at, _run_key(schedule, scheduled_at))


def _seconds(span: timedelta) -> float:
    return float(f"{span.total_seconds():.6f}")


def _invalid(field: str, value: object, expected: str) -> errors.InvalidInput:
    return errors.InvalidInput(
        f"schedule {field} {value!r} is not valid: expected {expected}",
        details=[{"field": field, "message": f"expected {expected}, got {value!r}"}],
    )
