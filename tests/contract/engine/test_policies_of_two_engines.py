"""Two engines on one PostgreSQL: what one starts counts for the other, and neither waits for the other."""

from __future__ import annotations

import asyncio
import random
import threading
from datetime import timedelta

from flow_platform.domain import execution as domain
from flow_platform.domain.execution import Execution
from flow_platform.domain.policy import Policy, key_key
from flow_platform.domain.rate_limit import RateLimit
from flow_platform.engine.turns import Turns
from flow_platform.store import open_store
from flow_platform.store.base import Store, Transaction
from tests.support.policies import set_policies, start_next
from tests.support.store_records import NOW, execution, insert

LIMIT, PER_KEY = 3, 2
EXECUTIONS = 150


async def two_stores(url: str) -> tuple[Store, Store]:
    one, two = open_store(url), open_store(url)
    await one.open()
    await two.open()
    return one, two


def running(tx: Transaction) -> tuple[int, int]:
    """All, and the most of one key."""
    counts = tx.executions.running_counts()
    return sum(one.count for one in counts), max((one.count for one in counts if one.limit_keys), default=0)


async def test_a_limit_holds_for_both_together(postgresql_url: str) -> None:
    stores = await two_stores(postgresql_url)
    keys = [key_key("component", "ring", str(n % 3)) for n in range(EXECUTIONS)]
    made = [execution(limit_keys=(key,), created_at=NOW + n * timedelta(milliseconds=1)) for n, key in enumerate(keys)]
    await insert(stores[0], *made)
    policy = Policy("component", "ring", concurrency=LIMIT, concurrency_per_key=PER_KEY)
    await stores[0].write(lambda tx: set_policies(tx, "workspace", [policy], NOW))
    ended: list[str] = []
    most = [0, 0]

    async def engine(number: int) -> None:
        store, turns, chance = stores[number], Turns(), random.Random(number)  # noqa: S311
        held: list[Execution] = []

        def take(tx: Transaction) -> list[Execution]:
            return start_next(tx, turns, 4, NOW + timedelta(minutes=1), f"runner-{number}")[0]

        def end(tx: Transaction, one: Execution) -> None:
            tx.executions.update(one, domain.apply(one, domain.AttemptSucceeded(NOW)))

        while len(ended) < EXECUTIONS:
            for one in await store.write(take):
                held.append(one)
            if held:
                one = held.pop(chance.randrange(len(held)))
                await store.write(lambda tx, one=one: end(tx, one))
                ended.append(one.id)
            else:
                await asyncio.sleep(0)

    async def watch() -> None:
        while len(ended) < EXECUTIONS:
            seen = await stores[0].read(running)
            most[:] = [max(pair) for pair in zip(most, seen, strict=True)]

    async with asyncio.timeout(60):
        await asyncio.gather(engine(0), engine(1), watch())
    assert sorted(ended) == sorted(one.id for one in made), "each once"
    assert most[0] <= LIMIT
    assert most[1] <= PER_KEY
    for store in stores:
        await store.close()


async def test_while_one_decides_the_other_goes_on_and_looks_again(postgresql_url: str) -> None:
    one, two = await two_stores(postgresql_url)
    await insert(one, *(execution(created_at=NOW + n * timedelta(seconds=1)) for n in range(3)))
    await insert(one, execution(id="free", workspace_id="another", component_id="other"))
    await one.write(lambda tx: set_policies(tx, "workspace", [Policy("component", concurrency=2)], NOW))
    decided, go_on = threading.Event(), threading.Event()

    def first(tx: Transaction) -> list[Execution]:
        started, _ = start_next(tx, Turns(), 1, NOW)
        decided.set()
        assert go_on.wait(60)
        return started

    deciding = asyncio.ensure_future(one.write(first))
    assert await asyncio.to_thread(decided.wait, 60)
    started, look_again_at = await two.write(lambda tx: start_next(tx, Turns(), 4, NOW))
    go_on.set()
    in_first = await deciding

    assert {each.workspace_id for each in started} <= {"another"}, "the other's workspace is left to it"
    assert look_again_at is not None
    assert look_again_at > NOW
    later, _ = await two.write(lambda tx: start_next(tx, Turns(), 4, look_again_at))
    limited = [each for each in [*in_first, *started, *later] if each.workspace_id == "workspace"]
    assert len(limited) == 2
    for store in (one, two):
        await store.close()


async def test_tokens_are_taken_once_by_both_together(postgresql_url: str) -> None:
    stores = await two_stores(postgresql_url)
    await insert(stores[0], *(execution() for _ in range(60)))
    policy = Policy("component", "ring", rate=RateLimit(1, timedelta(days=1), burst=20))
    await stores[0].write(lambda tx: set_policies(tx, "workspace", [policy], NOW))
    started: list[str] = []

    async def engine(store: Store) -> None:
        turns = Turns()
        for _ in range(40):
            found, _ = await store.write(lambda tx: start_next(tx, turns, 3, NOW))
            started.extend(one.id for one in found)

    await asyncio.gather(*(engine(store) for store in stores))
    assert len(started) == len(set(started)) == 20
    for store in stores:
        await store.close()


async def test_what_is_rolled_back_used_nothing(store: Store) -> None:
    await insert(store, *(execution() for _ in range(3)))
    policy = Policy("component", concurrency=2, rate=RateLimit(1, timedelta(days=1), burst=2))
    await store.write(lambda tx: set_policies(tx, "workspace", [policy], NOW))
    turns = Turns()

    class Undone(Exception):
        pass

    def fail(tx: Transaction) -> None:
        assert len(start_next(tx, turns, 3, NOW)[0]) == 2
        raise Undone

    for _ in range(3):
        try:
            await store.write(fail)
        except Undone:
            continue
    assert len((await store.write(lambda tx: start_next(tx, turns, 3, NOW)))[0]) == 2
