"""What is to be done next: the queue, the leases, the due times.

Rows that an operation means to change are locked where the database locks rows. SQLite has one writer; there the same
statements simply have no lock clause.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final

import sqlalchemy as sa
from sqlalchemy import bindparam

from flow_platform.domain.execution import Execution
from flow_platform.store.connection import Connection
from flow_platform.store.execution_rows import COLUMNS, from_row, keys_from
from flow_platform.store.instants import from_micros, from_micros_or_none, to_micros
from flow_platform.store.policies import policy_revisions
from flow_platform.store.query import Query
from flow_platform.store.queue_table import Head, RunningCount, Survey
from flow_platform.store.tables import executions
from flow_sdk.wire.isolation import DEFAULT, Isolation
from flow_sdk.wire.status import Status

_e = executions.c
# Literals, not parameters: they must match the text of the partial indexes.
_IS_QUEUED = _e.status == sa.literal_column("'queued'")
_IS_READY = (_IS_QUEUED, _e.available_at.is_(None))
# A level of priority is worth a minute of waiting (`limits.AGING`). As all grow older alike, whoever is ahead stays so:
# the order needs no clock, and an index has it.
_LEVEL: Final = 60_000_000
_RANK = _e.created_at - _e.priority * sa.literal_column("60000000")
_CLAIM_ORDER = (_RANK, _e.id)
_EMPTY = sa.literal_column("''", sa.Text)
_RUNG = _e.isolation.concat(_EMPTY)  # As the index has it.
_LANE = (
    _e.component_id.concat(sa.literal_column("'@'", sa.Text))
    .concat(sa.func.coalesce(_e.ring_id, _EMPTY))
    .concat(sa.literal_column("':'", sa.Text))
    .concat(_e.isolation)
    .concat(sa.func.coalesce(_e.limit_keys, _EMPTY))
)
_NON_TERMINAL: Final = tuple(status for status in Status if not status.is_terminal)

_READY = Query(
    "acquire ready",
    sa.select(*COLUMNS)
    .where(*_IS_READY, bindparam("isolation", type_=sa.Text) == _RUNG, _e.deadline_at > bindparam("now"))
    .order_by(*_CLAIM_ORDER)
    .limit(bindparam("limit"))
    .with_for_update(skip_locked=True),
)
_RANKS = Query(
    "ranks of the ready",
    sa.select(_RANK)
    .where(*_IS_READY, bindparam("isolation", type_=sa.Text) == _RUNG, _e.deadline_at > bindparam("now"))
    .order_by(*_CLAIM_ORDER)
    .limit(bindparam("limit")),
)
_MATURE = Query(
    "mature",
    sa.update(executions)
    .where(
        _e.id.in_(
            sa.select(_e.id)
            .where(_IS_QUEUED, _e.available_at <= bindparam("now"))
            .order_by(_e.available_at)
            .limit(bindparam("limit"))
            .with_for_update(skip_locked=True)
        )
    )
    .values(available_at=sa.null()),
)
_NEXT_AVAILABLE = Query(
    "next available",
    sa.select(sa.func.min(_e.available_at)).where(_IS_QUEUED, _e.available_at > bindparam("now")),
)


def _one_workspace(order: sa.ColumnElement[str]) -> sa.ScalarSelect[str]:
    return sa.select(_e.workspace_id).where(*_IS_READY).order_by(order).limit(sa.literal_column("1")).scalar_subquery()


_SURVEY = Query(
    "survey of the queue",
    sa.select(
        _one_workspace(_e.workspace_id.asc()),
        _one_workspace(_e.workspace_id.desc()),
        sa.select(sa.func.min(_e.available_at)).where(_IS_QUEUED, _e.available_at.is_not(None)).scalar_subquery(),
        sa.select(policy_revisions.c.workspace_id).where(policy_revisions.c.limit_starts).exists(),
    ),
)
_LOCK_READY = Query(
    "lock ready",
    sa.select(*COLUMNS).where(_e.id == bindparam("id")).with_for_update(skip_locked=True),
)
_HEADS = Query(
    "heads of a lane",
    sa.select(_e.id, _LANE, _e.created_at, _e.priority)
    .where(
        *_IS_READY,
        _e.workspace_id == bindparam("workspace_id"),
        bindparam("lane", type_=sa.Text) == _LANE,
        _e.deadline_at > bindparam("now"),
    )
    .order_by(*_CLAIM_ORDER)
    .limit(bindparam("limit")),
)
_COUNT_READY = Query(
    "count ready",
    sa.select(sa.func.count()).select_from(
        sa.select(sa.literal_column("1", sa.BigInteger))
        .where(
            *_IS_READY,
            _e.workspace_id == bindparam("workspace_id"),
            bindparam("first", type_=sa.Text) <= _LANE,
            bindparam("end", type_=sa.Text) > _LANE,
        )
        .limit(bindparam("limit"))
        .subquery()
    ),
)


def _distinct(name: str, column: sa.ColumnElement[str], *conditions: sa.ColumnElement[bool]) -> sa.CTE:
    """The different values of an index's column after a given one: a probe for each, not a look at every row."""
    smallest = sa.select(sa.func.min(column)).where(*_IS_READY, *conditions)
    start = sa.select(
        smallest.where(column > bindparam("after", type_=sa.Text)).scalar_subquery().label("value"),
        sa.literal_column("1", sa.BigInteger).label("position"),
    )
    found = start.cte(name, recursive=True)
    step = smallest.where(column > found.c.value).correlate(found).scalar_subquery()
    return found.union_all(
        sa.select(step, found.c.position + sa.literal_column("1", sa.BigInteger)).where(
            found.c.value.is_not(None), found.c.position < bindparam("limit", type_=sa.BigInteger)
        )
    )


