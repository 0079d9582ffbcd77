"""Two engines on one PostgreSQL: a tree is cancelled by one while the other adds to it."""

from __future__ import annotations

import asyncio
import threading

import psycopg

from flow_platform.engine import graphs
from flow_platform.engine.cancel import Cancelled, cancel_tree
from flow_platform.engine.ends import Ends
from flow_platform.store import open_store
from flow_platform.store.base import Payload, Transaction
from flow_sdk.wire.status import Status
from tests.support.eventually import eventually
from tests.support.store_records import NOW, child_of, execution, find, insert, started, update


async def test_a_child_added_at_the_moment_of_the_cancel_is_cancelled_too(postgresql_url: str) -> None:
    one, two = open_store(postgresql_url), open_store(postgresql_url)
    await one.open()
    await two.open()
    parent = execution()
    await insert(one, parent)
    parent = await update(one, parent, started(parent))
    child = child_of(parent)
    added, go_on = threading.Event(), threading.Event()

    def add_child(tx: Transaction) -> None:
        assert tx.executions.find(parent.id, for_update=True) is not None
        tx.executions.insert(child, Payload())
        tx.executions.adopt_child(parent.id)
        added.set()
        assert go_on.wait(60)

    def cancel(tx: Transaction) -> Cancelled:
        found = tx.executions.find(parent.id)
        assert found is not None
        return cancel_tree(tx, Ends(graphs.advance), found, "a test", NOW)

    async def waits_for_a_lock() -> bool:
        def look() -> bool:
            with psycopg.connect(postgresql_url) as connection:
                query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                row = connection.execute(query).fetchone()
            return row is not None and row[0] > 0

        return await asyncio.to_thread(look)

    adding = asyncio.ensure_future(one.write(add_child))
    assert await asyncio.to_thread(added.wait, 60)
    cancelling = asyncio.ensure_future(two.write(cancel))
    await eventually(waits_for_a_lock, bool)
    go_on.set()
    await adding
    await cancelling
    assert (await find(one, child.id)).status is Status.CANCELLED
    await one.close()
    await two.close()
