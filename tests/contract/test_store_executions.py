"""The contract of `ExecutionTable`: records, children, lists."""

from __future__ import annotations

import asyncio
import dataclasses
from datetime import timedelta

import pytest

from flow_platform.domain import errors
from flow_platform.domain import execution as domain
from flow_platform.domain.execution import RetryPolicy
from flow_platform.store.base import ExecutionFilter, Payload, Store, Transaction
from flow_sdk.wire.execution import ErrorDocument, MetricsDocument
from flow_sdk.wire.status import Kind, Status
from tests.support.store_records import (
    ERROR,
    NOW,
    TICK,
    child_of,
    completed,
    execution,
    find,
    in_status,
    insert,
    insert_history,
    started,
    update,
)


async def test_an_execution_comes_back_as_it_was_inserted(store: Store) -> None:
    full = execution(
        kind=Kind.WORKFLOW,
        component_name="Grüße, 世界 'quoted' \"twice\" \\ %s :x",
        deployment_id=None,
        ring_id=None,
        timeout_seconds=0.125,
        parent_id="parent",
        depth=3,
        lifecycle_event="agent_run",
        billing_transaction_id="b",
        parent_billing_transaction_id="p",
        session_id="s",
        priority=-7,
        retry=RetryPolicy(5, 0.5, 1.5, 30.0, ("ValueError", "out_of_memory")),
        available_at=NOW + TICK,
        live_children=2,
        error=ErrorDocument(code="x", message="\0 é", details=[{"field": "\ud800", "message": "\0"}]),
        metrics=MetricsDocument(queue_ms=1.5, max_rss_bytes=1 << 40, stages={"claim": 0.25}),
    )
    plain = execution()
    await insert(store, full, plain)

    assert await find(store, full.id) == full
    assert await find(store, plain.id) == plain


async def test_instants_keep_their_microseconds_over_the_whole_range(store: Store) -> None:
    early = execution(created_at=NOW.replace(year=1970, microsecond=1), deadline_at=NOW.replace(year=9999))
    await insert(store, early)

    assert await find(store, early.id) == early


async def test_nothing_is_found_of_another_tenant(store: Store) -> None:
    mine = execution()
    await insert(store, mine)

    def operation(tx: Transaction) -> list[object]:
        return [
            tx.executions.find_in_workspace("org", "workspace", mine.id),
            tx.executions.find_in_workspace("other", "workspace", mine.id),
            tx.executions.find_in_workspace("org", "other", mine.id),
            tx.executions.list("other", "workspace", ExecutionFilter(), None, 10).items,
            tx.executions.list("org", "other", ExecutionFilter(), None, 10).items,
            tx.executions.find("unknown"),
        ]

    assert await store.read(operation) == [mine, None, None, [], [], None]


async def test_an_id_can_be_inserted_once(store: Store) -> None:
    first = execution()
    await insert(store, first)

    with pytest.raises(errors.Conflict):
        await insert(store, dataclasses.replace(first, org_id="other"))

    assert await find(store, first.id) == first


@pytest.mark.parametrize("status", list(Status))
async def test_every_status_is_kept_with_all_its_fields(store: Store, status: Status) -> None:
    last = await store.write(lambda tx: insert_history(tx, in_status(status)))

    assert await find(store, last.id) == last


async def test_an_update_that_changes_nothing_is_fine(store: Store) -> None:
    same = execution()
    await insert(store, same)
    await update(store, same, same)

    assert await find(store, same.id) == same


async def test_an_update_of_what_is_no_longer_so_is_refused_and_changes_nothing(store: Store) -> None:
    queued = execution()
    await insert(store, queued)
    running = await update(store, queued, started(queued))

    with pytest.raises(errors.Conflict):
        await update(store, queued, started(queued, holder="another"))
    assert await find(store, queued.id) == running

    with pytest.raises(errors.Conflict):
        await update(store, dataclasses.replace(running, lease_epoch=0), completed(running))
    assert await find(store, queued.id) == running


async def test_an_update_of_an_unknown_execution_is_not_found(store: Store) -> None:
    unknown = execution()

    with pytest.raises(errors.NotFound, match=unknown.id):
        await update(store, unknown, started(unknown))


async def test_an_error_that_was_set_can_be_cleared(store: Store) -> None:
    queued = execution()
    running = dataclasses.replace(started(queued), error=ERROR)
    await store.write(lambda tx: insert_history(tx, [queued, running, completed(running)]))

    found = await find(store, queued.id)

    assert (found.status, found.error) == (Status.COMPLETED, None)


