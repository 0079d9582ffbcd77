"""The calls that executions made: what a new attempt of a workflow is replayed from."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam

from flow_platform.domain.replay import Call
from flow_platform.store.connection import Connection
from flow_platform.store.query import Query
from flow_platform.store.tables import calls

_c = calls.c
_COLUMNS = (
    _c.parent_id,
    _c.key,
    _c.occurrence,
    _c.ordinal,
    _c.first_attempt,
    _c.attempt,
    _c.execution_id,
    _c.component,
)
_OF_ATTEMPT = sa.and_(_c.parent_id == bindparam("parent_id"), _c.attempt == bindparam("attempt"))
_COUNT_EQUAL = Query("count equal calls", sa.select(sa.func.count()).where(_OF_ATTEMPT, _c.key == bindparam("key")))
_LAST = Query("last call", sa.select(sa.func.max(_c.ordinal)).where(_c.parent_id == bindparam("parent_id")))
_FIND = Query(
    "find call",
    sa.select(*_COLUMNS).where(
        _c.parent_id == bindparam("parent_id"),
        _c.key == bindparam("key"),
        _c.occurrence == bindparam("occurrence"),
    ),
)
_FIRST_UNMADE = Query(
    "first call not made again",
    sa.select(*_COLUMNS)
    .where(_c.parent_id == bindparam("parent_id"), _c.attempt < bindparam("attempt"))
    .order_by(_c.ordinal)
    .limit(sa.literal_column("1")),
)
_FIRST_NEW = Query(
    "first new call of the attempt",
    sa.select(*_COLUMNS)
    .where(_OF_ATTEMPT, _c.first_attempt == bindparam("attempt"))
    .order_by(_c.ordinal)
    .limit(sa.literal_column("1")),
)
_INSERT = Query("insert call", sa.insert(calls).inline())
_MAKE_AGAIN = Query(
    "make call again",
    sa.update(calls)
    .where(
        _c.parent_id == bindparam("parent_id_"),
        _c.key == bindparam("key_"),
        _c.occurrence == bindparam("occurrence_"),
    )
    .values(attempt=bindparam("attempt"), execution_id=bindparam("execution_id")),
)


class Calls:
    _connection: Connection

    def count_equal_calls(self, parent_id: str, attempt: int, key: str) -> int:
        row = self._connection.row(_COUNT_EQUAL, {"parent_id": parent_id, "attempt": attempt, "key": key})
        return row[0] if row else 0

    def count_calls(self, parent_id: str) -> int:
        row = self._connection.row(_LAST, {"parent_id": parent_id})
        return (row[0] if row else 0) or 0

    def find_call(self, parent_id: str, key: str, occurrence: int) -> Call | None:
        row = self._connection.row(_FIND, {"parent_id": parent_id, "key": key, "occurrence": occurrence})
        return _call(row) if row else None

    def first_unmade_call(self, parent_id: str, attempt: int) -> Call | None:
        row = self._connection.row(_FIRST_UNMADE, {"parent_id": parent_id, "attempt": attempt})
        return _call(row) if row else None

    def first_new_call(self, parent_id: str, attempt: int) -> Call | None:
        row = self._connection.row(_FIRST_NEW, {"parent_id": parent_id, "attempt": attempt})
        return _call(row) if row else None

    def insert_call(self, call: Call) -> None:
        self._connection.run(_INSERT, vars(call))

    def make_call_again(self, call: Call) -> None:
        self._connection.run(
            _MAKE_AGAIN,
            {
                "parent_id_": call.parent_id,
                "key_": call.key,
                "occurrence_": call.occurrence,
                "attempt": call.attempt,
                "execution_id": call.execution_id,
            },
        )


def _call(row: tuple[Any, ...]) -> Call:
    return Call(*row)
