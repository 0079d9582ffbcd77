"""What was spent, as a client sees it: transactions with their trees, and roll-ups.

A transaction is an execution's, and has its id. One that no execution has is a model call's from outside, or is only
known because what came from outside named it in a header: then it collects what named it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

from flow_platform.domain import errors
from flow_platform.domain.execution import Execution
from flow_platform.domain.ledger import Entry, totals
from flow_platform.domain.principal import Action, Principal, Role
from flow_platform.engine.executions import check_token_is_live
from flow_platform.store.base import Store, Transaction
from flow_platform.store.ledger_table import By, UsageRow
from flow_sdk.wire.billing import (
    LedgerEntryDocument,
    TransactionDocument,
    TransactionNode,
    UsageDocument,
    UsageRowDocument,
)
from flow_sdk.wire.execution import ComponentRef

MAX_SHOWN_TRANSACTIONS: Final = 1_000  # Of one tree.
MAX_SHOWN_ENTRIES: Final = 200  # Of one transaction: its attempts and model calls.
MAX_USAGE_ROWS: Final = 10_000
MAX_USAGE_SPAN: Final = timedelta(days=366)
_KIB_MS_PER_GIB_SECOND: Final = (1 << 20) * 1000


class Billing:
    def __init__(self, store: Store) -> None:
        self._store = store

    async def transaction(self, principal: Principal, org_id: str, transaction_id: str) -> TransactionDocument:
        """A transaction with what is below it.

        Raises:
            NotFound: Nothing has that id or named it, as far as the principal sees. An execution sees its own and those
                of its descendants.
        """
        principal.require(Action.READ, org_id)
        return await self._store.read(lambda tx: _transaction(tx, principal, org_id, transaction_id))

    async def usage(
        self, principal: Principal, org_id: str, workspace_id: str | None, by: By, since: datetime, until: datetime
    ) -> UsageDocument:
        """What was recorded in that time, grouped. Who is of one workspace gets that one's.

        Raises:
            NotFound: Another organization, or another workspace than the principal's.
            Forbidden: An execution asks.
        """
        principal.require(Action.READ, org_id, workspace_id)
        if principal.role is Role.EXECUTION:
            raise errors.Forbidden("an execution reads its own transaction, and no roll-ups")
        inside = workspace_id or principal.workspace_id
        rows = await self._store.read(lambda tx: tx.ledger.usage(org_id, inside, by, since, until, MAX_USAGE_ROWS + 1))
        shown = rows[:MAX_USAGE_ROWS]
        return UsageDocument(
            by=by,
            since=since,
            until=until,
            items=[_usage_row(row) for row in shown],
            total_micro_credits=sum(row.micro_credits for row in shown),
            truncated=len(rows) > len(shown),
        )


def _transaction(tx: Transaction, principal: Principal, org_id: str, transaction_id: str) -> TransactionDocument:
    is_execution = principal.role is Role.EXECUTION
    if is_execution:
        check_token_is_live(tx, principal)
    execution = _visible(tx, principal, org_id, transaction_id)
    if execution is not None:
        return _of_execution(tx, principal, execution)
    # What nobody has and what others have goes the same way from here on.
    if not is_execution:
        call = tx.ledger.entries(transaction_id, transaction_id, 1)
        if call and call[0].org_id == org_id and principal.workspace_id in (None, call[0].workspace_id):
            return _of_call(call[0])
        named = _named(tx, principal, org_id, transaction_id, MAX_SHOWN_TRANSACTIONS)
        if named.children:
            return TransactionDocument(
                transaction_id=transaction_id,
                kind="external",
                children_micro_credits=named.micro_credits,
                total_micro_credits=named.micro_credits,
                children=named.children,
                truncated=named.truncated,
            )
    raise errors.NotFound(f"transaction {transaction_id!r} not found")


def _visible(tx: Transaction, principal: Principal, org_id: str, transaction_id: str) -> Execution | None:
    """The execution whose transaction it is, if the principal sees it; an execution sees itself and what it started."""
    found = tx.executions.find(transaction_id)
    if found is None or found.org_id != org_id or principal.workspace_id not in (None, found.workspace_id):
        return None
    if principal.role is not Role.EXECUTION:
        return found
    asking = principal.execution_id or ""
    return found if found.id == asking or tx.executions.is_descendant(found.id, asking) else None


class _Named:
    """What named a transaction from outside, each with its tree.

    Attributes:
        micro_credits: Of all, also of what is not shown.
    """

    def __init__(self, children: list[TransactionNode], micro_credits: int, *, truncated: bool) -> None:
        self.children = children
        self.micro_credits = micro_credits
        self.truncated = truncated


def _of_execution(tx: Transaction, principal: Principal, execution: Execution) -> TransactionDocument:
    tree, left = _tree(tx, execution, MAX_SHOWN_TRANSACTIONS)
    # An execution reads what it started, not what others bill to it.
    named = _Named([], 0, truncated=False)
    if principal.role is not Role.EXECUTION:
        named = _named(tx, principal, execution.org_id, execution.id, max(left, 1))
    entries = tx.ledger.entries(execution.root_id, execution.id, MAX_SHOWN_ENTRIES + 1)
    shown = {name: getattr(tree, name) for name in TransactionNode.model_fields}
    shown["children"] = [*tree.children, *named.children]
    shown["children_micro_credits"] += named.micro_credits
    shown["total_micro_credits"] += named.micro_credits
    return TransactionDocument(
        **shown,
        parent_transaction_id=execution.parent_billing_transaction_id,
        entries=[_entry(entry) for entry in entries[:MAX_SHOWN_ENTRIES]],
        truncated=left < 0 or named.truncated or len(entries) > MAX_SHOWN_ENTRIES,
    )


def _of_call(entry: Entry) -> TransactionDocument:
    node = _call_node(entry)
    shown = {name: getattr(node, name) for name in TransactionNode.model_fields if name != "named"}
    return TransactionDocument(
        **shown, parent_transaction_id=entry.parent_transaction_id, entries=[_entry(entry)], truncated=False
    )


def _named(tx: Transaction, principal: Principal, org_id: str, transaction_id: str, limit: int) -> _Named:
    found = tx.ledger.named(org_id, principal.workspace_id, transaction_id, limit + 1)
    room = limit
    truncated = len(found.executions) + len(found.calls) > limit
    children: list[TransactionNode] = []
    for execution in found.executions:
        if room <= 0:
            truncated = True
            break
        node, room = _tree(tx, execution, room)
        truncated = truncated or room < 0
        children.append(node.model_copy(update={"named": True}))
    calls = [_call_node(entry).model_copy(update={"named": True}) for entry in found.calls[: max(room, 0)]]
    return _Named([*children, *calls], found.total, truncated=truncated or len(calls) < len(found.calls))


def _tree(tx: Transaction, top: Execution, limit: int) -> tuple[TransactionNode, int]:
    """The node of an execution with those below it, and how many more would have been shown; -1 when not all were."""
    walked = tx.ledger.below(top.id, limit + 1)
    shown = walked[:limit]
    own = tx.ledger.own_costs(shown)
    if len(walked) > limit:
        with_all_below: Mapping[str, int] = tx.ledger.costs_with_all_below(top.root_id)
    else:
        with_all_below = totals({one.id: one.parent_id for one in shown}, own)
    children: dict[str, list[TransactionNode]] = {}
    for one in reversed(shown):  # Children before their parents.
        below = sorted(children.get(one.id, []), key=lambda node: (node.created_at, node.transaction_id))
        node = _node(one, own.get(one.id, 0), with_all_below.get(one.id, 0), below)
        if one.id == top.id:
            return node, limit - len(shown) if len(walked) <= limit else -1
        children.setdefault(one.parent_id or "", []).append(node)
    raise errors.NotFound(f"execution {top.id!r} not found")


def _node(execution: Execution, own: int, total: int, children: Sequence[TransactionNode]) -> TransactionNode:
    return TransactionNode(
        transaction_id=execution.billing_transaction_id or execution.id,
        execution_id=execution.id,
        component=ComponentRef(
            kind=execution.kind,
            id=execution.component_id,
            version=execution.version,
            name=execution.component_name,
            slug=execution.component_slug,
        ),
        status=execution.status,
        attempts=execution.attempt,
        lifecycle_event=execution.lifecycle_event,
        retry_of_transaction_id=execution.retry_of_id,
        created_at=execution.created_at,
        own_micro_credits=own,
        children_micro_credits=total - own,
        total_micro_credits=total,
        children=list(children),
    )


def _call_node(entry: Entry) -> TransactionNode:
    return TransactionNode(
        transaction_id=entry.node_id,
        kind="model_call",
        model=entry.model,
        created_at=entry.at,
        own_micro_credits=entry.micro_credits,
        total_micro_credits=entry.micro_credits,
    )


def _entry(entry: Entry) -> LedgerEntryDocument:
    return LedgerEntryDocument(
        source=entry.source,
        at=entry.at,
        model=entry.model,
        cpu_ms=entry.cpu_us / 1000,
        memory_gib_seconds=_gib_seconds(entry.memory_kib_ms),
        prompt_tokens=entry.prompt_tokens,
        completion_tokens=entry.completion_tokens,
        rate_version=entry.rate_version,
        discount_percent=entry.discount_percent,
        micro_credits=entry.micro_credits,
    )


def _usage_row(row: UsageRow) -> UsageRowDocument:
    return UsageRowDocument(
        key=row.key,
        name=row.name,
        entries=row.entries,
        cpu_seconds=row.cpu_us / 1_000_000,
        memory_gib_seconds=_gib_seconds(row.memory_kib_ms),
        prompt_tokens=row.prompt_tokens,
        completion_tokens=row.completion_tokens,
        micro_credits=row.micro_credits,
    )


def _gib_seconds(kib_ms: int) -> float:
    return round(kib_ms / _KIB_MS_PER_GIB_SECOND, 6)
