"""`next_after` against the definition itself: look at every minute, on days when the clocks change."""

from __future__ import annotations

import functools
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from hypothesis import given, settings
from hypothesis import strategies as st

from flow_platform.domain.cron import Cron, parse_cron
from flow_platform.domain.cron_field import FIELDS, Field

# Each with an instant near which its clocks change: hours, half hours, over midnight, a whole day, none.
_NEAR = {
    "UTC": "2026-03-29T00:00",
    "Europe/Berlin": "2026-03-29T01:00",
    "America/New_York": "2026-11-01T06:00",
    "Australia/Lord_Howe": "2026-04-04T15:00",
    "Africa/Cairo": "2026-04-23T22:00",
    "America/St_Johns": "2010-11-07T02:31",
    "Pacific/Apia": "2011-12-30T10:00",
    "Europe/Dublin": "2026-10-25T01:00",
}
_MINUTE = timedelta(minutes=1)
_MARGIN = timedelta(days=4)


@functools.cache
def _timeline(zone: str) -> list[tuple[datetime, datetime]]:
    """Each minute around the change, and what the clocks show at it."""
    info = ZoneInfo(zone)
    start = datetime.fromisoformat(_NEAR[zone]).replace(tzinfo=UTC) - _MARGIN
    instants = [start + step * _MINUTE for step in range(2 * _MARGIN // _MINUTE)]
    return [(instant, instant.astimezone(info).replace(tzinfo=None, fold=0)) for instant in instants]


def _matches(cron: Cron, shown: datetime) -> bool:
    return shown.minute in cron.minutes and shown.hour in cron.hours and cron.matches_day(shown.date())


def _by_definition(cron: Cron, zone: str, after: datetime) -> datetime | None:
    """Minute by minute. Sees a gap as clocks that jump, an overlap as a time seen before."""
    seen: set[datetime] = set()
    before = _timeline(zone)[0][1]
    for instant, shown in _timeline(zone):
        runs = _matches(cron, shown) and (cron.follows_elapsed_time or shown not in seen)
        if not cron.follows_elapsed_time:
            skipped = before + _MINUTE
            while skipped < shown and not runs:
                runs = _matches(cron, skipped)
                skipped += _MINUTE
        seen.add(shown)
        before = shown
        if runs and instant > after:
            return instant
    return None


@st.composite
def _field(draw: st.DrawFn, field: Field) -> str:
    value = st.integers(field.lowest, field.highest)

    def item() -> str:
        match draw(st.integers(0, 3)):
            case 0:
                return "*"
            case 1:
                return f"*/{draw(st.integers(1, field.highest))}"
            case 2:
                return str(draw(value))
            case _:
                first, last = sorted((draw(value), draw(value)))
                return f"{first}-{last}/{draw(st.integers(1, 7))}"

    return ",".join(item() for _ in range(draw(st.integers(1, 3))))


_EXPRESSIONS = st.one_of(
    st.tuples(*(_field(field) for field in FIELDS[:2])).map(lambda parts: " ".join([*parts, "*", "*", "*"])),
    st.tuples(*(_field(field) for field in FIELDS[:2]), st.just("*"), st.just("*"), _field(FIELDS[4])).map(" ".join),
)


@settings(max_examples=100, deadline=None)
@given(expression=_EXPRESSIONS, zone=st.sampled_from(sorted(_NEAR)), seconds=st.integers(-36 * 3600, 36 * 3600))
def test_equals_the_definition(expression: str, zone: str, seconds: int):
    cron = parse_cron(expression, zone)
    after = datetime.fromisoformat(_NEAR[zone]).replace(tzinfo=UTC) + timedelta(seconds=seconds)
    expected = _by_definition(cron, zone, after)
    found = cron.next_after(after)
    if expected is None:
        assert found is None or found > _timeline(zone)[-1][0]
    else:
        assert found == expected


@settings(max_examples=100, deadline=None)
@given(
    parts=st.tuples(*(_field(field) for field in FIELDS)),
    zone=st.sampled_from(sorted(_NEAR)),
    days=st.integers(0, 25_000),
    step=st.timedeltas(timedelta(0), timedelta(days=40)),
)
def test_is_later_and_never_goes_back(parts: tuple[str, ...], zone: str, days: int, step: timedelta):
    cron = parse_cron(" ".join([*parts[:2], "*", parts[3], parts[4]]), zone)
    after = datetime(1990, 1, 1, 12, 34, 56, tzinfo=UTC) + timedelta(days=days)
    first, second = cron.next_after(after), cron.next_after(after + step)
    assert first is not None
    assert second is not None
    assert after < first <= second
