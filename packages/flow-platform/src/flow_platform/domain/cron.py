"""Cron expressions in a time zone: five fields, or one of the `@` names.

    minute 0-59 | hour 0-23 | day of month 1-31 | month 1-12 or JAN-DEC | day of week 0-7 (0 and 7: Sunday) or SUN-SAT

Each field is `*`, a value, a range `a-b`, any of them with a step `/n` (`a/n` counts from `a` to the end), or a list
of these with commas. Names count in any case.

**Days.** If both day fields are restricted, a day matches when *either* does; if one of them begins with `*`, both
must. Source: Vixie cron, crontab(5): "if both fields are restricted (i.e., don't start with *), the command will be
run when either field matches the current time".

**When the clocks change.** An expression that runs in every hour of the day follows elapsed time: it runs through
both hours of an overlap, and a gap swallows its times. Every other expression names times on the wall: a time that
does not exist runs at the first instant after the gap (several such times: once), a time that exists twice runs at
its first occurrence only. Source: Debian cron(8): jobs "that run at a specific time" or "with a granularity greater
than one hour" that fall into skipped time "will be run immediately", and after a step back "running the same job
twice is avoided"; "jobs that run more frequently are scheduled normally".

Our own, after weighing cronsim 2.8 (the best-kept library that knows zones): in zones whose clocks change by half an
hour (Australia/Lord_Howe) it leaves out runs; asked within a repeated hour it answers with an instant that has passed;
like Debian's code, not its manual, it decides by a leading `*` in either field, so `*/15 2 * * *` does not run at all
on the night of a gap; and its errors name neither value nor bound.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from typing import Final
from zoneinfo import ZoneInfo

from flow_platform.domain import errors, wall_clock
from flow_platform.domain.cron_field import DAY_OF_MONTH, DAY_OF_WEEK, FIELDS, HOUR, MINUTE, MONTH, parse_field

MAX_LENGTH: Final = 500
"""Characters of an expression: a list of all 60 minutes fits several times."""

SEARCH_YEARS: Final = 50
"""How far ahead a run is looked for. The rarest satisfiable expression, 29 February on one weekday, needs up to 40."""

NAMES: Final = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}

_DAY: Final = timedelta(days=1)
_LONGEST_MONTH: Final = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


@dataclass(frozen=True)
class Cron:
    """A parsed expression; make it with `parse_cron`.

    Attributes:
        days_agree: Both day fields must match, instead of either.
    """

    expression: str
    zone: ZoneInfo
    minutes: frozenset[int]
    hours: frozenset[int]
    days_of_month: frozenset[int]
    months: frozenset[int]
    days_of_week: frozenset[int]  # 0 is Sunday.
    days_agree: bool

    @property
    def follows_elapsed_time(self) -> bool:
        """Runs in every hour of the day, so that a change of the clocks neither repeats nor moves a run."""
        return len(self.hours) == 24

    def matches_day(self, day: date) -> bool:
        if day.month not in self.months:
            return False
        of_month = day.day in self.days_of_month
        of_week = day.isoweekday() % 7 in self.days_of_week
        return (of_month and of_week) if self.days_agree else (of_month or of_week)

    def next_after(self, instant: datetime) -> datetime | None:
        """The first run strictly after an instant, in UTC; None when there is none in the next `SEARCH_YEARS` years.

        Args:
            instant: Aware.
        """
        local_day = instant.astimezone(self.zone).date()
        best: datetime | None = None
        # From yesterday: clocks that go back over midnight show a day again. And one day past the first hit: what is
        # later on the wall may be earlier in time.
        for day in self._days(local_day - _DAY, local_day.year + SEARCH_YEARS):
            if best is not None and day > best.astimezone(self.zone).date() + _DAY:
                break
            found = self._first_on(day, instant)
            if found is not None and (best is None or found < best):
                best = found
        return best

    def _days(self, first: date, last_year: int) -> Iterator[date]:
        day = first
        while day.year <= min(last_year, date.max.year - 1):
            if day.month not in self.months:
                day = (day.replace(day=1) + timedelta(days=32)).replace(day=1)
                continue
            if self.matches_day(day):
                yield day
            day += _DAY

    @cached_property
    def _times(self) -> list[timedelta]:
        """The runs of a day as time since midnight, ascending."""
        return [timedelta(hours=hour, minutes=minute) for hour in sorted(self.hours) for minute in sorted(self.minutes)]

    def _first_on(self, day: date, after: datetime) -> datetime | None:
        """The first run strictly after an instant among those of one local day."""
        midnight = datetime(day.year, day.month, day.day)  # noqa: DTZ001 - a time on the wall, on purpose.
        offset = wall_clock.steady_offset(day, self.zone)
        if offset is None:
            return min(
                (run for shown in self._times for run in self._runs(midnight + shown) if run > after), default=None
            )
        since_midnight = after.astimezone(UTC).replace(tzinfo=None) + offset - midnight
        index = bisect.bisect_right(self._times, since_midnight)
        if index == len(self._times):
            return None
        return (midnight + self._times[index] - offset).replace(tzinfo=UTC)

    def _runs(self, shown: datetime) -> tuple[datetime, ...]:
        """The instants at which a matching time on the wall runs."""
        instants = wall_clock.instants_of(shown, self.zone)
        if self.follows_elapsed_time:
            return instants
        return instants[:1] or (wall_clock.end_of_gap(shown, self.zone),)


def parse_cron(expression: str, time_zone: str = "UTC") -> Cron:
    """Parses an expression for an IANA time zone.

    Raises:
        InvalidInput: Names the field, its value and what was expected; also when the expression can never run.
    """
    zone = wall_clock.parse_zone(time_zone)
    text = expression.strip()
    if len(text) > MAX_LENGTH:
        raise _invalid(f"{text[:40]!r}...", f"at most {MAX_LENGTH} characters, got {len(text)}")
    if text.startswith("@"):
        if text.lower() not in NAMES:
            raise _invalid(repr(text), f"one of {', '.join(NAMES)}, or five fields")
        text = NAMES[text.lower()]
    parts = text.split()
    if len(parts) != len(FIELDS):
        names = ", ".join(field.name for field in FIELDS)
        raise _invalid(repr(expression), f"five fields ({names}), got {len(parts)}")
    values = {field.name: parse_field(field, part) for field, part in zip(FIELDS, parts, strict=True)}
    days_agree = parts[2].startswith("*") or parts[4].startswith("*")
    _check_satisfiable(expression, values, days_agree)
    return Cron(
        expression=expression,
        zone=zone,
        minutes=values[MINUTE.name],
        hours=values[HOUR.name],
        days_of_month=values[DAY_OF_MONTH.name],
        months=values[MONTH.name],
        days_of_week=frozenset(day % 7 for day in values[DAY_OF_WEEK.name]),
        days_agree=days_agree,
    )


def _check_satisfiable(expression: str, values: dict[str, frozenset[int]], days_agree: bool) -> None:
    longest = max(_LONGEST_MONTH[month - 1] for month in values[MONTH.name])
    if days_agree and min(values[DAY_OF_MONTH.name]) > longest:
        raise _invalid(repr(expression), f"a day that its months have (at most {longest})")


def _invalid(shown: str, expected: str) -> errors.InvalidInput:
    return errors.InvalidInput(
        f"cron {shown} is not valid: expected {expected}",
        details=[{"field": "cron", "message": f"expected {expected}, got {shown}"}],
    )
