"""Calls of language models: their records, the answers that executions may ask for again, settings of workspaces."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import Column, ForeignKey, Index, PrimaryKeyConstraint, Table, bindparam

from flow_platform.domain.model_call import ModelCall, TokenUsage
from flow_platform.store import cursors
from flow_platform.store.base import Page
from flow_platform.store.connection import Connection
from flow_platform.store.instants import from_micros, to_micros
from flow_platform.store.model_table import ModelAnswer, ModelCallFilter
from flow_platform.store.query import Query, UpsertQuery
from flow_platform.store.tables import Instant, Json, Word, metadata

model_calls = Table(
    "model_calls",
    metadata,
    Column("id", Word, primary_key=True),
    Column("org_id", Word, nullable=False),
    Column("workspace_id", Word, nullable=False),
    Column("execution_id", Word, nullable=True),
    Column("billing_transaction_id", Word, nullable=True),
    Column("kind", Word, nullable=False),
    Column("provider", Word, nullable=False),
    Column("model", Word, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("prompt_tokens", sa.BigInteger, nullable=False),
    Column("completion_tokens", sa.BigInteger, nullable=False),
    Column("cached_tokens", sa.BigInteger, nullable=False),
    Column("is_estimated", sa.Boolean, nullable=False),
    Column("cost_micro_credits", sa.BigInteger, nullable=False),
    Column("price_version", Word, nullable=True),
    Column("latency_ms", sa.Double[float](), nullable=False),
    Column("first_token_ms", sa.Double[float](), nullable=True),
    Column("attempts", sa.BigInteger, nullable=False),
    Column("is_streamed", sa.Boolean, nullable=False),
    Column("error_code", Word, nullable=True),
)
_m = model_calls.c
Index("ix_model_calls_workspace", _m.workspace_id, _m.created_at, _m.id)
_OF_EXECUTION: Final = sa.text("execution_id IS NOT NULL")
Index(
    "ix_model_calls_execution",
    _m.execution_id,
    _m.created_at,
    _m.id,
    sqlite_where=_OF_EXECUTION,
    postgresql_where=_OF_EXECUTION,
)

model_answers = Table(
    "model_answers",
    metadata,
    Column("execution_id", Word, ForeignKey("executions.id"), nullable=False),
    Column("key", Word, nullable=False),
    Column("fingerprint", Word, nullable=False),
    Column("call_id", Word, nullable=False),
    Column("answer", Json, nullable=False),
    Column("saved_at", Instant, nullable=False),
    PrimaryKeyConstraint("execution_id", "key"),
)
_a = model_answers.c
Index("ix_model_answers_saved", _a.saved_at)

model_settings = Table(
    "model_settings",
    metadata,
    Column("org_id", Word, nullable=False),
    Column("workspace_id", Word, nullable=False),
    Column("document", Json, nullable=False),
    Column("updated_at", Instant, nullable=False),
    Column("updated_by", sa.Text, nullable=False),
    PrimaryKeyConstraint("workspace_id", "org_id"),
)
_s = model_settings.c

_LIST: Final = "model_calls"
_INSERT_CALL = Query("insert model call", sa.insert(model_calls).inline())


def _page(name: str, *conditions: Any) -> Query:
    statement = sa.select(*model_calls.columns).where(
        _m.workspace_id == bindparam("workspace_id"), _m.org_id == bindparam("org_id"), *conditions
    )
    return Query(name, statement.order_by(_m.created_at.desc(), _m.id.desc()).limit(bindparam("limit")))


_BEFORE: Final = sa.tuple_(_m.created_at, _m.id) < sa.tuple_(
    bindparam("created_at", type_=Instant), bindparam("id", type_=Word)
)
_OF_ONE: Final = _m.execution_id == bindparam("execution_id")
_PAGES: Final = {
    (False, False): _page("list model calls"),
    (False, True): _page("list model calls further", _BEFORE),
    (True, False): _page("list model calls of an execution", _OF_ONE),
    (True, True): _page("list model calls of an execution further", _OF_ONE, _BEFORE),
}
_FIND_ANSWER = Query(
    "find model answer",
    sa.select(_a.execution_id, _a.key, _a.fingerprint, _a.call_id, _a.answer).where(
        _a.execution_id == bindparam("execution_id"), _a.key == bindparam("key")
    ),
)
# The first answer stays: whoever asked for it may have gone on with it.
_SAVE_ANSWER = UpsertQuery(
    "save model answer",
    model_answers,
    lambda insert: insert.on_conflict_do_nothing(index_elements=["execution_id", "key"]),
)
_OLD_ANSWERS = Query(
    "old model answers",
    sa.select(_a.execution_id, _a.key)
    .where(_a.saved_at < bindparam("before"))
    .order_by(_a.saved_at)
    .limit(bindparam("limit")),
)
_DELETE_ANSWER = Query(
    "delete model answer",
    sa.delete(model_answers)
    .where(_a.execution_id == bindparam("execution_id"), _a.key == bindparam("key"))
    .returning(_a.key),
)
_FIND_SETTINGS = Query(
    "find model settings",
    sa.select(_s.document).where(_s.workspace_id == bindparam("workspace_id"), _s.org_id == bindparam("org_id")),
)
_SAVE_SETTINGS = UpsertQuery(
    "save model settings",
    model_settings,
    lambda insert: insert.on_conflict_do_update(
        index_elements=["workspace_id", "org_id"],
        set_={
            "document": insert.excluded.document,
            "updated_at": insert.excluded.updated_at,
            "updated_by": insert.excluded.updated_by,
        },
    ),
)


class ModelRows:
    """Implements `ModelTable`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def insert_call(self, call: ModelCall) -> None:
        values = dict(vars(call))
        usage: TokenUsage = values.pop("usage")
        values |= {
            "created_at": to_micros(call.created_at),
            "prompt_tokens": usage.prompt,
            "completion_tokens": usage.completion,
            "cached_tokens": usage.cached,
            "is_estimated": usage.is_estimated,
        }
        self._connection.run(_INSERT_CALL, values)

    def list_calls(
        self, org_id: str, workspace_id: str, where: ModelCallFilter, cursor: str | None, limit: int
    ) -> Page:
        parameters: dict[str, Any] = {"org_id": org_id, "workspace_id": workspace_id, "limit": limit + 1}
        if where.execution_id is not None:
            parameters["execution_id"] = where.execution_id
        if cursor is not None:
            parameters["created_at"], parameters["id"] = cursors.decode(_LIST, cursor)
        rows = self._connection.rows(_PAGES[where.execution_id is not None, cursor is not None], parameters)
        items = [_call(row) for row in rows]
        if len(items) <= limit:
            return Page(items, None)
        last = items[limit - 1]
        return Page(items[:limit], cursors.encode(_LIST, to_micros(last.created_at), last.id))

    def find_answer(self, execution_id: str, key: str) -> ModelAnswer | None:
        row = self._connection.row(_FIND_ANSWER, {"execution_id": execution_id, "key": key})
        return ModelAnswer(*row) if row else None

    def save_answer(self, answer: ModelAnswer, at: datetime) -> None:
        self._connection.run(_SAVE_ANSWER, {**vars(answer), "saved_at": to_micros(at)})

    def delete_answers_before(self, at: datetime, limit: int) -> int:
        rows = self._connection.rows(_OLD_ANSWERS, {"before": to_micros(at), "limit": limit})
        keys = [{"execution_id": execution_id, "key": key} for execution_id, key in rows]
        return len(self._connection.rows_of_each(_DELETE_ANSWER, keys))

    def find_settings(self, org_id: str, workspace_id: str) -> str | None:
        row = self._connection.row(_FIND_SETTINGS, {"org_id": org_id, "workspace_id": workspace_id})
        return row[0] if row else None

    def save_settings(self, org_id: str, workspace_id: str, document: str, by: str, at: datetime) -> None:
        self._connection.run(
            _SAVE_SETTINGS,
            {
                "org_id": org_id,
                "workspace_id": workspace_id,
                "document": document,
                "updated_at": to_micros(at),
                "updated_by": by,
            },
        )


def _call(row: tuple[Any, ...]) -> ModelCall:
    values = dict(zip((column.name for column in model_calls.columns), row, strict=True))
    usage = TokenUsage(
        values.pop("prompt_tokens"),
        values.pop("completion_tokens"),
        values.pop("cached_tokens"),
        bool(values.pop("is_estimated")),
    )
    values["created_at"] = from_micros(values["created_at"])
    values["is_streamed"] = bool(values["is_streamed"])
    return ModelCall(**values, usage=usage)
