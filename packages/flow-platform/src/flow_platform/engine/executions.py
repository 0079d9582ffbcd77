"""Reading and cancelling executions: held status reads, lists, trees, events. Every call checks who asks."""

from __future__ import annotations

import asyncio
import builtins
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from flow_platform.domain import errors
from flow_platform.domain.checkpoint import Checkpoint
from flow_platform.domain.clock import Clock
from flow_platform.domain.execution import Execution
from flow_platform.domain.principal import Action, Principal, Role
from flow_platform.engine import reports
from flow_platform.engine.audited import Batch
from flow_platform.engine.blocked import RUNNER_SEEN_WITHIN, held_back
from flow_platform.engine.cancel import Cancelled, CancelNotices, cancel_tree
from flow_platform.engine.documents import document_of
from flow_platform.engine.ends import Ends
from flow_platform.engine.execution_filters import with_ids
from flow_platform.engine.graph_steps import view_of
from flow_platform.engine.wakeups import Wakeups
from flow_platform.store.base import ExecutionFilter, Page, Store, Transaction
from flow_platform.store.ledger_table import Cost
from flow_sdk.wire.execution import EventDocument, StatusDocument
from flow_sdk.wire.status import Kind, Status

LOOK_AGAIN_SECONDS: Final = 5.0  # The safety net under the wake-ups.
KEEP_ALIVE_SECONDS: Final = 15.0
EVENT_PAGE: Final = 500
LATE_EVENTS_SECONDS: Final = 3.0  # Events travel on a stream of their own and may come after the end of the attempt.
SHOWN_CHECKPOINTS: Final = 10  # Looked at to say what a workflow waits for.
MAX_TREE: Final = 10_000
MAX_CANCELLED: Final = 1000  # Executions that one call cancels, each with all below it.
CANCEL_BATCH: Final = 25  # Of these in one transaction: others write in between.
TO_CANCEL: Final = (Status.QUEUED, Status.RUNNING, Status.WAITING)


