"""One real engine over a real SQLite store per test module, without NATS; a fresh tenant for each test.

Attempts are claimed and reported through the engine's own parts, as runners do it.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import httpx
from starlette.types import ASGIApp

from flow_platform.domain.principal import Role
from flow_platform.engine.service import Engine
from flow_platform.store.base import Workspace
from flow_sdk.wire.execution import ErrorDocument
from flow_sdk.wire.runner import Assignment, BuildReply, BuildRequest, Claim, Claimed, Register

NO_NATS = "nats://127.0.0.1:1"
HOUR = timedelta(hours=1)
CODE = "def main(**values):\n    return values\n"


@dataclass(frozen=True)
class Report:
    """A message of a runner."""

    subject: str
    body: bytes
    headers: dict[str, str]


class Builds:
    """Stands for the runners that build: a source that says `refuse` is refused, like one that does not parse."""

    def __init__(self) -> None:
        self.requests: list[BuildRequest] = []

    async def __call__(self, request: BuildRequest) -> BuildReply:
        self.requests.append(request)
        if "offline" in request.code:
            return BuildReply(error=ErrorDocument(code="index_unavailable", message="the index does not answer"))
        if "refuse" in request.code:
            details = [{"field": "code", "message": "line 1: invalid syntax"}]
            error = ErrorDocument(code="syntax_error", message="line 1: invalid syntax", details=details)
            return BuildReply(error=error)
        return BuildReply(input_schema={"type": "object"}, output_schema={}, description="From the docstring.")


@dataclass
class Platform:
    """The engine, and hands that do what a runner does."""

    engine: Engine
    builds: Builds
    app: ASGIApp
    runner: str = field(default_factory=lambda: f"runner-{uuid.uuid4().hex[:8]}")

    @property
    def now(self) -> datetime:
        return self.engine.clock.now()

    def client(self, token: str | None = None, base_url: str = "http://flow.test") -> httpx.AsyncClient:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        transport = httpx.ASGITransport(self.app)
        return httpx.AsyncClient(transport=transport, base_url=base_url, headers=headers)

    async def described(self) -> dict[str, dict[str, Any]]:
        """All operations by path and method, as the API's own document tells them."""
        return (await self.document())["paths"]

    async def document(self) -> dict[str, Any]:
        """The API's description of itself."""
        async with self.client() as client:
            return (await client.get("/api/v1/openapi.json")).json()

    async def claim(self, execution_id: str) -> Assignment:
        """Starts the attempt of one execution; others that wait in the queue are started on the way."""
        await self.engine._heartbeats.register(Register(runner_id=self.runner, instance="1", slots=500))
        for _ in range(20):
            answer = Claimed.model_validate_json(
                await self.engine._claims.claim(
                    Claim(runner_id=self.runner, instance="1", slots=500, room=500, hold_seconds=0)
                )
            )
            for assignment in answer.assignments:
                if assignment.execution_id == execution_id:
                    return assignment
        raise AssertionError(f"{execution_id} was not in the queue")

    async def finish(
        self,
        assignment: Assignment,
        output: Any = None,
        error: Any = None,
        events: int = 0,
        cpu_ms: float | None = None,
    ) -> None:
        body = {"output": output, "error": error}
        headers = {"Flow-Metrics": json.dumps({"events": events, "cpu_ms": cpu_ms})}
        await self.engine._recorder.record_outputs([self._report("exec.output", assignment, body, headers)])

    async def emit(self, assignment: Assignment, sequence: int, event_type: str, event_data: Any) -> None:
        body = {"sequence": sequence, "event_type": event_type, "event_data": event_data}
        await self.engine._recorder.record_events([self._report("exec.events", assignment, body, {})])

    def _report(self, subject: str, assignment: Assignment, body: Any, headers: dict[str, str]) -> Report:
        own = {"Flow-Lease-Epoch": str(assignment.lease_epoch), "Flow-Attempt": str(assignment.attempt)}
        return Report(f"{subject}.{assignment.execution_id}", json.dumps(body).encode(), own | headers)


@dataclass
class Tenant:
    """An organization with one workspace, and ways to ask as each role."""

    platform: Platform
    workspace: Workspace
    rings: dict[str, str]

    @property
    def path(self) -> str:
        return f"/api/v1/orgs/{self.workspace.org_id}/workspaces/{self.workspace.workspace_id}"

    def token(self, role: Role = Role.ADMIN, ttl: timedelta = HOUR, ago: timedelta = timedelta(0)) -> str:
        issued_at = self.platform.now - ago
        tokens = self.platform.engine.tokens
        return tokens.for_user("ada", self.workspace.org_id, self.workspace.workspace_id, role, ttl, issued_at)

    def client(self, role: Role = Role.ADMIN) -> httpx.AsyncClient:
        return self.platform.client(self.token(role), f"http://flow.test{self.path}")

    def as_execution(self, assignment: Assignment) -> httpx.AsyncClient:
        return self.platform.client(assignment.token, f"http://flow.test{self.path}")

    async def publish(self, kind: str = "code-blocks", slug: str = "echo", **more: Any) -> dict[str, Any]:
        async with self.client() as client:
            answer = await client.post(f"/{kind}", json={"slug": slug, "code": CODE, **more})
        assert answer.status_code in (200, 201), answer.text
        return answer.json()

    async def submit(self, kind: str = "code-blocks", component: str = "echo", **more: Any) -> str:
        async with self.client() as client:
            answer = await client.post(f"/{kind}/{component}/executions", json=submit_body(kind, **more))
        assert answer.status_code == 202, answer.text
        return answer.json()["execution_id"]

    async def running(self, kind: str = "workflows") -> Assignment:
        """An execution whose attempt runs."""
        await self.publish(kind, "running")
        return await self.platform.claim(await self.submit(kind, "running"))


def submit_body(kind: str = "code-blocks", **more: Any) -> dict[str, Any]:
    name = "input_parameters" if kind == "code-blocks" else "input_data"
    return {name: {"a": 1}, "config": {}, "lifecycle_event": "workflow", "timeout_seconds": 300, **more}


def refused(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Checks an error's shape, and returns its body without the request id."""
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert body.keys() == {"code", "message", "details", "request_id"}
    assert body["request_id"] == answer.headers["x-request-id"]
    assert body["code"] == code, body
    assert body["message"]
    assert "Traceback" not in answer.text
    return {name: value for name, value in body.items() if name != "request_id"}
