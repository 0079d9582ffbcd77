"""Workspaces of an organization: made by its admins, listed for whoever reaches them, and each for itself."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from flow_platform.domain.principal import Role
from tests.contract.api.hands import HOUR, Tenant, refused


def _headers(tenant: Tenant, workspace_id: str | None = None, role: Role = Role.ADMIN) -> dict[str, str]:
    engine = tenant.platform.engine
    token = engine.tokens.for_user("ada", tenant.workspace.org_id, workspace_id, role, HOUR, engine.clock.now())
    return {"Authorization": f"Bearer {token}"}


def _path(tenant: Tenant) -> str:
    return f"/api/v1/orgs/{tenant.workspace.org_id}/workspaces"


def _client(tenant: Tenant, headers: dict[str, str]) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app=tenant.platform.app)
    return httpx.AsyncClient(transport=transport, base_url="http://flow.test", headers=headers)


async def test_an_admin_makes_a_workspace_that_works_like_the_first_and_sees_nothing_of_it(tenant: Tenant) -> None:
    await tenant.publish()
    async with _client(tenant, _headers(tenant)) as admin:
        answer = await admin.post(_path(tenant), json={"name": "billing"})
        made: dict[str, Any] = answer.json()
        assert (answer.status_code, made["name"], set(made)) == (201, "billing", {"id", "name"})
        listed = (await admin.get(_path(tenant))).json()
        assert listed["next_cursor"] is None
        assert [each["id"] for each in listed["items"]] == [tenant.workspace.workspace_id, made["id"]]
        below = f"{_path(tenant)}/{made['id']}"
        rings = (await admin.get(f"{below}/rings")).json()["items"]
        assert [ring["name"] for ring in rings] == ["dev", "staging", "production"]
        assert (await admin.get(f"{below}/code-blocks")).json()["items"] == []
        block = {"slug": "echo", "code": "def main(**values):\n    return values\n"}
        assert (await admin.post(f"{below}/code-blocks", json=block)).status_code == 201
        submitted = await admin.post(
            f"{below}/code-blocks/echo/executions", json={"input_parameters": {}, "ring_id": rings[0]["id"]}
        )
        assert submitted.status_code == 202
        identity = (await admin.get("/api/v1/auth/whoami")).json()
        assert [each["name"] for each in identity["workspaces"]][-1] == "billing"
    async with _client(tenant, _headers(tenant, made["id"])) as there:
        assert [each["id"] for each in (await there.get(_path(tenant))).json()["items"]] == [made["id"]]
        refused(await there.get(f"{tenant.path}/code-blocks"), 404, "not_found")


async def test_who_may_not_make_one_and_what_is_no_name(tenant: Tenant) -> None:
    async with _client(tenant, _headers(tenant)) as admin:
        assert (await admin.post(_path(tenant), json={"name": "one"})).status_code == 201
        error = refused(await admin.post(_path(tenant), json={"name": "one"}), 409, "workspace_exists")
        assert error["details"][0]["field"] == "name"
        for body in ({}, {"name": ""}, {"name": "a\n"}, {"name": "x" * 101}, {"name": 1}, {"name": "a", "id": "b"}):
            refused(await admin.post(_path(tenant), json=body), 422, "invalid_input")
        refused(await admin.post("/api/v1/orgs/another/workspaces", json={"name": "two"}), 404, "not_found")
        refused(await admin.get("/api/v1/orgs/another/workspaces"), 404, "not_found")
    for headers in (_headers(tenant, tenant.workspace.workspace_id), _headers(tenant, None, Role.BUILDER)):
        async with _client(tenant, headers) as other:
            refused(await other.post(_path(tenant), json={"name": "two"}), 403, "forbidden")


async def test_an_organization_has_a_bound(tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flow_platform.engine.workspaces.MAX_WORKSPACES", 2)
    async with _client(tenant, _headers(tenant)) as admin:
        assert (await admin.post(_path(tenant), json={"name": "second"})).status_code == 201
        refused(await admin.post(_path(tenant), json={"name": "third"}), 409, "too_many_workspaces")