_waiting_workspaces = _distinct("waiting_workspaces", _e.workspace_id)
_WORKSPACES = Query(
    "workspaces that wait",
    sa.select(_waiting_workspaces.c.value, policy_revisions.c.revision)
    .select_from(
        _waiting_workspaces.outerjoin(
            policy_revisions,
            (policy_revisions.c.workspace_id == _waiting_workspaces.c.value) & policy_revisions.c.limit_starts,
        )
    )
    .where(_waiting_workspaces.c.value.is_not(None))
    .order_by(_waiting_workspaces.c.position),
)
_lanes = _distinct("lanes", _LANE, _e.workspace_id == bindparam("workspace_id"))
_LANES = Query(
    "lanes that wait",
    sa.select(_lanes.c.value).where(_lanes.c.value.is_not(None)).order_by(_lanes.c.position),
)
# Counted here and not by the database: a planner without statistics would group in the order of an index of all rows.
_RUNNING = Query(
    "running",
    sa.select(_e.workspace_id, _e.component_id, _e.ring_id, _e.limit_keys).where(
        _e.lease_holder > sa.literal_column("''")
    ),
)
_HELD_BY = (_e.lease_holder == bindparam("holder"), _e.lease_instance == bindparam("instance"))
_SLOTS_IN_USE = Query(
    "slots in use",
    sa.select(sa.func.count()).select_from(executions).where(*_HELD_BY, _e.live_children == sa.literal_column("0")),
)
_IS_RUNNING = _e.status == sa.literal_column("'running'")
_EXTEND = Query(
    "extend lease",
    sa.update(executions)
    .where(
        _e.id == bindparam("id_"),
        _e.lease_epoch == bindparam("epoch"),
        *_HELD_BY,
        _e.status.in_([sa.literal_column("'running'"), sa.literal_column("'cancelling'")]),
    )
    .values(
        lease_expires_at=sa.case((_IS_RUNNING, bindparam("until", type_=sa.BigInteger)), else_=_e.lease_expires_at),
        due_at=sa.case(
            (_IS_RUNNING & (_e.deadline_at < bindparam("until", type_=sa.BigInteger)), _e.deadline_at),
            (_IS_RUNNING, bindparam("until", type_=sa.BigInteger)),
            else_=_e.due_at,
        ),
    )
    .returning(_e.id),
)
_LEASED_TO_OTHERS = Query(
    "leased to earlier instances",
    sa.select(*COLUMNS)
    .where(_e.lease_holder == bindparam("holder"), _e.lease_instance != bindparam("instance"))
    .order_by(_e.created_at, _e.id)
    .with_for_update(),
)
_DUE = Query(
    "due",
    sa.select(*COLUMNS)
    .where(_e.due_at <= bindparam("now"))
    .order_by(_e.due_at, _e.id)
    .limit(bindparam("limit"))
    .with_for_update(skip_locked=True),
)
_COUNTS = Query(
    "counts",
    sa.select(_e.status, sa.func.count()).where(_e.due_at.is_not(None)).group_by(_e.status),
)


def _is_ready(execution: Execution) -> bool:
    return execution.status is Status.QUEUED and execution.available_at is None


