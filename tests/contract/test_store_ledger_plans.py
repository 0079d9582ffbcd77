"""The queries of the ledger and of budgets use their index, in both databases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import psycopg

from flow_platform.store import budgets, ledger, usage
from flow_platform.store.query import Query
from tests.contract.test_store_plans import postgresql_plan, sqlite_plan, sqlite_plans

NODE = {"tree_id": "t", "node_id": "n"}
SPAN = {"org_id": "o", "since": 1, "until": 2, "limit": 5}
NAMED = {"org_id": "o", "workspace_id": "w", "transaction_id": "t", "limit": 5}
IN_WORKSPACE = {"org_id": "o", "workspace_id": "w"}

# SQLite has no index for the key of the ledger: the table itself is in its order.
PLANS: list[tuple[Query, Mapping[str, Any], str, str]] = [
    (ledger._COST_OF_TREE, NODE, "ledger_entries USING PRIMARY KEY (tree_id=?)", "pk_ledger_entries"),
    (ledger._OWN, NODE, "ledger_entries USING PRIMARY KEY (tree_id=? AND node_id=?)", "pk_ledger_entries"),
    (ledger._OWN_OF_TREE, NODE, "ledger_entries USING PRIMARY KEY (tree_id=?)", "pk_ledger_entries"),
    (ledger._IDS_OF_CHILDREN, {"parent_id": "p"}, "ix_executions_parent", "ix_executions_parent"),
    (ledger._CHILDREN, {"parent_id": "p", "limit": 5}, "ix_executions_parent", "ix_executions_parent"),
    (ledger._PARENTS_IN_TREE, NODE, "ix_executions_root", "ix_executions_root"),
    (ledger._NAMED[True], NAMED, "ix_executions_billed", "ix_executions_billed"),
    (ledger._NAMED_CALLS[True], NAMED, "ix_ledger_entries_parent", "ix_ledger_entries_parent"),
    (budgets._STANDING, IN_WORKSPACE | {"day": "d", "month": "m"}, "autoindex_budget_spent", "pk_budget_spent"),
    (
        budgets._RECORDED_SINCE,
        {"workspace_id": "w", "since": 1},
        "COVERING INDEX ix_ledger_entries_workspace",
        "ix_ledger_entries_workspace",
    ),
    *(
        (
            usage.usage_query(ledger.ledger_entries, by, in_workspace=inside),
            SPAN | IN_WORKSPACE,
            "ix_ledger_entries_workspace (workspace_id=? AND at>? AND at<?)",
            "ix_ledger_entries_workspace",
        )
        for by in ("component", "day", "model", "workspace")
        for inside in (True, False)
    ),
]


def test_on_sqlite(sqlite_url: str) -> None:
    with sqlite_plans(sqlite_url) as connection:
        for query, parameters, index, _ in PLANS:
            plan = sqlite_plan(connection, query, parameters)
            assert index in plan, f"{query.name}: {plan}"
            assert "SCAN ledger_entries" not in plan, f"{query.name}: {plan}"


def test_on_postgresql(postgresql_url: str) -> None:
    with psycopg.connect(postgresql_url) as connection:
        # The tables are empty, and an empty table is cheaper to scan: what is asked is whether an index could serve.
        connection.execute(
            "SET enable_seqscan = off; SET enable_bitmapscan = off; SET plan_cache_mode = force_generic_plan"
        )
        for query, parameters, _, index in PLANS:
            plan = postgresql_plan(connection, query, parameters)
            assert index in plan, f"{query.name}: {plan}"
