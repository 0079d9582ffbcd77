"""Rings and deployments as rows, and back. A row has the fields of its class, in their order."""

from __future__ import annotations

from dataclasses import fields
from datetime import timedelta
from typing import Any, Final

from flow_platform.domain.release import Deployment, DeploymentState, Ring, RollbackRule
from flow_platform.store.connection import Row
from flow_platform.store.documents import from_json, json_or_null, to_json, value_or
from flow_platform.store.instants import from_micros, from_micros_or_none, to_micros, to_micros_or_none
from flow_sdk.wire.isolation import Isolation

_DEPLOYMENT: Final = tuple(field.name for field in fields(Deployment))


def deployment_row(deployment: Deployment) -> dict[str, Any]:
    return {
        **{name: getattr(deployment, name) for name in _DEPLOYMENT},
        "state": deployment.state.value,
        "created_at": to_micros(deployment.created_at),
        "activated_at": to_micros_or_none(deployment.activated_at),
    }


def deployment_from(row: Row) -> Deployment:
    values = dict(zip(_DEPLOYMENT, row, strict=True))
    values["state"] = DeploymentState(values["state"])
    values["created_at"] = from_micros(values["created_at"])
    values["activated_at"] = from_micros_or_none(values["activated_at"])
    values["is_restored"] = bool(values["is_restored"])
    return Deployment(**values)


def ring_row(ring: Ring) -> dict[str, Any]:
    return {
        "id": ring.id,
        "org_id": ring.org_id,
        "workspace_id": ring.workspace_id,
        "name": ring.name,
        "order": ring.order,
        "auto_deploy": ring.auto_deploy,
        "created_at": to_micros(ring.created_at),
        "env": json_or_null(ring.env, {}),
        "requires_approval": ring.requires_approval,
        "rollback": to_json(_rule_to_json(ring.rollback)) if ring.rollback else None,
        "minimum_isolation": ring.minimum_isolation.value,
    }


def ring_from(row: Row) -> Ring:
    ring_id, org_id, workspace_id, name, order, auto_deploy, created_at, env, requires_approval, rollback, least = row
    return Ring(
        id=ring_id,
        org_id=org_id,
        workspace_id=workspace_id,
        name=name,
        order=order,
        auto_deploy=bool(auto_deploy),
        created_at=from_micros(created_at),
        env=value_or(env, {}),
        requires_approval=bool(requires_approval),
        rollback=None if rollback is None else _rule_from_json(from_json(rollback)),
        minimum_isolation=Isolation(least),
    )


def _rule_to_json(rule: RollbackRule) -> dict[str, Any]:
    return {
        "failure_rate": rule.failure_rate,
        "minimum_count": rule.minimum_count,
        "window_seconds": rule.window.total_seconds(),
        "watch_seconds": rule.watch.total_seconds(),
    }


def _rule_from_json(rule: dict[str, Any]) -> RollbackRule:
    return RollbackRule(
        failure_rate=rule["failure_rate"],
        minimum_count=rule["minimum_count"],
        window=timedelta(seconds=rule["window_seconds"]),
        watch=timedelta(seconds=rule["watch_seconds"]),
    )
