from __future__ import annotations

from datetime import UTC, timedelta
from uuid import UUID

from flow_platform.domain.clock import ManualClock, SystemClock, new_id, seeded_entropy, system_entropy


def test_ids_are_uuids_of_version_7_that_hold_their_instant() -> None:
    now = ManualClock().now() + timedelta(milliseconds=123)
    made = UUID(new_id(now, seeded_entropy(1)))

    assert (made.version, made.variant) == (7, "specified in RFC 4122")
    assert made.int >> 80 == int(now.timestamp() * 1000)


def test_ids_sort_by_the_time_they_were_made() -> None:
    clock, entropy = ManualClock(), seeded_entropy(2)
    ids = []
    for _ in range(100):
        ids.append(new_id(clock.now(), entropy))
        clock.advance(timedelta(milliseconds=1))

    assert ids == sorted(ids)


def test_ids_of_one_millisecond_differ_and_use_all_their_random_bits() -> None:
    now = ManualClock().now()

    assert len({new_id(now) for _ in range(1000)}) == 1000
    assert new_id(now, lambda size: b"\xff" * size)[14:] == "7fff-bfff-ffffffffffff"
    assert new_id(now, lambda size: b"\0" * size)[14:] == "7000-8000-000000000000"


def test_a_seed_gives_the_same_ids_again() -> None:
    now = ManualClock().now()

    assert new_id(now, seeded_entropy(7)) == new_id(now, seeded_entropy(7))
    assert new_id(now, seeded_entropy(7)) != new_id(now, seeded_entropy(8))
    assert len(system_entropy(16)) == 16


def test_a_manual_clock_stands_still_until_told_otherwise() -> None:
    clock = ManualClock()
    before = clock.now()

    assert clock.now() == before
    clock.advance(timedelta(seconds=1))
    assert clock.now() - before == timedelta(seconds=1)


def test_the_system_clock_is_aware_and_in_utc() -> None:
    assert SystemClock().now().tzinfo is UTC
