"""Encrypted secrets, and the encrypted keys of their workspaces."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy import Column, PrimaryKeyConstraint, Table, bindparam

from flow_platform.domain.secrets import DataKey, SealedSecret, SecretInfo
from flow_platform.store.connection import Connection, Row
from flow_platform.store.instants import from_micros, to_micros
from flow_platform.store.query import Query, UpsertQuery
from flow_platform.store.tables import Instant, Word, metadata

data_keys = Table(
    "data_keys",
    metadata,
    Column("workspace_id", Word, nullable=False),
    Column("org_id", Word, nullable=False),
    Column("master_key_id", Word, nullable=False),
    Column("wrapped", sa.LargeBinary, nullable=False),
    Column("created_at", Instant, nullable=False),
    PrimaryKeyConstraint("workspace_id", "org_id"),
)

# `ring_id` is empty for the value of the whole workspace: part of the key, so it cannot be NULL.
secrets = Table(
    "secrets",
    metadata,
    Column("workspace_id", Word, nullable=False),
    Column("org_id", Word, nullable=False),
    Column("name", Word, nullable=False),
    Column("ring_id", Word, nullable=False),
    Column("version", sa.BigInteger, nullable=False),
    Column("sealed", sa.LargeBinary, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("created_by", sa.Text, nullable=False),
    PrimaryKeyConstraint("workspace_id", "org_id", "name", "ring_id"),
)

_k = data_keys.c
_s = secrets.c
_SECRET = (_s.org_id, _s.workspace_id, _s.name, _s.ring_id, _s.version, _s.created_at, _s.created_by, _s.sealed)
_KEY = (_k.org_id, _k.workspace_id, _k.master_key_id, _k.wrapped, _k.created_at)
_OF_WORKSPACE = (_s.workspace_id == bindparam("workspace_id"), _s.org_id == bindparam("org_id"))
_NAMED = (*_OF_WORKSPACE, _s.name == bindparam("name"))

_SAVE = UpsertQuery(
    "save secret",
    secrets,
    lambda insert: insert.on_conflict_do_update(
        index_elements=[_s.workspace_id, _s.org_id, _s.name, _s.ring_id],
        set_={name: insert.excluded[name] for name in ("version", "sealed", "created_at", "created_by")},
    ),
)
_OF_NAME = Query("secrets of a name", sa.select(*_SECRET).where(*_NAMED))
_LIST = Query("list secrets", sa.select(*_SECRET).where(*_OF_WORKSPACE).order_by(_s.name, _s.ring_id))
_COUNT = Query("count secrets", sa.select(sa.func.count()).where(*_OF_WORKSPACE))
_DELETE = Query("delete secret", sa.delete(secrets).where(*_NAMED, _s.ring_id == bindparam("ring_id")))
_DELETE_ALL = Query("delete secrets of a workspace", sa.delete(secrets).where(*_OF_WORKSPACE))

_INSERT_KEY = Query("insert data key", sa.insert(data_keys).inline())
_OF_KEY = (_k.workspace_id == bindparam("workspace_id"), _k.org_id == bindparam("org_id"))
_FIND_KEY = Query("find data key", sa.select(*_KEY).where(*_OF_KEY))
_KEYS = Query("data keys", sa.select(*_KEY).order_by(_k.workspace_id, _k.org_id))
_REWRAP = Query(
    "rewrap data key",
    sa.update(data_keys)
    .where(
        _k.workspace_id == bindparam("workspace_id_"),
        _k.org_id == bindparam("org_id_"),
        _k.master_key_id == bindparam("before"),
    )
    .values(master_key_id=bindparam("master_key_id"), wrapped=bindparam("wrapped")),
)
_DELETE_KEY = Query("delete data key", sa.delete(data_keys).where(*_OF_KEY))


class SecretRows:
    """Implements `secret_table.SecretTable`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def save(self, secret: SealedSecret) -> None:
        info = secret.info
        self._connection.run(
            _SAVE,
            {
                "org_id": info.org_id,
                "workspace_id": info.workspace_id,
                "name": info.name,
                "ring_id": info.ring_id,
                "version": info.version,
                "sealed": secret.sealed,
                "created_at": to_micros(info.created_at),
                "created_by": info.created_by,
            },
        )

    def find(self, org_id: str, workspace_id: str, names: Sequence[str]) -> list[SealedSecret]:
        sets = [{"org_id": org_id, "workspace_id": workspace_id, "name": name} for name in names]
        return [_secret(row) for row in self._connection.rows_of_each(_OF_NAME, sets)]

    def of_workspace(self, org_id: str, workspace_id: str) -> list[SecretInfo]:
        rows = self._connection.rows(_LIST, {"org_id": org_id, "workspace_id": workspace_id})
        return [_secret(row).info for row in rows]

    def count(self, org_id: str, workspace_id: str) -> int:
        row = self._connection.row(_COUNT, {"org_id": org_id, "workspace_id": workspace_id})
        return row[0] if row else 0

    def delete(self, org_id: str, workspace_id: str, name: str, ring_id: str) -> bool:
        parameters = {"org_id": org_id, "workspace_id": workspace_id, "name": name, "ring_id": ring_id}
        return self._connection.run(_DELETE, parameters) == 1

    def insert_key(self, key: DataKey) -> None:
        self._connection.run(
            _INSERT_KEY,
            {
                "org_id": key.org_id,
                "workspace_id": key.workspace_id,
                "master_key_id": key.master_key_id,
                "wrapped": key.wrapped,
                "created_at": to_micros(key.created_at),
            },
        )

    def find_key(self, org_id: str, workspace_id: str) -> DataKey | None:
        row = self._connection.row(_FIND_KEY, {"org_id": org_id, "workspace_id": workspace_id})
        return _key(row) if row else None

    def keys(self) -> list[DataKey]:
        return [_key(row) for row in self._connection.rows(_KEYS, {})]

    def rewrap(self, key: DataKey, before: str) -> bool:
        parameters = {"workspace_id_": key.workspace_id, "org_id_": key.org_id, "before": before}
        wrapped = {"master_key_id": key.master_key_id, "wrapped": key.wrapped}
        return self._connection.run(_REWRAP, parameters | wrapped) == 1

    def forget(self, org_id: str, workspace_id: str) -> None:
        parameters = {"org_id": org_id, "workspace_id": workspace_id}
        self._connection.run(_DELETE_ALL, parameters)
        self._connection.run(_DELETE_KEY, parameters)


def _secret(row: Row) -> SealedSecret:
    org_id, workspace_id, name, ring_id, version, created_at, created_by, sealed = row
    info = SecretInfo(org_id, workspace_id, name, ring_id, version, from_micros(created_at), created_by)
    return SealedSecret(info, bytes(sealed))


def _key(row: Row) -> DataKey:
    org_id, workspace_id, master_key_id, wrapped, created_at = row
    return DataKey(org_id, workspace_id, master_key_id, bytes(wrapped), from_micros(created_at))
