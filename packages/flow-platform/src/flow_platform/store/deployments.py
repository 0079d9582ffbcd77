"""Rings, and the deployments of versions in them."""

from __future__ import annotations

import functools
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam

from flow_platform.domain import errors
from flow_platform.domain.release import Deployment, DeploymentState, Ring
from flow_platform.store import cursors
from flow_platform.store.base import Page
from flow_platform.store.connection import Connection, Row
from flow_platform.store.documents import json_or_null, value_or
from flow_platform.store.instants import from_micros, from_micros_or_none, to_micros, to_micros_or_none
from flow_platform.store.query import Query
from flow_platform.store.tables import Instant, Word, deployments, rings

_r = rings.c
_d = deployments.c
_RING_IN_WORKSPACE = (_r.org_id == bindparam("org_id"), _r.workspace_id == bindparam("workspace_id"))
_IN_WORKSPACE = (_d.org_id == bindparam("org_id"), _d.workspace_id == bindparam("workspace_id"))

_INSERT_RING = Query("insert ring", sa.insert(rings).inline())
_RINGS = Query("list rings", sa.select(rings).where(*_RING_IN_WORKSPACE).order_by(_r.order, _r.name))
_RING_BY_ID = Query("ring by id", sa.select(rings).where(_r.id == bindparam("id"), *_RING_IN_WORKSPACE))
_RING_BY_NAME = Query("ring by name", sa.select(rings).where(_r.name == bindparam("name"), *_RING_IN_WORKSPACE))

_INSERT_DEPLOYMENT = Query("insert deployment", sa.insert(deployments).inline())
_SET_STATE = Query(
    "set deployment state",
    sa.update(deployments).where(_d.id == bindparam("id_")).values(state=bindparam("state")),
)
_ACTIVATE = Query(
    "activate deployment",
    sa.update(deployments)
    .where(_d.id == bindparam("id_"))
    .values(state=bindparam("state"), activated_at=bindparam("activated_at")),
)
_DEPLOYMENT = Query("deployment by id", sa.select(deployments).where(_d.id == bindparam("id"), *_IN_WORKSPACE))
_ACTIVE = Query(
    "active deployment",
    sa.select(deployments).where(
        _d.component_id == bindparam("component_id"),
        _d.ring_id == bindparam("ring_id"),
        _d.state == sa.literal_column("'active'"),
    ),
)


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
        self._connection.run(
            _INSERT_RING,
            {
                "id": ring.id,
                "org_id": ring.org_id,
                "workspace_id": ring.workspace_id,
                "name": ring.name,
                "order": ring.order,
                "auto_deploy": ring.auto_deploy,
                "created_at": to_micros(ring.created_at),
                "env": json_or_null(ring.env, {}),
            },
        )

    def list_rings(self, org_id: str, workspace_id: str) -> list[Ring]:
        rows = self._connection.rows(_RINGS, {"org_id": org_id, "workspace_id": workspace_id})
        return [_ring(row) for row in rows]

    def find_ring(self, org_id: str, workspace_id: str, id_or_name: str) -> Ring | None:
        # The id first: a name may be made to look like another ring's id.
        parameters = {"org_id": org_id, "workspace_id": workspace_id}
        row = self._connection.row(_RING_BY_ID, {**parameters, "id": id_or_name})
        if row is None:
            row = self._connection.row(_RING_BY_NAME, {**parameters, "name": id_or_name})
        return _ring(row) if row else None

    def insert_deployment(self, deployment: Deployment) -> None:
        self._connection.run(
            _INSERT_DEPLOYMENT,
            {
                "id": deployment.id,
                "org_id": deployment.org_id,
                "workspace_id": deployment.workspace_id,
                "component_id": deployment.component_id,
                "version_id": deployment.version_id,
                "version": deployment.version,
                "ring_id": deployment.ring_id,
                "state": deployment.state.value,
                "created_at": to_micros(deployment.created_at),
                "activated_at": to_micros_or_none(deployment.activated_at),
            },
        )

    def set_deployment_state(self, deployment_id: str, state: DeploymentState, at: datetime) -> None:
        parameters: dict[str, Any] = {"id_": deployment_id, "state": state.value}
        if state is DeploymentState.ACTIVE:
            written = self._connection.run(_ACTIVATE, {**parameters, "activated_at": to_micros(at)})
        else:
            written = self._connection.run(_SET_STATE, parameters)
        if not written:
            raise errors.NotFound(f"deployment {deployment_id!r} does not exist")

    def find_deployment(self, org_id: str, workspace_id: str, deployment_id: str) -> Deployment | None:
        parameters = {"org_id": org_id, "workspace_id": workspace_id, "id": deployment_id}
        row = self._connection.row(_DEPLOYMENT, parameters)
        return _deployment(row) if row else None

    def active_deployment(self, component_id: str, ring_id: str) -> Deployment | None:
        row = self._connection.row(_ACTIVE, {"component_id": component_id, "ring_id": ring_id})
        return _deployment(row) if row else None

    def list_deployments(
        self,
        org_id: str,
        workspace_id: str,
        component_id: str | None,
        ring_id: str | None,
        cursor: str | None,
        limit: int,
    ) -> Page:
        given = {"component_id": component_id, "ring_id": ring_id}
        filters = {name: value for name, value in given.items() if value is not None}
        parameters: dict[str, Any] = {**filters, "org_id": org_id, "workspace_id": workspace_id, "limit": limit + 1}
        if cursor is not None:
            parameters["created_at"], parameters["id"] = cursors.decode("deployments", cursor)
        query = _page(frozenset(filters), has_cursor=cursor is not None)
        items = [_deployment(row) for row in self._connection.rows(query, parameters)]
        if len(items) <= limit:
            return Page(items, None)
        last = items[limit - 1]
        return Page(items[:limit], cursors.encode("deployments", to_micros(last.created_at), last.id))


def _ring(row: Row) -> Ring:
    ring_id, org_id, workspace_id, name, order, auto_deploy, created_at, env = row
    return Ring(
        id=ring_id,
        org_id=org_id,
        workspace_id=workspace_id,
        name=name,
        order=order,
        auto_deploy=bool(auto_deploy),
        created_at=from_micros(created_at),
        env=value_or(env, {}),
    )


def _deployment(row: Row) -> Deployment:
    values = list(row)
    values[7:] = [DeploymentState(row[7]), from_micros(row[8]), from_micros_or_none(row[9])]
    return Deployment(*values)
