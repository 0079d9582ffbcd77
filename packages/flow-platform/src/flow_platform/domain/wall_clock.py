"""Which instants a clock on the wall shows a time at: none in a gap, two in an overlap.

When the clocks of a zone go forward, the times in between are never shown (a gap); when they go back, times are shown
twice (an overlap). `datetime` answers both with a guess, so whoever schedules by local time must ask here instead.

Source: PEP 495 (fold), PEP 615 (zoneinfo).
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from flow_platform.domain import errors

_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_+-]{0,31}(/[A-Za-z0-9_+-]{1,31}){0,2}")
_OF_THE_MACHINE: Final = frozenset({"localtime", "posixrules", "Factory"})
"""Names that mean another thing on each machine, or nothing."""

_SECOND: Final = timedelta(seconds=1)


def parse_zone(name: str) -> ZoneInfo:
    """Returns the zone of an IANA name.

    Raises:
        InvalidInput: The database has no such name.
    """
    if _NAME.fullmatch(name) and name not in _OF_THE_MACHINE:
        try:
            return ZoneInfo(name)
        except (OSError, ValueError, KeyError):  # No file, a folder or no zone file, unknown key.
            pass
    expected = "the name of an IANA time zone, such as 'UTC' or 'Europe/Berlin'"
    raise errors.InvalidInput(
        f"time_zone {name!r} is not known: expected {expected}",
        details=[{"field": "time_zone", "message": f"expected {expected}, got {name!r}"}],
    )


def instants_of(shown: datetime, zone: ZoneInfo) -> tuple[datetime, ...]:
    """The instants, in UTC and ascending, at which clocks in the zone show a naive time: none, one or two."""
    found = {_utc(shown, zone, fold) for fold in (0, 1)}
    return tuple(sorted(instant for instant in found if instant.astimezone(zone).replace(tzinfo=None, fold=0) == shown))


def end_of_gap(shown: datetime, zone: ZoneInfo) -> datetime:
    """The first instant after the gap that swallows a naive time: the transition itself, in UTC.

    Args:
        shown: A time without an instant; see `instants_of`.
    """
    # PEP 495: in a gap, fold 0 counts with the offset before it and lands after it; fold 1 the other way round.
    before, after = _utc(shown, zone, 1), _utc(shown, zone, 0)
    offset_before = before.astimezone(zone).utcoffset()
    while after - before > _SECOND:
        middle = before + (after - before) // 2 // _SECOND * _SECOND
        if middle.astimezone(zone).utcoffset() == offset_before:
            before = middle
        else:
            after = middle
    return after


def steady_offset(day: date, zone: ZoneInfo) -> timedelta | None:
    """The offset from UTC that holds on all of a local day, or None when the clocks change on it."""
    start = datetime.combine(day, time(), zone)
    end = datetime.combine(day + timedelta(days=1), time(), zone)
    offset = start.utcoffset()
    same = offset == end.utcoffset() == start.replace(fold=1).utcoffset() == end.replace(fold=1).utcoffset()
    return offset if same else None


def _utc(shown: datetime, zone: ZoneInfo, fold: int) -> datetime:
    return shown.replace(tzinfo=zone, fold=fold).astimezone(UTC)
