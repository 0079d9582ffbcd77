"""Two organizations on one platform: what belongs to one does not exist for the other, on any route."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import httpx
import pytest
import pytest_asyncio

from flow_platform.domain.clock import SystemClock, new_id
from flow_platform.domain.principal import Role
from flow_platform.domain.release import BUILT_IN_RINGS, Ring
from flow_platform.engine.tokens import Tokens
from flow_platform.store import open_store
from flow_platform.store.base import SigningKey, Transaction, Workspace
from tests.support.eventually import eventually
from tests.support.flow_program import Platform

pytestmark = pytest.mark.slow

CODE = "def main(number: int = 1) -> int:\n    return number\n"
KINDS = ("code-blocks", "transforms", "workflows")
UNKNOWN = str(uuid.UUID(int=1))


@dataclass
class Tenant:
    """An organization as its administrator sees it, and one of everything that it has."""

    org_id: str
    workspace_id: str
    ring_id: str
    http: httpx.AsyncClient
    components: dict[str, str]
    is_organization_wide: bool  # Its token: without a workspace it has no inline calls.
    execution_id: str = ""
    deployment_id: str = ""

    @property
    def path(self) -> str:
        return f"/api/v1/orgs/{self.org_id}/workspaces/{self.workspace_id}"

    async def fill(self) -> None:
        for kind in KINDS:
            code = CODE.replace("number: int = 1", "data: int").replace("number", "data") if kind[0] == "t" else CODE
            answer = await self.http.post(f"{self.path}/{kind}", json={"slug": "secret", "code": code})
            assert answer.status_code in (200, 201), answer.text
            self.components[kind] = answer.json()["id"]
        submit = f"{self.path}/code-blocks/{self.components['code-blocks']}/executions"
        answer = await self.http.post(submit, json={"input_parameters": {}, "ring_id": self.ring_id})
        assert answer.status_code == 202, answer.text
        self.execution_id, self.deployment_id = answer.json()["execution_id"], answer.json()["deployment_id"]

        async def status() -> str:
            document = (await self.http.get(f"{self.path}/executions/{self.execution_id}")).json()
            return str(document["status"])

        await eventually(status, lambda word: word == "completed")


async def second_organization(platform: Platform) -> tuple[Workspace, str, str]:
    """Made in the database: its workspace, its ring for development, and a token of its administrator."""
    clock = SystemClock()
    now = clock.now()
    workspace = Workspace(new_id(now), new_id(now), "second")
    rings = [
        Ring(new_id(now), workspace.org_id, workspace.workspace_id, name, order, auto_deploy, now)
        for name, order, auto_deploy in BUILT_IN_RINGS
    ]
    store = open_store(f"sqlite:///{platform.data / 'flow.db'}")
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
    token = tokens.for_user("second", workspace.org_id, workspace.workspace_id, Role.ADMIN, timedelta(hours=1), now)
    return workspace, next(ring.id for ring in rings if ring.name == "dev"), token


@pytest_asyncio.fixture
async def tenants(platform: Platform) -> Any:
    ready = platform.wait_ready()
    workspace, ring_id, token = await second_organization(platform)

    def client(bearer: str) -> httpx.AsyncClient:
        headers = {"Authorization": f"Bearer {bearer}"}
        return httpx.AsyncClient(base_url=ready["base_url"], headers=headers, trust_env=False, timeout=30)

    async with client(ready["token"]) as first, client(token) as second:
        both = (
            Tenant(ready["org_id"], ready["workspace_id"], ready["rings"]["dev"], first, {}, True),
            Tenant(workspace.org_id, workspace.workspace_id, ring_id, second, {}, False),
        )
        for tenant in both:
            await tenant.fill()
        yield both


def said(answer: httpx.Response, *ids: str) -> tuple[int, str, str]:
    """An answer without what names the id that was asked for: so two of them can be compared."""
    document = answer.json()
    message = document["message"]
    for one in ids:
        message = message.replace(one, "...")
    return answer.status_code, document["code"], message


async def test_an_answer_does_not_tell_what_exists(tenants: tuple[Tenant, Tenant]) -> None:
    mine, other = tenants
    for path, known in (
        ("/executions/{}", other.execution_id),
        ("/executions/{}/tree", other.execution_id),
        ("/code-blocks/{}", other.components["code-blocks"]),
        ("/workflows/{}/versions", other.components["workflows"]),
    ):
        existing = await mine.http.get(mine.path + path.format(known))
        missing = await mine.http.get(mine.path + path.format(UNKNOWN))
        assert said(existing, known) == said(missing, UNKNOWN)


async def test_ids_of_another_organization_in_a_body_are_not_found(tenants: tuple[Tenant, Tenant]) -> None:
    mine, other = tenants
    block, theirs = mine.components["code-blocks"], other.components["code-blocks"]
    submit = f"{mine.path}/code-blocks/{block}/executions"
    for path, body in (
        (submit, {"input_parameters": {}, "ring_id": other.ring_id}),
        (submit, {"input_parameters": {}, "caller_deployment_id": other.deployment_id}),
        (f"{mine.path}/deployments", {"component_id": theirs, "ring_id": mine.ring_id}),
        (f"{mine.path}/deployments", {"component_id": block, "ring_id": other.ring_id}),
    ):
        answer = await mine.http.post(path, json=body)
        assert answer.status_code == 404, (path, body, answer.text)


async def test_lists_hold_what_is_mine(tenants: tuple[Tenant, Tenant]) -> None:
    mine, other = tenants
    foreign = {other.execution_id, other.deployment_id, other.ring_id, *other.components.values()}
    for what in ("executions", "deployments", "rings", *KINDS):
        for query in ("", f"?component_id={other.components['code-blocks']}", f"?ring_id={other.ring_id}"):
            answer = await mine.http.get(f"{mine.path}/{what}{query}")
            if answer.status_code == 404 and query:
                continue
            assert answer.status_code == 200, answer.text
            assert not [one for one in foreign if one in answer.text], (what, query)
    assert (await other.http.get(f"{other.path}/executions")).json()["items"], "it has its own"
