"""The history of schedules: what became of their runs, and which of them are still going on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import Column, ForeignKey, PrimaryKeyConstraint, Table, bindparam

from flow_platform.domain.firing import MAX_FIRINGS, Cause, Firing, FiringStatus
from flow_platform.store import cursors
from flow_platform.store.connection import Connection, Row
from flow_platform.store.documents import document_from, document_or_null
from flow_platform.store.instants import from_micros, from_micros_or_none, to_micros, to_micros_or_none
from flow_platform.store.query import Query
from flow_platform.store.schedule_table import FiringPage
from flow_platform.store.tables import Instant, Json, Word, executions, metadata, partial_index
from flow_sdk.wire.execution import ErrorDocument
from flow_sdk.wire.status import Status

schedule_firings = Table(
    "schedule_firings",
    metadata,
    Column("schedule_id", Word, ForeignKey("schedules.id"), nullable=False),
    Column("number", sa.BigInteger, nullable=False),
    Column("cause", Word, nullable=False),
    Column("scheduled_at", Instant, nullable=False),
    Column("decided_at", Instant, nullable=False),
    Column("status", Word, nullable=False),
    Column("until", Instant, nullable=True),
    Column("key", Word, nullable=False),
    Column("reason", Word, nullable=False),
    Column("execution_id", Word, ForeignKey("executions.id"), nullable=True),
    Column("ended_at", Instant, nullable=True),
    Column("error", Json, nullable=True),
    PrimaryKeyConstraint("schedule_id", "number"),
)
_f = schedule_firings.c
_e = executions.c
partial_index("uq_schedule_firings_key", "key <> ''", _f.schedule_id, _f.key, unique=True)
partial_index("ix_schedule_firings_execution", "execution_id IS NOT NULL", _f.execution_id)
# Those whose execution had not ended when the schedule was looked at last.
partial_index(
    "ix_schedule_firings_live", "execution_id IS NOT NULL AND ended_at IS NULL", _f.schedule_id, _f.execution_id
)
partial_index("ix_schedule_firings_waiting", "status = 'waiting'", _f.schedule_id)

FIRING: Final = tuple(_f)
_OF_SCHEDULE = _f.schedule_id == bindparam("schedule_id")
# Literals, not parameters: they must match the text of the partial indexes.
_IS_LIVE = sa.and_(_f.execution_id.is_not(None), _f.ended_at.is_(None))
_IS_WAITING = _f.status == sa.literal_column("'waiting'")
_HAS_KEY = _f.key != sa.literal_column("''")

_SETTLE = Query(
    "settle firings",
    sa.update(schedule_firings)
    .where(
        _OF_SCHEDULE,
        _IS_LIVE,
        sa.exists(sa.select(_e.id).where(_e.id == _f.execution_id, _e.finished_at.is_not(None))),
    )
    .values(ended_at=sa.select(_e.finished_at).where(_e.id == _f.execution_id).scalar_subquery()),
)
_RUNNING = Query("running firings", sa.select(_f.execution_id).where(_OF_SCHEDULE, _IS_LIVE).order_by(_f.number))
_WAITING = Query("waiting firing", sa.select(*FIRING).where(_OF_SCHEDULE, _IS_WAITING))
_BY_KEY = Query("firing by key", sa.select(*FIRING).where(_OF_SCHEDULE, _f.key == bindparam("key"), _HAS_KEY))
_INSERT = Query("insert firing", sa.insert(schedule_firings).inline())
_FINISH_WAITING = Query(
    "finish waiting firing",
    sa.update(schedule_firings)
    .where(_f.schedule_id == bindparam("schedule_id_"), _f.number == bindparam("number_"), _IS_WAITING)
    .values({name: bindparam(name) for name in ("status", "decided_at", "reason", "execution_id", "error")}),
)
_FORGET = Query(
    "forget firings",
    sa.delete(schedule_firings).where(
        _OF_SCHEDULE, _f.number <= bindparam("number"), sa.not_(_IS_WAITING), sa.not_(_IS_LIVE)
    ),
)
_FORGET_ALL = Query("forget all firings", sa.delete(schedule_firings).where(_OF_SCHEDULE))
_page = (
    sa.select(*FIRING, _e.status)
    .select_from(schedule_firings.outerjoin(executions, _e.id == _f.execution_id))
    .where(_OF_SCHEDULE)
    .order_by(_f.number.desc())
    .limit(bindparam("limit"))
)
_PAGE = Query("list firings", _page)
_PAGE_AFTER = Query("list firings after", _page.where(_f.number < bindparam("number")))

_w = schedule_firings.alias("w")
_goes_on = sa.and_(_f.schedule_id == _w.c.schedule_id, _IS_LIVE, _e.id == _f.execution_id, _e.finished_at.is_(None))
_some_wait = _w.c.status == sa.literal_column("'waiting'")
_FREED = Query(
    "freed firings",
    sa.select(_w.c.schedule_id)
    .where(_some_wait, ~sa.exists().where(_goes_on).correlate(_w))
    .order_by(_w.c.schedule_id)
    .limit(bindparam("limit")),
)
_BLOCKERS = Query(
    "blockers of firings",
    sa.select(_e.id).where(_some_wait, _goes_on).order_by(_w.c.schedule_id, _e.id).limit(bindparam("limit")),
)


class FiringRows:
    """The part of `schedule_table.ScheduleTable` that is about firings."""

    _connection: Connection

    def freed(self, limit: int) -> list[str]:
        return [row[0] for row in self._connection.rows(_FREED, {"limit": limit})]

    def blockers(self, limit: int) -> list[str]:
        return [row[0] for row in self._connection.rows(_BLOCKERS, {"limit": limit})]

    def running(self, schedule_id: str) -> Sequence[str]:
        self._connection.run(_SETTLE, {"schedule_id": schedule_id})
        return [row[0] for row in self._connection.rows(_RUNNING, {"schedule_id": schedule_id})]

    def waiting(self, schedule_id: str) -> Firing | None:
        row = self._connection.row(_WAITING, {"schedule_id": schedule_id})
        return firing_from(row) if row else None

    def find_firing(self, schedule_id: str, key: str) -> Firing | None:
        row = self._connection.row(_BY_KEY, {"schedule_id": schedule_id, "key": key})
        return firing_from(row) if row else None

    def insert_firing(self, firing: Firing) -> None:
        self._connection.run(_INSERT, _row_of(firing))
        if firing.number > MAX_FIRINGS:
            number = firing.number - MAX_FIRINGS
            self._connection.run(_FORGET, {"schedule_id": firing.schedule_id, "number": number})

    def finish_waiting(self, firing: Firing) -> None:
        row = _row_of(firing)
        self._connection.run(
            _FINISH_WAITING,
            {
                "schedule_id_": firing.schedule_id,
                "number_": firing.number,
                **{name: row[name] for name in ("status", "decided_at", "reason", "execution_id", "error")},
            },
        )

    def list_firings(self, schedule_id: str, cursor: str | None, limit: int) -> FiringPage:
        parameters: dict[str, Any] = {"schedule_id": schedule_id, "limit": limit + 1}
        query = _PAGE
        if cursor is not None:
            query = _PAGE_AFTER
            parameters["number"], _ = cursors.decode("firings", cursor)
        items = [firing_from(row[:-1], row[-1]) for row in self._connection.rows(query, parameters)]
        if len(items) <= limit:
            return FiringPage(items, None)
        return FiringPage(items[:limit], cursors.encode("firings", items[limit - 1].number, schedule_id))

    def _forget_all(self, schedule_id: str) -> None:
        self._connection.run(_FORGET_ALL, {"schedule_id": schedule_id})


def firing_from(row: Row, execution_status: str | None = None) -> Firing:
    found: dict[str, Any] = dict(zip((column.name for column in FIRING), row, strict=True))
    error = found["error"]
    found |= {
        "cause": Cause(found["cause"]),
        "status": FiringStatus(found["status"]),
        "scheduled_at": from_micros(found["scheduled_at"]),
        "decided_at": from_micros(found["decided_at"]),
        "until": from_micros_or_none(found["until"]),
        "ended_at": from_micros_or_none(found["ended_at"]),
        "error": None if error is None else document_from(ErrorDocument, error),
        "execution_status": None if execution_status is None else Status(execution_status),
    }
    return Firing(**found)


def _row_of(firing: Firing) -> dict[str, Any]:
    return {
        "schedule_id": firing.schedule_id,
        "number": firing.number,
        "cause": firing.cause.value,
        "scheduled_at": to_micros(firing.scheduled_at),
        "decided_at": to_micros(firing.decided_at),
        "status": firing.status.value,
        "until": to_micros_or_none(firing.until),
        "key": firing.key,
        "reason": firing.reason,
        "execution_id": firing.execution_id,
        "ended_at": to_micros_or_none(firing.ended_at),
        "error": document_or_null(firing.error),
    }
