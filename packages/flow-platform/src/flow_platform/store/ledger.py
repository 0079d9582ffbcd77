"""The ledger: what attempts and model calls cost, written with their ends, never changed.

An entry's key begins with its tree, so one index serves for "was it recorded", "what did this execution cost" and "what
did the tree cost", and the entries of a tree lie beside each other. Triggers refuse changes, whoever asks for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import Column, Index, PrimaryKeyConstraint, Table, bindparam

from flow_platform.domain.budget import day_key, month_key
from flow_platform.domain.execution import Execution
from flow_platform.domain.ledger import Entry, totals
from flow_platform.store.budgets import CHARGE
from flow_platform.store.connection import Connection
from flow_platform.store.execution_rows import COLUMNS, from_row
from flow_platform.store.instants import from_micros, to_micros
from flow_platform.store.ledger_table import By, Cost, Named, UsageRow
from flow_platform.store.ledger_triggers import refuse_changes
from flow_platform.store.query import Query, UpsertQuery
from flow_platform.store.tables import Instant, Word, executions, metadata
from flow_platform.store.usage import usage_query

FIELDS: Final = tuple(field.name for field in fields(Entry))

ledger_entries = Table(
    "ledger_entries",
    metadata,
    Column("tree_id", Word, nullable=False),
    Column("node_id", Word, nullable=False),
    Column("source", Word, nullable=False),
    Column("org_id", Word, nullable=False),
    Column("workspace_id", Word, nullable=False),
    Column("at", Instant, nullable=False),
    Column("lifecycle_event", Word, nullable=False),
    Column("rate_version", Word, nullable=False),
    Column("discount_percent", sa.BigInteger, nullable=False),
    Column("micro_credits", sa.BigInteger, nullable=False),
    Column("component_id", Word, nullable=True),
    Column("model", Word, nullable=True),
    Column("cpu_us", sa.BigInteger, nullable=False),
    Column("memory_kib_ms", sa.BigInteger, nullable=False),
    Column("prompt_tokens", sa.BigInteger, nullable=False),
    Column("completion_tokens", sa.BigInteger, nullable=False),
    Column("parent_transaction_id", Word, nullable=True),
    PrimaryKeyConstraint("tree_id", "node_id", "source"),
    sqlite_with_rowid=False,
)
_l = ledger_entries.c
# Roll-ups, and what was spent before there was a budget: the latter from the index alone.
Index("ix_ledger_entries_workspace", _l.workspace_id, _l.at, _l.micro_credits)
_NAMES_A_PARENT: Final = sa.text("parent_transaction_id IS NOT NULL")
Index(
    "ix_ledger_entries_parent",
    _l.parent_transaction_id,
    _l.at,
    sqlite_where=_NAMES_A_PARENT,
    postgresql_where=_NAMES_A_PARENT,
)
refuse_changes(ledger_entries)

_e = executions.c
_ZERO: Final = sa.literal_column("0", sa.BigInteger)


def _sum(column: Any) -> Any:
    return sa.cast(sa.func.coalesce(sa.func.sum(column), _ZERO), sa.BigInteger)


_APPEND = UpsertQuery(
    "append ledger entry",
    ledger_entries,
    lambda insert: insert.on_conflict_do_nothing(index_elements=["tree_id", "node_id", "source"]),
)
_OF_NODE: Final = (_l.tree_id == bindparam("tree_id"), _l.node_id == bindparam("node_id"))
_OWN_SUM: Final = sa.select(_sum(_l.micro_credits)).where(*_OF_NODE).scalar_subquery()
_COST_OF_TREE = Query(
    "cost of tree",
    sa.select(_OWN_SUM, sa.select(_sum(_l.micro_credits)).where(_l.tree_id == bindparam("tree_id")).scalar_subquery()),
)
_OWN = Query("own cost", sa.select(bindparam("node_id", type_=Word), _OWN_SUM))
# Trees are walked level by level, each node's children by their index: in one recursive statement a planner without
# statistics would read the whole table for them.
_IDS_OF_CHILDREN = Query("ids of children", sa.select(_e.id).where(_e.parent_id == bindparam("parent_id")))
_CHILDREN = Query(
    "children",
    sa.select(*COLUMNS)
    .where(_e.parent_id == bindparam("parent_id"))
    .order_by(_e.created_at, _e.id)
    .limit(bindparam("limit")),
)
_EXECUTION = Query("execution at the top", sa.select(*COLUMNS).where(_e.id == bindparam("id")))
_PARENTS_IN_TREE = Query(
    "parents in tree",
    sa.select(_e.id, _e.parent_id).where(_e.root_id == bindparam("tree_id"), _e.parent_id.is_not(None)),
)
_OWN_OF_TREE = Query(
    "own costs of tree",
    sa.select(_l.node_id, _sum(_l.micro_credits)).where(_l.tree_id == bindparam("tree_id")).group_by(_l.node_id),
)
_ENTRIES = Query(
    "ledger entries",
    sa.select(*(_l[name] for name in FIELDS)).where(*_OF_NODE).order_by(_l.at, _l.source).limit(bindparam("limit")),
)


def _is_named(table: Any, column: Any, *, in_workspace: bool) -> list[Any]:
    conditions = [column == bindparam("transaction_id"), table.org_id == bindparam("org_id")]
    return [*conditions, table.workspace_id == bindparam("workspace_id")] if in_workspace else conditions


def _named_executions(*, in_workspace: bool) -> list[Any]:
    is_outside = [_e.parent_id.is_(None), _e.parent_billing_transaction_id.is_not(None)]
    return is_outside + _is_named(_e, _e.parent_billing_transaction_id, in_workspace=in_workspace)


def _named_calls(*, in_workspace: bool) -> list[Any]:
    column = _l.parent_transaction_id
    return [column.is_not(None), *_is_named(_l, column, in_workspace=in_workspace)]


_NAMED: Final = {
    inside: Query(
        f"executions that name a transaction {inside=}",
        sa.select(*COLUMNS)
        .where(*_named_executions(in_workspace=inside))
        .order_by(_e.created_at, _e.id)
        .limit(bindparam("limit")),
    )
    for inside in (False, True)
}
_NAMED_SUM: Final = {
    inside: Query(
        f"cost of what names a transaction {inside=}",
        sa.select(
            _sum(sa.select(_sum(_l.micro_credits)).where(_l.tree_id == _e.id).correlate(executions).scalar_subquery())
        ).where(*_named_executions(in_workspace=inside)),
    )
    for inside in (False, True)
}
_NAMED_CALLS: Final = {
    inside: Query(
        f"calls that name a transaction {inside=}",
        sa.select(*(_l[name] for name in FIELDS))
        .where(*_named_calls(in_workspace=inside))
        .order_by(_l.at, _l.node_id)
        .limit(bindparam("limit")),
    )
    for inside in (False, True)
}
_NAMED_CALLS_SUM: Final = {
    inside: Query(
        f"cost of calls that name a transaction {inside=}",
        sa.select(_sum(_l.micro_credits)).where(*_named_calls(in_workspace=inside)),
    )
    for inside in (False, True)
}


class LedgerRows:
    """Implements `LedgerTable`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def append(self, entry: Entry) -> bool:
        if self._connection.run(_APPEND, {**vars(entry), "at": to_micros(entry.at)}) != 1:
            return False
        if entry.micro_credits:
            self._connection.run(
                CHARGE,
                {
                    "org_id": entry.org_id,
                    "workspace_id": entry.workspace_id,
                    "day": day_key(entry.at),
                    "month": month_key(entry.at),
                    "amount": entry.micro_credits,
                },
            )
        return True

    def cost(self, execution: Execution) -> Cost:
        if execution.parent_id is None:
            row = self._connection.row(_COST_OF_TREE, _node(execution))
            return Cost(*row) if row else Cost(0, 0)
        nodes = [_node(execution)]
        level = [execution.id]
        while level:
            level = [row[0] for row in self._connection.rows_of_each(_IDS_OF_CHILDREN, [_below(one) for one in level])]
            nodes += [{"tree_id": execution.root_id, "node_id": one} for one in level]
        costs = dict(self._connection.rows_of_each(_OWN, nodes))
        return Cost(costs[execution.id], sum(costs.values()))

    def own_costs(self, executions: Sequence[Execution]) -> dict[str, int]:
        rows = self._connection.rows_of_each(_OWN, [_node(execution) for execution in executions])
        return {node: cost for node, cost in rows if cost}

    def own_costs_of_tree(self, tree_id: str) -> dict[str, int]:
        rows = self._connection.rows(_OWN_OF_TREE, {"tree_id": tree_id})
        return {row[0]: row[1] for row in rows}

    def costs_with_all_below(self, tree_id: str) -> dict[str, int]:
        rows = self._connection.rows(_PARENTS_IN_TREE, {"tree_id": tree_id})
        parents: dict[str, str | None] = {tree_id: None}
        parents.update((row[0], row[1]) for row in rows)
        return totals(parents, self.own_costs_of_tree(tree_id))

    def below(self, execution_id: str, limit: int) -> list[Execution]:
        row = self._connection.row(_EXECUTION, {"id": execution_id})
        found = level = [from_row(row)] if row else []
        while level and len(found) < limit:
            wanted = [_below(one.id) | {"limit": limit - len(found)} for one in level[: limit - len(found)]]
            level = [from_row(row) for row in self._connection.rows_of_each(_CHILDREN, wanted)]
            found = [*found, *level]
        return found[:limit]

    def entries(self, tree_id: str, node_id: str, limit: int) -> list[Entry]:
        rows = self._connection.rows(_ENTRIES, {"tree_id": tree_id, "node_id": node_id, "limit": limit})
        return [_entry(row) for row in rows]

    def named(self, org_id: str, workspace_id: str | None, transaction_id: str, limit: int) -> Named:
        inside = workspace_id is not None
        parameters: dict[str, Any] = {"org_id": org_id, "transaction_id": transaction_id}
        if inside:
            parameters["workspace_id"] = workspace_id
        found = self._connection.rows(_NAMED[inside], {**parameters, "limit": limit})
        calls = self._connection.rows(_NAMED_CALLS[inside], {**parameters, "limit": limit})
        sums = [self._connection.row(query[inside], parameters) for query in (_NAMED_SUM, _NAMED_CALLS_SUM)]
        return Named(
            [from_row(row) for row in found], [_entry(row) for row in calls], sum(row[0] for row in sums if row)
        )

    def usage(
        self, org_id: str, workspace_id: str | None, by: By, since: datetime, until: datetime, limit: int
    ) -> list[UsageRow]:
        parameters: dict[str, Any] = {
            "org_id": org_id,
            "since": to_micros(since),
            "until": to_micros(until),
            "limit": limit,
        }
        if workspace_id is not None:
            parameters["workspace_id"] = workspace_id
        query = usage_query(ledger_entries, by, in_workspace=workspace_id is not None)
        found: list[UsageRow] = []
        for key, name, *figures in self._connection.rows(query, parameters):
            shown = from_micros(key * 86_400_000_000).strftime("%Y-%m-%d") if by == "day" else key or ""
            found.append(UsageRow(shown, name or "", *figures))
        return found


def _node(execution: Execution) -> dict[str, Any]:
    return {"tree_id": execution.root_id, "node_id": execution.id}


def _below(execution_id: str) -> dict[str, Any]:
    return {"parent_id": execution_id}


def _entry(row: Sequence[Any]) -> Entry:
    values = dict(zip(FIELDS, row, strict=True))
    values["at"] = from_micros(values["at"])
    return Entry(**values)
