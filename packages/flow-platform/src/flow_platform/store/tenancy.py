"""Organizations, workspaces, signing keys."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy import bindparam

from flow_platform.domain.release import merge_variables
from flow_platform.store.base import SigningKey, Workspace
from flow_platform.store.connection import Connection
from flow_platform.store.documents import json_or_null, value_or
from flow_platform.store.instants import from_micros, from_micros_or_none, to_micros, to_micros_or_none
from flow_platform.store.query import Query
from flow_platform.store.tables import organizations, rings, signing_keys, workspaces

_o = organizations.c
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
_LOCK_ORGANIZATION = Query("lock organization", sa.select(_o.id).where(_o.id == bindparam("org_id")).with_for_update())
_LIST_WORKSPACES = Query(
    "list workspaces",
    sa.select(_w.org_id, _w.id, _w.name)
    .where(_w.org_id == bindparam("org_id"))
    .order_by(_w.created_at, _w.id)
    .limit(bindparam("limit")),
)
_ORGANIZATION_ENV = Query("variables of an organization", sa.select(_o.env).where(_o.id == bindparam("org_id")))
_WORKSPACE_ENV = Query(
    "variables of a workspace",
    sa.select(_w.env).where(_w.id == bindparam("workspace_id"), _w.org_id == bindparam("org_id")),
)
_SET_ORGANIZATION_ENV = Query(
    "set variables of an organization",
    sa.update(organizations).where(_o.id == bindparam("org_id_")).values(env=bindparam("env")),
)
_SET_WORKSPACE_ENV = Query(
    "set variables of a workspace",
    sa.update(workspaces)
    .where(_w.id == bindparam("workspace_id_"), _w.org_id == bindparam("org_id_"))
    .values(env=bindparam("env")),
)
_MERGED_ENV = Query(
    "merged variables",
    sa.select(_o.env, _w.env, rings.c.env)
    .select_from(
        workspaces.join(organizations, _o.id == _w.org_id).outerjoin(
            rings, (rings.c.id == bindparam("ring_id")) & (rings.c.workspace_id == _w.id)
        )
    )
    .where(_w.id == bindparam("workspace_id"), _w.org_id == bindparam("org_id")),
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
        row = {"id": org_id, "name": name, "created_at": to_micros(at), "env": None}
        self._connection.run(_INSERT_ORGANIZATION, row)

    def insert_workspace(self, workspace: Workspace, at: datetime) -> None:
        self._connection.run(
            _INSERT_WORKSPACE,
            {
                "id": workspace.workspace_id,
                "org_id": workspace.org_id,
                "name": workspace.name,
                "created_at": to_micros(at),
                "env": None,
            },
        )

    def first_workspace(self) -> Workspace | None:
        row = self._connection.row(_FIRST_WORKSPACE, {})
        return Workspace(*row) if row else None

    def find_workspace(self, org_id: str, workspace_id: str) -> Workspace | None:
        row = self._connection.row(_FIND_WORKSPACE, {"id": workspace_id, "org_id": org_id})
        return Workspace(*row) if row else None

    def lock_organization(self, org_id: str) -> None:
        self._connection.row(_LOCK_ORGANIZATION, {"org_id": org_id})

    def list_workspaces(self, org_id: str, limit: int) -> list[Workspace]:
        return [Workspace(*row) for row in self._connection.rows(_LIST_WORKSPACES, {"org_id": org_id, "limit": limit})]

    def variables(self, org_id: str, workspace_id: str | None = None) -> dict[str, str]:
        query = _ORGANIZATION_ENV if workspace_id is None else _WORKSPACE_ENV
        row = self._connection.row(query, _scope(org_id, workspace_id))
        return value_or(row[0], {}) if row else {}

    def set_variables(self, org_id: str, workspace_id: str | None, env: dict[str, str]) -> bool:
        query = _SET_ORGANIZATION_ENV if workspace_id is None else _SET_WORKSPACE_ENV
        parameters = {f"{name}_": value for name, value in _scope(org_id, workspace_id).items()}
        return self._connection.run(query, {**parameters, "env": json_or_null(env, {})}) > 0

    def merged_variables(self, org_id: str, workspace_id: str, ring_id: str | None) -> dict[str, str]:
        parameters = {"org_id": org_id, "workspace_id": workspace_id, "ring_id": ring_id}
        row = self._connection.row(_MERGED_ENV, parameters)
        return merge_variables(*(value_or(text, {}) for text in row)) if row else {}

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


def _scope(org_id: str, workspace_id: str | None) -> dict[str, str]:
    return {"org_id": org_id} if workspace_id is None else {"org_id": org_id, "workspace_id": workspace_id}