async def test_a_parent_counts_its_live_children(store: Store) -> None:
    parent = execution()
    children = [child_of(parent) for _ in range(3)]

    def submit(tx: Transaction) -> None:
        insert_history(tx, [parent, started(parent)])
        for child in children:
            tx.executions.insert(child, Payload())
            tx.executions.adopt_child(parent.id)

    await store.write(submit)
    assert (await find(store, parent.id)).live_children == 3

    running = await update(store, children[0], started(children[0]))
    assert (await find(store, parent.id)).live_children == 3, "a start is no end"
    await update(store, running, completed(running))
    await update(store, children[1], domain.apply(children[1], domain.CancelRequested(NOW, ERROR)))

    assert (await find(store, parent.id)).live_children == 1
    assert await store.read(lambda tx: tx.executions.live_children(parent.id)) == [children[2]]


async def test_a_parent_that_ends_keeps_counting_what_it_left(store: Store) -> None:
    parent = execution()
    child = child_of(parent)

    def operation(tx: Transaction) -> None:
        running = insert_history(tx, [parent, started(parent)])
        tx.executions.insert(child, Payload())
        tx.executions.adopt_child(parent.id)
        tx.executions.update(running, completed(running))

    await store.write(operation)

    assert (await find(store, parent.id)).live_children == 1
    assert await store.read(lambda tx: tx.executions.live_children(parent.id)) == [child]


async def test_live_children_come_oldest_first_and_without_grandchildren(store: Store) -> None:
    parent = execution()
    younger, older = child_of(parent, created_at=NOW + TICK), child_of(parent)
    await insert(store, parent, younger, older, child_of(older))

    assert await store.read(lambda tx: tx.executions.live_children(parent.id)) == [older, younger]


async def test_a_tree_is_the_root_and_all_below_oldest_first(store: Store) -> None:
    root = execution()
    child = child_of(root, created_at=NOW + TICK)
    grandchild = child_of(child, created_at=NOW + 2 * TICK)
    other = child_of(root, created_at=NOW + 3 * TICK)
    await insert(store, other, grandchild, child, root, execution())

    whole = await store.read(lambda tx: tx.executions.tree(root.id, 10))
    part = await store.read(lambda tx: tx.executions.tree(root.id, 3))

    assert whole == [root, child, grandchild, other]
    assert part == [root, child, grandchild]
    assert await store.read(lambda tx: tx.executions.tree("unknown", 10)) == []


async def test_descendants_are_at_any_depth_and_never_oneself(store: Store) -> None:
    root = execution()
    child = child_of(root)
    grandchild = child_of(child)
    await insert(store, root, child, grandchild)

    async def is_descendant(of: str, ancestor: str) -> bool:
        return await store.read(lambda tx: tx.executions.is_descendant(of, ancestor))

    assert await is_descendant(child.id, root.id)
    assert await is_descendant(grandchild.id, root.id)
    assert not await is_descendant(root.id, grandchild.id)
    assert not await is_descendant(root.id, root.id)
    assert not await is_descendant("unknown", root.id)


async def test_lists_are_newest_first_and_equal_instants_have_an_order(store: Store) -> None:
    old = [execution(id=f"id-{i}") for i in range(3)]
    new = execution(id="a-new", created_at=NOW + TICK)
    await insert(store, *old, new)

    page = await store.read(lambda tx: tx.executions.list("org", "workspace", ExecutionFilter(), None, 10))

    assert page.items == [new, old[2], old[1], old[0]]
    assert page.next_cursor is None


