"""Checkpoints of workflows, and the events that were sent to them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import Column, ForeignKey, Index, Table, bindparam

from flow_platform.domain.checkpoint import Checkpoint, SentEvent
from flow_platform.store.connection import Connection, Row
from flow_platform.store.documents import document_from, document_or_null, json_or_null, to_json, value_or
from flow_platform.store.instants import from_micros, from_micros_or_none, to_micros, to_micros_or_none
from flow_platform.store.query import Query
from flow_platform.store.tables import Instant, Json, Word, metadata, partial_index
from flow_sdk.wire.durable import CheckpointKind, CheckpointStatus
from flow_sdk.wire.execution import ErrorDocument

checkpoints = Table(
    "checkpoints",
    metadata,
    Column("id", Word, primary_key=True),
    Column("execution_id", Word, ForeignKey("executions.id"), nullable=False),
    Column("kind", Word, nullable=False),
    Column("name", Word, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("due_at", Instant, nullable=True),
    Column("value_schema", Json, nullable=True),
    Column("approvers", Json, nullable=True),
    Column("message", sa.Text, nullable=False),
    Column("status", Word, nullable=False),
    Column("value", Json, nullable=True),
    Column("error", Json, nullable=True),
    Column("finished_at", Instant, nullable=True),
)
sent_events = Table(
    "sent_events",
    metadata,
    Column("id", Word, primary_key=True),
    Column("execution_id", Word, ForeignKey("executions.id"), nullable=False),
    Column("position", sa.BigInteger, nullable=False),
    Column("name", Word, nullable=False),
    Column("payload", Json, nullable=True),
    Column("sent_by", sa.Text, nullable=False),
    Column("sent_at", Instant, nullable=False),
    Column("key", Word, nullable=False),
    Column("checkpoint_id", Word, ForeignKey("checkpoints.id"), nullable=True),
)
_c = checkpoints.c
_s = sent_events.c
Index("ix_checkpoints_execution", _c.execution_id, _c.id)
partial_index("ix_checkpoints_open", "finished_at IS NULL", _c.execution_id, _c.name, _c.id)
partial_index("ix_sent_events_unread", "checkpoint_id IS NULL", _s.execution_id, _s.name, _s.position)
Index("uq_sent_events_position", _s.execution_id, _s.position, unique=True)
partial_index("uq_sent_events_key", "key <> ''", _s.execution_id, _s.key, unique=True)

_FIELDS: Final = tuple(_c)
_INSERT = Query("insert checkpoint", sa.insert(checkpoints).inline())
_FIND = Query("find checkpoint", sa.select(*_FIELDS).where(_c.id == bindparam("id")))
_FINISH = Query(
    "finish checkpoint",
    sa.update(checkpoints)
    .where(_c.id == bindparam("id_"), _c.finished_at.is_(None))
    .values({name: bindparam(name) for name in ("status", "value", "error", "finished_at")}),
)
_CHANGE = Query(
    "change checkpoint",
    sa.update(checkpoints)
    .where(_c.id == bindparam("id_"), _c.status == bindparam("before"))
    .values({name: bindparam(name) for name in ("status", "value", "error", "finished_at")}),
)
_OF_EXECUTION = _c.execution_id == bindparam("execution_id")
_ALL = Query(
    "checkpoints of execution", sa.select(*_FIELDS).where(_OF_EXECUTION).order_by(_c.id).limit(bindparam("limit"))
)
_COUNT = Query("count checkpoints", sa.select(sa.func.count()).select_from(checkpoints).where(_OF_EXECUTION))
_OPEN = Query(
    "open checkpoints by name",
    sa.select(*_FIELDS).where(_OF_EXECUTION, _c.finished_at.is_(None), _c.name == bindparam("name")).order_by(_c.id),
)
_EARLIEST_OPEN = Query(
    "open checkpoints",
    sa.select(*_FIELDS).where(_OF_EXECUTION, _c.finished_at.is_(None)).order_by(_c.id).limit(bindparam("limit")),
)
_SENT = Query("insert sent event", sa.insert(sent_events).inline())
_SENT_BY_KEY = Query(
    "sent event by key",
    sa.select(*_s).where(
        _s.execution_id == bindparam("execution_id"), _s.key == bindparam("key"), _s.key != sa.literal_column("''")
    ),
)
_UNREAD = sa.and_(_s.execution_id == bindparam("execution_id"), _s.checkpoint_id.is_(None))
_OLDEST_UNREAD = Query(
    "oldest unread event",
    sa.select(*_s).where(_UNREAD, _s.name == bindparam("name")).order_by(_s.position).limit(sa.literal_column("1")),
)
_COUNT_SENT = Query(
    "last sent event",
    sa.select(sa.func.max(_s.position)).where(_s.execution_id == bindparam("execution_id")),
)
_COUNT_UNREAD = Query("count unread events", sa.select(sa.func.count()).select_from(sent_events).where(_UNREAD))
_READ = Query(
    "read event",
    sa.update(sent_events)
    .where(_s.id == bindparam("id_"), _s.checkpoint_id.is_(None))
    .values(checkpoint_id=bindparam("checkpoint_id")),
)
_GIVE_BACK = Query(
    "give event back",
    sa.update(sent_events)
    .where(_s.execution_id == bindparam("execution_id_"), _s.checkpoint_id == bindparam("checkpoint_id_"))
    .values(checkpoint_id=sa.null()),
)


class CheckpointRows:
    """Implements `base.CheckpointTable`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def insert(self, checkpoint: Checkpoint) -> None:
        self._connection.run(
            _INSERT,
            {
                "id": checkpoint.id,
                "execution_id": checkpoint.execution_id,
                "kind": checkpoint.kind.value,
                "name": checkpoint.name,
                "created_at": to_micros(checkpoint.created_at),
                "due_at": to_micros_or_none(checkpoint.due_at),
                "value_schema": json_or_null(checkpoint.value_schema),
                "approvers": json_or_null(list(checkpoint.approvers), []),
                "message": checkpoint.message,
                **_ending(checkpoint),
            },
        )

    def find(self, checkpoint_id: str) -> Checkpoint | None:
        row = self._connection.row(_FIND, {"id": checkpoint_id})
        return _checkpoint(row) if row else None

    def finish(self, checkpoint: Checkpoint) -> bool:
        return self._connection.run(_FINISH, {"id_": checkpoint.id, **_ending(checkpoint)}) == 1

    def change(self, checkpoint: Checkpoint, before: CheckpointStatus) -> bool:
        parameters = {"id_": checkpoint.id, "before": before.value, **_ending(checkpoint)}
        return self._connection.run(_CHANGE, parameters) == 1

    def list(self, execution_id: str, limit: int) -> list[Checkpoint]:
        rows = self._connection.rows(_ALL, {"execution_id": execution_id, "limit": limit})
        return [_checkpoint(row) for row in rows]

    def count(self, execution_id: str) -> int:
        row = self._connection.row(_COUNT, {"execution_id": execution_id})
        return row[0] if row else 0

    def open(self, execution_id: str, name: str) -> list[Checkpoint]:
        rows = self._connection.rows(_OPEN, {"execution_id": execution_id, "name": name})
        return [_checkpoint(row) for row in rows]

    def all_open(self, execution_id: str, limit: int) -> list[Checkpoint]:
        rows = self._connection.rows(_EARLIEST_OPEN, {"execution_id": execution_id, "limit": limit})
        return [_checkpoint(row) for row in rows]

    def open_of_each(self, execution_ids: Sequence[str], limit: int) -> dict[str, list[Checkpoint]]:
        found: dict[str, list[Checkpoint]] = {}
        parameters = [{"execution_id": execution_id, "limit": limit} for execution_id in execution_ids]
        for row in self._connection.rows_of_each(_EARLIEST_OPEN, parameters):
            checkpoint = _checkpoint(row)
            found.setdefault(checkpoint.execution_id, []).append(checkpoint)
        return found

    def insert_sent(self, event: SentEvent) -> None:
        parameters = {**vars(event), "payload": to_json(event.payload), "sent_at": to_micros(event.sent_at)}
        self._connection.run(_SENT, parameters)

    def find_sent(self, execution_id: str, key: str) -> SentEvent | None:
        row = self._connection.row(_SENT_BY_KEY, {"execution_id": execution_id, "key": key})
        return _sent(row) if row else None

    def oldest_unread(self, execution_id: str, name: str) -> SentEvent | None:
        row = self._connection.row(_OLDEST_UNREAD, {"execution_id": execution_id, "name": name})
        return _sent(row) if row else None

    def count_sent(self, execution_id: str) -> int:
        row = self._connection.row(_COUNT_SENT, {"execution_id": execution_id})
        return (row[0] if row else 0) or 0

    def count_unread(self, execution_id: str) -> int:
        row = self._connection.row(_COUNT_UNREAD, {"execution_id": execution_id})
        return row[0] if row else 0

    def mark_read(self, event_id: str, checkpoint_id: str) -> None:
        self._connection.run(_READ, {"id_": event_id, "checkpoint_id": checkpoint_id})

    def give_back(self, execution_id: str, checkpoint_id: str) -> None:
        self._connection.run(_GIVE_BACK, {"execution_id_": execution_id, "checkpoint_id_": checkpoint_id})


