"""Deployments on their way through rings: tracks, what has to be looked after, and how their executions ended."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import Column, ForeignKey, Table, bindparam

from flow_platform.domain.release import Deployment, DeploymentState, Ring
from flow_platform.domain.rollout import Track, changed
from flow_platform.domain.rollout_health import Sample
from flow_platform.store.connection import Connection
from flow_platform.store.deployment_rows import deployment_from, deployment_row
from flow_platform.store.documents import from_json, to_json
from flow_platform.store.failures import ConcurrencyFailure, RowConflict
from flow_platform.store.instants import to_micros
from flow_platform.store.query import Query, UpsertQuery
from flow_platform.store.rollout_port import SmokeInput
from flow_platform.store.tables import CURRENT, MOVING, Json, Word, deployments, executions, metadata, rings

MAX_SAMPLE: Final = 10_000  # The newest executions of a window; more of them tell nothing more.

smoke_inputs = Table(
    "smoke_inputs",
    metadata,
    Column("component_id", Word, ForeignKey("components.id"), primary_key=True, nullable=False),
    Column("input_data", Json, nullable=False),
)

_d = deployments.c
_e = executions.c
# Texts, not expressions: they must match those of the partial indexes.
_current = sa.select(deployments).where(
    _d.component_id == bindparam("component_id"), _d.ring_id == bindparam("ring_id"), sa.text(CURRENT)
)
_CURRENT = Query("current deployments", _current)
_CURRENT_FOR_UPDATE = Query("current deployments for update", _current.with_for_update())
_BY_ID = Query("deployment of a track", sa.select(deployments).where(_d.id == bindparam("id")))
_LATEST = Query(
    "latest deployment",
    sa.select(deployments)
    .where(_d.component_id == bindparam("component_id"), _d.ring_id == bindparam("ring_id"))
    .order_by(_d.created_at.desc(), _d.id.desc())
    .limit(sa.literal_column("1")),
)
_MOVING = Query(
    "moving deployments",
    sa.select(deployments).where(sa.text(MOVING), _d.id > bindparam("after")).order_by(_d.id).limit(bindparam("limit")),
)
_NEW = Query(
    "new deployments",
    sa.select(deployments)
    .select_from(rings.join(deployments, rings.c.id == _d.ring_id))
    .where(
        rings.c.rollback.is_not(None),
        _d.state == sa.literal_column("'active'"),
        _d.activated_at > bindparam("since"),
        _d.id > bindparam("after"),
    )
    .order_by(_d.id)
    .limit(bindparam("limit")),
)
_IN_SET = Query("deployments of a set", sa.select(deployments).where(_d.set_id == bindparam("set_id")).order_by(_d.id))
_QUEUED_IN_RING = Query(
    "queued deployments of a ring",
    sa.select(deployments)
    .where(sa.text(MOVING), _d.state == sa.literal_column("'queued'"), _d.ring_id == bindparam("ring_id"))
    .order_by(_d.id),
)
_INSERT = Query("insert deployment of a track", sa.insert(deployments).inline())
_CHANGING = (
    "state",
    "activated_at",
    "share",
    "previous_id",
    "approved_by",
    "is_restored",
    "reason",
    "smoke_execution_id",
    "first_share",
)
_UPDATE = Query(
    "update deployment",
    sa.update(deployments)
    .where(_d.id == bindparam("id_"), _d.state == bindparam("state_before"))
    .values({name: bindparam(name) for name in _CHANGING}),
)

_ONE: sa.ColumnElement[int] = sa.literal_column("1", sa.Integer)
_ZERO: sa.ColumnElement[int] = sa.literal_column("0", sa.Integer)
_newest = (
    sa.select(_e.status)
    .where(
        _e.deployment_id == bindparam("deployment_id"),
        _e.finished_at >= bindparam("since"),
        _e.status != sa.literal_column("'cancelled'"),
    )
    .order_by(_e.finished_at.desc())
    .limit(bindparam("limit"))
    .subquery("newest")
)
_SAMPLE = Query(
    "sample of a deployment",
    sa.select(
        sa.func.count(),
        sa.func.coalesce(
            sa.func.sum(sa.case((_newest.c.status != sa.literal_column("'completed'"), _ONE), else_=_ZERO)),
            _ZERO,
        ),
    ).select_from(_newest),
)
_LIVE = Query(
    "live execution of a deployment",
    sa.select(_e.id)
    .where(_e.due_at.is_not(None), _e.deployment_id == bindparam("deployment_id"))
    .limit(sa.literal_column("1")),
)

_SMOKE_INPUT = Query(
    "smoke input",
    sa.select(smoke_inputs.c.input_data).where(smoke_inputs.c.component_id == bindparam("component_id")),
)
_SET_SMOKE_INPUT = UpsertQuery(
    "set smoke input",
    smoke_inputs,
    lambda insert: insert.on_conflict_do_update(
        index_elements=[smoke_inputs.c.component_id], set_={"input_data": insert.excluded["input_data"]}
    ),
)
_DELETE_SMOKE_INPUT = Query(
    "delete smoke input", sa.delete(smoke_inputs).where(smoke_inputs.c.component_id == bindparam("component_id"))
)


class RolloutRows:
    """Implements `base.RolloutTable`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def current(self, component_id: str, ring_id: str) -> list[Deployment]:
        rows = self._connection.rows(_CURRENT, {"component_id": component_id, "ring_id": ring_id})
        return [deployment_from(row) for row in rows]

    def track(self, component_id: str, ring: Ring, also: Sequence[str] = (), *, for_update: bool = False) -> Track:
        query = _CURRENT_FOR_UPDATE if for_update else _CURRENT
        rows = self._connection.rows(query, {"component_id": component_id, "ring_id": ring.id})
        found = {deployment.id: deployment for deployment in map(deployment_from, rows)}
        earlier = [one.previous_id for one in found.values() if one.state is DeploymentState.ACTIVE]
        for deployment_id in (*earlier, *also):
            if deployment_id is not None and deployment_id not in found:
                row = self._connection.row(_BY_ID, {"id": deployment_id})
                if row and (one := deployment_from(row)) and (one.component_id, one.ring_id) == (component_id, ring.id):
                    found[deployment_id] = one
        return Track(component_id, ring, tuple(sorted(found.values(), key=lambda one: (one.created_at, one.id))))

    def save(self, before: Sequence[Track], after: Sequence[Track]) -> None:
        states = {deployment.id: deployment.state for track in before for deployment in track.deployments}
        for deployment in changed(before, after):
            row = deployment_row(deployment)
            if deployment.id in states:
                values: dict[str, Any] = {name: row[name] for name in _CHANGING}
                self._run(_UPDATE, {**values, "id_": row["id"], "state_before": states[deployment.id].value})
            else:
                self._run(_INSERT, row)

    def _run(self, query: Query, parameters: dict[str, Any]) -> None:
        """Somebody else was first: what was decided was decided on rows that are not as they were."""
        try:
            written = self._connection.run(query, parameters)
        except RowConflict as exc:
            raise ConcurrencyFailure(exc.message) from exc
        if not written:
            raise RowConflict(f"deployment {parameters['id_']!r} is no longer {parameters['state_before']!r}")

    def latest(self, component_id: str, ring_id: str) -> Deployment | None:
        row = self._connection.row(_LATEST, {"component_id": component_id, "ring_id": ring_id})
        return deployment_from(row) if row else None

    def moving(self, after: str, limit: int) -> list[Deployment]:
        return [deployment_from(row) for row in self._connection.rows(_MOVING, {"after": after, "limit": limit})]

    def new(self, since: datetime, after: str, limit: int) -> list[Deployment]:
        parameters = {"since": to_micros(since), "after": after, "limit": limit}
        return [deployment_from(row) for row in self._connection.rows(_NEW, parameters)]

    def in_set(self, set_id: str) -> list[Deployment]:
        return [deployment_from(row) for row in self._connection.rows(_IN_SET, {"set_id": set_id})]

    def queued_in(self, ring_id: str) -> list[Deployment]:
        return [deployment_from(row) for row in self._connection.rows(_QUEUED_IN_RING, {"ring_id": ring_id})]

    def sample(self, deployment_id: str, since: datetime) -> Sample:
        parameters = {"deployment_id": deployment_id, "since": to_micros(since), "limit": MAX_SAMPLE}
        row = self._connection.row(_SAMPLE, parameters)
        return Sample(int(row[0]), int(row[1])) if row else Sample()

    def has_live_execution(self, deployment_id: str) -> bool:
        return self._connection.row(_LIVE, {"deployment_id": deployment_id}) is not None

    def smoke_input(self, component_id: str) -> SmokeInput | None:
        row = self._connection.row(_SMOKE_INPUT, {"component_id": component_id})
        return SmokeInput(from_json(row[0])) if row else None

    def set_smoke_input(self, component_id: str, smoke: SmokeInput | None) -> None:
        if smoke is None:
            self._connection.run(_DELETE_SMOKE_INPUT, {"component_id": component_id})
        else:
            parameters = {"component_id": component_id, "input_data": to_json(smoke.input_data)}
            self._connection.run(_SET_SMOKE_INPUT, parameters)
