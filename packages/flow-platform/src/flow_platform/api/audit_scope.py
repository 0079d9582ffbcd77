"""Which requests are entered into the audit log, and what is known of them when they come in."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Generator
from typing import TYPE_CHECKING, Any, Final, cast

from starlette.requests import Request
from starlette.types import Scope

from flow_platform.api.access import OF_SERVICES
from flow_platform.api.audit_looks import LOOKERS, Target
from flow_platform.api.context import RequestContext, context_of
from flow_platform.api.routing import WORKSPACE, Route
from flow_platform.domain import errors
from flow_platform.domain.client_address import TrustedProxies
from flow_platform.domain.credential import Credential
from flow_platform.domain.principal import Role
from flow_platform.engine.audited import CHANGE, ORIGIN, Change, Origin
from flow_platform.engine.refusals import Refusal
from flow_sdk.wire.status import Kind

if TYPE_CHECKING:
    from flow_platform.engine.service import Engine

MAX_SEEN_BYTES: Final = 64 << 10  # Of a body that an entry may show parts of.
MAX_AGENT: Final = 200
NOBODY: Final = "(nobody)"

RECORDED_ELSEWHERE: Final = frozenset(
    {
        # A submit is its own record: the execution says by whom, with which request, from where.
        *(f"POST {WORKSPACE}/{kind.path}/{{component_id}}/executions" for kind in Kind),
        "POST /api/v1/component-execution/transforms/{component_id}/execute",
        "POST /api/v1/component-execution/agents/{component_id}/execute",
        *(f"{method} {WORKSPACE}/mcp" for method in ("POST", "DELETE")),
        f"POST {WORKSPACE}/mcp-servers/{{server_id}}/calls",
        # Calls of models are records of their own.
        "POST /api/v1/gateway/chat/completions",
        "POST /api/v1/gateway/embeddings",
        # Of executions, for themselves.
        f"POST {WORKSPACE}/executions/{{execution_id}}/checkpoints",
        f"POST {WORKSPACE}/executions/{{execution_id}}/checkpoints/{{checkpoint_id}}/result",
        f"POST {WORKSPACE}/executions/{{execution_id}}/checkpoints/{{checkpoint_id}}/withdrawal",
        f"POST {WORKSPACE}/executions/{{execution_id}}/suspension",
        f"POST {WORKSPACE}/executions/{{execution_id}}/replayed",
        "POST /api/v1/auth/refresh",
    }
)

_ONLY: Final = {f"POST {WORKSPACE}/executions/{{execution_id}}/events/{{name}}": frozenset({"approved", "comment"})}


def origin_of(scope: Scope, context: RequestContext, user_agent: str | None, proxies: TrustedProxies) -> Origin:
    client = scope.get("client")
    address = str(client[0]) if client else ""
    if proxies.networks:
        forwarded = (value.decode("latin-1") for name, value in scope["headers"] if name == b"x-forwarded-for")
        address = proxies.client_of(address, forwarded)
    agent = (user_agent or "")[:MAX_AGENT]
    if not agent.isprintable():
        agent = "".join(character for character in agent if character.isprintable())
    return Origin(context.request_id, address, agent)


def change_of(engine: Engine, route: Route, target: Target, context: RequestContext, origin: Origin) -> Change | None:
    """The entry that a request will be, if it is one that changes something for a user."""
    if route.method in ("GET", "HEAD") or context.credential is None:
        return None
    action = f"{route.method} {route.path}"
    principal = context.credential.principal
    if principal.role is Role.EXECUTION or action in RECORDED_ELSEWHERE or route.path.startswith(OF_SERVICES):
        return None
    return _change(engine, action, target, context, context.credential, origin)


@contextlib.contextmanager
def on_behalf_of(engine: Engine, request: Request, credential: Credential) -> Generator[Change]:
    """What is written within is entered as done with a credential that the endpoint found, or made, itself."""
    context, origin = context_of(request.scope), ORIGIN.get()
    assert origin is not None  # noqa: S101 - the onion knows it.
    action = f"{request.method} {context.route}"
    change = _change(engine, action, request.path_params, context, credential, origin)
    token = CHANGE.set(change)
    try:
        yield change
    finally:
        change.is_written = True
        CHANGE.reset(token)


def _change(
    engine: Engine, action: str, target: Target, context: RequestContext, credential: Credential, origin: Origin
) -> Change:
    look = LOOKERS.get(action)
    principal = credential.principal
    return Change(
        origin=origin,
        who=_who(credential),
        org_id=principal.org_id,
        workspace_id=target.get("workspace_id"),
        action=_short(action),
        target={name: value for name, value in target.items() if name not in ("org_id", "workspace_id")},
        request=lambda: _seen(context, _ONLY.get(action)),
        now=engine.clock.now,
        look=(lambda tx: look(tx, target, engine.clock.now())) if look else None,
    )


def is_refusal(error: errors.FlowError) -> bool:
    """Nobody, not allowed, another tenant's, or too often."""
    return isinstance(error, errors.Unauthenticated | errors.Forbidden | errors.OtherTenant | errors.RateLimited)


def note_refusal(
    engine: Engine, error: errors.FlowError, action: str, target: Target, context: RequestContext, origin: Origin
) -> None:
    """Has a refusal entered."""
    principal = context.credential.principal if context.credential else None
    refusal = Refusal(
        # A stranger does not write into the log of whom he names, but into that of the platform's operator.
        org_id=principal.org_id if principal else engine.workspace.org_id,
        subject=principal.subject if principal else NOBODY,
        role=principal.role_name if principal else "",
        credential=_shown_credential(context.credential) if context.credential else "",
        address=origin.address,
        action=_short(action),
        workspace_id=principal.workspace_id if principal else None,
        status=error.http_status,
        code=error.error_code,
    )
    engine.audit.refusals.note(refusal, origin, {name: value[:80] for name, value in target.items()})


async def finish(engine: Engine, change: Change, body: bytes) -> None:
    """Enters what changed nothing in the database, with the answer: a token that was made. A preview is no change."""
    if change.is_preview:
        return
    answer: Any = None
    if 0 < len(body) <= MAX_SEEN_BYTES:
        try:
            answer = json.loads(body)
        except ValueError:
            answer = None
    await engine.audit.enter(change, answer)


def _who(credential: Credential) -> dict[str, Any]:
    principal = credential.principal
    return {
        "subject": principal.subject,
        "role": principal.role_name,
        "credential": _shown_credential(credential),
    }


def _shown_credential(credential: Credential) -> str:
    """Its kind and id, by which it is found and revoked."""
    return f"api_key:{credential.api_key_id}" if credential.api_key_id else f"token:{credential.token_id}"


def _seen(context: RequestContext, names: frozenset[str] | None) -> Any:
    """The body, as JSON; of one that is somebody's data only the named fields."""
    if not context.body_seen:
        return None
    try:
        found = json.loads(context.body_seen)
    except ValueError:
        return None
    if not isinstance(found, dict):
        return f"({type(found).__name__})"
    body = cast("dict[str, Any]", found)
    return body if names is None else {name: value for name, value in body.items() if name in names}


def _short(action: str) -> str:
    return action.replace(WORKSPACE, "W").replace(":path}", "}")
