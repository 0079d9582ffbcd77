"""Organizations, workspaces, signing keys."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy import bindparam

from flow_platform.store.base import SigningKey, Workspace
from flow_platform.store.connection import Connection
from flow_platform.store.instants import from_micros, from_micros_or_none, to_micros, to_micros_or_none
from flow_platform.store.query import Query
from flow_platform.store.tables import organizations, signing_keys, workspaces

_w = workspaces.c
_k = signing_keys.c
_INSERT_ORGANIZATION = Query("insert organization", sa.insert(organizations).inline())
_INSERT_WORKSPACE = Query("insert workspace", sa.insert(workspaces).inline())
_FIRST_WORKSPACE = Query(
    "first workspace", sa.select(_w.org_id, _w.id, _w.name).order_by(_w.created_at, _w.id).limit(sa.literal_column("1"))
)
_FIND_WORKSPACE = Query(
    "find workspace",
    sa.select(_w.org_id, _w.id, _w.name).where(_w.id == bindparam("id"), _w.org_id == bindparam("org_id")),
)
_LIST_WORKSPACES = Query(
    "list workspaces",
    sa.select(_w.org_id, _w.id, _w.name)
    .where(_w.org_id == bindparam("org_id"))
    .order_by(_w.created_at, _w.id)
    .limit(bindparam("limit")),
)
_INSERT_KEY = Query("insert signing key", sa.insert(signing_keys).inline())
_KEYS = Query(
    "signing keys",
    sa.select(_k.kid, _k.private_pem, _k.public_pem, _k.created_at, _k.retired_at).order_by(
        _k.created_at.desc(), _k.kid.desc()
    ),
)


class TenancyRows:
    """Implements `base.TenancyTable`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def insert_organization(self, org_id: str, name: str, at: datetime) -> None:
        self._connection.run(_INSERT_ORGANIZATION, {"id": org_id, "name": name, "created_at": to_micros(at)})

    def insert_workspace(self, workspace: Workspace, at: datetime) -> None:
        self._connection.run(
            _INSERT_WORKSPACE,
            {
                "id": workspace.workspace_id,
                "org_id": workspace.org_id,
                "name": workspace.name,
                "created_at": to_micros(at),
            },
        )

    def first_workspace(self) -> Workspace | None:
        row = self._connection.row(_FIRST_WORKSPACE, {})
        return Workspace(*row) if row else None

    def find_workspace(self, org_id: str, workspace_id: str) -> Workspace | None:
        row = self._connection.row(_FIND_WORKSPACE, {"id": workspace_id, "org_id": org_id})
        return Workspace(*row) if row else None

    def list_workspaces(self, org_id: str, limit: int) -> list[Workspace]:
        return [Workspace(*row) for row in self._connection.rows(_LIST_WORKSPACES, {"org_id": org_id, "limit": limit})]

    def insert_signing_key(self, key: SigningKey) -> None:
        self._connection.run(
            _INSERT_KEY,
            {
                "kid": key.kid,
                "private_pem": key.private_pem,
                "public_pem": key.public_pem,
                "created_at": to_micros(key.created_at),
                "retired_at": to_micros_or_none(key.retired_at),
            },
        )

    def signing_keys(self) -> list[SigningKey]:
        return [
            SigningKey(kid, private_pem, public_pem, from_micros(created_at), from_micros_or_none(retired_at))
            for kid, private_pem, public_pem, created_at, retired_at in self._connection.rows(_KEYS, {})
        ]
