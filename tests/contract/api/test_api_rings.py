"""Rings, promotions and variables over HTTP: what the commands do not reach, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from flow_platform.domain.principal import Role
from tests.contract.api.hands import Tenant, refused

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def active(tenant: Tenant, ring: str, slug: str) -> dict[str, Any]:
    async with tenant.client() as client:
        component = (await client.get(f"/code-blocks/{slug}")).json()["id"]
        answer = await client.get(f"/deployments?component_id={component}&ring_id={tenant.rings[ring]}&state=active")
    (found,) = answer.json()["items"]
    return found


async def test_a_set_goes_to_the_next_ring_or_none_of_it(tenant: Tenant) -> None:
    for slug in ("one", "two"):
        await tenant.publish(slug=slug)
    ids = [(await active(tenant, "dev", slug))["deployment_id"] for slug in ("one", "two")]
    async with tenant.client(Role.BUILDER) as client:
        answer = await client.post("/deployments/promote", json={"deployment_ids": ids})
        assert answer.status_code == 201, answer.text
        made = answer.json()["items"]
        assert [(one["state"], one["ring_id"], one["promoted_from_id"]) for one in made] == [
            ("active", tenant.rings["staging"], source) for source in ids
        ]
        assert made[0]["set_id"] == made[1]["set_id"]
        refused(await client.post("/deployments/promote", json={"deployment_ids": ids}), 409, "already_active")
        refused(await client.post("/deployments/promote", json={"deployment_ids": []}), 422, "invalid_input")
        refused(await client.post(f"/deployments/{ids[0]}/share", json={"share": 50}), 409, "illegal_transition")
        refused(await client.post(f"/deployments/{ids[0]}/approve"), 409, "illegal_transition")
        refused(await client.post(f"/deployments/{ids[0]}/rollback"), 409, "nothing_to_roll_back")
        refused(await client.get("/deployments?state=activ"), 422, "invalid_input")
    async with tenant.client(Role.RUNNER) as client:
        refused(await client.post(f"/deployments/{ids[0]}/promote"), 403, "forbidden")


async def test_a_ring_is_changed_while_it_is_in_use(tenant: Tenant) -> None:
    path = f"/rings/{tenant.rings['production']}"
    rule = {"failure_rate": 0.2, "minimum_count": 5, "window_seconds": 60, "watch_seconds": 0}
    async with tenant.client() as client:
        changed = (await client.patch(path, json={"requires_approval": True, "rollback": rule})).json()
        assert (changed["requires_approval"], changed["rollback"], changed["order"]) == (True, rule, 30)
        changed = (await client.patch(path, json={"rollback": None, "env": {"A": "b"}})).json()
        assert (changed["requires_approval"], changed["rollback"], changed["env"]) == (True, None, {"A": "b"})
        for body in ({"order": None}, {"name": "x"}, {"rollback": {"failure_rate": 0}}, {"env": {"RING_ID": "x"}}):
            refused(await client.patch(path, json=body), 422, "invalid_input")
        refused(await client.patch("/rings/none", json={"order": 1}), 404, "not_found")
    async with tenant.client(Role.BUILDER) as client:
        refused(await client.patch(path, json={"order": 1}), 403, "forbidden")


async def test_variables_are_for_those_who_deploy(tenant: Tenant, other: Tenant) -> None:
    async with tenant.client() as client:
        assert (await client.get("/variables")).json() == {"env": {}}
        assert (await client.put("/variables", json={"env": {"A": "1"}})).json() == {"env": {"A": "1"}}
        assert (await client.get("/variables")).json() == {"env": {"A": "1"}}
        refused(await client.put("/variables", json={"env": {"AUTH_TOKEN": "1"}}), 422, "invalid_input")
        organization = f"http://flow.test/api/v1/orgs/{tenant.workspace.org_id}/variables"
        assert (await client.get(organization)).json() == {"env": {}}
        # The token is for one workspace.
        refused(await client.put(organization, json={"env": {"B": "2"}}), 403, "forbidden")
    for role in (Role.RUNNER, Role.VIEWER):
        async with tenant.client(role) as client:
            refused(await client.get("/variables"), 403, "forbidden")
    async with other.client() as client:
        refused(await client.get(organization), 404, "not_found")


async def test_a_deployment_that_waits_says_for_what(tenant: Tenant) -> None:
    await tenant.publish(slug="smoky", smoke_input={"a": 1})
    async with tenant.client() as client:
        (found,) = (await client.get("/deployments?state=validating")).json()["items"]
        assert found["waiting_on"]["reason"] == "smoke_run"
        run = found["smoke_execution_id"]
        assert run in found["waiting_on"]["message"]
        await tenant.platform.finish(await tenant.platform.claim(run), {"a": 1})
        done = await client.get(f"/deployments/{found['deployment_id']}", headers={"Prefer": "wait=10"})
        assert (done.json()["state"], done.headers["Preference-Applied"]) == ("active", "wait=10")
        again = await client.post(
            "/deployments",
            json={"component_id": "smoky", "ring_id": tenant.rings["staging"], "smoke_input": None},
        )
        assert (again.status_code, again.json()["state"]) == (201, "active")
