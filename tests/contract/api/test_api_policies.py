"""Policies over HTTP and on the command line: set, shown, obeyed, deleted; each tenant's own."""

from __future__ import annotations

import asyncio
import json

import pytest

from flow_platform.domain.principal import Role
from tests.contract.api.hands import HOUR, Tenant, refused, submit_body
from tests.contract.api.serving import serving
from tests.support.flow_program import Done, flow

pytestmark = pytest.mark.asyncio(loop_scope="module")

SAID = {
    "concurrency": 5,
    "concurrency_per_key": 1,
    "rate": {"count": 10, "period_seconds": 0.5, "burst": 20},
    "priority": -3,
    "max_queued": 2,
    "retry": {"max_attempts": 4},
}


async def test_a_policy_is_set_shown_and_deleted(tenant: Tenant, other: Tenant) -> None:
    component = await tenant.publish()
    async with tenant.client() as client, other.client() as stranger:
        scope = {"component_id": "echo", "ring_id": "dev"}
        put = await client.put("/policies", json={**scope, **SAID})
        listed = await client.get("/policies")
        of_other = await stranger.get("/policies")
        gone = await client.delete("/policies", params=scope)
        again = await client.delete("/policies", params=scope)
        left = await client.get("/policies")

    assert put.status_code == 200, put.text
    document = put.json()
    assert (document["component_id"], document["ring_id"]) == (component["id"], tenant.rings["dev"])
    assert {name: document[name] for name in SAID if name != "retry"} == {
        name: value for name, value in SAID.items() if name != "retry"
    }
    assert document["retry"]["max_attempts"] == 4
    assert document["weight"] is None
    assert listed.json()["items"] == [document]
    assert of_other.json()["items"] == []
    assert gone.status_code == 204
    refused(again, 404, "not_found")
    assert left.json()["items"] == []


async def test_a_submit_beyond_the_queue_is_refused(tenant: Tenant) -> None:
    await tenant.publish()
    async with tenant.client() as client:
        await client.put("/policies", json={"component_id": "echo", "max_queued": 2})
        answers = [await client.post("/code-blocks/echo/executions", json=submit_body("code-blocks")) for _ in range(3)]
    assert [answer.status_code for answer in answers[:2]] == [202, 202]
    refused(answers[2], 429, "queue_full")
    assert answers[2].headers["retry-after"] == "1"


@pytest.mark.parametrize("more", [{"priority": 101}, {"priority": True}, {"concurrency_key": ""}, {"priority": "1"}])
async def test_priority_and_key_are_checked(tenant: Tenant, more: dict[str, object]) -> None:
    await tenant.publish()
    async with tenant.client() as client:
        body = {**submit_body("code-blocks"), **more}
        refused(await client.post("/code-blocks/echo/executions", json=body), 422, "invalid_input")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"component_id": "echo", "weight": 2},
        {"component_id": "echo", "concurrency": "2"},
        {"component_id": "echo", "rate": {"count": 0}},
        {"component_id": "echo", "speed": 2},
        {"ring_id": "dev", "retry": {"max_attempts": 0}},
    ],
)
async def test_what_is_no_policy_is_refused(tenant: Tenant, body: dict[str, object]) -> None:
    await tenant.publish()
    token = tenant.platform.engine.tokens.for_user(
        "root", tenant.workspace.org_id, None, Role.ADMIN, HOUR, tenant.platform.now
    )
    async with tenant.platform.client(token) as client:
        refused(await client.put(f"{tenant.path}/policies", json=body), 422, "invalid_input")


async def test_only_admins_edit(tenant: Tenant) -> None:
    async with tenant.client(Role.BUILDER) as client:
        refused(await client.put("/policies", json={"ring_id": "dev", "concurrency": 1}), 403, "forbidden")
        assert (await client.get("/policies")).status_code == 200
    async with tenant.client() as client:
        refused(await client.put("/policies", json={"concurrency": 1}), 403, "forbidden")


async def test_the_command_sets_lists_and_deletes(tenant: Tenant) -> None:
    await tenant.publish()
    async with serving(tenant.platform.app) as url:

        async def typed(*arguments: str, code: int = 0) -> Done:
            done = await asyncio.to_thread(flow, "policy", *arguments, FLOW_URL=url, FLOW_TOKEN=tenant.token())
            assert done.returncode == code, done.stderr
            return done

        where = ("--component", "code-blocks/echo", "--ring", "dev")
        made = await typed("set", *where, "--concurrency", "2", "--rate", "10/0.5,20", "--max-attempts", "3")
        assert made.stderr == "set the policy of code-blocks/echo in ring dev\n"
        listed = (await typed("list")).stdout.splitlines()
        assert listed[1].split("  ")[0] == "code-blocks/echo"
        assert "concurrency 2, rate 10/0.5,20, retry 3 attempts" in listed[1]
        [policy] = json.loads((await typed("list", "--json")).stdout)
        assert policy["rate"] == {"count": 10, "period_seconds": 0.5, "burst": 20}
        assert "COUNT/SECONDS" in (await typed("set", *where, "--rate", "fast", code=1)).stderr
        assert "no values" in (await typed("delete", *where, "--concurrency", "2", code=1)).stderr
        assert (await typed("delete", *where)).stderr == "deleted the policy of code-blocks/echo in ring dev\n"
        assert (await typed("list", "--json")).stdout == "[]\n"
