"""What containers were refused, counted by their runner: little is told, and nothing is lost."""

from __future__ import annotations

from typing import Any

from flow_platform.runner.refusals import EVERY_SECONDS, MAX_OF_ORGANIZATION, MAX_SUBJECT, MAX_TOLD, GatewayRefusals
from flow_sdk.wire.runner import Assignment, GatewayRefusal
from tests.contract.runner.fake_engine import assignment


class Seconds:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def attempt(number: int = 1, **changes: Any) -> Assignment:
    return assignment("", execution_id=f"e{number}", **changes)


def no_subject() -> str:
    return ""


def told(refusals: GatewayRefusals, *, at_end: bool = False) -> list[GatewayRefusal]:
    """What a heartbeat that is answered carries."""
    due = refusals.due(at_end=at_end)
    refusals.told(due)
    return list(due.values())


def test_equal_ones_are_told_once_a_minute_with_their_number() -> None:
    clock = Seconds()
    refusals = GatewayRefusals(clock)
    asked: list[str] = []
    for number in range(1000):
        refusals.note(attempt(), "PUB", "forbidden", lambda n=number: asked.append(f"s.{n}") or f"s.{n}")
    clock.now = 2.0
    (first,) = told(refusals)
    assert (first.execution_id, first.tried, first.status, first.code) == ("e1", "PUB", 403, "forbidden")
    assert (first.count, first.subject, first.seconds) == (1000, "s.0", 2.0)
    assert asked == ["s.0"]
    for _ in range(5):
        refusals.note(attempt(), "PUB", "forbidden", no_subject)
    assert told(refusals) == []
    assert len(refusals) == 1
    clock.now += EVERY_SECONDS
    (second,) = told(refusals)
    assert second.count == 5
    clock.now += EVERY_SECONDS
    assert told(refusals) == []
    assert refusals._gathered == {}
    assert not refusals._kinds


def test_what_differs_is_told_apart() -> None:
    refusals = GatewayRefusals(Seconds())
    refusals.note(attempt(1), "PUB", "forbidden", no_subject)
    refusals.note(attempt(2), "PUB", "forbidden", no_subject)
    refusals.note(attempt(1, lease_epoch=2), "PUB", "forbidden", no_subject)
    refusals.note(attempt(1), "SUB", "forbidden", no_subject)
    refusals.note(attempt(1), "CONNECT", "token_invalid", no_subject)
    assert [one.count for one in told(refusals)] == [1] * 5


def test_what_was_not_heard_is_told_again_and_nothing_is_told_twice() -> None:
    clock = Seconds()
    refusals = GatewayRefusals(clock)
    refusals.note(attempt(), "SUB", "forbidden", no_subject)
    assert [one.count for one in refusals.due().values()] == [1]  # The heartbeat is lost.
    refusals.note(attempt(), "SUB", "forbidden", no_subject)
    due = refusals.due()
    refusals.note(attempt(), "SUB", "forbidden", no_subject)  # While it is on its way.
    refusals.told(due)
    assert [one.count for one in due.values()] == [2]
    assert told(refusals) == []
    assert [one.count for one in told(refusals, at_end=True)] == [1]
    assert len(refusals) == 0


def test_a_flood_of_different_ones_is_bounded_and_hides_nobody_elses() -> None:
    clock = Seconds()
    refusals = GatewayRefusals(clock)
    for number in range(10_000):
        refusals.note(attempt(number), "PUB", "forbidden", no_subject)
    refusals.note(attempt(1, org_id="another"), "SUB", "forbidden", no_subject)
    found = told(refusals)
    assert len(found) == MAX_OF_ORGANIZATION + 2
    others = [one for one in found if one.is_others]
    assert [(one.execution_id, one.count) for one in others] == [("e50", 10_000 - MAX_OF_ORGANIZATION)]
    assert [one.tried for one in found if not one.is_others].count("SUB") == 1
    refusals.note(attempt(20_000), "PUB", "forbidden", no_subject)
    assert told(refusals) == []
    clock.now = EVERY_SECONDS
    assert [(one.is_others, one.count) for one in told(refusals)] == [(True, 1)]


def test_a_heartbeat_carries_so_many_and_the_next_one_the_rest() -> None:
    refusals = GatewayRefusals(Seconds())
    for number in range(MAX_TOLD + 10):
        refusals.note(attempt(number, org_id=f"o{number}"), "PUB", "forbidden", no_subject)
    assert len(told(refusals)) == MAX_TOLD
    assert len(told(refusals)) == 10
    assert told(refusals) == []


def test_what_it_named_is_short_and_inert() -> None:
    refusals = GatewayRefusals(Seconds())
    refusals.note(attempt(), "PUB", "forbidden", lambda: "a consumer for '\x1b[2J\u202e" + "x" * 500)
    (one,) = told(refusals)
    assert len(one.subject) == MAX_SUBJECT
    assert one.subject.startswith("a consumer for '\\u001b[2J\\u202exx")
