"""The history of an execution: its attempts and its events. Both only grow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import sqlalchemy as sa
from sqlalchemy import bindparam

from flow_platform.domain import errors
from flow_platform.store.base import Attempt, NewEvent
from flow_platform.store.connection import Connection
from flow_platform.store.documents import document_from, document_or_null, json_or_null, value_or
from flow_platform.store.instants import from_micros, from_micros_or_none, to_micros, to_micros_or_none
from flow_platform.store.query import Query, UpsertQuery
from flow_platform.store.tables import attempts, events, executions
from flow_sdk.wire.execution import ErrorDocument, EventDocument
from flow_sdk.wire.runner import AttemptMetrics

_a = attempts.c
_v = events.c
_ATTEMPT_FIELDS: Final = ("number", "lease_epoch", "runner_id", "started_at", "finished_at", "error", "metrics")

_RECORD_ATTEMPT = UpsertQuery(
    "record attempt",
    attempts,
    # What is known of the end stays known: a late second report of the start takes nothing away.
    lambda insert: insert.on_conflict_do_update(
        index_elements=[_a.execution_id, _a.number],
        set_={
            name: sa.func.coalesce(insert.excluded[name], _a[name])  # type: ignore[arg-type]
            for name in ("finished_at", "error", "metrics")
        },
    ),
)
_ATTEMPTS = Query(
    "attempts",
    sa.select(*(_a[name] for name in _ATTEMPT_FIELDS))
    .where(_a.execution_id == bindparam("execution_id"))
    .order_by(_a.number),
)

_ATTEMPT_ERROR = Query(
    "error of attempt",
    sa.select(_a.error).where(_a.execution_id == bindparam("execution_id"), _a.number == bindparam("number")),
)

_EVENT_FIELDS: Final = ("position", "execution_id", "attempt", "event_type", "event_data", "timestamp")
_next_position = (
    sa.select(sa.func.coalesce(sa.func.max(_v.position), sa.literal_column("0")) + sa.literal_column("1"))
    .where(_v.execution_id == bindparam("execution_id"))
    .scalar_subquery()
)
_is_known = sa.exists(
    sa.select(_v.position).where(_v.execution_id == bindparam("execution_id"), _v.key == bindparam("key"))
)
_NEW_EVENT: Final = ("execution_id", "key", "attempt", "event_type", "event_data", "timestamp")
# Held before the next position is computed, so that two processes which append to one execution never compute the same.
_LOCK = Query(
    "lock execution for its events",
    sa.select(executions.c.id).where(executions.c.id == bindparam("id")).with_for_update(key_share=True),
)
_APPEND_EVENT = Query(
    "append event",
    sa.insert(events)
    .inline()
    .from_select(
        ["position", *_NEW_EVENT],
        sa.select(_next_position, *(bindparam(name, type_=_v[name].type) for name in _NEW_EVENT)).where(~_is_known),
    )
    .returning(*(_v[name] for name in _EVENT_FIELDS)),
)
_EVENT_KEYS = Query("keys of events", sa.select(_v.key).where(_v.execution_id == bindparam("execution_id")))
_EVENTS = Query(
    "events",
    sa.select(*(_v[name] for name in _EVENT_FIELDS))
    .where(_v.execution_id == bindparam("execution_id"), _v.position > bindparam("after"))
    .order_by(_v.position)
    .limit(bindparam("limit")),
)

_HAS_EVENT = Query(
    "has event", sa.select(_v.position).where(_v.execution_id == bindparam("execution_id"), _v.key == bindparam("key"))
)


class ExecutionHistory:
    _connection: Connection

    def record_attempt(self, attempt: Attempt) -> None:
        self._connection.run(
            _RECORD_ATTEMPT,
            {
                "execution_id": attempt.execution_id,
                "number": attempt.number,
                "lease_epoch": attempt.lease_epoch,
                "runner_id": attempt.runner_id,
                "started_at": to_micros(attempt.started_at),
                "finished_at": to_micros_or_none(attempt.finished_at),
                "error": document_or_null(attempt.error),
                "metrics": document_or_null(attempt.metrics),
            },
        )

    def attempts(self, execution_id: str) -> Sequence[Attempt]:
        return [
            Attempt(
                execution_id=execution_id,
                number=number,
                lease_epoch=lease_epoch,
                runner_id=runner_id,
                started_at=from_micros(started_at),
                finished_at=from_micros_or_none(finished_at),
                error=document_from(ErrorDocument, error) if error else None,
                metrics=document_from(AttemptMetrics, metrics) if metrics else None,
            )
            for number, lease_epoch, runner_id, started_at, finished_at, error, metrics in self._connection.rows(
                _ATTEMPTS, {"execution_id": execution_id}
            )
        ]

    def attempt_error(self, execution_id: str, number: int) -> str | None:
        row = self._connection.row(_ATTEMPT_ERROR, {"execution_id": execution_id, "number": number})
        return document_from(ErrorDocument, row[0]).code if row and row[0] else None

    def append_events(self, events: Sequence[NewEvent]) -> list[EventDocument]:
        # In the order of ids, so that two processes never wait for each other.
        execution_ids = sorted({event.execution_id for event in events})
        locked = self._connection.rows_of_each(_LOCK, [{"id": execution_id} for execution_id in execution_ids])
        if len(locked) < len(execution_ids):
            missing = sorted(set(execution_ids) - {row[0] for row in locked})
            raise errors.NotFound(f"execution {missing[0]!r} does not exist")
        parameters = [
            {
                "execution_id": event.execution_id,
                "key": event.key,
                "attempt": event.attempt,
                "event_type": event.event_type,
                "event_data": json_or_null(event.event_data),
                "timestamp": to_micros(event.timestamp),
            }
            for event in events
        ]
        return [_event(*row) for row in self._connection.rows_of_each(_APPEND_EVENT, parameters)]

    def events(self, execution_id: str, after: int, limit: int) -> list[EventDocument]:
        parameters = {"execution_id": execution_id, "after": after, "limit": limit}
        return [_event(*row) for row in self._connection.rows(_EVENTS, parameters)]

    def event_keys(self, execution_id: str) -> list[str]:
        return [row[0] for row in self._connection.rows(_EVENT_KEYS, {"execution_id": execution_id})]

    def has_event(self, execution_id: str, key: str) -> bool:
        return self._connection.row(_HAS_EVENT, {"execution_id": execution_id, "key": key}) is not None


def _event(
    position: int, execution_id: str, attempt: int, event_type: str, event_data: str | None, timestamp: int
) -> EventDocument:
    return EventDocument(
        position=position,
        execution_id=execution_id,
        attempt=attempt,
        event_type=event_type,
        event_data=value_or(event_data),
        timestamp=from_micros(timestamp),
    )
