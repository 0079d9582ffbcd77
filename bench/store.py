"""How fast the store is: one JSON line per measurement.

    .venv/bin/python bench/store.py [--url URL] [--finished N] [--count N]

Without a URL: SQLite in a temporary folder of the current one, so that commits meet a real disk. `--finished` puts so
many ended executions into the store first. Percentiles are of single calls, as the caller on the event loop sees them.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from flow_platform.domain import execution as domain
from flow_platform.domain.clock import new_id
from flow_platform.domain.execution import Execution
from flow_platform.store import open_store
from flow_platform.store.base import Attempt, ExecutionFilter, NewEvent, Payload, Result, Store, Transaction
from flow_sdk.wire.execution import MetricsDocument
from flow_sdk.wire.runner import AttemptMetrics
from flow_sdk.wire.status import Kind

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LEASE = timedelta(seconds=10)
INPUT = {"input_parameters": {"n": 1, "text": "x" * 100}}
METRICS = MetricsDocument(queue_ms=1.0, start_ms=2.0, run_ms=3.0, cpu_ms=4.0, max_rss_bytes=1 << 25)
FILL_BATCH = 500
WORKSPACE = ("0190a0a0-0000-7000-8000-000000000001", "0190a0a0-0000-7000-8000-000000000002")
_numbers = itertools.count()


def new_execution() -> Execution:
    at = NOW + timedelta(milliseconds=next(_numbers))  # As in life, ids grow with time: new rows are neighbours.
    execution_id = new_id(at)
    return Execution(
        id=execution_id,
        org_id=WORKSPACE[0],
        workspace_id=WORKSPACE[1],
        kind=Kind.CODE_BLOCK,
        component_id="0190a0a0-0000-7000-8000-000000000003",
        component_slug="noop",
        component_name="Noop",
        version_id="0190a0a0-0000-7000-8000-000000000004",
        version=1,
        deployment_id="0190a0a0-0000-7000-8000-000000000005",
        ring_id="0190a0a0-0000-7000-8000-000000000006",
        root_id=execution_id,
        created_at=at,
        deadline_at=at + timedelta(days=1),
        timeout_seconds=300.0,
        billing_transaction_id=new_id(at),
    )


def submit(tx: Transaction) -> Execution:
    one = new_execution()
    tx.executions.insert(one, Payload(INPUT))
    return one


def claim(tx: Transaction) -> list[tuple[Execution, Payload]]:
    tx.executions.slots_in_use("runner", "one")
    granted: list[tuple[Execution, Payload]] = []
    for one in tx.executions.acquire(NOW + timedelta(hours=1), 1):
        after = domain.apply(one, domain.AttemptStarted(NOW, "runner", "one", NOW + LEASE))
        tx.executions.update(one, after)
        tx.executions.record_attempt(Attempt(after.id, after.attempt, after.lease_epoch, "runner", NOW))
        granted.append((after, tx.executions.payload(after.id)))
    return granted


def record(execution_id: str, tx: Transaction) -> None:
    one = required(tx.executions.find(execution_id, for_update=True))
    after = domain.apply(one, domain.AttemptSucceeded(NOW, METRICS))
    tx.executions.update(one, after)
    tx.executions.save_result(one.id, Result({"ok": True}))
    tx.executions.record_attempt(
        Attempt(one.id, one.attempt, one.lease_epoch, "runner", NOW, NOW, metrics=AttemptMetrics(run_ms=3.0))
    )


def append(execution_id: str, tx: Transaction) -> None:
    tx.executions.append_events([NewEvent(execution_id, 1, "log", {"line": "hello"}, NOW, f"{execution_id}/1")])


def status(execution_id: str, tx: Transaction) -> None:
    one = required(tx.executions.find_in_workspace(*WORKSPACE, execution_id))
    if one.status.is_terminal:
        tx.executions.result(execution_id)


async def life(store: Store) -> None:
    """All that the store does for one execution."""
    one = await store.write(submit)
    await store.read(lambda tx: status(one.id, tx))
    claimed = await store.write(claim)
    for granted, _ in claimed:
        await asyncio.gather(
            store.write(lambda tx, i=granted.id: append(i, tx)), store.write(lambda tx, i=granted.id: record(i, tx))
        )
        await store.read(lambda tx, i=granted.id: status(i, tx))


def required(found: Execution | None) -> Execution:
    if found is None:
        raise LookupError("an execution of this benchmark is gone")
    return found


def on_each(
    store: Store, operation: Callable[[str, Transaction], None], executions: list[Execution]
) -> Callable[[], Awaitable[None]]:
    left = iter(executions)

    def call() -> Awaitable[None]:
        execution_id = next(left).id
        return store.write(lambda tx: operation(execution_id, tx))

    return call


async def in_flight(count: int, parallel: int, call: Callable[[], Awaitable[Any]]) -> dict[str, Any]:
    durations: list[float] = []
    left = iter(range(count))

    async def work() -> None:
        for _ in left:
            began = time.perf_counter()
            await call()
            durations.append(time.perf_counter() - began)

    began, cpu_began = time.perf_counter(), time.process_time()
    await asyncio.gather(*(work() for _ in range(parallel)))
    seconds = time.perf_counter() - began
    cuts = statistics.quantiles(durations, n=100)
    return {
        "in_flight": parallel,
        "per_second": round(count / seconds),
        "p50_ms": round(cuts[49] * 1000, 3),
        "p99_ms": round(cuts[98] * 1000, 3),
        "cpu_ms": round((time.process_time() - cpu_began) * 1000 / count, 3),
    }


async def fill(store: Store, count: int) -> None:
    def batch(tx: Transaction) -> None:
        for _ in range(FILL_BATCH):
            one = new_execution()
            running = domain.apply(one, domain.AttemptStarted(NOW, "runner", "one", NOW + LEASE))
            ended = domain.apply(running, domain.AttemptSucceeded(NOW, METRICS))
            tx.executions.insert(ended, Payload(INPUT))
            tx.executions.save_result(one.id, Result({"ok": True}))
            tx.executions.record_attempt(Attempt(one.id, 1, 1, "runner", NOW, NOW))
            append(one.id, tx)

    for _ in range(count // FILL_BATCH):
        await store.write(batch)


async def measure(store: Store, count: int) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for parallel in (1, 64):
        name = f"life_{parallel}"
        await in_flight(50, parallel, lambda: life(store))  # Compiles the statements, fills the caches.
        found[name] = await in_flight(count, parallel, lambda: life(store))
    submitted = [await store.write(submit) for _ in range(count)]
    found["submit_1"] = await in_flight(count, 1, lambda: store.write(submit))
    found["status_1"] = await in_flight(count, 1, lambda: store.read(lambda tx: status(submitted[0].id, tx)))
    found["claim_1"] = await in_flight(count, 1, lambda: store.write(claim))
    found["record_1"] = await in_flight(count, 1, on_each(store, record, submitted))
    found["event_1"] = await in_flight(count, 1, on_each(store, append, submitted))
    found["submit_64"] = await in_flight(count * 4, 64, lambda: store.write(submit))
    found["list_1"] = await in_flight(
        count // 4, 1, lambda: store.read(lambda tx: tx.executions.list(*WORKSPACE, ExecutionFilter(), None, 50))
    )
    return found


async def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--url")
    arguments.add_argument("--finished", type=int, default=0)
    arguments.add_argument("--count", type=int, default=1000)
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory(dir=".") as folder:
        url = options.url or f"sqlite:///{folder}/bench.db"
        began = time.perf_counter()
        store = open_store(url)
        await store.open()
        context = {"database": url.split(":")[0], "finished": options.finished}
        opened = {"open_ms": round((time.perf_counter() - began) * 1000, 1)}
        print(json.dumps({"measurement": "open", **context, **opened}), flush=True)
        await fill(store, options.finished)
        for name, values in (await measure(store, options.count)).items():
            print(json.dumps({"measurement": name, **context, **values}), flush=True)
        await store.close()


if __name__ == "__main__":
    asyncio.run(main())