class Executions:
    def __init__(self, store: Store, clock: Clock, wakeups: Wakeups, notices: CancelNotices, ends: Ends) -> None:
        self._store = store
        self._clock = clock
        self._wakeups = wakeups
        self._notices = notices
        self._ends = ends

    async def get(self, principal: Principal, org_id: str, workspace_id: str, execution_id: str) -> StatusDocument:
        """The status document, with payloads.

        Raises:
            NotFound: Unknown, of another tenant, or not a descendant of the asking execution.
        """
        principal.require(Action.READ, org_id, workspace_id)
        return await self._store.read(lambda tx: self._document(tx, principal, org_id, workspace_id, execution_id))

    async def ended(self, execution: Execution) -> StatusDocument:
        """The document of one that ended, as the submit found it that just answered its caller with it."""
        return await self._store.read(lambda tx: self.document_in(tx, execution))

    async def wait(
        self, principal: Principal, org_id: str, workspace_id: str, execution_id: str, hold_seconds: float
    ) -> StatusDocument:
        """The same, but answered when the execution is terminal or the hold is over, whichever comes first."""
        loop = asyncio.get_running_loop()
        ends = loop.time() + hold_seconds
        with self._wakeups.subscribe(execution_id) as waiter:
            while True:
                document = await self.get(principal, org_id, workspace_id, execution_id)
                remaining = ends - loop.time()
                if document.status.is_terminal or remaining <= 0:
                    return document
                await waiter.wait(min(remaining, LOOK_AGAIN_SECONDS))

    async def list(
        self,
        principal: Principal,
        org_id: str,
        workspace_id: str,
        where: ExecutionFilter,
        cursor: str | None,
        limit: int,
    ) -> Page:
        """A page of status documents without payloads, newest first.

        Raises:
            NotFound: The organization has no such workspace, or that has nothing of what the filter names.
        """
        principal.require(Action.READ, org_id, workspace_id)
        if principal.role is Role.EXECUTION:
            raise errors.Forbidden("an execution reads its own descendants by id; it lists nothing")

        def operation(tx: Transaction) -> Page:
            asked = with_ids(tx, org_id, workspace_id, where)
            page = tx.executions.list(org_id, workspace_id, asked, cursor, limit)
            documents = self._documents(tx, page.items, tx.ledger.own_costs(page.items))
            return Page(documents, page.next_cursor)

        return await self._store.read(operation)

    async def cancel(self, principal: Principal, org_id: str, workspace_id: str, execution_id: str) -> StatusDocument:
        """Cancels the execution and everything below it. A terminal one is returned as it is."""
        principal.require(Action.CANCEL, org_id, workspace_id)

        def operation(tx: Transaction) -> Cancelled:
            execution = self.find(tx, principal, org_id, workspace_id, execution_id)
            if execution.status.is_terminal:
                return Cancelled()
            return cancel_tree(tx, self._ends, execution, principal.subject, self._clock.now())

        self._notices.send(await self._store.write(operation))
        return await self.get(principal, org_id, workspace_id, execution_id)

    async def cancel_matching(
        self, principal: Principal, org_id: str, workspace_id: str, where: ExecutionFilter, *, dry_run: bool
    ) -> tuple[builtins.list[str], bool]:
        """Cancels every unfinished execution that matches and is not being cancelled yet, with all below it.

        Returns:
            Which these are, at most `MAX_CANCELLED`, and whether there are more. What ended by itself meanwhile is not
            among them.

        Raises:
            NotFound: The organization has no such workspace, or that has nothing of what the filter names.
            Forbidden: An execution asks.
        """
        require_cancel_matching(principal, org_id, workspace_id)
        matching = await self._store.read(lambda tx: _matching(tx, org_id, workspace_id, where))
        truncated = len(matching) > MAX_CANCELLED
        # Oldest first: parents before what they started, which then has been cancelled with them.
        ids = sorted(matching[:MAX_CANCELLED])
        if dry_run:
            return ids, truncated
        done: set[str] = set()
        for start in range(0, len(ids), CANCEL_BATCH):
            batch = [execution_id for execution_id in ids[start : start + CANCEL_BATCH] if execution_id not in done]
            entered = await self._store.write(lambda tx, batch=batch: self._cancel_all(tx, principal, where, batch))
            cancelled = entered.result
            self._notices.send(cancelled)
            done.update(execution.id for execution in cancelled.ended + cancelled.ending)
        return [execution_id for execution_id in ids if execution_id in done], truncated

    def _cancel_all(
        self, tx: Transaction, principal: Principal, where: ExecutionFilter, ids: builtins.list[str]
    ) -> Batch[Cancelled]:
        result = Cancelled()
        for execution_id in ids:
            execution = tx.executions.find(execution_id)
            if execution is not None and execution.status in ((where.status,) if where.status else TO_CANCEL):
                result.add(cancel_tree(tx, self._ends, execution, principal.subject, self._clock.now()))
        changed = {execution.id for execution in result.ended + result.ending}
        named = [execution_id for execution_id in ids if execution_id in changed]
        return Batch(result, {"cancelled": len(changed), "execution_ids": named} if changed else {})

    async def tree(self, principal: Principal, org_id: str, workspace_id: str, execution_id: str) -> dict[str, Any]:
        """The execution and all below it: `{"execution": document, "children": [...]}`, without payloads."""
        principal.require(Action.READ, org_id, workspace_id)

        def operation(tx: Transaction) -> builtins.list[StatusDocument]:
            execution = self.find(tx, principal, org_id, workspace_id, execution_id)
            executions = tx.executions.tree(execution.root_id, MAX_TREE)
            return self._documents(tx, executions, tx.ledger.own_costs_of_tree(execution.root_id))

        return _nest(await self._store.read(operation), execution_id)

    async def events(
        self, principal: Principal, org_id: str, workspace_id: str, execution_id: str, after: int
    ) -> AsyncIterator[EventDocument | None]:
        """All events after a position, then live ones as they come; ends with the execution.

        Yields:
            Events in order, without gaps; None after a while of silence, so that a caller can keep a connection alive.
        """
        position = after
        silent_since = ended_at = asyncio.get_running_loop().time()
        ended = False
        with self._wakeups.subscribe(execution_id) as waiter:
            while True:
                document, page, is_all = await self._events(principal, org_id, workspace_id, execution_id, position)
                for event in page:
                    yield event
                now = asyncio.get_running_loop().time()
                if page:
                    position = page[-1].position
                    silent_since = now
                    continue
                if document.status.is_terminal:
                    if not ended:
                        ended, ended_at = True, now
                    if is_all or now - ended_at >= LATE_EVENTS_SECONDS:
                        return
                if now - silent_since >= KEEP_ALIVE_SECONDS:
                    silent_since = now
                    yield None
                await waiter.wait(LATE_EVENTS_SECONDS if ended else LOOK_AGAIN_SECONDS)

    async def _events(
        self, principal: Principal, org_id: str, workspace_id: str, execution_id: str, after: int
    ) -> tuple[Execution, list[EventDocument], bool]:
        principal.require(Action.READ, org_id, workspace_id)

        def operation(tx: Transaction) -> tuple[Execution, list[EventDocument], bool]:
            execution = self.find(tx, principal, org_id, workspace_id, execution_id)
            page = tx.executions.events(execution_id, after, EVENT_PAGE)
            return execution, page, execution.status.is_terminal and not page and _has_all_events(tx, execution_id)

        return await self._store.read(operation)

    def _document(
        self, tx: Transaction, principal: Principal, org_id: str, workspace_id: str, execution_id: str
    ) -> StatusDocument:
        return self.document_in(tx, self.find(tx, principal, org_id, workspace_id, execution_id))

    def document_in(self, tx: Transaction, execution: Execution) -> StatusDocument:
        """Its document, with payloads. Inside of a transaction, which has seen that it may be shown."""
        now = self._clock.now()
        return document_of(
            execution,
            now,
            result=tx.executions.result(execution.id) if execution.status is Status.COMPLETED else None,
            attempts=tx.executions.attempts(execution.id) if _may_have_errors(execution) else (),
            runners_alive=_runners_alive(tx, [execution], now),
            checkpoints=_awaited(tx, [execution]).get(execution.id, ()),
            graph=view_of(tx, execution),
            held_back=held_back(tx, [execution], now).get(execution.id),
            cost=tx.ledger.cost(execution) if execution.started_at else Cost(0, 0),
        )

    def find(
        self, tx: Transaction, principal: Principal, org_id: str, workspace_id: str, execution_id: str
    ) -> Execution:
        """The execution, if the principal sees it. Inside of a transaction.

        Raises:
            NotFound: Unknown, of another tenant, or not a descendant of the asking execution.
        """
        if principal.role is Role.EXECUTION:
            check_token_is_live(tx, principal)  # First: a dead token does not learn what exists.
        execution = tx.executions.find_in_workspace(org_id, workspace_id, execution_id)
        missing = errors.NotFound(f"execution {execution_id!r} not found")
        if execution is None:
            raise missing
        if principal.role is Role.EXECUTION and principal.execution_id is not None:
            asked = principal.execution_id
            # One that its calls were answered with may be below the execution that it repeats.
            is_its_own = execution_id == asked or tx.executions.is_descendant(execution_id, asked)
            if not is_its_own and not tx.executions.was_called(asked, execution_id):
                raise missing
        return execution

    def _documents(
        self, tx: Transaction, executions: Sequence[Execution], costs: Mapping[str, int]
    ) -> builtins.list[StatusDocument]:
        """Without payloads.

        Args:
            costs: Of themselves, of those that cost something.
        """
        now = self._clock.now()
        alive = _runners_alive(tx, executions, now)
        held = held_back(tx, executions, now)
        awaited = _awaited(tx, executions)
        return [
            document_of(
                one,
                now,
                runners_alive=alive,
                checkpoints=awaited.get(one.id, ()),
                held_back=held.get(one.id),
                cost=Cost(costs.get(one.id, 0), None),
            )
            for one in executions
        ]


