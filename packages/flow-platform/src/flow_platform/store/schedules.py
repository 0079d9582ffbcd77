"""Schedules: what they say, and when they are due next."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import Column, ForeignKey, Index, Table, bindparam

from flow_platform.domain.schedule import Overlap, Schedule
from flow_platform.store import cursors
from flow_platform.store.connection import Connection, Row
from flow_platform.store.documents import json_or_null, value_or
from flow_platform.store.instants import from_micros, from_micros_or_none, to_micros, to_micros_or_none
from flow_platform.store.query import Query
from flow_platform.store.schedule_firings import FIRING, FiringRows, firing_from, schedule_firings
from flow_platform.store.schedule_table import SchedulePage, StoredSchedule
from flow_platform.store.tables import Instant, Json, Word, metadata, partial_index
from flow_sdk.wire.status import Kind

schedules = Table(
    "schedules",
    metadata,
    Column("id", Word, primary_key=True),
    Column("org_id", Word, nullable=False),
    Column("workspace_id", Word, nullable=False),
    Column("name", sa.Text, nullable=False),
    Column("kind", Word, nullable=False),
    Column("component_id", Word, ForeignKey("components.id"), nullable=False),
    Column("component_slug", Word, nullable=False),
    Column("ring_id", Word, ForeignKey("rings.id"), nullable=False),
    Column("cron", sa.Text, nullable=True),
    Column("interval_micros", sa.BigInteger, nullable=True),
    Column("time_zone", Word, nullable=False),
    Column("input_data", Json, nullable=True),
    Column("config", Json, nullable=True),
    Column("timeout_seconds", sa.Double[float](), nullable=True),
    Column("overlap", Word, nullable=False),
    Column("catch_up_micros", sa.BigInteger, nullable=False),
    Column("is_paused", sa.Boolean, nullable=False),
    Column("starts_at", Instant, nullable=True),
    Column("ends_at", Instant, nullable=True),
    Column("created_at", Instant, nullable=False),
    Column("created_by", sa.Text, nullable=False),
    Column("updated_at", Instant, nullable=False),
    Column("last_fired_at", Instant, nullable=True),
    Column("due_at", Instant, nullable=True),
    Column("firings", sa.BigInteger, nullable=False),
)
_s = schedules.c
Index("ix_schedules_workspace", _s.workspace_id, _s.created_at, _s.id)
partial_index("ix_schedules_due", "due_at IS NOT NULL", _s.due_at, _s.id)

_MICROSECOND: Final = timedelta(microseconds=1)
_FIXED: Final = ("id", "org_id", "workspace_id", "kind", "component_id", "component_slug", "created_at", "created_by")
_IN_WORKSPACE = (_s.workspace_id == bindparam("workspace_id"), _s.org_id == bindparam("org_id"))
_by_id = sa.select(*_s).where(_s.id == bindparam("id"))
_in_workspace = _by_id.where(*_IN_WORKSPACE)
_INSERT = Query("insert schedule", sa.insert(schedules).inline())
_FIND = Query("schedule", _in_workspace)
_FIND_FOR_UPDATE = Query("schedule for update", _in_workspace.with_for_update())
_ACQUIRE = Query("acquire schedule", _by_id.with_for_update(skip_locked=True))
_UPDATE = Query(
    "update schedule",
    sa.update(schedules)
    .where(_s.id == bindparam("id_"))
    .values({column.name: bindparam(column.name) for column in _s if column.name not in _FIXED}),
)
_DELETE = Query("delete schedule", sa.delete(schedules).where(_s.id == bindparam("id")))
_COUNT = Query("count schedules", sa.select(sa.func.count()).select_from(schedules).where(*_IN_WORKSPACE))
_DUE = Query(
    "due schedules",
    sa.select(_s.id).where(_s.due_at <= bindparam("now")).order_by(_s.due_at, _s.id).limit(bindparam("limit")),
)
_NEXT_DUE = Query("next due schedule", sa.select(sa.func.min(_s.due_at)).where(_s.due_at.is_not(None)))

# A list carries no payloads, and the last firing of each.
_listed = [sa.null().label(c.name) if c.name in ("input_data", "config") else c for c in _s]
_last = sa.and_(schedule_firings.c.schedule_id == _s.id, schedule_firings.c.number == _s.firings)
_list = (
    sa.select(*_listed, *FIRING)
    .select_from(schedules.outerjoin(schedule_firings, _last))
    .where(*_IN_WORKSPACE)
    .order_by(_s.created_at.desc(), _s.id.desc())
    .limit(bindparam("limit"))
)
_FILTERS: Final[Mapping[str, Any]] = {
    "component_id": _s.component_id == bindparam("component_id"),
    "execution_id": _s.id.in_(
        sa.select(schedule_firings.c.schedule_id).where(schedule_firings.c.execution_id == bindparam("execution_id"))
    ),
    "cursor": sa.tuple_(_s.created_at, _s.id)
    < sa.tuple_(bindparam("created_at", type_=Instant), bindparam("id", type_=Word)),
}
_LISTS: Final = {
    names: Query(" ".join(("list schedules", *names)), _list.where(*(_FILTERS[name] for name in names)))
    for component in ((), ("component_id",))
    for execution in ((), ("execution_id",))
    for cursor in ((), ("cursor",))
    for names in [(*component, *execution, *cursor)]
}


class ScheduleRows(FiringRows):
    """Implements `schedule_table.ScheduleTable`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def insert(self, schedule: StoredSchedule) -> None:
        self._connection.run(_INSERT, _row_of(schedule))

    def find(
        self, org_id: str, workspace_id: str, schedule_id: str, *, for_update: bool = False
    ) -> StoredSchedule | None:
        query = _FIND_FOR_UPDATE if for_update else _FIND
        row = self._connection.row(query, {"org_id": org_id, "workspace_id": workspace_id, "id": schedule_id})
        return _schedule(row) if row else None

    def acquire(self, schedule_id: str) -> StoredSchedule | None:
        row = self._connection.row(_ACQUIRE, {"id": schedule_id})
        return _schedule(row) if row else None

    def update(self, schedule: StoredSchedule) -> None:
        changed = {name: value for name, value in _row_of(schedule).items() if name not in _FIXED}
        self._connection.run(_UPDATE, {"id_": schedule.id, **changed})

    def delete(self, schedule_id: str) -> None:
        self._forget_all(schedule_id)
        self._connection.run(_DELETE, {"id": schedule_id})

    def count(self, org_id: str, workspace_id: str) -> int:
        row = self._connection.row(_COUNT, {"org_id": org_id, "workspace_id": workspace_id})
        return row[0] if row else 0

    def list(
        self,
        org_id: str,
        workspace_id: str,
        component_id: str | None,
        execution_id: str | None,
        cursor: str | None,
        limit: int,
    ) -> SchedulePage:
        given = {"component_id": component_id, "execution_id": execution_id, "cursor": cursor}
        names = tuple(name for name, value in given.items() if value is not None)
        parameters: dict[str, Any] = {
            "org_id": org_id,
            "workspace_id": workspace_id,
            "limit": limit + 1,
            **{name: given[name] for name in names if name != "cursor"},
        }
        if cursor is not None:
            parameters["created_at"], parameters["id"] = cursors.decode("schedules", cursor)
        items = [_listed_schedule(row) for row in self._connection.rows(_LISTS[names], parameters)]
        if len(items) <= limit:
            return SchedulePage(items, None)
        last = items[limit - 1].plan
        return SchedulePage(items[:limit], cursors.encode("schedules", to_micros(last.created_at), last.id))

    def due(self, now: datetime, limit: int) -> list[str]:
        return [row[0] for row in self._connection.rows(_DUE, {"now": to_micros(now), "limit": limit})]

    def next_due_at(self) -> datetime | None:
        row = self._connection.row(_NEXT_DUE, {})
        return from_micros_or_none(row[0]) if row else None


