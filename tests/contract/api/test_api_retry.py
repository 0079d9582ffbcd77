"""Retries over HTTP: what the bodies say, and what is answered. What they do is proved in `contract/engine`."""

from __future__ import annotations

from typing import Any

import pytest

from flow_platform.domain.principal import Role
from tests.contract.api.hands import Tenant, refused

pytestmark = pytest.mark.asyncio(loop_scope="module")

ERROR = {"code": "component_error", "message": "no"}


async def failed(tenant: Tenant, component: str = "echo", **body: Any) -> str:
    await tenant.publish("code-blocks", component)
    execution_id = await tenant.submit("code-blocks", component, **body)
    await tenant.platform.finish(await tenant.platform.claim(execution_id), error=ERROR)
    return execution_id


@pytest.mark.parametrize("content", [b"", b"{}", b'{"version": "active"}', b'{"version": 1}'])
async def test_a_retry_is_answered_like_a_submit(tenant: Tenant, content: bytes) -> None:
    old = await failed(tenant)
    async with tenant.client() as client:
        answer = await client.post(f"/executions/{old}/retry", content=content)
        assert answer.status_code == 202, answer.text
        handle = answer.json()
        assert handle["status"] == "queued"
        new = (await client.get(f"/executions/{handle['execution_id']}")).json()
        assert new["retry_of_execution_id"] == old
        assert (await client.get(f"/executions/{old}")).json()["retried_as_execution_id"] == new["execution_id"]
        error = refused(await client.post(f"/executions/{old}/retry"), 409, "already_retried")
    assert error["details"] == [{"field": "retried_as_execution_id", "message": handle["execution_id"]}]


async def test_another_input_is_taken(tenant: Tenant) -> None:
    old = await failed(tenant)
    async with tenant.client() as client:
        answer = await client.post(f"/executions/{old}/retry", json={"input_data": {"a": 2}})
    assignment = await tenant.platform.claim(answer.json()["execution_id"])
    assert assignment.input is not None
    assert assignment.input["input_data"] == {"a": 2}


@pytest.mark.parametrize(
    "content",
    [
        b"[]",
        b"{",
        b'{"version": 0}',
        b'{"version": "1"}',
        b'{"version": true}',
        b'{"version": 1.0}',
        b'{"version": 99999999999999999999}',
        b'{"input": {}}',
        b'{"input_data": null}',
        b'{"input_data": [1]}',
    ],
)
async def test_a_wrong_body_is_refused(tenant: Tenant, content: bytes) -> None:
    old = await failed(tenant)
    async with tenant.client() as client:
        answer = await client.post(f"/executions/{old}/retry", content=content)
        assert (answer.status_code, answer.json()["code"]) in {(422, "invalid_input"), (422, "invalid_json")}
        assert (await client.get(f"/executions/{old}")).json()["retried_as_execution_id"] is None


async def test_one_key_retries_once(tenant: Tenant) -> None:
    old, key = await failed(tenant), {"Idempotency-Key": "once"}
    async with tenant.client() as client:
        first = await client.post(f"/executions/{old}/retry", headers=key)
        again = await client.post(f"/executions/{old}/retry", headers=key, content=b" {} ")
        assert again.json() == first.json()
        other = await client.post(f"/executions/{old}/retry", headers=key, json={"version": 1})
    refused(other, 409, "idempotency_key_reused")


async def test_who_may_not(tenant: Tenant, other: Tenant) -> None:
    old = await failed(tenant)
    for path, body in ((f"/executions/{old}/retry", {}), ("/executions/retry", {"filter": {}})):
        async with tenant.client(Role.VIEWER) as client:
            refused(await client.post(path, json=body), 403, "forbidden")
        async with tenant.as_execution(await tenant.running()) as client:
            refused(await client.post(path, json=body), 403, "forbidden")
    async with other.client() as client:
        refused(await client.post(f"/executions/{old}/retry"), 404, "not_found")
        assert (await client.post("/executions/retry", json={"filter": {}})).json()["matched"] == 0


async def test_a_filter_retries_once_and_says_what(tenant: Tenant) -> None:
    olds = [await failed(tenant) for _ in range(2)]
    await failed(tenant, "another")
    async with tenant.client() as client:
        component = (await client.get("/code-blocks/echo")).json()["id"]
        where = {"filter": {"component_id": component, "status": "failed"}}
        preview = (await client.post("/executions/retry", json={**where, "dry_run": True})).json()
        assert preview == {
            "matched": 2,
            "items": [{"execution_id": old, "retried_as_execution_id": None} for old in olds],
            "refused": [],
            "dry_run": True,
            "truncated": False,
        }
        unknown = (await client.post("/executions/retry", json={**where, "version": 9})).json()
        assert [(one["execution_id"], one["code"]) for one in unknown["refused"]] == [(x, "not_found") for x in olds]
        done = (await client.post("/executions/retry", json=where)).json()
        assert [item["execution_id"] for item in done["items"]] == olds
        for item in done["items"]:
            new = (await client.get(f"/executions/{item['retried_as_execution_id']}")).json()
            assert new["retry_of_execution_id"] == item["execution_id"]
        assert (await client.post("/executions/retry", json=where)).json()["matched"] == 0


async def test_a_list_can_be_of_those_not_retried(tenant: Tenant) -> None:
    old, waiting = await failed(tenant), await failed(tenant)
    async with tenant.client() as client:
        await client.post(f"/executions/{old}/retry")

        async def listed(**query: str) -> list[str]:
            page = (await client.get("/executions", params=query)).json()
            return [item["execution_id"] for item in page["items"]]

        assert await listed(status="failed", retried="false") == [waiting]
        assert await listed(retried="true") == [old]
        refused(await client.get("/executions?retried=maybe"), 422, "invalid_input")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"filter": None},
        {"filter": {"status": "completed"}},
        {"filter": {"status": None}},
        {"filter": {"state": "failed"}},
        {"filter": {}, "dry_run": "yes"},
        {"filter": {}, "version": "newest"},
        {"filter": {}, "input_data": 1},
    ],
)
async def test_a_wrong_filter_retries_nothing(tenant: Tenant, body: dict[str, Any]) -> None:
    old = await failed(tenant)
    async with tenant.client() as client:
        refused(await client.post("/executions/retry", json=body), 422, "invalid_input")
        assert (await client.get(f"/executions/{old}")).json()["retried_as_execution_id"] is None
