"""A wake-up that comes between looking and waiting is not lost."""

from __future__ import annotations

from flow_platform.engine.wakeups import Wakeups


async def test_a_wake_up_before_the_wait_counts() -> None:
    wakeups = Wakeups()
    with wakeups.subscribe("e1") as waiter:
        wakeups.notify(["e1"])
        assert await waiter.wait(0)


async def test_only_the_named_key_wakes_and_only_once() -> None:
    wakeups = Wakeups()
    with wakeups.subscribe("e1") as waiter:
        wakeups.notify(["e2"])
        assert not await waiter.wait(0)
        wakeups.notify(["e1"])
        assert await waiter.wait(0)
        assert not await waiter.wait(0)


async def test_other_engines_are_told_and_their_word_is_not_repeated() -> None:
    told: list[list[str]] = []
    wakeups = Wakeups(told.append)
    with wakeups.subscribe("e1") as waiter:
        wakeups.notify_local(["e1"])
        assert await waiter.wait(0)
    wakeups.notify(["e2"])
    assert told == [["e2"]]


async def test_nothing_is_kept_after_the_last_subscriber_left() -> None:
    wakeups = Wakeups()
    with wakeups.subscribe("e1", "e2"):
        pass
    assert not wakeups._waiters
