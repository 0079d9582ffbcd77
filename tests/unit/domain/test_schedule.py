"""Schedules under a clock that is set by hand: overlap, downtime, pauses, and nights when the clocks change."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from flow_platform.domain import errors
from flow_platform.domain.clock import ManualClock
from flow_platform.domain.schedule import (
    Action,
    Cancel,
    Overlap,
    Schedule,
    Skip,
    Start,
    Wait,
    check_schedule,
    decide,
    decided_until,
    next_due_at,
)

_T0 = datetime(2026, 1, 1, tzinfo=UTC)
_MINUTE = timedelta(minutes=1)
_HOUR = timedelta(hours=1)
_TICK = timedelta(microseconds=1)


def _schedule(**fields: Any) -> Schedule:
    return check_schedule(
        Schedule(**{"id": "s", "component_id": "c", "ring_id": "r", "created_at": _T0, "cron": "0 * * * *", **fields})
    )


class _Simulation:
    """The platform around a schedule: submits, cancels, ends runs, and looks only when something is due."""

    def __init__(self, schedule: Schedule, start: datetime = _T0) -> None:
        self.schedule = schedule
        self.clock = ManualClock(start)
        self.last_fired_at: datetime | None = None
        self.running: list[str] = []
        self.waiting: datetime | None = None
        self.started: list[datetime] = []
        self.actions: list[Action] = []
        self._ids = itertools.count(1)

    def look(self) -> list[Action]:
        actions = decide(self.schedule, self.last_fired_at, self.running, self.clock.now(), self.waiting)
        for action in actions:
            if isinstance(action, Start):
                self.running.append(f"e{next(self._ids)}")
                self.started.append(action.scheduled_at)
                self.waiting = None
            elif isinstance(action, Wait):
                self.waiting = action.scheduled_at
            elif isinstance(action, Cancel):
                self.running = [execution for execution in self.running if execution not in action.executions]
        self.last_fired_at = decided_until(actions, self.last_fired_at)
        self.actions += actions
        return actions

    def end(self) -> None:
        self.running.clear()

    def jump(self) -> None:
        """Sleeps until something is due, and looks; the run that it starts ends at once."""
        due = next_due_at(self.schedule, self.last_fired_at)
        assert due is not None
        self.clock.advance(due - self.clock.now())
        self.look()
        self.end()

    def run_for(self, span: timedelta, *, every: timedelta = _MINUTE, lasting: timedelta = timedelta()) -> None:
        """Looks every so often; each run ends `lasting` after it started."""
        until = self.clock.now() + span
        began: datetime | None = None
        while self.clock.now() < until:
            self.clock.advance(every)
            if began is not None and self.clock.now() >= began + lasting:
                self.end()
            before = len(self.started)
            self.look()
            if len(self.started) > before:
                began = self.clock.now()


def test_starts_each_run_once():
    simulation = _Simulation(_schedule())
    simulation.run_for(timedelta(hours=5))
    assert simulation.started == [_T0 + hours * _HOUR for hours in range(1, 6)]
    assert all(isinstance(action, Start) for action in simulation.actions)


def test_nothing_is_due_before_and_after():
    schedule = _schedule(starts_at=_T0 + 2 * _HOUR, ends_at=_T0 + 4 * _HOUR)
    simulation = _Simulation(schedule)
    simulation.run_for(timedelta(hours=8))
    assert simulation.started == [_T0 + 2 * _HOUR, _T0 + 3 * _HOUR]
    assert next_due_at(schedule, None) == _T0 + 2 * _HOUR
    assert next_due_at(schedule, simulation.last_fired_at) is None


def test_the_key_names_the_run():
    first, again = (decide(_schedule(), None, [], _T0 + _HOUR + late * _MINUTE) for late in (0, 1))
    assert first == again == [Start(_T0 + _HOUR, "schedule:s:2026-01-01T01:00:00+00:00")]


def test_an_interval_counts_elapsed_time():
    schedule = _schedule(cron=None, interval=timedelta(minutes=25))
    simulation = _Simulation(schedule)
    simulation.run_for(timedelta(hours=2))
    assert simulation.started == [_T0 + count * timedelta(minutes=25) for count in range(1, 5)]
    assert next_due_at(schedule, simulation.last_fired_at) == _T0 + timedelta(minutes=125)


@pytest.mark.parametrize(
    ("overlap", "started"),
    [
        (Overlap.SKIP, [1, 3, 5]),
        (Overlap.QUEUE, [1, 2, 3, 4]),
        (Overlap.CANCEL, [1, 2, 3, 4, 5, 6]),
    ],
)
def test_runs_that_last_longer_than_the_interval(overlap: Overlap, started: list[int]):
    simulation = _Simulation(_schedule(overlap=overlap, catch_up=timedelta(days=1)))
    simulation.run_for(timedelta(hours=6), lasting=timedelta(minutes=90))
    assert simulation.started == [_T0 + hours * _HOUR for hours in started]
    assert len(simulation.running) == 1


def test_skip_says_what_was_left_out():
    schedule = _schedule(overlap=Overlap.SKIP)
    last, now = _T0 + _HOUR, _T0 + 2 * _HOUR
    assert decide(schedule, last, ["e1"], now) == [Skip(last, now, "overlap")]


def test_cancel_ends_the_earlier_one_first():
    schedule = _schedule(overlap=Overlap.CANCEL)
    actions = decide(schedule, _T0 + _HOUR, ["e1", "e2"], _T0 + 2 * _HOUR)
    assert actions[0] == Cancel(("e1", "e2"))
    assert isinstance(actions[1], Start)


def test_one_run_waits_at_most():
    simulation = _Simulation(_schedule(overlap=Overlap.QUEUE))
    for _ in range(4):
        simulation.clock.advance(_HOUR)
        simulation.look()
    first, second = (f"schedule:s:2026-01-01T0{hour}:00:00+00:00" for hour in (1, 2))
    assert simulation.actions == [
        Start(_T0 + _HOUR, first),
        Wait(_T0 + 2 * _HOUR, second),
        Skip(_T0 + 2 * _HOUR, _T0 + 3 * _HOUR, "overlap"),
        Skip(_T0 + 3 * _HOUR, _T0 + 4 * _HOUR, "overlap"),
    ]
    simulation.end()
    assert simulation.look() == [Start(_T0 + 2 * _HOUR, second)], "however long it waited"
    simulation.end()
    assert simulation.look() == []


def test_a_run_takes_the_place_of_one_that_waited():
    simulation = _Simulation(_schedule(overlap=Overlap.QUEUE))
    for _ in range(2):
        simulation.clock.advance(_HOUR)
        simulation.look()
    simulation.end()
    simulation.clock.advance(_HOUR)
    assert [(type(action), action.scheduled_at) for action in simulation.look()] == [
        (Start, _T0 + 2 * _HOUR),
        (Wait, _T0 + 3 * _HOUR),
    ]


def test_after_downtime_a_queue_starts_one_and_lets_one_wait():
    simulation = _Simulation(_schedule(overlap=Overlap.QUEUE, catch_up=timedelta(days=1)))
    simulation.clock.advance(4 * _HOUR)
    assert [type(action) for action in simulation.look()] == [Start, Wait, Skip]
    simulation.end()
    simulation.look()
    assert simulation.started == [_T0 + _HOUR, _T0 + 2 * _HOUR]


def test_after_downtime_only_the_latest_run_is_made_up_for():
    simulation = _Simulation(_schedule(catch_up=timedelta(days=1)))
    simulation.clock.advance(timedelta(hours=5, minutes=30))
    assert simulation.look() == [
        Skip(_T0, _T0 + 5 * _HOUR - _TICK, "overlap"),
        Start(_T0 + 5 * _HOUR, "schedule:s:2026-01-01T05:00:00+00:00"),
    ]
    assert simulation.look() == []


def test_after_downtime_a_queue_makes_up_for_runs_in_the_window():
    simulation = _Simulation(_schedule(overlap=Overlap.QUEUE, catch_up=timedelta(hours=2)))
    simulation.clock.advance(5 * _HOUR)
    simulation.run_for(timedelta(minutes=10), lasting=_MINUTE)
    assert simulation.actions[0] == Skip(_T0, _T0 + 3 * _HOUR + _MINUTE - _TICK, "missed")
    assert simulation.started == [_T0 + hours * _HOUR for hours in (4, 5)]


def test_a_run_older_than_the_window_is_missed():
    schedule = _schedule(catch_up=timedelta(minutes=10))
    edge = _T0 + _HOUR + timedelta(minutes=10)
    assert isinstance(decide(schedule, None, [], edge)[-1], Start)
    assert decide(schedule, None, [], edge + _TICK) == [Skip(_T0, _T0 + _HOUR, "missed")]
    assert decide(schedule, _T0 + _HOUR, [], edge + _TICK) == []


def test_a_year_of_minutes_is_decided_at_once():
    schedule = _schedule(cron="* * * * *", catch_up=timedelta(days=366))
    now = _T0 + timedelta(days=365, seconds=30)
    assert decide(schedule, None, [], now)[-1] == Start(
        now - timedelta(seconds=30), "schedule:s:2027-01-01T00:00:00+00:00"
    )


def test_a_pause_saves_nothing_up():
    paused = _schedule(is_paused=True, catch_up=timedelta(days=1))
    now = _T0 + 3 * _HOUR
    actions = decide(paused, None, [], now)
    assert actions == [Skip(_T0, now, "paused")]
    assert decide(_schedule(catch_up=timedelta(days=1)), decided_until(actions, None), [], now + _MINUTE) == []
    assert decide(paused, None, [], _T0 + _MINUTE) == []


def test_a_clock_that_goes_back_repeats_nothing():
    assert decide(_schedule(), _T0 + 2 * _HOUR, [], _T0 + _HOUR) == []


def test_every_day_runs_once_through_a_year_of_changing_clocks():
    created = datetime(2026, 1, 1, tzinfo=UTC)
    schedule = _schedule(cron="30 2 * * *", time_zone="Europe/Berlin", created_at=created)
    simulation = _Simulation(schedule, created)
    for _ in range(365):
        simulation.jump()
    days = [run.astimezone(schedule._cron.zone).date() for run in simulation.started]
    assert len(days) == len(set(days)) == 365
    shown = [run.astimezone(schedule._cron.zone).strftime("%H:%M") for run in simulation.started]
    assert shown.count("02:30") == 364
    assert shown.count("03:00") == 1


def test_a_minutely_schedule_runs_through_an_overlap_at_its_pace():
    created = datetime(2026, 10, 24, 22, tzinfo=UTC)
    simulation = _Simulation(_schedule(cron="*/15 * * * *", time_zone="Europe/Berlin", created_at=created), created)
    for _ in range(24):
        simulation.jump()
    gaps = {later - earlier for earlier, later in itertools.pairwise(simulation.started)}
    assert gaps == {timedelta(minutes=15)}
    assert simulation.started[-1] == created + timedelta(hours=6)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"cron": None}, ["either cron or interval"]),
        ({"interval": _HOUR}, ["either cron or interval"]),
        ({"cron": "61 * * * *"}, ["minute", "'61'"]),
        ({"time_zone": "Nowhere"}, ["'Nowhere'", "IANA"]),
        ({"cron": None, "interval": timedelta(milliseconds=1)}, ["interval_seconds 0.001 ", "1 to 31622400"]),
        ({"catch_up": timedelta(seconds=-1)}, ["catch_up_seconds -1", "0 to"]),
        ({"starts_at": _T0, "ends_at": _T0}, ["ends_at", "later than starts_at"]),
    ],
)
def test_refused(fields: dict[str, Any], words: list[str]):
    with pytest.raises(errors.InvalidInput) as caught:
        _schedule(**fields)
    assert all(word in caught.value.message for word in words), caught.value.message
