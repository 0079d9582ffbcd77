"""API keys, by their digests."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy import Column, Index, Table, UniqueConstraint, bindparam

from flow_platform.domain.api_key import ApiKey
from flow_platform.domain.principal import Role
from flow_platform.store.connection import Connection, Row
from flow_platform.store.instants import from_micros, from_micros_or_none, to_micros, to_micros_or_none
from flow_platform.store.query import Query
from flow_platform.store.tables import Instant, Word, metadata

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Word, primary_key=True),
    Column("org_id", Word, nullable=False),
    Column("workspace_id", Word, nullable=False),  # Of a key for the whole organization: the id of that.
    Column("name", sa.Text, nullable=False),
    Column("role", Word, nullable=False),
    Column("shown", Word, nullable=False),
    Column("digest", Word, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("created_by", sa.Text, nullable=False),
    Column("expires_at", Instant, nullable=False),
    Column("last_used_at", Instant, nullable=True),
    Column("custom_role", Word, nullable=True),
    UniqueConstraint("digest"),
)
_a = api_keys.c
Index("ix_api_keys_workspace", _a.workspace_id, _a.created_at, _a.id)

_INSERT = Query("insert api key", sa.insert(api_keys).inline())
_FIND = Query("find api key", sa.select(*_a).where(_a.digest == bindparam("digest")))
_OF_WORKSPACE = (_a.workspace_id == bindparam("workspace_id"), _a.org_id == bindparam("org_id"))
_LIST = Query("list api keys", sa.select(*_a).where(*_OF_WORKSPACE).order_by(_a.created_at.desc(), _a.id.desc()))
_COUNT = Query("count api keys", sa.select(sa.func.count()).where(*_OF_WORKSPACE))
_EXISTS = Query("api key exists", sa.select(_a.id).where(_a.id == bindparam("id"), *_OF_WORKSPACE))
_DELETE = Query("delete api key", sa.delete(api_keys).where(_a.id == bindparam("id"), *_OF_WORKSPACE))
_NOTE_USE = Query(
    "note use of api key", sa.update(api_keys).where(_a.id == bindparam("id_")).values(last_used_at=bindparam("at"))
)


class ApiKeyRows:
    """Implements `api_key_table.ApiKeyTable`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def insert(self, key: ApiKey) -> None:
        self._connection.run(
            _INSERT,
            {
                "id": key.id,
                "org_id": key.org_id,
                "workspace_id": key.workspace_id or key.org_id,
                "name": key.name,
                "role": key.role.value,
                "shown": key.shown,
                "digest": key.digest,
                "created_at": to_micros(key.created_at),
                "created_by": key.created_by,
                "expires_at": to_micros(key.expires_at),
                "last_used_at": to_micros_or_none(key.last_used_at),
                "custom_role": key.custom_role,
            },
        )

    def find_by_digest(self, digest: str) -> ApiKey | None:
        row = self._connection.row(_FIND, {"digest": digest})
        return _key(row) if row else None

    def of_workspace(self, org_id: str, workspace_id: str | None) -> list[ApiKey]:
        rows = self._connection.rows(_LIST, {"org_id": org_id, "workspace_id": workspace_id or org_id})
        return [_key(row) for row in rows]

    def count(self, org_id: str, workspace_id: str | None) -> int:
        row = self._connection.row(_COUNT, {"org_id": org_id, "workspace_id": workspace_id or org_id})
        return row[0] if row else 0

    def exists(self, org_id: str, workspace_id: str | None, key_id: str) -> bool:
        parameters = {"id": key_id, "org_id": org_id, "workspace_id": workspace_id or org_id}
        return self._connection.row(_EXISTS, parameters) is not None

    def delete(self, org_id: str, workspace_id: str | None, key_id: str) -> bool:
        return (
            self._connection.run(_DELETE, {"id": key_id, "org_id": org_id, "workspace_id": workspace_id or org_id}) == 1
        )

    def note_use(self, key_id: str, at: datetime) -> None:
        self._connection.run(_NOTE_USE, {"id_": key_id, "at": to_micros(at)})


def _key(row: Row) -> ApiKey:
    id_, org_id, workspace_id, name, role, shown, digest, created_at, created_by, expires_at, last_used_at, custom = row
    return ApiKey(
        id=id_,
        org_id=org_id,
        workspace_id=None if workspace_id == org_id else workspace_id,
        name=name,
        role=Role(role),
        shown=shown,
        digest=digest,
        created_at=from_micros(created_at),
        created_by=created_by,
        expires_at=from_micros(expires_at),
        last_used_at=from_micros_or_none(last_used_at),
        custom_role=custom,
    )
