"""Retired signing keys, revocations, custom roles."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy import Column, PrimaryKeyConstraint, Table, bindparam

from flow_platform.domain.principal import Action
from flow_platform.domain.roles import CustomRole, Revocation
from flow_platform.store.connection import Connection, Row
from flow_platform.store.instants import from_micros, to_micros
from flow_platform.store.query import Query
from flow_platform.store.tables import Instant, Word, metadata, signing_keys

revocations = Table(
    "revocations",
    metadata,
    Column("org_id", Word, nullable=False),
    Column("kind", Word, nullable=False),
    Column("name", sa.Text, nullable=False),
    Column("revoked_at", Instant, nullable=False),
    Column("revoked_by", sa.Text, nullable=False),
    Column("expires_at", Instant, nullable=False),
    PrimaryKeyConstraint("org_id", "kind", "name"),
)
roles = Table(
    "roles",
    metadata,
    Column("workspace_id", Word, nullable=False),
    Column("name", Word, nullable=False),
    Column("org_id", Word, nullable=False),
    Column("actions", sa.Text, nullable=False),
    Column("description", sa.Text, nullable=False),
    Column("updated_at", Instant, nullable=False),
    Column("updated_by", sa.Text, nullable=False),
    PrimaryKeyConstraint("workspace_id", "name"),
)
_k = signing_keys.c
_v = revocations.c
_r = roles.c

_RETIRE = Query(
    "retire signing key",
    sa.update(signing_keys)
    .where(_k.kid == bindparam("kid_"), sa.or_(_k.retired_at.is_(None), _k.retired_at > bindparam("at")))
    .values(retired_at=bindparam("at")),
)
_DELETE_KEYS = Query("delete signing keys", sa.delete(signing_keys).where(_k.retired_at <= bindparam("before")))
_THIS = (_v.org_id == bindparam("org_id"), _v.kind == bindparam("kind"), _v.name == bindparam("name"))
_UNREVOKE = Query("replace revocation", sa.delete(revocations).where(*_THIS))
_REVOKE = Query("insert revocation", sa.insert(revocations).inline())
_REVOCATIONS = Query("revocations", sa.select(*_v).where(_v.expires_at > bindparam("now")))
_FORGET = Query("forget revocations", sa.delete(revocations).where(_v.expires_at <= bindparam("now")))
_COUNT = Query(
    "count revocations",
    sa.select(sa.func.count()).where(_v.org_id == bindparam("org_id"), _v.expires_at > bindparam("now")),
)
_OF_WORKSPACE = (_r.workspace_id == bindparam("workspace_id"), _r.org_id == bindparam("org_id"))
_ROLE = (*_OF_WORKSPACE, _r.name == bindparam("name"))
_INSERT_ROLE = Query("insert role", sa.insert(roles).inline())
_FIND_ROLE = Query("find role", sa.select(*_r).where(*_ROLE))
_ROLES = Query("roles of workspace", sa.select(*_r).where(*_OF_WORKSPACE).order_by(_r.name))
_DELETE_ROLE = Query("delete role", sa.delete(roles).where(*_ROLE))


class CredentialRows:
    """Implements `credential_table.CredentialTable`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def retire_key(self, kid: str, at: datetime) -> bool:
        return self._connection.run(_RETIRE, {"kid_": kid, "at": to_micros(at)}) == 1

    def delete_keys(self, retired_before: datetime) -> int:
        return self._connection.run(_DELETE_KEYS, {"before": to_micros(retired_before)})

    def revoke(self, revocation: Revocation) -> None:
        this = {"org_id": revocation.org_id, "kind": revocation.kind, "name": revocation.name}
        self._connection.run(_UNREVOKE, this)
        self._connection.run(
            _REVOKE,
            {
                **this,
                "revoked_at": to_micros(revocation.revoked_at),
                "revoked_by": revocation.revoked_by,
                "expires_at": to_micros(revocation.expires_at),
            },
        )

    def revocations(self, now: datetime) -> list[Revocation]:
        return [
            Revocation(org_id, kind, name, from_micros(revoked_at), revoked_by, from_micros(expires_at))
            for org_id, kind, name, revoked_at, revoked_by, expires_at in self._connection.rows(
                _REVOCATIONS, {"now": to_micros(now)}
            )
        ]

    def forget_revocations(self, now: datetime) -> int:
        return self._connection.run(_FORGET, {"now": to_micros(now)})

    def count_revocations(self, org_id: str, now: datetime) -> int:
        row = self._connection.row(_COUNT, {"org_id": org_id, "now": to_micros(now)})
        return row[0] if row else 0

    def save_role(self, role: CustomRole) -> None:
        self.delete_role(role.org_id, role.workspace_id, role.name)
        self._connection.run(
            _INSERT_ROLE,
            {
                "workspace_id": role.workspace_id,
                "name": role.name,
                "org_id": role.org_id,
                "actions": " ".join(sorted(role.actions)),
                "description": role.description,
                "updated_at": to_micros(role.updated_at),
                "updated_by": role.updated_by,
            },
        )

    def find_role(self, org_id: str, workspace_id: str, name: str) -> CustomRole | None:
        row = self._connection.row(_FIND_ROLE, {"org_id": org_id, "workspace_id": workspace_id, "name": name})
        return _role(row) if row else None

    def roles(self, org_id: str, workspace_id: str) -> list[CustomRole]:
        return [_role(row) for row in self._connection.rows(_ROLES, {"org_id": org_id, "workspace_id": workspace_id})]

    def delete_role(self, org_id: str, workspace_id: str, name: str) -> bool:
        parameters = {"org_id": org_id, "workspace_id": workspace_id, "name": name}
        return self._connection.run(_DELETE_ROLE, parameters) == 1


def _role(row: Row) -> CustomRole:
    workspace_id, name, org_id, actions, description, updated_at, updated_by = row
    known = {action.value: action for action in Action}
    # An action that a newer program knows is not ours to allow.
    allowed = frozenset(known[word] for word in actions.split() if word in known)
    return CustomRole(org_id, workspace_id, name, allowed, description, from_micros(updated_at), updated_by)
