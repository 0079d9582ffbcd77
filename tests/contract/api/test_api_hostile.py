"""Random bodies, queries and headers on every route: refused or taken, never our mistake, always in our shape."""

from __future__ import annotations

import random
import re
import urllib.parse
from typing import Any

import pytest

from tests.contract.api.hands import CODE, Platform, Tenant, submit_body

pytestmark = pytest.mark.asyncio(loop_scope="module")

STRANGE = [
    None,
    True,
    0,
    -1,
    2**63,
    10**40,
    1e308,
    5e-324,
    "",
    "\0",
    "\u202e",
    "'; DROP TABLE executions; --",
    "../../etc/passwd",
    "{{7*7}}",
    "x" * 5000,
    "01a2006b-a94b-708f-a446-8236de15d050",
    [],
    {},
    [[]],
    {"": {}},
    {"__class__": "x"},
]
FIELDS = (
    "input_parameters",
    "input_data",
    "config",
    "context",
    "lifecycle_event",
    "ring_id",
    "timeout_seconds",
    "caller_deployment_id",
    "auto_deploy",
    "scope",
    "session_id",
    "messages",
    "state",
    "slug",
    "code",
    "entry_point",
    "name",
    "description",
    "tags",
    "language",
    "dependencies",
    "retry",
    "limits",
    "network",
    "secrets",
    "examples",
    "requires_context",
    "component_id",
    "version",
    "order",
    "env",
    "role",
    "ttl_seconds",
    "subject",
    "workspace_id",
)


def _value(source: random.Random, depth: int = 0) -> Any:
    if depth < 3 and source.random() < 0.3:
        children = range(source.randrange(4))
        if source.random() < 0.5:
            return [_value(source, depth + 1) for _ in children]
        return {str(source.choice([*FIELDS, *STRANGE[8:16]])): _value(source, depth + 1) for _ in children}
    return source.choice(STRANGE)


def _body(source: random.Random) -> Any:
    if source.random() < 0.1:
        return _value(source)
    valid: dict[str, Any] = {"slug": "echo", "code": CODE, **submit_body(), "component_id": "echo"}
    chosen = source.sample(FIELDS, source.randrange(1, 5))
    return {**(valid if source.random() < 0.8 else {}), **{name: _value(source) for name in chosen}}


@pytest.mark.parametrize("seed", range(6))
async def test_nothing_is_our_mistake(platform: Platform, tenant: Tenant, seed: int) -> None:
    source = random.Random(seed)  # noqa: S311 - repeatable, not secret.
    for kind in ("code-blocks", "transforms", "workflows"):
        await tenant.publish(kind)
    execution_id = await tenant.submit()
    await platform.engine.executions.cancel(
        platform.engine.tokens.verify(tenant.token(), platform.now),
        tenant.workspace.org_id,
        tenant.workspace.workspace_id,
        execution_id,
    )
    paths = await platform.described()
    async with platform.client(tenant.token()) as client:
        for path, methods in paths.items():
            if "component-execution" in path or path.endswith("/mcp"):
                continue  # The first answers when an execution has ended; here nobody runs any. MCP has its own errors.
            for method in methods:
                for _ in range(4):
                    filled = path.replace("{org_id}", tenant.workspace.org_id)
                    filled = filled.replace("{workspace_id}", tenant.workspace.workspace_id)
                    known = source.choice([execution_id, "echo"])
                    strange = urllib.parse.quote(str(source.choice(STRANGE))[:200], safe="")
                    filled = re.sub(r"{\w+}", known if source.random() < 0.7 else strange or "x", filled)
                    names = source.sample(["cursor", "limit", "status", "kind", "after", "ring_id", "component_id"], 2)
                    query = {name: str(source.choice(STRANGE))[:200] for name in names} if source.random() < 0.5 else {}
                    headers = {"Prefer": "wait=0", "Idempotency-Key": str(source.random())}
                    body = _body(source) if method == "post" else None
                    answer = await client.request(method, filled, params=query, json=body, headers=headers)
                    told = (method, filled, query, body, answer.text[:300])
                    assert answer.status_code < 500 or path == "/readyz", told
                    if answer.status_code >= 400:
                        assert answer.json().keys() == {"code", "message", "details", "request_id"}, told
                        assert len(answer.content) < 20_000, told
