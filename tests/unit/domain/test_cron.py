"""Cron expressions: grammar, the rule of the two day fields, and the nights when the clocks change."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from flow_platform.domain import errors
from flow_platform.domain.cron import NAMES, parse_cron


def _runs(expression: str, zone: str, start: str, count: int) -> list[str]:
    cron = parse_cron(expression, zone)
    at = datetime.fromisoformat(start).astimezone(UTC)
    found: list[str] = []
    for _ in range(count):
        following = cron.next_after(at)
        assert following is not None
        assert following.tzinfo is UTC
        at = following
        found.append(at.astimezone(cron.zone).isoformat(timespec="minutes"))
    return found


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("* * * * *", "2026-01-01T00:01"),
        ("*/15 * * * *", "2026-01-01T00:15"),
        ("5/20 * * * *", "2026-01-01T00:05"),
        ("0 9-17/4 * * *", "2026-01-01T09:00"),
        ("30 8 * * MON-FRI", "2026-01-01T08:30"),
        ("30 8 * * sat-sun", "2026-01-03T08:30"),
        ("0 0 * * 7", "2026-01-04T00:00"),
        ("0 0 1 feb,MAR *", "2026-02-01T00:00"),
        ("0 0 29 2 *", "2028-02-29T00:00"),
        ("59 23 31 12 *", "2026-12-31T23:59"),
        ("@hourly", "2026-01-01T01:00"),
        ("@Daily", "2026-01-02T00:00"),
        ("@weekly", "2026-01-04T00:00"),
        ("@monthly", "2026-02-01T00:00"),
        ("@yearly", "2027-01-01T00:00"),
    ],
)
def test_next_run(expression: str, expected: str):
    assert _runs(expression, "UTC", "2026-01-01T00:00:00+00:00", 1) == [expected + "+00:00"]


def test_two_restricted_day_fields_match_when_either_does():
    # crontab(5)'s own example: the 1st and 15th of each month, plus every Friday.
    assert _runs("30 4 1,15 * 5", "UTC", "2026-01-01T05:00:00+00:00", 4) == [
        "2026-01-02T04:30+00:00",
        "2026-01-09T04:30+00:00",
        "2026-01-15T04:30+00:00",
        "2026-01-16T04:30+00:00",
    ]


def test_a_starred_day_field_must_match_too():
    # `*/2` begins with a star: odd days that are Fridays.
    assert _runs("0 0 */2 * 5", "UTC", "2026-01-01T00:00:00+00:00", 2) == [
        "2026-01-09T00:00+00:00",
        "2026-01-23T00:00+00:00",
    ]


def test_strictly_after_and_below_the_minute():
    cron = parse_cron("0 12 * * *")
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    assert cron.next_after(noon) == datetime(2026, 1, 2, 12, tzinfo=UTC)
    assert cron.next_after(noon.replace(hour=11, minute=59, second=59, microsecond=999_999)) == noon


def test_a_time_in_a_gap_runs_at_its_end():
    assert _runs("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00+01:00", 2) == [
        "2026-03-29T03:00+02:00",
        "2026-03-30T02:30+02:00",
    ]


def test_several_times_in_a_gap_run_once():
    assert _runs("*/15 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00+01:00", 2) == [
        "2026-03-29T03:00+02:00",
        "2026-03-30T02:00+02:00",
    ]


def test_a_time_in_an_overlap_runs_at_its_first_occurrence_only():
    expected = ["2026-10-25T02:30+02:00", "2026-10-26T02:30+01:00"]
    assert _runs("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00+02:00", 2) == expected
    # Asked between the two occurrences: the first has passed.
    assert _runs("30 2 * * *", "Europe/Berlin", "2026-10-25T02:10:00+01:00", 1) == expected[1:]


def test_an_interval_runs_through_both_hours_of_an_overlap():
    assert _runs("*/30 * * * *", "America/New_York", "2026-11-01T00:30:00-04:00", 5) == [
        "2026-11-01T01:00-04:00",
        "2026-11-01T01:30-04:00",
        "2026-11-01T01:00-05:00",
        "2026-11-01T01:30-05:00",
        "2026-11-01T02:00-05:00",
    ]


def test_an_interval_keeps_its_pace_over_a_gap():
    assert _runs("*/30 * * * *", "America/New_York", "2026-03-08T01:00:00-05:00", 3) == [
        "2026-03-08T01:30-05:00",
        "2026-03-08T03:00-04:00",
        "2026-03-08T03:30-04:00",
    ]


def test_a_change_of_half_an_hour():
    # Lord Howe goes back from 02:00 to 01:30.
    assert _runs("0 */2 * * *", "Australia/Lord_Howe", "2026-04-05T01:45:00+11:00", 2) == [
        "2026-04-05T02:00+10:30",
        "2026-04-05T04:00+10:30",
    ]
    assert _runs("45 1 * * *", "Australia/Lord_Howe", "2026-04-05T01:00:00+11:00", 2) == [
        "2026-04-05T01:45+11:00",
        "2026-04-06T01:45+10:30",
    ]


def test_midnight_that_does_not_exist():
    assert _runs("@daily", "Africa/Cairo", "2026-04-23T12:00:00+02:00", 2) == [
        "2026-04-24T01:00+03:00",
        "2026-04-25T00:00+03:00",
    ]


def test_a_day_that_does_not_exist():
    # Samoa left out 30 December 2011.
    assert _runs("0 12 * * *", "Pacific/Apia", "2011-12-29T12:00:00-10:00", 2) == [
        "2011-12-31T00:00+14:00",
        "2011-12-31T12:00+14:00",
    ]


def test_going_back_over_midnight_shows_yesterday_again():
    # Newfoundland used to go back at 00:01, to 23:01 of the day before.
    assert _runs("*/30 * * * *", "America/St_Johns", "2010-11-06T23:45:00-02:30", 3) == [
        "2010-11-07T00:00-02:30",
        "2010-11-06T23:30-03:30",
        "2010-11-07T00:00-03:30",
    ]


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("61 * * * *", ["minute", "'61'", "0-59"]),
        ("* 24 * * *", ["hour", "'24'", "0-23"]),
        ("* * 0 * *", ["day of month", "'0'", "1-31"]),
        ("* * * FOO *", ["month", "'FOO'", "JAN-DEC"]),
        ("* * * * 8", ["day of week", "'8'", "SUN-SAT"]),
        ("10-5 * * * *", ["minute", "'10-5'", "ascends"]),
        ("*/0 * * * *", ["minute", "'*/0'", "step"]),
        ("*/ * * * *", ["minute", "'*/'", "step"]),
        ("1,,2 * * * *", ["minute", "''"]),
        ("* * * *", ["five fields", "got 4"]),
        ("0 * * * * *", ["five fields", "got 6"]),
        ("", ["five fields"]),
        ("@reboot", ["@reboot", "@hourly"]),
        ("0 0 31 2,4 *", ["0 0 31 2,4 *", "at most 30"]),
        ("² * * * *", ["minute", "'²'"]),
        ("* " * 400, ["at most 500", "got 799"]),
    ],
)
def test_errors_name_field_value_and_expectation(expression: str, words: list[str]):
    with pytest.raises(errors.InvalidInput) as caught:
        parse_cron(expression)
    assert all(word in caught.value.message for word in words), caught.value.message
    assert caught.value.details[0]["field"] == "cron"


@pytest.mark.parametrize(
    "zone", ["", "Mars/Base", "../etc/passwd", "/etc/localtime", "America", "localtime", "UTC\n", "a" * 300]
)
def test_unknown_zones(zone: str):
    with pytest.raises(errors.InvalidInput, match="IANA") as caught:
        parse_cron("* * * * *", zone)
    assert caught.value.details[0]["field"] == "time_zone"


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_name_is_an_expression(name: str):
    assert parse_cron(name).next_after(datetime(2026, 1, 1, tzinfo=UTC)) is not None
