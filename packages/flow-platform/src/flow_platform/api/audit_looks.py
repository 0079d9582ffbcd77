"""What a request is about, read before it is done and after: what entries of the audit log compare.

A route without a row here shows what was asked for, and what came of it. Of a list, entries show what differs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

from flow_platform.api.access import ORGANIZATION
from flow_platform.api.routing import WORKSPACE
from flow_platform.domain.service import Service
from flow_platform.store.base import Transaction

Target = Mapping[str, str]
Looker = Callable[[Transaction, Target, datetime], Any]


def _org(at: Target) -> tuple[str, str]:
    return at["org_id"], at["workspace_id"]


def _ring(tx: Transaction, at: Target, _: datetime) -> Any:
    return tx.catalog.find_ring(*_org(at), at["ring_id"])


def _variables(tx: Transaction, at: Target, _: datetime) -> Any:
    return {"env": tx.tenancy.variables(at["org_id"], at.get("workspace_id"))}


def _schedule(tx: Transaction, at: Target, _: datetime) -> Any:
    return tx.schedules.find(*_org(at), at["schedule_id"])


def _secret(tx: Transaction, at: Target, _: datetime) -> Any:
    return [info for info in tx.secrets.of_workspace(*_org(at)) if info.name == at["name"]]


def _role(tx: Transaction, at: Target, _: datetime) -> Any:
    return tx.credentials.find_role(*_org(at), at["name"])


def _api_key(tx: Transaction, at: Target, _: datetime) -> Any:
    keys = tx.api_keys.of_workspace(at["org_id"], at.get("workspace_id"))
    return next((key for key in keys if key.id == at["key_id"]), None)


def _deployment(tx: Transaction, at: Target, _: datetime) -> Any:
    return tx.catalog.find_deployment(*_org(at), at["deployment_id"])


def _service(tx: Transaction, at: Target, _: datetime) -> Service | None:
    return tx.services.find(at["org_id"], at["service_id"], inside=at["workspace_id"])


def _endpoint(tx: Transaction, at: Target, now: datetime) -> Any:
    found = _service(tx, at, now)
    named = at["endpoint_id"]
    return [one for one in tx.services.endpoints(found.id) if named in (one.id, one.name)] if found else []


def _service_token(tx: Transaction, at: Target, now: datetime) -> Any:
    found = _service(tx, at, now)
    return [token for token in tx.services.tokens(found.id) if token.id == at["token_id"]] if found else []


def _mcp_server(tx: Transaction, at: Target, _: datetime) -> Any:
    found = tx.mcp_servers.find(*_org(at), at["server_id"])
    return found and {"name": found.name, **found.settings.model_dump(mode="json", exclude_defaults=True)}


def _policies(tx: Transaction, at: Target, _: datetime) -> Any:
    return tx.policies.of_workspace(*_org(at))


def _budget(tx: Transaction, at: Target, now: datetime) -> Any:
    standing = tx.budgets.standing(*_org(at), now)
    return standing.budget if standing else None


def _model_settings(tx: Transaction, at: Target, _: datetime) -> Any:
    return json.loads(tx.models.find_settings(*_org(at)) or "null")


def _execution(tx: Transaction, at: Target, _: datetime) -> Any:
    return tx.executions.find_in_workspace(*_org(at), at["execution_id"])


LOOKERS: Final[Mapping[str, Looker]] = {
    f"PUT {ORGANIZATION}/variables": _variables,
    f"DELETE {ORGANIZATION}/api-keys/{{key_id}}": _api_key,
    **{
        f"{method} {WORKSPACE}{path}": looker
        for methods, path, looker in (
            ("PATCH", "/rings/{ring_id}", _ring),
            ("PUT", "/variables", _variables),
            ("PATCH DELETE", "/schedules/{schedule_id}", _schedule),
            ("PUT DELETE", "/secrets/{name}", _secret),
            ("PUT DELETE", "/roles/{name}", _role),
            ("DELETE", "/api-keys/{key_id}", _api_key),
            ("POST", "/deployments/{deployment_id}/approve", _deployment),
            ("POST", "/deployments/{deployment_id}/share", _deployment),
            ("POST", "/deployments/{deployment_id}/rollback", _deployment),
            ("PATCH DELETE", "/services/{service_id}", _service),
            ("POST", "/services/{service_id}/publish", _service),
            ("PATCH DELETE", "/services/{service_id}/endpoints/{endpoint_id}", _endpoint),
            ("DELETE", "/services/{service_id}/tokens/{token_id}", _service_token),
            ("DELETE", "/mcp-servers/{server_id}", _mcp_server),
            ("PUT DELETE", "/policies", _policies),
            ("PUT", "/budget", _budget),
            ("PUT", "/model-settings", _model_settings),
            ("POST", "/executions/{execution_id}/cancel", _execution),
        )
        for method in methods.split()
    },
}