def _row_of(schedule: StoredSchedule) -> dict[str, Any]:
    plan = schedule.plan
    return {
        "id": plan.id,
        "org_id": schedule.org_id,
        "workspace_id": schedule.workspace_id,
        "name": schedule.name,
        "kind": schedule.kind.value,
        "component_id": plan.component_id,
        "component_slug": schedule.component_slug,
        "ring_id": plan.ring_id,
        "cron": plan.cron,
        "interval_micros": None if plan.interval is None else plan.interval // _MICROSECOND,
        "time_zone": plan.time_zone,
        "input_data": json_or_null(plan.input_data),
        "config": json_or_null(schedule.config, {}),
        "timeout_seconds": schedule.timeout_seconds,
        "overlap": plan.overlap.value,
        "catch_up_micros": plan.catch_up // _MICROSECOND,
        "is_paused": plan.is_paused,
        "starts_at": to_micros_or_none(plan.starts_at),
        "ends_at": to_micros_or_none(plan.ends_at),
        "created_at": to_micros(plan.created_at),
        "created_by": schedule.created_by,
        "updated_at": to_micros(schedule.updated_at),
        "last_fired_at": to_micros_or_none(schedule.last_fired_at),
        "due_at": to_micros_or_none(schedule.due_at),
        "firings": schedule.firings,
    }


def _listed_schedule(row: Row) -> StoredSchedule:
    size = len(_s)
    return _schedule(row[:size], row[size:])


def _schedule(row: Row, last_firing: Row = (None,)) -> StoredSchedule:
    found: dict[str, Any] = dict(zip((column.name for column in _s), row, strict=True))
    interval = found["interval_micros"]
    plan = Schedule(
        id=found["id"],
        component_id=found["component_id"],
        ring_id=found["ring_id"],
        created_at=from_micros(found["created_at"]),
        cron=found["cron"],
        interval=None if interval is None else interval * _MICROSECOND,
        time_zone=found["time_zone"],
        input_data=value_or(found["input_data"]),
        overlap=Overlap(found["overlap"]),
        catch_up=found["catch_up_micros"] * _MICROSECOND,
        is_paused=bool(found["is_paused"]),
        starts_at=from_micros_or_none(found["starts_at"]),
        ends_at=from_micros_or_none(found["ends_at"]),
    )
    return StoredSchedule(
        plan=plan,
        org_id=found["org_id"],
        workspace_id=found["workspace_id"],
        name=found["name"],
        kind=Kind(found["kind"]),
        component_slug=found["component_slug"],
        created_by=found["created_by"],
        updated_at=from_micros(found["updated_at"]),
        config=value_or(found["config"], {}),
        timeout_seconds=found["timeout_seconds"],
        last_fired_at=from_micros_or_none(found["last_fired_at"]),
        due_at=from_micros_or_none(found["due_at"]),
        firings=found["firings"],
        last_firing=None if last_firing[0] is None else firing_from(last_firing),
    )
