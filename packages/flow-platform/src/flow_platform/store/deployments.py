"""Rings, and the deployments of versions in them."""

from __future__ import annotations

import functools
from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam

from flow_platform.domain import errors
from flow_platform.domain.release import Deployment, DeploymentState, Ring
from flow_platform.store import cursors
from flow_platform.store.base import Page
from flow_platform.store.connection import Connection
from flow_platform.store.deployment_rows import deployment_from, deployment_row, ring_from, ring_row
from flow_platform.store.instants import to_micros
from flow_platform.store.query import Query
from flow_platform.store.tables import Instant, Word, deployments, rings

_r = rings.c
_d = deployments.c
_RING_IN_WORKSPACE = (_r.org_id == bindparam("org_id"), _r.workspace_id == bindparam("workspace_id"))
_IN_WORKSPACE = (_d.org_id == bindparam("org_id"), _d.workspace_id == bindparam("workspace_id"))

_INSERT_RING = Query("insert ring", sa.insert(rings).inline())
_CHANGING = ("order", "auto_deploy", "env", "requires_approval", "rollback", "minimum_isolation")
_UPDATE_RING = Query(
    "update ring",
    sa.update(rings).where(_r.id == bindparam("id_")).values({name: bindparam(name) for name in _CHANGING}),
)
_rings = sa.select(rings).where(*_RING_IN_WORKSPACE).order_by(_r.order, _r.name)
_RINGS = Query("list rings", _rings)
_FIRST_RING = Query("first ring", _rings.limit(sa.literal_column("1")))
_RING_BY_ID = Query("ring by id", sa.select(rings).where(_r.id == bindparam("id"), *_RING_IN_WORKSPACE))
_RING_BY_NAME = Query("ring by name", sa.select(rings).where(_r.name == bindparam("name"), *_RING_IN_WORKSPACE))

_INSERT_DEPLOYMENT = Query("insert deployment", sa.insert(deployments).inline())
_DEPLOYMENT = Query("deployment by id", sa.select(deployments).where(_d.id == bindparam("id"), *_IN_WORKSPACE))


@functools.cache
def _page(filters: frozenset[str], *, has_cursor: bool) -> Query:
    statement = sa.select(deployments).where(*_IN_WORKSPACE, *(_d[name] == bindparam(name) for name in sorted(filters)))
    if has_cursor:
        statement = statement.where(
            sa.tuple_(_d.created_at, _d.id)
            < sa.tuple_(bindparam("created_at", type_=Instant), bindparam("id", type_=Word))
        )
    statement = statement.order_by(_d.created_at.desc(), _d.id.desc()).limit(bindparam("limit"))
    return Query(f"list deployments {sorted(filters)} {has_cursor=}", statement)


class DeploymentRows:
    _connection: Connection

    def insert_ring(self, ring: Ring) -> None:
        self._connection.run(_INSERT_RING, ring_row(ring))

    def update_ring(self, ring: Ring) -> None:
        row = ring_row(ring)
        parameters = {**{name: row[name] for name in _CHANGING}, "id_": ring.id}
        if not self._connection.run(_UPDATE_RING, parameters):
            raise errors.NotFound(f"ring {ring.id!r} does not exist")

    def list_rings(self, org_id: str, workspace_id: str) -> list[Ring]:
        rows = self._connection.rows(_RINGS, {"org_id": org_id, "workspace_id": workspace_id})
        return [ring_from(row) for row in rows]

    def first_ring(self, org_id: str, workspace_id: str) -> Ring | None:
        row = self._connection.row(_FIRST_RING, {"org_id": org_id, "workspace_id": workspace_id})
        return ring_from(row) if row else None

    def find_ring(self, org_id: str, workspace_id: str, id_or_name: str) -> Ring | None:
        # The id first: a name may be made to look like another ring's id.
        parameters = {"org_id": org_id, "workspace_id": workspace_id}
        row = self._connection.row(_RING_BY_ID, {**parameters, "id": id_or_name})
        if row is None:
            row = self._connection.row(_RING_BY_NAME, {**parameters, "name": id_or_name})
        return ring_from(row) if row else None

    def insert_deployment(self, deployment: Deployment) -> None:
        self._connection.run(_INSERT_DEPLOYMENT, deployment_row(deployment))

    def find_deployment(self, org_id: str, workspace_id: str, deployment_id: str) -> Deployment | None:
        parameters = {"org_id": org_id, "workspace_id": workspace_id, "id": deployment_id}
        row = self._connection.row(_DEPLOYMENT, parameters)
        return deployment_from(row) if row else None

    def list_deployments(
        self,
        org_id: str,
        workspace_id: str,
        component_id: str | None,
        ring_id: str | None,
        cursor: str | None,
        limit: int,
        state: DeploymentState | None = None,
    ) -> Page:
        given = {"component_id": component_id, "ring_id": ring_id, "state": state.value if state else None}
        filters = {name: value for name, value in given.items() if value is not None}
        parameters: dict[str, Any] = {**filters, "org_id": org_id, "workspace_id": workspace_id, "limit": limit + 1}
        if cursor is not None:
            parameters["created_at"], parameters["id"] = cursors.decode("deployments", cursor)
        query = _page(frozenset(filters), has_cursor=cursor is not None)
        items = [deployment_from(row) for row in self._connection.rows(query, parameters)]
        if len(items) <= limit:
            return Page(items, None)
        last = items[limit - 1]
        return Page(items[:limit], cursors.encode("deployments", to_micros(last.created_at), last.id))
