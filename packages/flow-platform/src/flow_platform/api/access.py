"""Who may call which route: one table, held against before an endpoint is called and before a body is read.

What a role's actions are is `domain.principal`'s; here is which action a route needs, and whether tokens of executions
and API keys may be used for it. The engine checks the same again, and what depends on the object that is asked for. A
route without a row is closed to all but administrators, and fails `tests/security/test_authorisation.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from flow_platform.api.routing import WORKSPACE, Route
from flow_platform.domain import errors
from flow_platform.domain.credential import Credential
from flow_platform.domain.principal import Action, Role
from flow_sdk.wire.status import Kind

ORGANIZATION: Final = "/api/v1/orgs/{org_id}"


@dataclass(frozen=True)
class Access:
    """What one route asks of a credential.

    Attributes:
        action: That the role must include; None: the route is public, or checks its credential itself.
        signed_in: Whether it is for people and programs of every role, also one that includes nothing.
        executions: Whether tokens of executions may be used.
        api_keys: Whether API keys may be used: not for what would outlive a key that is revoked.
        whole_organization: Whether the credential must not be for one workspace only.
    """

    action: Action | None
    signed_in: bool = False
    executions: bool = False
    api_keys: bool = True
    whole_organization: bool = False


CLOSED: Final = Access(Action.ADMINISTER, api_keys=False)
_PUBLIC: Final = Access(None, executions=True)
_SIGNED_IN: Final = Access(None, signed_in=True)
_READ, _OWN_READ = Access(Action.READ), Access(Action.READ, executions=True)
_SUBMIT, _OWN_SUBMIT = Access(Action.SUBMIT), Access(Action.SUBMIT, executions=True)
_PUBLISH, _DEPLOY, _ADMINISTER = Access(Action.PUBLISH), Access(Action.DEPLOY), Access(Action.ADMINISTER)
_CALL_MODEL: Final = Access(Action.CALL_MODEL, executions=True)

_PARTS: Final = ("models", "prompts", "tools", "schemas", "states")

_IN_WORKSPACE: Final[dict[str, Access]] = {
    "GET /executions": _READ,
    "GET /executions/{execution_id}": _OWN_READ,
    "GET /executions/{execution_id}/tree": _OWN_READ,
    "GET /executions/{execution_id}/events": _OWN_READ,
    "GET /executions/{execution_id}/checkpoints": _OWN_READ,
    "GET /executions/{execution_id}/checkpoints/{checkpoint_id}": _OWN_READ,
    "POST /executions/{execution_id}/checkpoints": _OWN_SUBMIT,
    "POST /executions/{execution_id}/checkpoints/{checkpoint_id}/result": _OWN_SUBMIT,
    "POST /executions/{execution_id}/checkpoints/{checkpoint_id}/withdrawal": _OWN_SUBMIT,
    "POST /executions/{execution_id}/suspension": _OWN_SUBMIT,
    "POST /executions/{execution_id}/replayed": _OWN_SUBMIT,
    "POST /executions/{execution_id}/events/{name}": _OWN_SUBMIT,
    "POST /executions/{execution_id}/cancel": Access(Action.CANCEL, executions=True),
    "POST /executions/cancel": Access(Action.CANCEL),
    "POST /executions/{execution_id}/retry": _SUBMIT,
    "POST /executions/retry": _SUBMIT,
    **{f"POST /{kind.path}/{{component_id}}/executions": _OWN_SUBMIT for kind in Kind},
    **{f"POST /{kind.path}": _PUBLISH for kind in Kind},
    **{f"GET /{kind.path}{below}": _READ for kind in Kind for below in ("", "/{component_id}")},
    **{f"GET /{kind.path}/{{component_id}}/versions{below}": _READ for kind in Kind for below in ("", "/{number}")},
    "GET /rings": _READ,
    "POST /rings": _ADMINISTER,
    "PATCH /rings/{ring_id}": _ADMINISTER,
    "GET /deployments": _READ,
    "GET /deployments/{deployment_id}": _READ,
    "POST /deployments": _DEPLOY,
    "POST /deployments/promote": _DEPLOY,
    **{f"POST /deployments/{{deployment_id}}/{verb}": _DEPLOY for verb in ("promote", "approve", "share", "rollback")},
    "GET /variables": _DEPLOY,
    "PUT /variables": _ADMINISTER,
    "GET /schedules": _READ,
    "POST /schedules": _SUBMIT,
    "GET /schedules/{schedule_id}": _READ,
    "PATCH /schedules/{schedule_id}": _SUBMIT,
    "DELETE /schedules/{schedule_id}": _SUBMIT,
    "POST /schedules/{schedule_id}/trigger": _SUBMIT,
    "GET /schedules/{schedule_id}/firings": _READ,
    "GET /secrets": _DEPLOY,
    "PUT /secrets/{name}": _DEPLOY,
    "DELETE /secrets/{name}": _DEPLOY,
    "GET /api-keys": _ADMINISTER,
    "POST /api-keys": Access(Action.ADMINISTER, api_keys=False),
    "DELETE /api-keys/{key_id}": _ADMINISTER,
    "GET /roles": _READ,
    "PUT /roles/{name}": _ADMINISTER,
    "DELETE /roles/{name}": _ADMINISTER,
    "GET /policies": _READ,
    "PUT /policies": _ADMINISTER,
    "DELETE /policies": _ADMINISTER,
    "GET /services": _READ,
    "POST /services": _PUBLISH,
    "GET /services/{service_id}": _READ,
    "PATCH /services/{service_id}": _PUBLISH,
    "DELETE /services/{service_id}": _PUBLISH,
    "POST /services/{service_id}/endpoints": _PUBLISH,
    "PATCH /services/{service_id}/endpoints/{endpoint_id}": _PUBLISH,
    "DELETE /services/{service_id}/endpoints/{endpoint_id}": _PUBLISH,
    "POST /services/{service_id}/publish": _PUBLISH,
    "GET /services/{service_id}/tokens": _ADMINISTER,
    "POST /services/{service_id}/tokens": Access(Action.ADMINISTER, api_keys=False),
    "DELETE /services/{service_id}/tokens/{token_id}": _ADMINISTER,
    **{f"{method} /mcp": _SUBMIT for method in ("GET", "POST", "DELETE")},
    **{f"POST /{part}": _PUBLISH for part in _PARTS},
    **{f"GET /{part}{below}": _READ for part in _PARTS for below in ("", "/{part_id}", "/{part_id}/versions")},
    **{f"GET /mcp-servers{below}": _READ for below in ("", "/{server_id}")},
    "POST /mcp-servers": _PUBLISH,
    "PUT /mcp-servers/{server_id}": _PUBLISH,
    "DELETE /mcp-servers/{server_id}": _PUBLISH,
    "POST /mcp-servers/{server_id}/refresh": _PUBLISH,
    "POST /mcp-servers/{server_id}/calls": _OWN_SUBMIT,
    "GET /agents/{agent_id}/sessions": _READ,
    "GET /agents/{agent_id}/sessions/{session_id}": _READ,
    "DELETE /agents/{agent_id}/sessions/{session_id}": Access(Action.CANCEL),
    **{f"{method} /mcp": _SUBMIT for method in ("GET", "POST", "DELETE")},
    "GET /budget": _READ,
    "PUT /budget": _ADMINISTER,
    "GET /model-calls": _READ,
    "GET /model-settings": _READ,
    "PUT /model-settings": _ADMINISTER,
}

_ELSEWHERE: Final[dict[str, Access]] = {
    f"GET {ORGANIZATION}/variables": _DEPLOY,
    f"GET {ORGANIZATION}/workspaces": _READ,
    f"POST {ORGANIZATION}/workspaces": Access(Action.ADMINISTER, whole_organization=True),
    f"GET {ORGANIZATION}/api-keys": Access(Action.ADMINISTER, whole_organization=True),
    f"POST {ORGANIZATION}/api-keys": Access(Action.ADMINISTER, api_keys=False, whole_organization=True),
    f"DELETE {ORGANIZATION}/api-keys/{{key_id}}": Access(Action.ADMINISTER, whole_organization=True),
    f"GET {ORGANIZATION}/audit": _ADMINISTER,
    f"GET {ORGANIZATION}/audit/export": Access(Action.ADMINISTER, whole_organization=True),
    f"GET {ORGANIZATION}/billing/transactions/{{transaction_id}}": _OWN_READ,
    f"GET {ORGANIZATION}/billing/usage": _READ,
    f"GET {ORGANIZATION}/billing/usage.csv": _READ,
    f"PUT {ORGANIZATION}/variables": Access(Action.ADMINISTER, whole_organization=True),
    "POST /api/v1/component-execution/transforms/{component_id}/execute": _OWN_SUBMIT,
    "POST /api/v1/component-execution/agents/{component_id}/execute": _OWN_SUBMIT,
    "POST /api/v1/gateway/chat/completions": _CALL_MODEL,
    "POST /api/v1/gateway/embeddings": _CALL_MODEL,
    "GET /api/v1/gateway/models": _CALL_MODEL,
    "POST /api/v1/auth/refresh": _PUBLIC,
    "GET /api/v1/auth/keys": Access(Action.ADMINISTER, whole_organization=True),
    "POST /api/v1/auth/keys": Access(Action.ADMINISTER, api_keys=False, whole_organization=True),
    "POST /api/v1/auth/revoke": Access(None, signed_in=True, api_keys=False),
    "POST /api/v1/auth/token": _SIGNED_IN,  # Administrators make any; an API key, whatever its role, one like itself.
    "GET /api/v1/auth/whoami": _SIGNED_IN,
    **{f"GET /login{below}": _PUBLIC for below in ("", "/{name}", "/{name}/callback")},
    "POST /logout": _PUBLIC,  # Of the session in its cookie.
    **{f"GET {path}": _PUBLIC for path in ("/.well-known/jwks.json", "/healthz", "/readyz", "/metrics")},
    **{f"{method} {path}": _PUBLIC for method in ("GET", "HEAD") for path in ("/", "/api/v1/openapi.json")},
}


def _in_workspace(row: str) -> str:
    method, _, path = row.partition(" ")
    return f"{method} {WORKSPACE}{path}"


ACCESS: Final[Mapping[str, Access]] = {_in_workspace(row): access for row, access in _IN_WORKSPACE.items()} | _ELSEWHERE


OF_SERVICES: Final = f"{ORGANIZATION}/services/"
"""Calls of services: some endpoints are public, others take credentials of their own. They check them themselves."""


def access_of(route: Route) -> Access:
    if route.path.startswith(OF_SERVICES):
        return _PUBLIC
    return ACCESS.get(f"{route.method} {route.path}", CLOSED)


def check_access(access: Access, path: Mapping[str, str], credential: Credential | None) -> None:
    """Checks tenant first, then role, then the kind of credential.

    Args:
        access: Of the route.
        path: The parameters of the path.
        credential: None on public paths.

    Raises:
        NotFound: The path is in another tenant.
        Forbidden: The credential may not do that, whatever is asked for.
        Unauthenticated: There is no credential: a route was declared public by mistake.
    """
    if access.action is None and not access.signed_in:
        return
    if credential is None:
        raise errors.Unauthenticated("no credential: expected 'Authorization: Bearer TOKEN'")
    principal = credential.principal
    if access.action is not None:
        principal.require(access.action, path.get("org_id", principal.org_id), path.get("workspace_id"))
    if principal.role is Role.EXECUTION and not access.executions:
        raise errors.Forbidden("an execution's token is not for this: expected a token of a user")
    if credential.api_key_id is not None and not access.api_keys:
        raise errors.Forbidden("an API key is not for this: expected a token of a user")
    if access.whole_organization and principal.workspace_id is not None:
        raise errors.Forbidden("the token is for one workspace: expected one for the whole organization")