class ExecutionQueue:
    _connection: Connection

    def survey(self) -> Survey:
        row = self._connection.row(_SURVEY, {})
        first, last, available_at, has_limits = row or (None, None, None, False)
        return Survey(first, last, from_micros_or_none(available_at), bool(has_limits))

    def mature(self, now: datetime, limit: int) -> int:
        return self._connection.run(_MATURE, {"now": to_micros(now), "limit": limit})

    def acquire(self, now: datetime, limit: int, isolations: Sequence[Isolation] = (DEFAULT,)) -> list[Execution]:
        if len(isolations) == 1:
            return self._acquire(now, limit, isolations[0])
        shares = self._shares(now, limit, isolations)
        found = [one for isolation, share in shares.items() for one in self._acquire(now, share, isolation)]
        return sorted(found, key=lambda one: (to_micros(one.created_at) - one.priority * _LEVEL, one.id))

    def _acquire(self, now: datetime, limit: int, isolation: Isolation) -> list[Execution]:
        parameters = {"now": to_micros(now), "limit": limit, "isolation": isolation.value}
        return [from_row(row) for row in self._connection.rows(_READY, parameters)]

    def _shares(self, now: datetime, limit: int, isolations: Sequence[Isolation]) -> Counter[Isolation]:
        """How many of each come first together: an index has the order of one isolation only."""
        ranked = [
            (row[0], isolation)
            for isolation in isolations
            for row in self._connection.rows(
                _RANKS, {"now": to_micros(now), "limit": limit, "isolation": isolation.value}
            )
        ]
        return Counter(isolation for _, isolation in sorted(ranked)[:limit])

    def lock_ready(self, execution_ids: Iterable[str], now: datetime) -> list[Execution]:
        # By the key alone: a planner that believes the queue to be empty would look the id up in one of its indexes.
        parameters = [{"id": execution_id} for execution_id in execution_ids]
        found = [from_row(row) for row in self._connection.rows_of_each(_LOCK_READY, parameters)]
        return [one for one in found if _is_ready(one) and one.deadline_at > now]

    def waiting_workspaces(self, after: str, limit: int) -> dict[str, int | None]:
        rows = self._connection.rows(_WORKSPACES, {"after": after, "limit": limit})
        return dict(rows)

    def lanes(self, workspace_id: str, after: str, limit: int) -> list[str]:
        rows = self._connection.rows(_LANES, {"workspace_id": workspace_id, "after": after, "limit": limit})
        return [row[0] for row in rows]

    def heads(self, workspace_id: str, lanes: Mapping[str, int], now: datetime) -> list[Head]:
        sets = [
            {"workspace_id": workspace_id, "lane": lane, "now": to_micros(now), "limit": limit}
            for lane, limit in lanes.items()
        ]
        rows = self._connection.rows_of_each(_HEADS, sets)
        return [Head(row[0], row[1], from_micros(row[2]), row[3]) for row in rows]

    def count_ready(self, workspace_id: str, component_id: str, ring_id: str, at_most: int) -> int:
        # Whatever their isolations and keys are, and nothing whose ring's id only begins alike.
        first, end = f"{component_id}@{ring_id}:", f"{component_id}@{ring_id};"
        where = {"workspace_id": workspace_id, "first": first, "end": end, "limit": at_most}
        row = self._connection.row(_COUNT_READY, where)
        return row[0] if row else 0

    def running_counts(self) -> list[RunningCount]:
        counted = Counter(self._connection.rows(_RUNNING, {}))
        return [
            RunningCount(workspace_id, component_id, ring_id, keys_from(keys), count)
            for (workspace_id, component_id, ring_id, keys), count in counted.items()
        ]

    def next_available_at(self, now: datetime) -> datetime | None:
        row = self._connection.row(_NEXT_AVAILABLE, {"now": to_micros(now)})
        return from_micros_or_none(row[0]) if row else None

    def slots_in_use(self, runner_id: str, instance: str) -> int:
        row = self._connection.row(_SLOTS_IN_USE, {"holder": runner_id, "instance": instance})
        return row[0] if row else 0

    def extend(self, runner_id: str, instance: str, leases: Iterable[tuple[str, int]], until: datetime) -> set[str]:
        micros = to_micros(until)
        # In the order of ids, so that two heartbeats never wait for each other's rows.
        parameters = [
            {"id_": execution_id, "epoch": epoch, "holder": runner_id, "instance": instance, "until": micros}
            for execution_id, epoch in sorted(leases)
        ]
        return {row[0] for row in self._connection.rows_of_each(_EXTEND, parameters)}

    def leased_to(self, runner_id: str, other_than: str) -> list[Execution]:
        rows = self._connection.rows(_LEASED_TO_OTHERS, {"holder": runner_id, "instance": other_than})
        return [from_row(row) for row in rows]

    def due(self, now: datetime, limit: int) -> list[Execution]:
        rows = self._connection.rows(_DUE, {"now": to_micros(now), "limit": limit})
        return [from_row(row) for row in rows]

    def counts(self) -> dict[Status, int]:
        found = dict.fromkeys(_NON_TERMINAL, 0)
        for status, count in self._connection.rows(_COUNTS, {}):
            found[Status(status)] = count
        return found
