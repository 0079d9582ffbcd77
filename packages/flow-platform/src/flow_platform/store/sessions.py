"""Sessions of agents, and which execution is a turn of which."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Column, ForeignKey, Index, PrimaryKeyConstraint, Table, bindparam

from flow_platform.domain.session import Session, SessionKey
from flow_platform.store.connection import Connection, Row
from flow_platform.store.documents import json_or_null, value_or
from flow_platform.store.instants import from_micros, to_micros
from flow_platform.store.query import Query, UpsertQuery
from flow_platform.store.tables import Instant, Json, Word, metadata

sessions = Table(
    "sessions",
    metadata,
    Column("component_id", Word, nullable=False),
    Column("ring_id", Word, nullable=False),
    Column("owner", Word, nullable=False),
    Column("session_id", Word, nullable=False),
    Column("org_id", Word, nullable=False),
    Column("workspace_id", Word, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("updated_at", Instant, nullable=False),
    Column("messages", Json, nullable=True),
    Column("state", Json, nullable=True),
    Column("turns", sa.BigInteger, nullable=False),
    Column("holder_id", Word, nullable=True),
    Column("queued", Json, nullable=True),
    PrimaryKeyConstraint("component_id", "ring_id", "owner", "session_id"),
)
session_turns = Table(
    "session_turns",
    metadata,
    Column("execution_id", Word, ForeignKey("executions.id"), primary_key=True),
    Column("component_id", Word, nullable=False),
    Column("ring_id", Word, nullable=False),
    Column("owner", Word, nullable=False),
    Column("session_id", Word, nullable=False),
)
_s = sessions.c
_t = session_turns.c
Index("ix_sessions_list", _s.workspace_id, _s.component_id, _s.updated_at)

_KEY = ("component_id", "ring_id", "owner", "session_id")
_IS_KEY = tuple(_s[name] == bindparam(f"{name}_") for name in _KEY)
_CHANGING = ("updated_at", "messages", "state", "turns", "holder_id", "queued")
_FIND = Query("find session", sa.select(*_s).where(*_IS_KEY))
_LOCK = Query("lock session", sa.select(*_s).where(*_IS_KEY).with_for_update())
_ENSURE = UpsertQuery(
    "ensure session",
    sessions,
    # Not "do nothing": that would not lock the row.
    lambda insert: insert.inline().on_conflict_do_update(index_elements=list(_KEY), set_={"turns": sessions.c.turns}),
)
_UPDATE = Query(
    "update session", sa.update(sessions).where(*_IS_KEY).values({name: bindparam(name) for name in _CHANGING})
)
_LIST = Query(
    "list sessions",
    sa.select(*[column for column in _s if column.name not in ("messages", "state")])
    .where(
        _s.org_id == bindparam("org_id"),
        _s.workspace_id == bindparam("workspace_id"),
        _s.component_id == bindparam("component_id"),
    )
    .order_by(_s.updated_at.desc(), _s.session_id)
    .limit(bindparam("limit")),
)
_DELETE = Query("delete session", sa.delete(sessions).where(*_IS_KEY))
_KEEP_TURN = Query("insert session turn", sa.insert(session_turns).inline())
_KEY_OF = Query(
    "session of execution",
    sa.select(_t.component_id, _t.ring_id, _t.owner, _t.session_id).where(_t.execution_id == bindparam("execution_id")),
)


class SessionRows:
    """Implements `session_table.SessionTable`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def find(self, key: SessionKey, *, for_update: bool = False) -> Session | None:
        row = self._connection.row(_LOCK if for_update else _FIND, _where(key))
        return _session(row) if row else None

    def ensure(self, session: Session) -> Session:
        key = session.key
        self._connection.run(
            _ENSURE,
            {
                **vars(key),
                "org_id": session.org_id,
                "workspace_id": session.workspace_id,
                "created_at": to_micros(session.created_at),
                **_values(session),
            },
        )
        return self.find(key, for_update=True) or session

    def update(self, session: Session) -> None:
        self._connection.run(_UPDATE, {**_where(session.key), **_values(session)})

    def list(self, org_id: str, workspace_id: str, component_id: str, limit: int) -> Sequence[Session]:
        parameters = {"org_id": org_id, "workspace_id": workspace_id, "component_id": component_id, "limit": limit}
        return [_session((*row[:8], None, None, *row[8:])) for row in self._connection.rows(_LIST, parameters)]

    def delete(self, key: SessionKey) -> bool:
        return self._connection.run(_DELETE, _where(key)) == 1

    def keep_turn(self, execution_id: str, key: SessionKey) -> None:
        self._connection.run(_KEEP_TURN, {"execution_id": execution_id, **vars(key)})

    def key_of(self, execution_id: str) -> SessionKey | None:
        row = self._connection.row(_KEY_OF, {"execution_id": execution_id})
        return SessionKey(*row) if row else None


def _where(key: SessionKey) -> dict[str, Any]:
    return {f"{name}_": value for name, value in vars(key).items()}


def _values(session: Session) -> dict[str, Any]:
    return {
        "updated_at": to_micros(session.updated_at),
        "messages": json_or_null(session.messages, []),
        "state": json_or_null(session.state, {}),
        "turns": session.turns,
        "holder_id": session.holder_id,
        "queued": json_or_null(list(session.queued), []),
    }


def _session(row: Row | tuple[Any, ...]) -> Session:
    component_id, ring_id, owner, session_id, org_id, workspace_id, created_at, updated_at, *rest = row
    messages, state, turns, holder_id, queued = rest
    return Session(
        key=SessionKey(component_id, ring_id, owner, session_id),
        org_id=org_id,
        workspace_id=workspace_id,
        created_at=from_micros(created_at),
        updated_at=from_micros(updated_at),
        messages=value_or(messages, []),
        state=value_or(state, {}),
        turns=turns,
        holder_id=holder_id,
        queued=tuple(value_or(queued, [])),
    )