def _nest(documents: builtins.list[StatusDocument], top: str) -> dict[str, Any]:
    nodes: dict[str, dict[str, Any]] = {
        one.execution_id: {"execution": one.model_dump(mode="json"), "children": []} for one in documents
    }
    for one in documents:
        if one.parent_execution_id in nodes and one.execution_id != top:
            nodes[one.parent_execution_id]["children"].append(nodes[one.execution_id])
    return nodes[top]


def _may_have_errors(execution: Execution) -> bool:
    return bool(execution.failures or execution.losses or execution.error)


def require_cancel_matching(principal: Principal, org_id: str, workspace_id: str) -> None:
    """Who may cancel by a filter: who may cancel, except executions.

    Raises:
        Forbidden: An execution asks, or the role does not cancel.
    """
    principal.require(Action.CANCEL, org_id, workspace_id)
    if principal.role is Role.EXECUTION:
        raise errors.Forbidden("an execution cancels its own descendants by id, not by a filter")


def _awaited(tx: Transaction, executions: Iterable[Execution]) -> dict[str, builtins.list[Checkpoint]]:
    """Open checkpoints, by execution, of those that may wait for some."""
    ids = [
        one.id
        for one in executions
        if not one.is_graph
        and (one.status is Status.WAITING or (one.status is Status.RUNNING and one.kind in (Kind.WORKFLOW, Kind.AGENT)))
    ]
    return tx.checkpoints.open_of_each(ids, SHOWN_CHECKPOINTS) if ids else {}


def _runners_alive(tx: Transaction, executions: Iterable[Execution], now: datetime) -> int | None:
    """None, unless it explains why one of them is still queued."""
    if any(execution.status is Status.QUEUED for execution in executions):
        return tx.runners.alive(now - RUNNER_SEEN_WITHIN)
    return None


def _matching(tx: Transaction, org_id: str, workspace_id: str, where: ExecutionFilter) -> list[str]:
    """Ids of those that can be cancelled, one more than a call cancels when there are more."""
    where = with_ids(tx, org_id, workspace_id, where)
    found: dict[str, None] = {}
    for status in (where.status,) if where.status else TO_CANCEL:
        page = tx.executions.list(org_id, workspace_id, replace(where, status=status), None, MAX_CANCELLED + 1)
        found.update((execution.id, None) for execution in page.items)
    return list(found)


def _has_all_events(tx: Transaction, execution_id: str) -> bool:
    """Whether the last event of each attempt that said how many it published is there. Others come in between."""
    last = [
        reports.event_key(attempt.number, attempt.metrics.events)
        for attempt in tx.executions.attempts(execution_id)
        if attempt.metrics and attempt.metrics.events
    ]
    return all(tx.executions.has_event(execution_id, key) for key in last)


def check_token_is_live(tx: Transaction, principal: Principal) -> None:
    """An execution's token ends with its attempt.

    Raises:
        Unauthenticated: `token_revoked`.
    """
    execution = tx.executions.find(principal.execution_id) if principal.execution_id else None
    if execution is None or execution.lease_epoch != principal.lease_epoch or execution.lease_holder is None:
        raise errors.Unauthenticated("the token's attempt has ended", code="token_revoked")
