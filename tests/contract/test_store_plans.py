"""The queries of the hot path use their index, in both databases. A plan that scans or sorts is a regression."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Mapping
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from flow_platform.store import (
    calls,
    catalog,
    execution_history,
    execution_lists,
    execution_payloads,
    execution_queue,
    executions,
    idempotency,
    rollouts,
    runners,
    tables,
)
from flow_platform.store.query import Query

LIST = {"org_id": "x", "workspace_id": "w1", "limit": 10}
AFTER = {"created_at": 2500, "id": "x"}
VALUE_OF = {"status": "completed", "component_id": "c1", "parent_id": "id-10", "ring_id": "x", "kind": "x"}
Plan = tuple[Query, Mapping[str, Any], str]

HOT: list[Plan] = [
    (executions._FIND, {"id": "x"}, "pk_executions"),
    (executions._FIND_FOR_UPDATE, {"id": "x"}, "pk_executions"),
    (executions._ADOPT, {"parent_id_": "x"}, "pk_executions"),
    (executions._RELEASE, {"parent_id_": "x"}, "pk_executions"),
    (
        executions._update(frozenset({"status", "due_at"})),
        {"id_": "x", "status_before": "queued", "lease_epoch_before": 0, "status": "running", "due_at": 1},
        "pk_executions",
    ),
    (execution_queue._READY, {"now": 1, "limit": 5, "isolation": "docker"}, "ix_executions_ready"),
    (execution_queue._RANKS, {"now": 1, "limit": 5, "isolation": "docker"}, "ix_executions_ready"),
    (execution_queue._MATURE, {"now": 1, "limit": 5}, "ix_executions_delayed"),
    (execution_queue._LOCK_READY, {"id": "x"}, "pk_executions"),
    (execution_queue._HEADS, {"workspace_id": "w1", "lane": "c@r:docker", "now": 1, "limit": 5}, "ix_executions_lane"),
    (execution_queue._RUNNING, {}, "ix_executions_lease"),
    (execution_queue._NEXT_AVAILABLE, {"now": 1}, "ix_executions_delayed"),
    (execution_queue._SLOTS_IN_USE, {"holder": "r", "instance": "i"}, "ix_executions_lease"),
    (
        execution_queue._EXTEND,
        {"id_": "x", "epoch": 1, "holder": "r", "instance": "i", "until": 1},
        "pk_executions",
    ),
    (execution_queue._DUE, {"now": 1, "limit": 5}, "ix_executions_due"),
    (execution_queue._COUNTS, {}, "ix_executions_due"),
    (execution_lists._LIVE_CHILDREN, {"parent_id": "x"}, "ix_executions_parent"),
    (execution_lists._DESCENDANTS, {"root_id": "x", "limit": 5}, "ix_executions_root"),
    (execution_lists._PARENT, {"id": "x"}, "pk_executions"),
    (execution_payloads._PAYLOAD, {"execution_id": "x"}, "pk_execution_payloads"),
    (execution_payloads._RESULT, {"execution_id": "x"}, "pk_execution_results"),
    (execution_history._ATTEMPTS, {"execution_id": "x"}, "pk_attempts"),
    (execution_history._EVENTS, {"execution_id": "x", "after": 1, "limit": 5}, "pk_events"),
    (idempotency._FIND, {"org_id": "o", "workspace_id": "w", "key": "k"}, "pk_idempotency_keys"),
    (idempotency._FINISHED_BEFORE, {"before": 1, "limit": 5}, "ix_idempotency_keys_saved"),
    (catalog._VERSION_BY_ID, {"id": "x"}, "pk_versions"),
    (catalog._VERSION_BY_DIGEST, {"component_id": "c", "digest": "d"}, "uq_versions_component_id_digest"),
    (rollouts._CURRENT, {"component_id": "c", "ring_id": "r"}, "ix_deployments_current"),
    (rollouts._LIVE, {"deployment_id": "d7"}, "ix_executions_due"),
    (rollouts._MOVING, {"after": "", "limit": 100}, "ix_deployments_moving"),
    (rollouts._IN_SET, {"set_id": "s"}, "ix_deployments_set"),
    (calls._WAS_CALLED, {"parent_id": "x", "execution_id": "y"}, "ix_calls_inherited"),
    (calls._JOINED, {"parent_id": "x", "execution_id": "y"}, "ix_calls_inherited"),
    (runners._FIND, {"id": "r"}, "pk_runners"),
    (runners._OFFERED, {"since": 1}, "ix_runners_seen"),
    (runners._SEEN, {"id_": "r", "instance_": "i", "seen_at": 1, "completed": 1}, "pk_runners"),
]
SAMPLE: Plan = (rollouts._SAMPLE, {"deployment_id": "d7", "since": 1, "limit": 100}, "ix_executions_ended")
# Sorts, but only what is already due again; the index finds those.
SORTED: list[Plan] = [
    (execution_queue._LEASED_TO_OTHERS, {"holder": "r", "instance": "i"}, "ix_executions_lease"),
]

# Read from an end of the index, or probe it value by value.
LOOSE: list[Plan] = [
    (
        execution_queue._COUNT_READY,
        {"workspace_id": "w1", "first": "c@r:", "end": "c@r;", "limit": 5},
        "ix_executions_lane",
    ),
    (execution_queue._SURVEY, {}, "ix_executions_lane"),
    (execution_queue._WORKSPACES, {"after": "", "limit": 5}, "ix_executions_lane"),
    (execution_queue._LANES, {"workspace_id": "w1", "after": "", "limit": 5}, "ix_executions_lane"),
]

FILTERS = ("status", "component_id", "parent_id", "ring_id", "kind")
INDEX_OF = {
    "component_id": "ix_executions_workspace_component",
    "status": "ix_executions_workspace_status",
}
ALL_OF_LISTS = {*INDEX_OF.values(), "ix_executions_workspace", "ix_executions_parent"}


def lists() -> list[tuple[Query, Mapping[str, Any], set[str]]]:
    found = []
    for size in range(len(FILTERS) + 1):
        for chosen in itertools.combinations(FILTERS, size):
            if "parent_id" in chosen:
                usable = {"ix_executions_parent"}
            else:
                usable = {INDEX_OF[name] for name in chosen if name in INDEX_OF} or {"ix_executions_workspace"}
            for has_cursor in (False, True):
                parameters = LIST | {name: VALUE_OF[name] for name in chosen} | (AFTER if has_cursor else {})
                query = execution_lists._page(frozenset(chosen), has_cursor=has_cursor)
                found.append((query, parameters, usable))
    return found


def lists_to_retry() -> list[tuple[Query, Mapping[str, Any], set[str]]]:
    """Those that were not retried, of a status in which that can be done; and those that were."""
    found = []
    for has_cursor in (False, True):
        more = LIST | (AFTER if has_cursor else {})
        unretried = execution_lists._page(
            frozenset({"status"}), has_cursor=has_cursor, retried=False, is_unsuccessful=True
        )
        found.append((unretried, more | {"status": "dead_letter"}, {"ix_executions_unretried"}))
        retried = execution_lists._page(frozenset(), has_cursor=has_cursor, retried=True)
        found.append((retried, more, {"ix_executions_retried"}))
    return found


def test_sqlite_uses_the_index_of_each_hot_query(sqlite_url: str) -> None:
    with sqlite_plans(sqlite_url) as connection:
        for query, parameters, index in HOT + SORTED:
            plan = sqlite_plan(connection, query, parameters)
            require_indexed(query, plan, {index})
            if (query, parameters, index) in HOT and query is not execution_queue._COUNTS:
                assert "TEMP B-TREE" not in plan, f"{query.name} sorts: {plan}"


def test_the_values_of_the_queue_are_probed_and_never_all_looked_at(sqlite_url: str, postgresql_url: str) -> None:
    with sqlite_plans(sqlite_url) as connection:
        for query, parameters, index in LOOSE:
            steps = sqlite_plan(connection, query, parameters).split("; ")
            on_executions = [step for step in steps if " executions " in step]
            assert on_executions, query.name
            assert all(index in step or "ix_executions_delayed" in step for step in on_executions), steps
    with psycopg.connect(postgresql_url) as connection:
        fill(connection)
        for query, parameters, index in LOOSE:
            plan = postgresql_plan(connection, query, parameters)
            assert index in plan
            assert "Seq Scan on executions" not in plan


def test_sqlite_lists_in_the_order_of_an_index_for_every_filter(sqlite_url: str) -> None:
    with sqlite_plans(sqlite_url) as connection:
        for query, parameters, usable in lists() + lists_to_retry():
            plan = sqlite_plan(connection, query, parameters)
            require_indexed(query, plan, usable)
            assert "TEMP B-TREE" not in plan, f"{query.name} sorts: {plan}"


def test_sqlite_counts_how_executions_of_a_deployment_ended_in_the_index_alone(sqlite_url: str) -> None:
    with sqlite_plans(sqlite_url) as connection:
        plan = sqlite_plan(connection, SAMPLE[0], SAMPLE[1])
        assert "COVERING INDEX ix_executions_ended (deployment_id=? AND finished_at>?)" in plan


def test_sqlite_counts_the_unfinished_in_the_index_alone(sqlite_url: str) -> None:
    with sqlite_plans(sqlite_url) as connection:
        assert "COVERING INDEX ix_executions_due" in sqlite_plan(connection, execution_queue._COUNTS, {})


def test_postgresql_uses_the_index_of_each_hot_query(postgresql_url: str) -> None:
    with psycopg.connect(postgresql_url) as connection:
        fill(connection)
        for query, parameters, index in [*HOT, SAMPLE, *SORTED]:
            plan = postgresql_plan(connection, query, parameters)
            # A lease is found as well by its holder: those of one runner are few.
            usable = {index, "ix_executions_lease"} if query is execution_queue._EXTEND else {index}
            assert any(name in plan for name in usable), f"{query.name}: {plan}"
            if query is not idempotency._FINISHED_BEFORE:
                assert "Seq Scan" not in plan, f"{query.name}: {plan}"
            if (query, parameters, index) in HOT and query is not execution_queue._COUNTS:
                assert "Sort" not in plan, f"{query.name} sorts: {plan}"


def test_postgresql_lists_in_the_order_of_an_index_for_every_filter(postgresql_url: str) -> None:
    with psycopg.connect(postgresql_url) as connection:
        fill(connection)
        connection.execute("SET enable_sort = off")
        for query, parameters, _ in lists():
            plan = postgresql_plan(connection, query, parameters)
            # It has statistics, and may know better than the order of the filters.
            assert any(index in plan for index in ALL_OF_LISTS), f"{query.name}: {plan}"
            assert "Sort" not in plan, f"{query.name} sorts: {plan}"
        for query, parameters, usable in lists_to_retry():
            plan = postgresql_plan(connection, query, parameters)
            assert any(index in plan for index in usable), f"{query.name}: {plan}"
            assert "Sort" not in plan, f"{query.name} sorts: {plan}"


class sqlite_plans:
    def __init__(self, url: str) -> None:
        self._raw = sqlite3.connect(url.removeprefix("sqlite:///"))

    def __enter__(self) -> sqlite3.Connection:
        return self._raw

    def __exit__(self, *exc: object) -> None:
        self._raw.close()


def sqlite_plan(connection: sqlite3.Connection, query: Query, parameters: Mapping[str, Any]) -> str:
    text, constants = query.text("sqlite")
    rows = connection.execute(f"EXPLAIN QUERY PLAN {text}", {**constants, **parameters}).fetchall()
    return "; ".join(row[3] for row in rows)


def require_indexed(query: Query, plan: str, usable: set[str]) -> None:
    for step in plan.split("; "):
        if step.startswith("SCAN") and "COVERING INDEX" not in step:
            raise AssertionError(f"{query.name} scans: {plan}")
    # SQLite names the index of a primary key by itself.
    names = {"sqlite_autoindex" if name.startswith(("pk_", "uq_versions")) else name for name in usable}
    assert any(name in plan for name in names), f"{query.name} does not use {usable}: {plan}"


def fill(connection: psycopg.Connection[Any]) -> None:
    """Enough executions, ended and not, for the planner to see that a scan is dear."""
    values = {
        column.name: "'x'" if isinstance(column.type, sa.Text) else "n"
        for column in tables.executions.c
        if not column.nullable
    }
    values |= {
        "id": "'id-' || n",
        "status": "'completed'",
        "workspace_id": "'w' || n % 7",
        "component_id": "'c' || n % 50",
    }
    values |= {"due_at": "CASE WHEN n % 5 = 0 THEN n END", "lease_holder": "CASE WHEN n % 5 = 0 THEN 'r' || n % 9 END"}
    values |= {"finished_at": "CASE WHEN n % 5 > 0 THEN n END", "deployment_id": "'d' || n % 50"}
    values |= {"parent_id": "CASE WHEN n % 3 = 0 THEN 'id-' || n / 10 END"}
    columns, expressions = ", ".join(values), ", ".join(values.values())
    statement: Any = f"INSERT INTO executions ({columns}) SELECT {expressions} FROM generate_series(1, 5000) n"  # noqa: S608
    connection.execute(statement)
    connection.execute("ANALYZE executions")
    # The other tables are empty, and an empty table is cheaper to scan: what is asked is whether an index could serve.
    connection.execute(
        "SET enable_seqscan = off; SET enable_bitmapscan = off; SET plan_cache_mode = force_generic_plan"
    )


def postgresql_plan(connection: psycopg.Connection[Any], query: Query, parameters: Mapping[str, Any]) -> str:
    text, constants = query.text("postgresql")
    statement: Any = f"EXPLAIN {text}"
    rows = connection.execute(statement, {**constants, **parameters}).fetchall()
    return "; ".join(row[0].strip() for row in rows)


@pytest.mark.parametrize("name", ["sqlite", "postgresql"])
def test_a_statement_is_compiled_once(name: Any) -> None:
    assert executions._FIND.text(name) is executions._FIND.text(name)
    assert executions._update(frozenset({"status"})) is executions._update(frozenset({"status"}))
