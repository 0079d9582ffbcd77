"""A platform of two organizations, each with components that try to reach the other."""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import httpx

from flow_platform.domain.clock import SystemClock, new_id
from flow_platform.domain.principal import Role
from flow_platform.domain.release import BUILT_IN_RINGS, Ring
from flow_platform.engine.tokens import Tokens
from flow_platform.hostile.canaries import Canaries, changed
from flow_platform.hostile.source import source_of
from flow_platform.store import open_store
from flow_platform.store.base import SigningKey, Transaction, Workspace
from flow_sdk.wire.isolation import DEFAULT, Isolation

HOLD_SECONDS: Final = 30
ANSWER_SECONDS: Final = 300  # A slow machine refuses no less: only what never answers is given up.
EXECUTION_SECONDS: Final = 1800
TOKEN_LIFE: Final = timedelta(hours=1)
_TERMINAL: Final = frozenset({"completed", "failed", "timeout", "dead_letter", "cancelled"})


@dataclass
class Tenant:
    """An organization, as its administrator."""

    org_id: str
    workspace_id: str
    ring_id: str
    token: str
    http: httpx.AsyncClient
    isolation: Isolation = DEFAULT
    components: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def path(self) -> str:
        return f"/api/v1/orgs/{self.org_id}/workspaces/{self.workspace_id}"

    async def publish(self, slug: str, code: str, kind: str = "code-blocks", **fields: Any) -> str:
        """Publishes a component once; returns its id."""
        if slug not in self.components:
            word = {} if self.isolation is DEFAULT else {"isolation": self.isolation.value}
            body = {"slug": slug, "code": code, **word, **fields}
            answer = await self.http.post(f"{self.path}/{kind}", json=body)
            self.components[slug] = _good(answer)["id"]
        return self.components[slug]

    async def submit(self, slug: str, given: Any = None, kind: str = "code-blocks") -> str:
        name = "input_parameters" if kind == "code-blocks" else "input_data"
        body: dict[str, Any] = {name: given or {}, "ring_id": self.ring_id, "timeout_seconds": EXECUTION_SECONDS}
        answer = await self.http.post(f"{self.path}/{kind}/{self.components[slug]}/executions", json=body)
        return _good(answer)["execution_id"]

    async def ended(self, execution_id: str) -> dict[str, Any]:
        """Its document, when it has ended."""
        while True:
            headers = {"Prefer": f"wait={HOLD_SECONDS}"}
            found = _good(await self.http.get(f"{self.path}/executions/{execution_id}", headers=headers))
            if found["status"] in _TERMINAL:
                return found

    async def run(self, slug: str, given: Any = None) -> Any:
        """What it returned.

        Raises:
            RuntimeError: It did not.
        """
        found = await self.ended(await self.submit(slug, given))
        if found["status"] != "completed":
            raise RuntimeError(f"{slug} ended as {found['status']}: {found.get('error')}"[:300])
        return found["output"]

    async def run_inside(self, name: str, given: Any = None) -> Any:
        """Publishes and runs `inside/{name}.py`."""
        await self.publish(name, source_of(name))
        return await self.run(name, given)

    async def events(self, execution_id: str) -> str:
        """All events of an ended execution, as they come."""
        headers = {"Accept": "text/event-stream"}
        answer = await self.http.get(f"{self.path}/executions/{execution_id}/events", headers=headers)
        return answer.text


@dataclass
class World:
    """Attributes:
    folder: The data folder of the platform.
    secret: The value of a secret of the first tenant; it ends with "!", as every canary.
    needles: What no execution may find in its memory: see `Canaries.needles`.
    """

    document: Mapping[str, Any]
    folder: Path
    first: Tenant
    second: Tenant
    secret: str
    needles: Mapping[str, str]

    @property
    def base_url(self) -> str:
        return str(self.document["base_url"])

    def client(self, token: str = "") -> httpx.AsyncClient:
        return _client(self.base_url, token)


@asynccontextmanager
async def world_of(
    document: Mapping[str, Any], folder: Path, planted: Canaries, isolation: Isolation = DEFAULT
) -> AsyncGenerator[World]:
    """Makes a second organization on a running platform over SQLite, which is the caller's to lose.

    Args:
        document: Of its ready file.
        folder: Its data folder.
        planted: Since before the platform was started, so that they are in its environment.
        isolation: Of all executions; the platform's runner offers it.
    """
    base_url = str(document["base_url"])
    workspace, ring_id, token = await _second_organization(folder)
    async with _client(base_url, str(document["token"])) as one, _client(base_url, token) as two:
        rings = document["rings"]
        first = Tenant(document["org_id"], document["workspace_id"], rings["dev"], document["token"], one, isolation)
        second = Tenant(workspace.org_id, workspace.workspace_id, ring_id, token, two, isolation)
        secret = f"canary-{secrets.token_urlsafe(24)}!"
        for tenant, value in ((first, secret), (second, secrets.token_urlsafe(24))):
            _good(await tenant.http.put(f"{tenant.path}/secrets/HOSTILE_SECRET", json={"value": value}))
            ring = {"minimum_isolation": isolation.value}
            _good(await tenant.http.patch(f"{tenant.path}/rings/{tenant.ring_id}", json=ring))
        needles = {**planted.needles(), "secret of a neighbour": changed(secret[:-1])}
        yield World(document, folder, first, second, secret, needles)


def _client(base_url: str, token: str) -> httpx.AsyncClient:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return httpx.AsyncClient(base_url=base_url, headers=headers, trust_env=False, timeout=ANSWER_SECONDS)


def _good(answer: httpx.Response) -> dict[str, Any]:
    if not answer.is_success:
        raise RuntimeError(
            f"{answer.request.method} {answer.request.url.path}: {answer.status_code} {answer.text[:300]}"
        )
    return answer.json()


async def _second_organization(folder: Path) -> tuple[Workspace, str, str]:
    now = SystemClock().now()
    workspace = Workspace(new_id(now), new_id(now), "second")
    rings = [
        Ring(new_id(now), workspace.org_id, workspace.workspace_id, name, order, auto_deploy, now)
        for name, order, auto_deploy in BUILT_IN_RINGS
    ]
    store = open_store(f"sqlite:///{folder / 'flow.db'}")
    await store.open()

    def operation(tx: Transaction) -> list[SigningKey]:
        tx.tenancy.insert_organization(workspace.org_id, "second", now)
        tx.tenancy.insert_workspace(workspace, now)
        for ring in rings:
            tx.catalog.insert_ring(ring)
        return tx.tenancy.signing_keys()

    try:
        tokens = Tokens(await store.write(operation))
    finally:
        await store.close()
    token = tokens.for_user("second", workspace.org_id, workspace.workspace_id, Role.ADMIN, TOKEN_LIFE, now)
    return workspace, next(ring.id for ring in rings if ring.name == "dev"), token
