"""Limits under any load: never exceeded, nobody starves, slots are shared and never left idle for nothing."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from flow_platform.domain.limits import AGING, PATIENCE, Candidate, Limits, Usage, choose
from flow_platform.domain.rate_limit import RateLimit, available_at, full, take

_T0 = datetime(2026, 1, 1, tzinfo=UTC)
_SECOND = timedelta(seconds=1)
_KEYS = ("x", "y", "z")
_WORKSPACES = ("a", "b", "c")

_ARRIVALS = st.lists(
    st.tuples(
        st.integers(0, 20),  # second
        st.sampled_from(_WORKSPACES),
        st.integers(-3, 3),  # priority
        st.sets(st.sampled_from(_KEYS), max_size=3),
        st.integers(1, 5),  # seconds that it runs
    ),
    max_size=40,
)
_LIMITS = st.builds(
    Limits,
    concurrency=st.dictionaries(st.sampled_from(_KEYS), st.integers(1, 3)),
    rates=st.dictionaries(
        st.sampled_from(_KEYS),
        st.builds(RateLimit, st.integers(1, 5), st.sampled_from([_SECOND, 3 * _SECOND]), st.integers(1, 3)),
    ),
    weights=st.dictionaries(st.sampled_from(_WORKSPACES), st.integers(1, 5)),
)


class _Machine:
    """Runs what is chosen, second by second, and checks each choice against all limits."""

    def __init__(self, limits: Limits, slots: int) -> None:
        self.limits = limits
        self.slots = slots
        self.now = _T0
        self.queue: dict[str, Candidate] = {}
        self.lasting: dict[str, int] = {}
        self.running: dict[str, tuple[Candidate, datetime]] = {}
        self.usage = Usage()
        self.starts: list[tuple[datetime, Candidate]] = []

    def submit(self, workspace: str, priority: int, keys: Any, lasting: int) -> str:
        name = f"e{len(self.lasting):04}"
        self.queue[name] = Candidate(name, workspace, self.now, priority, tuple(sorted(keys)))
        self.lasting[name] = lasting
        return name

    def tick(self) -> None:
        self.running = {name: found for name, found in self.running.items() if found[1] > self.now}
        in_use = Counter(key for candidate, _ in self.running.values() for key in candidate.keys)
        usage = Usage(dict(in_use), self.usage.buckets, self.usage.clocks, self.usage.clock)
        room = self.slots - len(self.running)
        choice = choose(self.queue.values(), usage, self.limits, room, self.now)
        assert len(choice.start) == len(set(choice.start)) <= room
        assert not set(choice.start) & set(choice.blocked)
        for name in choice.start:
            candidate = self.queue.pop(name)
            self.running[name] = (candidate, self.now + self.lasting[name] * _SECOND)
            self.starts.append((self.now, candidate))
        for key, limit in self.limits.concurrency.items():
            assert sum(key in candidate.keys for candidate, _ in self.running.values()) <= limit
        if len(choice.start) < room:
            assert set(choice.blocked) == set(self.queue), "a slot stands idle, and nobody says why"
        self.usage = choice.usage
        self.now += _SECOND

    def check_rates(self) -> None:
        for key, rate in self.limits.rates.items():
            times = [at for at, candidate in self.starts if key in candidate.keys]
            for first in range(len(times)):
                for last in range(first, len(times)):
                    allowed = rate.burst + rate.count * ((times[last] - times[first]) / rate.period)
                    assert last - first + 1 <= allowed + 1e-6


@settings(max_examples=60, deadline=None)
@given(arrivals=_ARRIVALS, limits=_LIMITS, slots=st.integers(1, 6))
def test_no_limit_is_exceeded_and_everything_starts(arrivals: Any, limits: Limits, slots: int):
    machine = _Machine(limits, slots)
    by_second: dict[int, list[Any]] = {}
    for second, *rest in arrivals:
        by_second.setdefault(second, []).append(rest)
    for second in range(21):
        for workspace, priority, keys, lasting in by_second.get(second, []):
            machine.submit(workspace, priority, keys, lasting)
        machine.tick()
    for _ in range(600):
        if not machine.queue:
            break
        machine.tick()
    assert not machine.queue
    assert len(machine.starts) == len(arrivals)
    machine.check_rates()


@settings(max_examples=20, deadline=None)
@given(priority=st.integers(-1, 1), flood=st.integers(-1, 1), lasting=st.integers(1, 3))
def test_no_priority_starves_another(priority: int, flood: int, lasting: int):
    """The one slot of a workspace could always go to something more important."""
    machine = _Machine(Limits(), 1)
    machine.submit("a", flood, (), lasting)
    machine.tick()
    target = machine.submit("a", priority, (), 1)
    # Ahead of it is only what comes before it has aged past the difference: one a second.
    ahead = int((1 + max(0, flood - priority)) * AGING / _SECOND)
    for _ in range((1 + ahead) * lasting):
        machine.submit("a", flood, (), lasting)
        while len(machine.queue) > 500:
            machine.queue.pop(next(reversed(machine.queue)))
        machine.tick()
        if target not in machine.queue:
            return
    raise AssertionError(f"a priority of {priority} still waits behind {flood}")


@settings(max_examples=20, deadline=None)
@given(lasting=st.integers(2, 20), offset=st.integers(1, 19), workspace=st.sampled_from(_WORKSPACES))
def test_several_keys_start_though_each_is_taken_as_it_comes_free(lasting: int, offset: int, workspace: str):
    """Two keys of one place each, never free at the same second by themselves."""
    machine = _Machine(Limits(concurrency={"x": 1, "y": 1}), 5)
    machine.submit("b", 0, {"x"}, lasting)
    machine.submit("b", 0, {"y"}, lasting + 1 + offset % (lasting - 1))
    machine.tick()
    target = machine.submit(workspace, 0, {"x", "y"}, 1)
    for _ in range(int(PATIENCE / _SECOND) + 3 * lasting):
        for key in "xy":
            if sum(key in candidate.keys for candidate in machine.queue.values()) < 3:
                machine.submit("b", 0, {key}, lasting)
        machine.tick()
        if target not in machine.queue:
            return
    raise AssertionError("both keys are never free")


@settings(max_examples=15, deadline=None)
@given(limits=_LIMITS, slots=st.integers(1, 3), keys=st.sets(st.sampled_from(_KEYS)), lasting=st.integers(1, 4))
def test_nobody_starves_under_a_flood(limits: Limits, slots: int, keys: Any, lasting: int):
    """Each second, more comes than can ever run, from elsewhere and from the same workspace."""
    machine = _Machine(limits, slots)
    for key in _KEYS:
        machine.submit("b", 3, {key}, lasting)
    machine.tick()
    target = machine.submit("a", -3, keys, 1)
    # Its turn by aging; then a place kept for it, in the first or second turn of keeping; and its share of a rate.
    patience = int((8 * AGING + 8 * PATIENCE) / _SECOND)
    for _ in range(patience):
        for key in _KEYS:
            machine.submit("a", 3, {key}, lasting)
            machine.submit("c", 3, {key}, lasting)
        while len(machine.queue) > 60:
            # A flood that gives up keeps the test small; who waits longest never does.
            machine.queue.pop(next(name for name in reversed(machine.queue) if name != target))
        machine.tick()
        if target not in machine.queue:
            return
    raise AssertionError(f"waits for {patience} s")


@settings(max_examples=60, deadline=None)
@given(weights=st.tuples(st.integers(1, 9), st.integers(1, 9)), slots=st.integers(1, 7))
def test_slots_are_shared_by_weight(weights: tuple[int, int], slots: int):
    limits = Limits(weights=dict(zip("ab", weights, strict=True)))
    candidates = [Candidate(f"{space}{number:03}", space, _T0) for space in "ab" for number in range(120)]
    usage, started = Usage(), Counter[str]()
    left = {candidate.id: candidate for candidate in candidates}
    while sum(started.values()) < 100:
        choice = choose(left.values(), usage, limits, slots, _T0)
        usage = choice.usage
        started.update(name[0] for name in choice.start)
        for name in choice.start:
            del left[name]
        # Within one start of each of what is due, at any moment.
        total = sum(started.values())
        for space, weight in zip("ab", weights, strict=True):
            assert abs(started[space] - total * weight / sum(weights)) <= 2


@settings(max_examples=100, deadline=None)
@given(
    count=st.integers(1, 1000),
    seconds=st.integers(1, 3600),
    burst=st.integers(1, 50),
    pauses=st.lists(st.timedeltas(timedelta(0), timedelta(hours=1)), max_size=60),
)
def test_a_bucket_never_gives_more_than_its_rate(count: int, seconds: int, burst: int, pauses: list[timedelta]):
    limit = RateLimit(count, seconds * _SECOND, burst)
    bucket, now, taken = full(limit, _T0), _T0, 0
    for pause in pauses:
        now += pause
        while (after := take(limit, bucket, now)) is not None:
            bucket = after
            taken += 1
        assert taken <= burst + count * ((now - _T0) / limit.period) + 1e-6
        promised = available_at(limit, bucket)
        assert promised is not None
        assert promised > now
        assert take(limit, bucket, promised) is not None
