"""The audit log as rows. Triggers, in both databases, refuse to change them, and to delete others than the oldest."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import Column, Index, PrimaryKeyConstraint, Table, bindparam

from flow_platform.domain.audit import GENESIS, AuditEntry, seal
from flow_platform.store.audit_table import AuditFilter
from flow_platform.store.audit_triggers import protect
from flow_platform.store.connection import Connection, Row
from flow_platform.store.instants import to_micros
from flow_platform.store.query import Query, UpsertQuery
from flow_platform.store.tables import Instant, Word, metadata

audit_entries = Table(
    "audit_entries",
    metadata,
    Column("org_id", Word, nullable=False),
    Column("sequence", sa.BigInteger, nullable=False),
    Column("at", Instant, nullable=False),
    Column("kind", Word, nullable=False),
    Column("action", Word, nullable=False),
    Column("subject", sa.Text, nullable=False),
    Column("workspace_id", Word, nullable=True),
    Column("text", sa.Text, nullable=False),
    Column("hash", Word, nullable=False),
    PrimaryKeyConstraint("org_id", "sequence"),
)
# One row per organization, which is locked to append: two servers write one chain.
audit_heads = Table(
    "audit_heads",
    metadata,
    Column("org_id", Word, primary_key=True),
    Column("sequence", sa.BigInteger, nullable=False),
    Column("hash", Word, nullable=False),
    Column("removed_to", sa.BigInteger, nullable=False, server_default="0"),
)
_e = audit_entries.c
_h = audit_heads.c
Index("ix_audit_entries_at", _e.org_id, _e.at)
protect(audit_entries)

_COLUMNS: Final = (_e.org_id, _e.sequence, _e.text, _e.hash)
_OF_ORGANIZATION: Final = _e.org_id == bindparam("org_id")
_FILTERS: Final = {
    "kind": _e.kind == bindparam("kind"),
    "action": _e.action == bindparam("action"),
    "subject": _e.subject == bindparam("subject"),
    "workspace_id": _e.workspace_id == bindparam("workspace_id"),
    "since": _e.at >= bindparam("since"),
    "until": _e.at < bindparam("until"),
    "before": _e.sequence < bindparam("before"),
}
_INSERT = Query("append audit entry", sa.insert(audit_entries).inline())
_head = sa.select(_h.sequence, _h.hash).where(_h.org_id == bindparam("org_id"))
_HEAD = Query("head of audit log", _head)
_HEAD_LOCKED = Query("head of audit log for update", _head.with_for_update())
_SET_HEAD = UpsertQuery(
    "set head of audit log",
    audit_heads,
    lambda insert: insert.on_conflict_do_update(
        index_elements=[_h.org_id], set_={name: insert.excluded[name] for name in ("sequence", "hash")}
    ),
)
_AFTER = Query(
    "audit entries in order",
    sa.select(*_COLUMNS)
    .where(_OF_ORGANIZATION, _e.sequence > bindparam("sequence"))
    .order_by(_e.sequence)
    .limit(bindparam("limit", type_=sa.BigInteger)),
)
_ORGANIZATIONS = Query("organizations of audit log", sa.select(_h.org_id).order_by(_h.org_id))
_REMOVED = Query(
    "removed of audit log for update",
    sa.select(_h.removed_to).where(_h.org_id == bindparam("org_id")).with_for_update(),
)
_LAST_BEFORE = Query(
    "last audit entry before",
    sa.select(_e.sequence)
    .where(_OF_ORGANIZATION, _e.at < bindparam("before"))
    .order_by(_e.at.desc(), _e.sequence.desc())
    .limit(1),
)
_SET_REMOVED = Query(
    "set removed of audit log",
    sa.update(audit_heads).where(_h.org_id == bindparam("org_id_")).values(removed_to=bindparam("to")),
)
_REMOVE = Query(
    "remove audit entries", sa.delete(audit_entries).where(_OF_ORGANIZATION, _e.sequence <= bindparam("to"))
)
_pages: dict[tuple[str, ...], Query] = {}


class AuditRows:
    """Implements `audit_table.AuditTable`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def append(self, org_id: str, content: Mapping[str, Any], at: datetime) -> AuditEntry:
        row = self._connection.row(_HEAD_LOCKED, {"org_id": org_id})
        sequence, previous = (row[0], row[1]) if row else (0, GENESIS)
        entry = seal(org_id, sequence + 1, previous, {**content, "at": at.isoformat()})
        self._connection.run(
            _INSERT,
            {
                "org_id": org_id,
                "sequence": entry.sequence,
                "at": to_micros(at),
                "kind": content["kind"],
                "action": content["action"],
                "subject": content["subject"],
                "workspace_id": content.get("workspace_id"),
                "text": entry.text,
                "hash": entry.hash,
            },
        )
        head = {"org_id": org_id, "sequence": entry.sequence, "hash": entry.hash, "removed_to": 0}
        self._connection.run(_SET_HEAD, head)  # Which leaves what was removed as it is.
        return entry

    def page(self, org_id: str, where: AuditFilter, before: int | None, limit: int) -> list[AuditEntry]:
        given: dict[str, Any] = {name: getattr(where, name) for name in ("kind", "action", "subject", "workspace_id")}
        given["since"] = to_micros(where.since) if where.since else None
        given["until"] = to_micros(where.until) if where.until else None
        given["before"] = before
        parameters = {name: value for name, value in given.items() if value is not None}
        rows = self._connection.rows(_page_query(tuple(parameters)), {**parameters, "org_id": org_id, "limit": limit})
        return [_entry(row) for row in rows]

    def after(self, org_id: str, sequence: int, limit: int) -> list[AuditEntry]:
        rows = self._connection.rows(_AFTER, {"org_id": org_id, "sequence": sequence, "limit": limit})
        return [_entry(row) for row in rows]

    def head(self, org_id: str) -> tuple[int, str]:
        row = self._connection.row(_HEAD, {"org_id": org_id})
        return (row[0], row[1]) if row else (0, GENESIS)

    def organizations(self) -> list[str]:
        return [row[0] for row in self._connection.rows(_ORGANIZATIONS, {})]

    def removable(self, org_id: str, before: datetime, limit: int) -> tuple[int, AuditEntry | None]:
        removed = self._connection.row(_REMOVED, {"org_id": org_id})
        last = self._connection.row(_LAST_BEFORE, {"org_id": org_id, "before": to_micros(before)})
        if removed is None or last is None or last[0] <= removed[0]:
            return removed[0] if removed else 0, None
        found = self.after(org_id, min(last[0], removed[0] + limit) - 1, 1)
        return removed[0], found[0]

    def remove_to(self, org_id: str, sequence: int) -> None:
        self._connection.run(_SET_REMOVED, {"org_id_": org_id, "to": sequence})
        self._connection.run(_REMOVE, {"org_id": org_id, "to": sequence})


def _page_query(names: tuple[str, ...]) -> Query:
    found = _pages.get(names)
    if found is None:
        statement = (
            sa.select(*_COLUMNS)
            .where(_OF_ORGANIZATION, *(_FILTERS[name] for name in names))
            .order_by(_e.sequence.desc())
            .limit(bindparam("limit", type_=sa.BigInteger))
        )
        found = _pages[names] = Query("page of audit log", statement)
    return found


def _entry(row: Row) -> AuditEntry:
    org_id, sequence, text, digest = row
    return AuditEntry(org_id, sequence, text, digest)
