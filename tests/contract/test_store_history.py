"""The contract of `ExecutionTable`: payloads, results, attempts, events, idempotency keys."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import pytest

from flow_platform.domain import errors
from flow_platform.store.base import Attempt, IdempotencyRecord, NewEvent, Payload, Result, Store, Transaction
from flow_sdk.wire.runner import AttemptMetrics
from tests.support.store_records import ERROR, NOW, SECOND, TICK, completed, execution, insert, insert_history, started

VALUES: list[Any] = [
    None,
    False,
    0,
    0.0,
    "",
    [],
    {},
    True,
    1 << 80,
    1.5e300,
    "\0 \ud800 é 世",
    [None, {}],
    {"": {"a": []}},
]


@pytest.fixture
async def execution_id(store: Store) -> str:
    one = execution()
    await insert(store, one)
    return one.id


async def test_payloads_come_back_as_they_went_in(store: Store) -> None:
    for value in VALUES:
        full = execution()
        payload = Payload(value, {"value": value}, "session", [value], {"value": value})
        await insert(store, full, payload=payload)

        found = await store.read(lambda tx, full=full: tx.executions.payload(full.id))

        assert found == payload
        assert type(found.input_data) is type(value)


async def test_an_empty_payload_comes_back(store: Store, execution_id: str) -> None:
    found = await store.read(lambda tx: tx.executions.payload(execution_id))

    assert found == Payload()
    assert found.config is not (await store.read(lambda tx: tx.executions.payload(execution_id))).config


async def test_a_payload_of_an_unknown_execution_is_not_found(store: Store) -> None:
    with pytest.raises(errors.NotFound, match="'unknown'"):
        await store.read(lambda tx: tx.executions.payload("unknown"))


async def test_results_come_back_as_they_were_saved(store: Store, execution_id: str) -> None:
    assert await store.read(lambda tx: tx.executions.result(execution_id)) == Result()
    for value in VALUES:
        result = Result(value, {"tokens": value}, [value], {"state": value})
        await store.write(lambda tx, result=result: tx.executions.save_result(execution_id, result))

        found = await store.read(lambda tx: tx.executions.result(execution_id))

        assert found == result
        assert type(found.output) is type(value)


async def test_32_mebibytes_go_in_and_come_out(store: Store) -> None:
    big = execution()
    text = "a" * (32 << 20)
    await insert(store, big, payload=Payload(text))
    await store.write(lambda tx: tx.executions.save_result(big.id, Result(text)))

    assert (await store.read(lambda tx: tx.executions.payload(big.id))).input_data == text
    assert (await store.read(lambda tx: tx.executions.result(big.id))).output == text


async def test_a_result_of_an_unknown_execution_is_not_found(store: Store) -> None:
    with pytest.raises(errors.NotFound):
        await store.write(lambda tx: tx.executions.save_result("unknown", Result(1)))


async def test_an_attempt_is_inserted_then_completed(store: Store, execution_id: str) -> None:
    first = Attempt(execution_id, 1, 1, "runner", NOW)
    ended = dataclasses.replace(
        first,
        finished_at=NOW + SECOND,
        error=ERROR,
        metrics=AttemptMetrics(started_at=NOW + TICK, run_ms=1.5, stages={"fork": 0.5}),
    )
    second = Attempt(execution_id, 2, 2, "other", NOW + SECOND, NOW + 2 * SECOND, metrics=AttemptMetrics())

    await store.write(lambda tx: tx.executions.record_attempt(first))
    assert await store.read(lambda tx: tx.executions.attempts(execution_id)) == [first]
    await store.write(lambda tx: tx.executions.record_attempt(second))
    await store.write(lambda tx: tx.executions.record_attempt(ended))
    assert await store.read(lambda tx: tx.executions.attempts(execution_id)) == [ended, second]

    await store.write(lambda tx: tx.executions.record_attempt(first))
    assert await store.read(lambda tx: tx.executions.attempts(execution_id)) == [ended, second], "nothing is forgotten"
    assert await store.read(lambda tx: tx.executions.attempts("unknown")) == []


def new_event(execution_id: str, key: str, value: Any = None, attempt: int = 1) -> NewEvent:
    return NewEvent(execution_id, attempt, "chunk", value, NOW, key)


async def test_events_get_positions_from_one_without_gaps(store: Store) -> None:
    first, second = execution(), execution()
    await insert(store, first, second)

    appended = await store.write(
        lambda tx: tx.executions.append_events(
            [new_event(first.id, "a", 1), new_event(second.id, "a", 2), new_event(first.id, "b", {"x": "\0\ud800"})]
        )
    )
    more = await store.write(lambda tx: tx.executions.append_events([new_event(first.id, "c", attempt=2)]))

    assert [(e.execution_id, e.position, e.event_data) for e in appended] == [
        (first.id, 1, 1), (second.id, 1, 2), (first.id, 2, {"x": "\0\ud800"}),
    ]  # fmt: skip
    assert [(e.position, e.attempt, e.event_type, e.timestamp) for e in more] == [(3, 2, "chunk", NOW)]
    assert await store.read(lambda tx: tx.executions.events(first.id, 0, 10)) == [appended[0], appended[2], more[0]]
    assert await store.read(lambda tx: tx.executions.events(first.id, 1, 1)) == [appended[2]]
    assert await store.read(lambda tx: tx.executions.events(first.id, 3, 10)) == []
    assert await store.read(lambda tx: tx.executions.events("unknown", 0, 10)) == []


async def test_an_event_with_a_known_key_is_dropped_and_leaves_no_gap(store: Store, execution_id: str) -> None:
    first = [new_event(execution_id, "a"), new_event(execution_id, "a"), new_event(execution_id, "b")]
    again = [new_event(execution_id, "b", "other"), new_event(execution_id, "c"), new_event(execution_id, "a")]

    appended = await store.write(lambda tx: tx.executions.append_events(first))
    repeated = await store.write(lambda tx: tx.executions.append_events(again))

    assert [e.position for e in appended] == [1, 2]
    assert [e.position for e in repeated] == [3]
    stored = await store.read(lambda tx: tx.executions.events(execution_id, 0, 10))
    assert [e.position for e in stored] == [1, 2, 3]
    assert stored[1].event_data is None
    assert await store.write(lambda tx: tx.executions.append_events([])) == []


async def test_events_of_an_unknown_execution_are_not_found_and_disturb_nobody(store: Store, execution_id: str) -> None:
    results = await asyncio.gather(
        store.write(lambda tx: tx.executions.append_events([new_event(execution_id, "a")])),
        store.write(lambda tx: tx.executions.append_events([new_event("unknown", "a")])),
        store.write(lambda tx: tx.executions.append_events([new_event(execution_id, "b")])),
        return_exceptions=True,
    )

    assert isinstance(results[1], errors.NotFound)
    assert [e.position for e in await store.read(lambda tx: tx.executions.events(execution_id, 0, 10))] == [1, 2]


async def test_a_thousand_events_keep_their_order(store: Store, execution_id: str) -> None:
    batch = [new_event(execution_id, f"k{i}", i) for i in range(1000)]
    await store.write(lambda tx: tx.executions.append_events(batch))

    stored = await store.read(lambda tx: tx.executions.events(execution_id, 0, 2000))

    assert [(e.position, e.event_data) for e in stored] == [(i + 1, i) for i in range(1000)]


async def test_an_idempotency_key_belongs_to_its_workspace(store: Store, execution_id: str) -> None:
    record = IdempotencyRecord("key", "sha256:1", execution_id)
    other = IdempotencyRecord("key", "sha256:2", execution_id)

    def operation(tx: Transaction) -> None:
        tx.executions.save_idempotent("org", "workspace", record, NOW)
        tx.executions.save_idempotent("org", "other", other, NOW)
        tx.executions.save_idempotent("other", "workspace", other, NOW)

    await store.write(operation)

    assert await store.read(lambda tx: tx.executions.find_idempotent("org", "workspace", "key")) == record
    assert await store.read(lambda tx: tx.executions.find_idempotent("org", "other", "key")) == other
    assert await store.read(lambda tx: tx.executions.find_idempotent("org", "workspace", "another")) is None


async def test_an_idempotency_key_is_taken_once(store: Store, execution_id: str) -> None:
    record = IdempotencyRecord("key", "sha256:1", execution_id)
    await store.write(lambda tx: tx.executions.save_idempotent("org", "workspace", record, NOW))

    def second(tx: Transaction) -> None:
        tx.executions.insert(execution(id="half"), Payload())
        changed = dataclasses.replace(record, fingerprint="other")
        tx.executions.save_idempotent("org", "workspace", changed, NOW)

    with pytest.raises(errors.Conflict):
        await store.write(second)

    assert await store.read(lambda tx: tx.executions.find_idempotent("org", "workspace", "key")) == record
    assert await store.read(lambda tx: tx.executions.find("half")) is None, "nothing half-written"


async def test_old_keys_of_ended_executions_are_deleted_in_bounds(store: Store) -> None:
    live = execution()

    def operation(tx: Transaction) -> None:
        tx.executions.insert(live, Payload())
        tx.executions.save_idempotent("org", "workspace", IdempotencyRecord("live", "f", live.id), NOW - 9 * SECOND)
        for i in range(4):
            ended = execution()
            insert_history(tx, [ended, started(ended), completed(started(ended))])
            tx.executions.save_idempotent("org", "workspace", IdempotencyRecord(f"k{i}", "f", ended.id), NOW + i * TICK)

    async def keys() -> set[str]:
        def operation(tx: Transaction) -> set[str]:
            names = ["live", "k0", "k1", "k2", "k3"]
            return {key for key in names if tx.executions.find_idempotent("org", "workspace", key)}

        return await store.read(operation)

    async def delete(limit: int) -> int:
        return await store.write(lambda tx: tx.executions.delete_idempotent_before(NOW + 3 * TICK, limit))

    await store.write(operation)
    assert await delete(2) == 2
    assert await keys() == {"live", "k2", "k3"}, "the oldest go first"
    assert await delete(100) == 1
    assert await keys() == {"live", "k3"}, "at the instant itself a key is not yet older"
    assert await delete(100) == 0
