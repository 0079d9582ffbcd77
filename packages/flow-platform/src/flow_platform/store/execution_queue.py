"""What is to be done next: the queue, the leases, the due times.

Rows that an operation means to change are locked where the database locks rows. SQLite has one writer; there the same
statements simply have no lock clause.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Final

import sqlalchemy as sa
from sqlalchemy import bindparam

from flow_platform.domain.execution import Execution
from flow_platform.store.connection import Connection
from flow_platform.store.execution_rows import COLUMNS, from_row
from flow_platform.store.instants import from_micros_or_none, to_micros
from flow_platform.store.query import Query
from flow_platform.store.tables import executions
from flow_sdk.wire.status import Status

_e = executions.c
# Literals, not parameters: they must match the text of the partial indexes.
_IS_QUEUED = _e.status == sa.literal_column("'queued'")
_CLAIM_ORDER = (_e.priority.desc(), _e.created_at, _e.id)
_NON_TERMINAL: Final = tuple(status for status in Status if not status.is_terminal)

_READY = Query(
    "acquire ready",
    sa.select(*COLUMNS)
    .where(_IS_QUEUED, _e.available_at.is_(None), _e.deadline_at > bindparam("now"))
    .order_by(*_CLAIM_ORDER)
    .limit(bindparam("limit"))
    .with_for_update(skip_locked=True),
)
_MATURED = Query(
    "acquire matured",
    sa.select(*COLUMNS)
    .where(_IS_QUEUED, _e.available_at <= bindparam("now"), _e.deadline_at > bindparam("now"))
    .order_by(*_CLAIM_ORDER)
    .limit(bindparam("limit"))
    .with_for_update(skip_locked=True),
)
_NEXT_AVAILABLE = Query(
    "next available",
    sa.select(sa.func.min(_e.available_at)).where(_IS_QUEUED, _e.available_at > bindparam("now")),
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


class ExecutionQueue:
    _connection: Connection

    def acquire(self, now: datetime, limit: int) -> list[Execution]:
        parameters = {"now": to_micros(now), "limit": limit}
        found = [from_row(row) for row in self._connection.rows(_READY, parameters)]
        matured = self._connection.rows(_MATURED, parameters)
        if not matured:
            return found
        # Up to `limit` more than are given stay locked until the commit, milliseconds later.
        found.extend(from_row(row) for row in matured)
        found.sort(key=lambda execution: (-execution.priority, execution.created_at, execution.id))
        return found[:limit]

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
