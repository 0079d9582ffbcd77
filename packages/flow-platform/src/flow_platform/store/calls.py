"""The calls that executions made: what a new attempt of a workflow is replayed from."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam

from flow_platform.domain.replay import Call
from flow_platform.store.connection import Connection
from flow_platform.store.query import Query
from flow_platform.store.tables import Word, calls, executions
from flow_sdk.wire.status import Status

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
    _c.checkpoint_id,
    _c.is_numbered,
    _c.lent,
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
_FREE = Query(
    "first equal call that the attempt has not made",
    sa.select(*_COLUMNS)
    .where(_c.parent_id == bindparam("parent_id"), _c.key == bindparam("key"), _c.attempt != bindparam("attempt"))
    .order_by(_c.is_numbered, _c.occurrence)
    .limit(sa.literal_column("1")),
)
_LAST_EQUAL = Query(
    "last equal call",
    sa.select(sa.func.max(_c.occurrence)).where(_c.parent_id == bindparam("parent_id"), _c.key == bindparam("key")),
)
_NUMBERS = Query(
    "a numbered call of the attempt",
    sa.select(_c.ordinal).where(_OF_ATTEMPT, _c.is_numbered).limit(sa.literal_column("1")),
)
_FIRST_UNMADE = Query(
    "first call not made again",
    sa.select(*_COLUMNS)
    .where(
        _c.parent_id == bindparam("parent_id"),
        _c.attempt < bindparam("attempt"),
        _c.attempt > bindparam("after"),
        _c.lent < bindparam("attempt"),
    )
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
    .values(
        attempt=bindparam("attempt"),
        execution_id=bindparam("execution_id"),
        checkpoint_id=bindparam("checkpoint_id"),
        is_numbered=bindparam("is_numbered"),
    ),
)

# What an attempt is given ahead: numbered calls of earlier attempts, by their ordinals.
_AHEAD = sa.and_(
    _c.parent_id == bindparam("parent_id_"),
    _c.ordinal >= bindparam("first"),
    _c.ordinal <= bindparam("last"),
    _c.attempt < bindparam("attempt_"),
)
_LENT = _c.lent == bindparam("attempt_")
_LEND = Query("lend calls", sa.update(calls).where(_AHEAD, _c.is_numbered).values(lent=bindparam("attempt_")))
_MADE_LENT = Query("make lent calls", sa.update(calls).where(_AHEAD, _LENT).values(attempt=bindparam("attempt_")))
_TAKE_BACK = Query(
    "take lent calls back",
    sa.update(calls)
    .where(_c.parent_id == bindparam("parent_id_"), _c.attempt < bindparam("attempt_"), _LENT)
    .values(lent=sa.literal_column("0")),
)
_TO_LEND = Query("calls to lend", sa.select(*_COLUMNS).where(_AHEAD, _c.is_numbered).order_by(_c.ordinal))

# Only a call that was inherited is answered with an execution below another parent. Literal, as the index says it.
_IS_INHERITED = _c.first_attempt == sa.literal_column("0")
_INHERITED = (_c.parent_id == bindparam("parent_id"), _c.execution_id == bindparam("execution_id"), _IS_INHERITED)
_WAS_CALLED = Query("was called", sa.select(_c.ordinal).where(*_INHERITED).limit(sa.literal_column("1")))
_JOINED = Query(
    "joined",
    sa.select(_c.ordinal)
    .where(*_INHERITED, _c.attempt + sa.literal_column("0") > sa.literal_column("0"))
    .limit(sa.literal_column("1")),
)
_BEFORE_THE_FIRST = sa.literal_column("0", sa.BigInteger())
_OF_THE_OTHER: tuple[sa.ColumnElement[Any], ...] = (
    bindparam("parent_id_", type_=Word),
    _BEFORE_THE_FIRST,
    _BEFORE_THE_FIRST,
    _c.key,
    _c.occurrence,
    _c.ordinal,
    _c.execution_id,
    _c.component,
    _c.checkpoint_id,
    _c.is_numbered,
)


def _inherit(*which: sa.ColumnElement[bool]) -> Query:
    names = ("parent_id", "first_attempt", "attempt", "key", "occurrence", "ordinal", "execution_id", "component")
    theirs = sa.select(*_OF_THE_OTHER).where(_c.parent_id == bindparam("from_id"), *which)
    columns = [*names, "checkpoint_id", "is_numbered"]
    return Query("inherit calls", sa.insert(calls).inline().from_select(columns, theirs))


_INHERIT = _inherit()
_INHERIT_CHILDREN = _inherit(_c.execution_id.is_not(None))


_WITH_STATUS = Query(
    "calls with status",
    sa.select(*_COLUMNS, executions.c.status)
    .join(executions, executions.c.id == _c.execution_id)
    .where(_c.parent_id == bindparam("parent_id"))
    .order_by(_c.ordinal),
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

    def free_equal_call(self, parent_id: str, attempt: int, key: str) -> Call | None:
        row = self._connection.row(_FREE, {"parent_id": parent_id, "attempt": attempt, "key": key})
        return _call(row) if row else None

    def last_equal_call(self, parent_id: str, key: str) -> int | None:
        row = self._connection.row(_LAST_EQUAL, {"parent_id": parent_id, "key": key})
        return row[0] if row else None

    def numbers_calls(self, parent_id: str, attempt: int) -> bool:
        return self._connection.row(_NUMBERS, {"parent_id": parent_id, "attempt": attempt}) is not None

    def lend_calls(self, parent_id: str, attempt: int, first: int, last: int) -> None:
        self._connection.run(_LEND, _ahead(parent_id, attempt, first, last))

    def make_lent_calls(self, parent_id: str, attempt: int, first: int, last: int) -> None:
        self._connection.run(_MADE_LENT, _ahead(parent_id, attempt, first, last))

    def take_back_calls(self, parent_id: str, attempt: int) -> None:
        self._connection.run(_TAKE_BACK, {"parent_id_": parent_id, "attempt_": attempt})

    def calls_to_lend(self, parent_id: str, attempt: int, first: int, last: int) -> list[Call]:
        return [_call(row) for row in self._connection.rows(_TO_LEND, _ahead(parent_id, attempt, first, last))]

    def first_unmade_call(self, parent_id: str, attempt: int, after: int = 0) -> Call | None:
        row = self._connection.row(_FIRST_UNMADE, {"parent_id": parent_id, "attempt": attempt, "after": after})
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
                "checkpoint_id": call.checkpoint_id,
                "is_numbered": call.is_numbered,
            },
        )

    def was_called(self, parent_id: str, execution_id: str) -> bool:
        return self._connection.row(_WAS_CALLED, {"parent_id": parent_id, "execution_id": execution_id}) is not None

    def calls_with_status(self, parent_id: str) -> list[tuple[Call, Status]]:
        rows = self._connection.rows(_WITH_STATUS, {"parent_id": parent_id})
        return [(_call(row[:-1]), Status(row[-1])) for row in rows]

    def joined(self, parent_id: str, execution_id: str) -> bool:
        return self._connection.row(_JOINED, {"parent_id": parent_id, "execution_id": execution_id}) is not None

    def inherit_calls(self, parent_id: str, from_id: str, *, checkpoints: bool = True) -> None:
        query = _INHERIT if checkpoints else _INHERIT_CHILDREN
        self._connection.run(query, {"parent_id_": parent_id, "from_id": from_id})


def _ahead(parent_id: str, attempt: int, first: int, last: int) -> dict[str, Any]:
    return {"parent_id_": parent_id, "attempt_": attempt, "first": first, "last": last}


def _call(row: tuple[Any, ...]) -> Call:
    *columns, is_numbered, lent = row
    return Call(*columns, is_numbered=bool(is_numbered), lent=lent)