@pytest.mark.parametrize("size", [1, 2, 3, 7])
async def test_pages_join_to_the_whole_list_while_new_ones_arrive(store: Store, size: int) -> None:
    expected = [execution(created_at=NOW + TICK * (i // 2)) for i in range(6)]
    await insert(store, *expected)
    seen, cursor = [], None
    while True:
        page = await store.read(
            lambda tx, cursor=cursor: tx.executions.list("org", "workspace", ExecutionFilter(), cursor, size)
        )
        seen += page.items
        assert len(page.items) <= size
        await insert(store, execution(created_at=NOW + timedelta(days=1)))
        if page.next_cursor is None:
            break
        cursor = page.next_cursor

    assert seen == sorted(expected, key=lambda e: (e.created_at, e.id), reverse=True)


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (ExecutionFilter(status=Status.RUNNING), {"running"}),
        (ExecutionFilter(component_id="other"), {"component"}),
        (ExecutionFilter(ring_id="other"), {"ring"}),
        (ExecutionFilter(kind=Kind.AGENT), {"agent"}),
        (ExecutionFilter(parent_id="plain"), {"child"}),
        (ExecutionFilter(status=Status.QUEUED, ring_id="ring", kind=Kind.CODE_BLOCK), {"plain", "component", "child"}),
        (ExecutionFilter(status=Status.RUNNING, kind=Kind.AGENT), set()),
        (ExecutionFilter(component_id="unknown"), set()),
    ],
)
async def test_lists_by_filter(store: Store, where: ExecutionFilter, expected: set[str]) -> None:
    plain, running = execution(id="plain"), execution(id="running")
    others = [
        execution(id="component", component_id="other"),
        execution(id="ring", ring_id="other"),
        execution(id="agent", kind=Kind.AGENT),
        child_of(plain, id="child"),
        execution(id="foreign", org_id="else", component_id="other", ring_id="other", kind=Kind.AGENT),
    ]
    await insert(store, plain, running, *others)
    await update(store, running, started(running))
    if where.status is Status.QUEUED:
        expected = expected - {"running"}

    page = await store.read(lambda tx: tx.executions.list("org", "workspace", where, None, 10))
    first = await store.read(lambda tx: tx.executions.list("org", "workspace", where, None, 1))
    assert {item.id for item in page.items} == expected
    if first.next_cursor:
        rest = await store.read(lambda tx: tx.executions.list("org", "workspace", where, first.next_cursor, 10))
        assert first.items + rest.items == page.items


FORGED = ["", "x", "not base64!", "W10", "bnVsbA", "WyJleGVjdXRpb25zIiwxXQ", "WyJjb21wb25lbnRzIiwxLCJhIl0", "é",
          "A" * 4096, "WyJleGVjdXRpb25zIiwgMSwgImEiXQ", "W1tbW1tbW1tb", "WyJleGVjdXRpb25zIix0cnVlLCJhIl0"]  # fmt: skip


async def test_a_forged_cursor_is_refused(store: Store) -> None:
    for cursor in FORGED:
        with pytest.raises(errors.InvalidInput, match="cursor") as refused:
            await store.read(
                lambda tx, cursor=cursor: tx.executions.list("org", "workspace", ExecutionFilter(), cursor, 10)
            )
        assert refused.value.details[0]["field"] == "cursor"


async def test_a_cursor_of_another_list_is_refused(store: Store) -> None:
    await insert(store, execution(), execution())
    page = await store.read(lambda tx: tx.executions.list("org", "workspace", ExecutionFilter(), None, 1))

    with pytest.raises(errors.InvalidInput, match="components"):
        await store.read(
            lambda tx: tx.catalog.list_components("org", "workspace", Kind.CODE_BLOCK, page.next_cursor, 10)
        )


async def test_counts_are_of_the_unfinished(store: Store) -> None:
    def operation(tx: Transaction) -> None:
        for status in Status:
            insert_history(tx, in_status(status))
        insert_history(tx, in_status(Status.QUEUED))

    empty = await store.read(lambda tx: tx.executions.counts())
    await store.write(operation)
    full = await store.read(lambda tx: tx.executions.counts())

    assert empty == {Status.QUEUED: 0, Status.RUNNING: 0, Status.WAITING: 0, Status.CANCELLING: 0}
    assert full == {Status.QUEUED: 2, Status.RUNNING: 1, Status.WAITING: 1, Status.CANCELLING: 1}


@pytest.mark.parametrize("bad", ["nul\0", "lone \ud800"])
async def test_text_that_no_database_keeps_is_refused_alike_by_all(store: Store, bad: str) -> None:
    neighbour = execution()
    results = await asyncio.gather(
        insert(store, neighbour), insert(store, execution(session_id=bad)), return_exceptions=True
    )
    assert results[0] is None
    assert isinstance(results[1], errors.InvalidInput)
    assert "session_id" in results[1].message

    with pytest.raises(errors.InvalidInput):
        await store.read(lambda tx: tx.executions.find(bad))
    assert await find(store, neighbour.id) == neighbour


async def test_a_number_beyond_64_bits_is_refused(store: Store) -> None:
    with pytest.raises(errors.InvalidInput):
        await store.read(lambda tx: tx.executions.events("x", 1 << 63, 10))
