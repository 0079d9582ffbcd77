"""Calling endpoints of published services over HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable
from datetime import timedelta
from typing import Any

import httpx
import pytest

from flow_platform.domain.errors import InvalidInput
from flow_platform.domain.principal import Role
from flow_platform.engine.service_tools import resolve
from flow_sdk import PlatformClient, PlatformNotFoundError
from flow_sdk.wire.execution import ErrorDocument
from flow_sdk.wire.runner import Assignment
from tests.contract.api.hands import Tenant, refused
from tests.contract.api.test_api_services import ORDER, at, draft, endpoint, published
from tests.support.eventually import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

OPEN = {"type": "object"}


class Calls:
    """One published service, and a runner that answers its calls."""

    def __init__(self, tenant: Tenant, service: dict[str, Any]) -> None:
        self.tenant = tenant
        self.base: str = service["base"]
        self.service = service
        self.path = f"/services/{service['service_id']}"

    async def answered(
        self, calling: Awaitable[httpx.Response], output: Any = None, error: ErrorDocument | None = None
    ) -> tuple[httpx.Response, Assignment]:
        """The answer to a call whose component puts that out, and what the component got."""
        known = set(await self.executions())
        task = asyncio.ensure_future(calling)
        [new] = await eventually(lambda: self._new(known), bool)
        assignment = await self.tenant.platform.claim(new)
        await self.tenant.platform.finish(assignment, output, error.model_dump() if error else None)
        return await task, assignment

    async def executions(self) -> list[str]:
        async with self.tenant.client() as client:
            return [one["execution_id"] for one in (await client.get("/executions")).json()["items"]]

    async def _new(self, known: set[str]) -> set[str]:
        return set(await self.executions()) - known

    async def token(self) -> str:
        async with self.tenant.client() as client:
            return (await client.post(f"{self.path}/tokens", json={"name": "crm"})).json()["token"]


def given(assignment: Assignment) -> Any:
    """What the component got."""
    assert assignment.input is not None
    return assignment.input["input_data"]


async def calls_of(tenant: Tenant, *endpoints: dict[str, Any]) -> Calls:
    return Calls(tenant, await published(tenant, *endpoints))


async def test_path_query_and_body_become_the_input(tenant: Tenant) -> None:
    calls = await calls_of(tenant, endpoint(timeout_seconds=42))

    async with at(tenant) as client:
        answer, assignment = await calls.answered(
            client.post(
                f"{calls.base}/orders/7/note-order?tags=a&tags=b&note=by+query",
                json={"order_id": 8, "note": "in body", "more": [1]},
                headers={"X-Lifecycle-Event": "test"},
            ),
            {"noted": True},
        )
        status = (await client.get(f"{tenant.path}/executions/{assignment.execution_id}")).json()

    assert (answer.status_code, answer.json()) == (200, {"noted": True})
    assert answer.headers["x-execution-id"] == assignment.execution_id
    assert given(assignment) == {"order_id": 7, "note": "by query", "tags": ["a", "b"], "more": [1]}
    assert assignment.config["service"] == {
        "id": calls.service["service_id"],
        "slug": calls.service["slug"],
        "version": 1,
        "endpoint": "note-order",
    }
    assert (status["ring_id"], status["timeout_seconds"]) == (tenant.rings["dev"], 42)
    assert status["lifecycle_event"] == "test"


async def test_an_input_that_does_not_fit_is_refused_by_its_field(tenant: Tenant) -> None:
    calls = await calls_of(tenant)

    async with at(tenant) as client:

        async def fields(path: str, body: Any) -> list[str]:
            answer = await client.post(f"{calls.base}{path}", json=body)
            return [each["field"] for each in refused(answer, 422, "invalid_input")["details"]]

        assert await fields("/orders/seven/note-order", {"note": "fine"}) == ["order_id"]
        assert await fields("/orders/7/note-order", {}) == ["note"]
        assert await fields("/orders/7/note-order", {"note": "X"}) == ["note", "note"]
        assert await fields("/orders/7/note-order", {"note": "fine", "tags": 1}) == ["tags"]
        assert await fields("/orders/7/note-order?" + "&".join(f"q{i}=1" for i in range(101)), {}) == ["query"]
        broken = await client.post(f"{calls.base}/orders/7/note-order", content=b"{")
    refused(broken, 422, "invalid_json")
    assert await calls.executions() == []


async def test_a_component_of_any_json_gets_the_body_as_it_is(tenant: Tenant) -> None:
    await tenant.publish("transforms", "any")
    block = endpoint("block", path="/block", request_schema=OPEN)
    plain = endpoint("any", path="/any", component={"kind": "transform", "slug": "any"}, request_schema={})
    calls = await calls_of(tenant, plain, block)

    async with at(tenant) as client:
        _, as_it_is = await calls.answered(client.post(f"{calls.base}/any", json=[1, 2]), 3)
        _, as_member = await calls.answered(client.post(f"{calls.base}/block", json=[1, 2]), 3)
        _, nothing = await calls.answered(client.post(f"{calls.base}/block"), 3)

    assert (given(as_it_is), given(as_member), given(nothing)) == ([1, 2], {"body": [1, 2]}, {})


async def test_versions_are_pinned_and_literal_paths_win(tenant: Tenant) -> None:
    get: dict[str, Any] = {"method": "GET", "request_schema": OPEN}
    calls = await calls_of(tenant, endpoint("one", path="/x/{name}", **get), endpoint("two", path="/x/fixed", **get))
    async with tenant.client() as client:
        await client.delete(f"{calls.path}/endpoints/two")
        assert (await client.post(f"{calls.path}/publish")).json()["version"] == 2

    async with at(tenant) as client:
        _, newest = await calls.answered(client.get(f"{calls.base}/x/fixed"), 1)
        _, pinned = await calls.answered(client.get(f"{calls.base}/v1/x/fixed"), 1)
        wrong = await client.delete(f"{calls.base}/x/fixed")
        refused(await client.get(f"{calls.base}/y"), 404, "not_found")
        refused(await client.get(f"{calls.base}/v3/x/fixed"), 404, "not_found")
        refused(await client.get(f"{calls.base}/x/"), 404, "not_found")

    assert newest.config["service"]["endpoint"] == "one"
    assert given(newest) == {"name": "fixed"}
    assert pinned.config["service"] | {"id": "", "slug": ""} == {"id": "", "slug": "", "version": 1, "endpoint": "two"}
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "GET")


async def test_a_component_that_fails_is_an_error_with_its_execution(tenant: Tenant) -> None:
    public = endpoint("open", path="/open", request_schema=OPEN, auth="public")
    calls = await calls_of(tenant, public)
    broken = ErrorDocument(code="component_error", type="ValueError", message="secret detail", retryable=False)
    bad = [{"field": "a", "message": "is required"}]
    refusal = ErrorDocument(code="invalid_input", message="a: is required", details=bad, retryable=False)

    async with at(tenant) as client, at(tenant, None) as nobody:
        failed, assignment = await calls.answered(client.post(f"{calls.base}/open"), error=broken)
        to_nobody, _ = await calls.answered(nobody.post(f"{calls.base}/open"), error=broken)
        invalid, _ = await calls.answered(nobody.post(f"{calls.base}/open"), error=refusal)

    body = refused(failed, 502, "endpoint_failed")
    assert body["details"] == [{"field": "execution_id", "message": assignment.execution_id}]
    assert failed.headers["x-execution-id"] == assignment.execution_id
    assert "secret detail" in failed.text
    assert "secret detail" not in to_nobody.text
    assert refused(invalid, 422, "invalid_input")["details"] == bad


async def test_an_output_that_does_not_fit_the_response_schema_is_not_given_out(tenant: Tenant) -> None:
    schema = {"type": "object", "properties": {"total": {"type": "integer"}}, "required": ["total"]}
    promised = {"request_schema": OPEN, "response_schema": schema, "auth": "public"}
    calls = await calls_of(tenant, endpoint("sum", path="/sum", async_eligible=True, **promised))

    async with at(tenant) as client, at(tenant, None) as nobody:
        fits, _ = await calls.answered(client.post(f"{calls.base}/sum"), {"total": 3})
        wrong, assignment = await calls.answered(client.post(f"{calls.base}/sum"), {"total": "three"})
        to_nobody, _ = await calls.answered(nobody.post(f"{calls.base}/sum"), {"total": "three"})
        started, job = await calls.answered(client.post(f"{calls.base}/async/sum"), {"total": "three"})
        ended = (await client.get(started.json()["poll_url"])).json()
        execution = (await client.get(f"{tenant.path}/executions/{job.execution_id}")).json()

    assert (fits.status_code, fits.json()) == (200, {"total": 3})
    body = refused(wrong, 502, "response_mismatch")
    assert body["details"] == [
        {"field": "execution_id", "message": assignment.execution_id},
        {"field": "total", "message": "'three' is not of type 'integer'"},
    ]
    assert wrong.headers["x-execution-id"] == assignment.execution_id
    assert "three" not in refused(to_nobody, 502, "response_mismatch")["message"] + to_nobody.text
    assert (ended["status"], ended["result"], ended["error"]["code"]) == ("failed", None, "response_mismatch")
    assert (execution["status"], execution["output"]) == ("completed", {"total": "three"}), "the record stays as it is"


async def test_a_call_that_takes_too_long_is_a_timeout(tenant: Tenant) -> None:
    calls = await calls_of(tenant, endpoint("slow", path="/slow", request_schema=OPEN, timeout_seconds=0.2))

    async with at(tenant) as client:
        answer = await client.post(f"{calls.base}/slow")

    assert refused(answer, 504, "endpoint_timeout")["details"][0]["field"] == "execution_id"


async def test_a_job_is_started_once_per_key_and_polled(tenant: Tenant) -> None:
    calls = await calls_of(tenant, endpoint(async_eligible=True), endpoint("now", path="/now", request_schema=OPEN))
    key = {"X-Idempotency-Key": "k1", "X-HSL-Target-Method": "post"}
    path = f"{calls.base}/async/orders/7/note-order"

    async with at(tenant) as client:
        first = await client.post(path, json={"note": "fine"}, headers=key)
        again = await client.post(path, json={"note": "fine"}, headers=key)
        other = await client.post(path, json={"note": "else"}, headers=key)
        job = first.json()
        waiting = (await client.get(job["poll_url"])).json()
        assignment = await tenant.platform.claim(job["job_id"])
        await tenant.platform.finish(assignment, {"noted": 1})
        done = (await client.get(job["poll_url"])).json()
        not_async = await client.post(f"{calls.base}/async/now")
        put = await client.post(path, headers={"X-HSL-Target-Method": "PUT"})
        no_method = await client.post(path, headers={"X-HSL-Target-Method": "TRACE"})
        refused(await client.get(f"{calls.base}/jobs/{await tenant.submit()}"), 404, "not_found")
        refused(await client.get(f"{calls.base}/jobs/unknown"), 404, "not_found")

    assert (first.status_code, first.headers["location"]) == (202, job["poll_url"])
    assert again.json() == job
    refused(other, 409, "idempotency_key_reused")
    assert (waiting["status"], waiting["result"]) == ("queued", None)
    assert (done["status"], done["result"]) == ("completed", {"noted": 1})
    refused(not_async, 409, "not_async")
    refused(no_method, 422, "invalid_input")
    assert put.status_code == 405


async def test_tokens_of_a_service_call_it_and_nothing_else(tenant: Tenant) -> None:
    calls = await calls_of(
        tenant,
        endpoint("taken", path="/taken", request_schema=OPEN, auth="service_token", async_eligible=True),
        endpoint("ours", path="/ours", request_schema=OPEN, async_eligible=True),
    )
    elsewhere = await published(tenant, slug=f"b-{calls.service['slug']}")
    token = await calls.token()

    async with tenant.platform.client(token) as client, at(tenant) as user, at(tenant, None) as nobody:
        answer, _ = await calls.answered(client.post(f"{calls.base}/taken"), 1)
        by_user, _ = await calls.answered(user.post(f"{calls.base}/taken"), 2)
        by_key, _ = await calls.answered(nobody.post(f"{calls.base}/taken", headers={"X-API-Key": token}), 3)
        refused(await client.post(f"{calls.base}/ours"), 403, "forbidden")
        refused(await nobody.post(f"{calls.base}/taken"), 401, "unauthenticated")
        assert (await client.get(f"{calls.base}/skills.json")).status_code == 200
        refused(await client.get(f"{elsewhere['base']}/skills.json"), 401, "service_token_invalid")
        refused(await client.get(f"{tenant.path}/executions"), 401, "token_invalid")
        mine = (await client.post(f"{calls.base}/async/taken")).json()
        ours = (await user.post(f"{calls.base}/async/ours")).json()
        assert (await client.get(mine["poll_url"])).json()["status"] == "queued"
        refused(await client.get(ours["poll_url"]), 403, "forbidden")

        async with tenant.client() as admin:
            [listed] = (await admin.get(f"{calls.path}/tokens")).json()["items"]
            assert token.startswith(listed["prefix"])
            assert listed["token"] is None
            assert (await admin.delete(f"{calls.path}/tokens/{listed['id']}")).status_code == 204
        refused(await client.post(f"{calls.base}/taken"), 401, "service_token_invalid")

    assert (answer.json(), by_user.json(), by_key.json()) == (1, 2, 3)


async def test_what_is_public_and_what_is_not(tenant: Tenant) -> None:
    calls = await calls_of(
        tenant,
        endpoint("open", path="/open", request_schema=OPEN, auth="public", async_eligible=True),
        endpoint("ours", path="/ours", request_schema=OPEN),
    )

    async with at(tenant, None) as nobody, at(tenant, Role.VIEWER) as viewer:
        answer, _ = await calls.answered(nobody.post(f"{calls.base}/open"), 1)
        job = (await nobody.post(f"{calls.base}/async/open")).json()
        assert (await nobody.get(job["poll_url"])).json()["status"] == "queued"
        refused(await nobody.post(f"{calls.base}/ours"), 401, "unauthenticated")
        refused(await nobody.get(f"{calls.base}/skills.json"), 401, "unauthenticated")
        refused(await nobody.post(f"{calls.base}/open", headers={"X-API-Key": "fl_x"}), 401, "api_key_invalid")
        refused(await viewer.post(f"{calls.base}/ours"), 403, "forbidden")
        assert (await viewer.get(f"{calls.base}/skills.json")).status_code == 200
        large = await nobody.post(f"{calls.base}/open", json={"text": "x" * (1 << 20)})
        refused(await nobody.post(f"{calls.base}/open", content=_chunks()), 413, "payload_too_large")

    assert answer.json() == 1
    refused(large, 413, "payload_too_large")


async def _chunks() -> Any:
    for _ in range(40):
        yield b" " * (1 << 15)


async def test_keys_of_strangers_and_ours_are_kept_apart(tenant: Tenant) -> None:
    calls = await calls_of(tenant, endpoint("a", path="/a", request_schema=OPEN, auth="public", async_eligible=True))
    key = {"X-Idempotency-Key": "same"}

    async with at(tenant, None) as nobody, at(tenant) as user, tenant.platform.client(await calls.token()) as program:
        ids = [
            (await client.post(f"{calls.base}/async/a", headers=key)).json()["job_id"]
            for client in (nobody, user, program, nobody)
        ]

    assert ids[0] == ids[3]
    assert len(set(ids)) == 3


async def test_a_workflow_calls_a_service_in_its_own_ring(tenant: Tenant) -> None:
    calls = await calls_of(tenant, endpoint("a", path="/a", request_schema=OPEN, auth="public", async_eligible=True))
    parent = await tenant.running()

    async with tenant.platform.client(parent.token) as inside:
        job = (await inside.post(f"{calls.base}/async/a")).json()
        skills = await inside.get(f"{calls.base}/skills.json")
        status = (await inside.get(f"{tenant.path}/executions/{job['job_id']}")).json()
        async with tenant.client() as client:
            await client.patch(calls.path, json={"ring_id": "staging"})
        elsewhere = await inside.post(f"{calls.base}/async/a")

    assert status["parent_execution_id"] == parent.execution_id
    assert skills.status_code == 200
    refused(elsewhere, 403, "other_ring")


async def test_the_client_reads_skills(tenant: Tenant) -> None:
    service = await published(tenant)
    unpublished = await draft(tenant, slug="not-yet")

    async with PlatformClient("http://flow.test", tenant.token(), tenant.workspace.org_id) as client:
        client.client = httpx.AsyncClient(
            transport=httpx.ASGITransport(tenant.platform.app),
            base_url="http://flow.test",
            headers={"Authorization": f"Bearer {tenant.token()}"},
        )
        newest = await client.get_service_skills(service["service_id"])
        pinned = await client.get_service_skills(service["slug"], version=1)
        with pytest.raises(PlatformNotFoundError):
            await client.get_service_skills(unpublished["id"])
        with pytest.raises(PlatformNotFoundError):
            await client.get_service_skills(service["service_id"], version=2)

    assert newest == pinned == service["skills"]
    assert newest["skills"][0]["request_schema"] == ORDER


async def test_an_expired_token_calls_nothing(tenant: Tenant) -> None:
    calls = await calls_of(tenant, endpoint(auth="service_token"))
    tokens = tenant.platform.engine.service_tokens
    workspace = tenant.workspace
    _, token = await tokens.create(
        tenant.platform.engine.tokens.verify(tenant.token(), tenant.platform.now),
        workspace.org_id,
        workspace.workspace_id,
        calls.service["service_id"],
        "old",
        timedelta(seconds=-1),
    )

    async with tenant.platform.client(token) as client:
        refused(await client.get(f"{calls.base}/skills.json"), 401, "service_token_invalid")
    assert json.dumps(calls.service["skills"])


async def test_an_agent_takes_a_whole_service_as_tools(tenant: Tenant) -> None:
    await tenant.publish("transforms", "any")
    plain = endpoint("any", path="/any", component={"kind": "transform", "slug": "any"}, request_schema={})
    calls = await calls_of(
        tenant, endpoint(timeout_seconds=7), plain, endpoint("b", path="/b", expose_as_agent_tool=False)
    )
    slug, service_id = calls.service["slug"], calls.service["service_id"]
    org_id, workspace_id = tenant.workspace.org_id, tenant.workspace.workspace_id
    engine = tenant.platform.engine

    tools = await engine.services.tools(org_id, workspace_id, slug)
    found, named = await engine.store.read(
        lambda tx: (resolve(tx, org_id, workspace_id, slug), resolve(tx, org_id, workspace_id, f"{slug}@1/b"))
    )

    assert [tool.name for tool in tools] == ["any", "note-order"]
    assert tools[1].input_schema == ORDER
    assert [tool.ref for tool in found] == [f"{service_id}/v1/any", f"{service_id}/v1/note-order"]
    assert found[1].timeout_seconds == 7
    assert [tool.ref for tool in named] == [f"{service_id}/v1/b"]
    for reference in ("unknown", f"{slug}@2", f"{slug}/unknown", "a b", f"{slug}/b/c"):
        with pytest.raises(InvalidInput, match=r"service|version|reference"):
            await engine.store.read(lambda tx, reference=reference: resolve(tx, org_id, workspace_id, reference))


async def test_a_tool_is_called_by_its_name_from_within_a_container(tenant: Tenant) -> None:
    calls = await calls_of(tenant)
    parent = await tenant.running()
    path = f"{calls.base}/v1/tools/note-order"

    async with tenant.platform.client(parent.token) as inside:
        handle = (await inside.post(path, json={"arguments": {"order_id": 7, "note": "fine"}})).json()
        missing = await inside.post(path, json={"arguments": {"order_id": 7}})
        unknown = await inside.post(f"{calls.base}/v1/tools/other", json={})
        wrong = await inside.post(path, json={"args": {}})
    assignment = await tenant.platform.claim(handle["execution_id"])

    assert given(assignment) == {"order_id": 7, "note": "fine"}
    assert handle["status_url"].endswith(handle["execution_id"])
    assert refused(missing, 422, "invalid_input")["details"][0]["field"] == "note"
    refused(unknown, 404, "not_found")
    refused(wrong, 422, "invalid_input")
