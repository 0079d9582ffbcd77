"""One platform with two organizations over real HTTP: a workspace of ours, its sibling, and a stranger's."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from flow_platform.api.app import create_app
from flow_platform.domain.principal import Role
from flow_platform.domain.release import BUILT_IN_RINGS, Ring
from flow_platform.engine.catalog import Catalog
from flow_platform.engine.service import Engine
from flow_platform.store import open_store
from flow_platform.store.base import Workspace
from flow_sdk.wire.runner import Assignment
from tests.contract.api.hands import HOUR, NO_NATS, Builds, Platform, Tenant, submit_body
from tests.contract.api.serving import serving

PEOPLE = (Role.ADMIN, Role.BUILDER, Role.RUNNER, Role.VIEWER)
KINDS = ("code-blocks", "transforms", "workflows")


async def new_tenant(platform: Platform, org_id: str | None = None) -> Tenant:
    """A workspace with its rings; of a new organization when none is named."""
    workspace, now = Workspace(org_id or str(uuid.uuid4()), str(uuid.uuid4()), "test"), platform.now
    rings = [
        Ring(str(uuid.uuid4()), workspace.org_id, workspace.workspace_id, name, order, auto_deploy, now)
        for name, order, auto_deploy in BUILT_IN_RINGS
    ]

    def operation(tx: Any) -> None:
        if org_id is None:
            tx.tenancy.insert_organization(workspace.org_id, "test", now)
        tx.tenancy.insert_workspace(workspace, now)
        for ring in rings:
            tx.catalog.insert_ring(ring)

    await platform.engine.store.write(operation)
    return Tenant(platform, workspace, {ring.name: ring.id for ring in rings})


@dataclass
class Owned:
    """One of each thing that a workspace can have: their ids, by the names of the table's placeholders."""

    ids: dict[str, str] = field(default_factory=dict[str, str])
    components: dict[str, str] = field(default_factory=dict[str, str])


async def one_of_each(tenant: Tenant) -> Owned:
    owned = Owned({"ring": tenant.rings["dev"]})
    for kind in KINDS:
        owned.components[kind] = (await tenant.publish(kind, "mine"))["id"]
    owned.ids["component"] = owned.components["code-blocks"]
    owned.components["agents"] = owned.components["workflows"]  # Whatever it is: it is not ours.
    async with tenant.client() as client:
        schedule = {"component_id": "mine", "kind": "code_block", "interval_seconds": 3600}
        owned.ids["schedule"] = (await client.post("/schedules", json=schedule)).json()["id"]
        owned.ids["key"] = (await client.post("/api-keys", json={"name": "k", "role": "viewer"})).json()["id"]
        await client.put("/policies", json={"component_id": owned.ids["component"], "concurrency": 5})
        owned.ids["part"] = (await client.post("/schemas", json={"slug": "mine", "schema": {}})).json()["id"]
        service = (await client.post("/services", json={"slug": f"s{uuid.uuid4().hex[:8]}"})).json()["id"]
        endpoint = {
            "name": "greet",
            "method": "POST",
            "path": "/greet",
            "component": {"kind": "code_block", "slug": "mine"},
        }
        owned.ids["service"] = service
        owned.ids["endpoint"] = (await client.post(f"/services/{service}/endpoints", json=endpoint)).json()["id"]
        owned.ids["token"] = (await client.post(f"/services/{service}/tokens", json={"name": "t"})).json()["id"]
        published = await client.post(f"/services/{service}/publish")
        assert published.status_code == 201, published.text
    assignment = await running(tenant)
    owned.ids["execution"] = owned.ids["transaction"] = assignment.execution_id
    async with tenant.as_execution(assignment) as client:
        asked = {"kind": "event", "name": "go"}
        answer = await client.post(f"/executions/{assignment.execution_id}/checkpoints", json=asked)
        owned.ids["checkpoint"] = answer.json()["checkpoint_id"]
    async with tenant.client() as client:
        owned.ids["deployment"] = (await client.get("/deployments")).json()["items"][0]["deployment_id"]
    return owned


async def running(tenant: Tenant) -> Assignment:
    """An execution of a workflow whose attempt runs."""
    async with tenant.client() as client:
        answer = await client.post("/workflows/mine/executions", json=submit_body("workflows", timeout_seconds=86400))
    assert answer.status_code == 202, answer.text
    return await tenant.platform.claim(answer.json()["execution_id"])


@dataclass
class World:
    platform: Platform
    base_url: str
    own: Tenant
    sibling: Tenant
    stranger: Tenant
    ours: Owned
    theirs: dict[str, Owned]
    """What `sibling` and `stranger` have, by those names."""
    headers: dict[str, dict[str, str]]
    """Of requests, by credential: `key` is an API key, `wide` a token of a whole organization, `ended` an execution's
    token after its attempt."""

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.base_url, timeout=30)


@asynccontextmanager
async def two_organizations(folder: Path) -> AsyncIterator[World]:
    engine = Engine(open_store(f"sqlite:///{folder}/flow.db"), NO_NATS)
    await engine.start()
    builds = Builds()
    engine.catalog = Catalog(engine.store, engine.clock, builds, engine.rollouts)
    platform = Platform(engine, builds, create_app(engine))
    own = await new_tenant(platform)
    sibling, stranger = await new_tenant(platform, own.workspace.org_id), await new_tenant(platform)
    theirs = {"sibling": await one_of_each(sibling), "stranger": await one_of_each(stranger)}
    ours = await one_of_each(own)
    headers = await _credentials(own)
    try:
        async with serving(platform.app) as base_url:
            yield World(platform, base_url, own, sibling, stranger, ours, theirs, headers)
    finally:
        await engine.stop()


async def _credentials(tenant: Tenant) -> dict[str, dict[str, str]]:
    engine, org_id = tenant.platform.engine, tenant.workspace.org_id

    def bearer(token: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {token}"}

    made = {role.value: bearer(tenant.token(role)) for role in PEOPLE}
    made["wide admin"] = bearer(engine.tokens.for_user("ada", org_id, None, Role.ADMIN, HOUR, engine.clock.now()))
    for role in PEOPLE:
        async with tenant.client() as client:
            answer = await client.post("/api-keys", json={"name": role.value, "role": role.value})
        made[f"key {role.value}"] = {"X-API-Key": answer.json()["key"]}
    ended = await running(tenant)
    await tenant.platform.finish(ended, {"done": True})
    made["ended"] = bearer(ended.token)
    made["execution"] = bearer((await running(tenant)).token)
    made["none"] = {}
    return made
