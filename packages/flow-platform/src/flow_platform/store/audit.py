"""The audit log as rows. Triggers refuse to change or delete them, in both databases."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import Column, Index, PrimaryKeyConstraint, Table, bindparam

from flow_platform.domain.audit import GENESIS, AuditEntry, seal
from flow_platform.store.audit_table import AuditFilter
from flow_platform.store.connection import Connection, Row
from flow_platform.store.instants import to_micros
from flow_platform.store.ledger_triggers import refuse_changes
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
)
_e = audit_entries.c
_h = audit_heads.c
Index("ix_audit_entries_at", _e.org_id, _e.at)
refuse_changes(audit_entries)

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
        self._connection.run(_SET_HEAD, {"org_id": org_id, "sequence": entry.sequence, "hash": entry.hash})
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