def _ending(checkpoint: Checkpoint) -> dict[str, Any]:
    finished_at: datetime | None = checkpoint.finished_at
    return {
        "status": checkpoint.status.value,
        "value": json_or_null(checkpoint.value),
        "error": document_or_null(checkpoint.error),
        "finished_at": to_micros_or_none(finished_at),
    }


def _checkpoint(row: Row) -> Checkpoint:
    found: dict[str, Any] = dict(zip((column.name for column in _FIELDS), row, strict=True))
    error = found["error"]
    found |= {
        "kind": CheckpointKind(found["kind"]),
        "status": CheckpointStatus(found["status"]),
        "created_at": from_micros(found["created_at"]),
        "due_at": from_micros_or_none(found["due_at"]),
        "finished_at": from_micros_or_none(found["finished_at"]),
        "value_schema": value_or(found["value_schema"]),
        "approvers": tuple(value_or(found["approvers"], [])),
        "value": value_or(found["value"]),
        "error": None if error is None else document_from(ErrorDocument, error),
    }
    return Checkpoint(**found)


def _sent(row: Row) -> SentEvent:
    found: dict[str, Any] = dict(zip((column.name for column in _s), row, strict=True))
    found |= {"payload": value_or(found["payload"]), "sent_at": from_micros(found["sent_at"])}
    return SentEvent(**found)
