"""Who may start: limits by key, rates, priorities, and turns between workspaces."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from flow_platform.domain import errors
from flow_platform.domain.limits import AGING, PATIENCE, Blocked, Candidate, Choice, Limits, Usage, choose
from flow_platform.domain.rate_limit import (
    TOKEN,
    Bucket,
    RateLimit,
    available_at,
    check_rate_limit,
    filled,
    full,
    take,
)

_T0 = datetime(2026, 1, 1, tzinfo=UTC)
_SECOND = timedelta(seconds=1)


def _candidates(text: str, **fields: Any) -> list[Candidate]:
    """`"a1 a2 b1"`: workspaces by letter, queued in this order, all at the same second."""
    return [
        Candidate(name, name[0], _T0 + index * timedelta(milliseconds=1), **fields)
        for index, name in enumerate(text.split())
    ]


def _start(candidates: list[Candidate], slots: int, **fields: Any) -> Choice:
    usage, limits = fields.pop("usage", Usage()), fields.pop("limits", Limits())
    return choose(candidates, usage, limits, slots, fields.pop("now", _T0 + _SECOND))


def test_in_order_up_to_the_slots():
    assert _start(_candidates("a1 a2 a3"), 2).start == ("a1", "a2")
    assert _start(_candidates("a1"), 5).start == ("a1",)
    assert _start(_candidates("a1"), 0).start == ()
    assert _start([], 5).start == ()


def test_workspaces_take_turns_whoever_floods():
    assert _start(_candidates("a1 a2 a3 a4 a5 a6 b1 b2"), 4).start == ("a1", "b1", "a2", "b2")


def test_turns_go_on_from_one_decision_to_the_next():
    candidates = _candidates("a1 a2 a3 b1 b2 b3")
    started: list[str] = []
    usage = Usage()
    for _ in range(6):
        choice = _start([one for one in candidates if one.id not in started], 1, usage=usage)
        started += choice.start
        usage = choice.usage
    assert started == ["a1", "b1", "a2", "b2", "a3", "b3"]


def test_weights_share_the_slots():
    flood = _candidates(" ".join(f"a{number:03} b{number:03}" for number in range(100)))
    started = _start(flood, 40, limits=Limits(weights={"a": 3, "b": 1})).start
    assert sum(name.startswith("a") for name in started) == 30


def test_who_had_nothing_to_do_has_saved_nothing_up():
    usage = _start(_candidates(" ".join(f"a{number}" for number in range(50))), 50).usage
    assert _start(_candidates("a1 a2 a3 b1 b2 b3"), 4, usage=usage).start == ("b1", "a1", "b2", "a2")


def test_priorities_within_a_workspace():
    low, high, other = (
        Candidate("a-low", "a", _T0),
        Candidate("a-high", "a", _T0 + _SECOND / 2, priority=5),
        Candidate("b", "b", _T0 + _SECOND / 2, priority=-5),
    )
    assert _start([low, high, other], 3).start == ("a-high", "b", "a-low")


def test_a_long_wait_makes_up_for_a_low_priority():
    old = Candidate("a-old", "a", _T0, priority=0)
    new = Candidate("a-new", "a", _T0 + 3 * AGING, priority=2)
    assert _start([old, new], 1, now=_T0 + 3 * AGING).start == ("a-old",)
    assert _start([old, new], 1, now=_T0 + 3 * AGING - 2 * AGING).start == ("a-new",)


def test_a_full_key_lets_others_pass():
    limits = Limits(concurrency={"k": 2})
    candidates = [*_candidates("a1 a2 a3", keys=("k",)), Candidate("a4", "a", _T0 + _SECOND)]
    choice = _start(candidates, 10, limits=limits, usage=Usage(running={"k": 1}))
    assert choice.start == ("a1", "a4")
    assert choice.blocked == {"a2": Blocked("concurrency", "k"), "a3": Blocked("concurrency", "k")}
    assert choice.usage.running == {"k": 2}


def test_a_limit_of_zero_stops_a_key():
    choice = _start(_candidates("a1", keys=("k",)), 1, limits=Limits(concurrency={"k": 0}))
    assert choice.start == ()


def test_a_limit_below_what_runs_starts_nothing():
    limits, usage = Limits(concurrency={"k": 2}), Usage(running={"k": 5})
    assert _start(_candidates("a1", keys=("k",)), 1, limits=limits, usage=usage).start == ()


def test_every_key_must_allow():
    limits = Limits(concurrency={"x": 1, "y": 1})
    candidates = [
        Candidate("a1", "a", _T0, keys=("x",)),
        Candidate("a2", "a", _T0 + _SECOND, keys=("x", "y")),
        Candidate("a3", "a", _T0 + 2 * _SECOND, keys=("y", "no limit")),
    ]
    choice = _start(candidates, 10, limits=limits)
    assert choice.start == ("a1", "a3")
    assert choice.blocked == {"a2": Blocked("concurrency", "x")}


def test_a_key_named_twice_counts_once():
    assert _start(_candidates("a1", keys=("k", "k")), 1, limits=Limits(concurrency={"k": 1})).start == ("a1",)


def test_a_rate_says_when_it_allows_more():
    limits = Limits(rates={"k": RateLimit(2, _SECOND, burst=2)})
    now = _T0 + _SECOND
    choice = _start(_candidates("a1 a2 a3", keys=("k",)), 10, limits=limits)
    assert choice.start == ("a1", "a2")
    assert choice.blocked == {"a3": Blocked("rate", "k", now + _SECOND / 2)}
    later = _start(_candidates("a3", keys=("k",)), 10, limits=limits, usage=choice.usage, now=now + _SECOND / 2)
    assert later.start == ("a3",)


def test_a_place_is_kept_for_who_waits_long_for_several_keys():
    limits = Limits(concurrency={"x": 1, "y": 1})
    both = Candidate("a-both", "a", _T0, keys=("x", "y"))
    now = _T0 + PATIENCE
    single = Candidate("b-x", "b", now, keys=("x",))
    busy = Usage(running={"y": 1})
    assert _start([both, single], 5, limits=limits, usage=busy, now=now - _SECOND).start == ("b-x",)
    assert _start([both, single], 5, limits=limits, usage=busy, now=now).start == ()
    assert _start([both, single], 5, limits=limits, now=now).start == ("a-both",)
    # In turns: not while it has waited two to four times as long.
    assert _start([both, single], 5, limits=limits, usage=busy, now=_T0 + 2 * PATIENCE).start == ("b-x",)
    assert _start([both, single], 5, limits=limits, usage=busy, now=_T0 + 4 * PATIENCE).start == ()


def test_a_token_is_kept_for_who_waits_long_for_two_rates():
    rate = RateLimit(1, timedelta(seconds=10))
    limits = Limits(rates={"x": rate, "y": rate})
    now = _T0 + PATIENCE
    both, single = Candidate("a-both", "a", _T0, keys=("x", "y")), Candidate("b-x", "b", now, keys=("x",))
    spent = Usage(buckets={"y": Bucket(0, now)})
    choice = _start([both, single], 5, limits=limits, usage=spent, now=now)
    assert choice.start == ()
    ready = _start([both, single], 5, limits=limits, usage=choice.usage, now=now + timedelta(seconds=10))
    assert ready.start == ("a-both",)


def test_the_order_of_the_candidates_does_not_matter():
    candidates = [*_candidates("a1 a2 b1 c1 c2", keys=("k",)), *_candidates("a3 b2", priority=2)]
    limits = Limits(concurrency={"k": 3}, weights={"c": 2})
    assert _start(candidates, 4, limits=limits) == _start(candidates[::-1], 4, limits=limits)


def test_a_bucket_fills_evenly_up_to_its_burst():
    limit = RateLimit(10, _SECOND, burst=5)
    empty = Bucket(0, _T0)
    assert filled(limit, empty, _T0 + _SECOND / 10).level == TOKEN
    assert filled(limit, empty, _T0 + _SECOND) == full(limit, _T0 + _SECOND)
    assert take(limit, empty, _T0) is None
    assert take(limit, full(limit, _T0), _T0, 6) is None
    assert available_at(limit, empty, 3) == _T0 + timedelta(milliseconds=300)
    assert available_at(limit, full(limit, _T0)) == _T0
    assert available_at(limit, empty, 6) is None


def test_a_clock_that_goes_back_fills_nothing():
    limit = RateLimit(1, _SECOND)
    bucket = Bucket(0, _T0)
    assert filled(limit, bucket, _T0 - _SECOND) == bucket
    assert filled(limit, filled(limit, bucket, _T0 - _SECOND), _T0 + _SECOND / 2).level == TOKEN // 2


def test_a_limit_may_change_at_any_time():
    bucket = full(RateLimit(10, _SECOND, burst=10), _T0)
    assert filled(RateLimit(1, _SECOND, burst=2), bucket, _T0).level == 2 * TOKEN


@pytest.mark.parametrize(
    "limit", [RateLimit(0), RateLimit(1, timedelta()), RateLimit(1, burst=0), RateLimit(1, timedelta(days=32))]
)
def test_rates_have_bounds(limit: RateLimit):
    with pytest.raises(errors.InvalidInput, match="rate"):
        check_rate_limit(limit)
    assert check_rate_limit(RateLimit(1)) == RateLimit(1)
