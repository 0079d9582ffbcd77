"""Reading, holding, listing and cancelling executions, and calls that answer with the result."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import pytest
from flow_platform.api.executions import hold_seconds
from flow_platform.domain.principal import Role

from tests.contract.api.hands import HOUR, Platform, Tenant, refused, submit_body
from tests.support.eventually import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_status_read_follows_the_execution_to_its_end(tenant: Tenant) -> None:
    await tenant.publish("workflows")
    execution_id = await tenant.submit("workflows")
    async with tenant.client() as client:
        queued = (await client.get(f"/executions/{execution_id}")).json()
        assert queued["status"] == "queued"
        assert queued["waiting_on"]["reason"] == "runner"
        assignment = await tenant.platform.claim(execution_id)
        running = (await client.get(f"/executions/{execution_id}")).json()
        assert (running["status"], running["attempt"]) == ("running", 1)
        await tenant.platform.finish(assignment, {"n": 1})
        ended = (await client.get(f"/executions/{execution_id}")).json()
    assert (ended["status"], ended["output"], ended["outputs"]) == ("completed", {"n": 1}, {"n": 1})
    assert ended["finished_at"] >= ended["started_at"] >= ended["created_at"]
    assert ended["waiting_on"] is None


async def test_a_failed_execution_is_a_document_too(tenant: Tenant) -> None:
    assignment = await tenant.running()
    error = {"code": "component_error", "type": "ValueError", "message": "no", "retryable": True}
    await tenant.platform.finish(assignment, error=error)
    async with tenant.client() as client:
        ended = (await client.get(f"/executions/{assignment.execution_id}")).json()
    assert ended["status"] == "failed"
    assert ended["error"]["type"] == "ValueError"
    assert [one["attempt"] for one in ended["errors"]] == [1]


def _nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("output", [{"x": "\ud800"}, {"x": "ü\0"}, _nested(500), 10**400], ids=range(4))
async def test_whatever_was_recorded_can_be_read(tenant: Tenant, output: Any) -> None:
    assignment = await tenant.running()
    await tenant.platform.emit(assignment, 1, "message", output)
    await tenant.platform.finish(assignment, output, events=1)
    async with tenant.client() as client:
        answer = await client.get(f"/executions/{assignment.execution_id}")
        assert answer.status_code == 200
        assert answer.json()["status"] in {"completed", "failed"}
        events = await client.get(f"/executions/{assignment.execution_id}/events")
        assert "event: end" in events.text


async def test_whatever_a_component_says_of_its_failure_can_be_read(tenant: Tenant) -> None:
    assignment = await tenant.running()
    error = {"code": "component_error", "type": "E\ud800", "message": "\ud800", "traceback": "\ud800"}
    await tenant.platform.finish(assignment, error=error)
    async with tenant.client() as client:
        for path in (
            "/executions",
            f"/executions/{assignment.execution_id}",
            f"/executions/{assignment.execution_id}/tree",
        ):
            answer = await client.get(path)
            assert answer.status_code == 200
            assert '"code":"component_error","type":"E?"' in answer.text.replace(" ", "")


async def test_a_held_read_answers_when_the_execution_ends(tenant: Tenant) -> None:
    assignment = await tenant.running()
    async with tenant.client() as client:
        path = f"/executions/{assignment.execution_id}"
        held = asyncio.create_task(client.get(path, headers={"Prefer": "wait=300"}))
        short = await client.get(path, headers={"Prefer": "respond-async, wait=0.02"})
        assert short.json()["status"] == "running"
        assert short.headers["preference-applied"] == "wait=0.02"
        assert not held.done()
        await tenant.platform.finish(assignment, 1)
        answer = await held
        assert answer.json()["status"] == "completed"
        assert answer.headers["preference-applied"] == "wait=60"
        at_once = await client.get(path, headers={"Prefer": "wait=60"})
        assert at_once.json()["output"] == 1
        assert "preference-applied" not in (await client.get(path, headers={"Prefer": "handling=strict"})).headers


@pytest.mark.parametrize(
    ("prefer", "seconds"),
    [
        (None, None),
        ("", None),
        ("wait=10", 10),
        ("WAIT = 10", 10),
        ('wait="10"', 10),
        ("respond-async, wait=10; x", 10),
        ("wait=0", 0),
        ("wait=61", 60),
        ("wait=1.5", 1.5),
        ("wait=-1", None),
        ("wait=abc", None),
        ("await=10", None),
        ("wait=10000000000000", None),
    ],
)
async def test_the_preference_to_wait(prefer: str | None, seconds: float | None) -> None:
    assert hold_seconds(prefer) == seconds


async def test_cancel_ends_what_is_queued_and_repeats_harmlessly(tenant: Tenant) -> None:
    await tenant.publish()
    execution_id = await tenant.submit()
    async with tenant.client() as client:
        for _ in range(2):
            answer = await client.post(f"/executions/{execution_id}/cancel")
            assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
        assignment = await tenant.running()
        answer = await client.post(f"/executions/{assignment.execution_id}/cancel")
        assert answer.json()["status"] == "cancelling"


async def test_lists_page_filter_and_carry_no_payloads(tenant: Tenant) -> None:
    published = await tenant.publish()
    submitted = [await tenant.submit() for _ in range(5)]
    assignment = await tenant.running()
    await tenant.platform.finish(assignment, {"secret": "payload"})
    async with tenant.client() as client:
        seen: list[str] = []
        cursor = None
        while True:
            params = {"limit": 2, "component_id": published["id"]} | ({"cursor": cursor} if cursor else {})
            page = (await client.get("/executions", params=params)).json()
            assert len(page["items"]) <= 2
            seen += [item["execution_id"] for item in page["items"]]
            cursor = page["next_cursor"]
            if cursor is None:
                break
        assert seen == submitted[::-1]
        completed = (await client.get("/executions", params={"status": "completed"})).json()["items"]
        assert [item["execution_id"] for item in completed] == [assignment.execution_id]
        assert completed[0]["output"] is None
        everything = (await client.get("/executions", params={"kind": "workflow"})).json()["items"]
        assert len(everything) == 1
        assert (await client.get("/executions", params={"ring_id": str(uuid.uuid4())})).json()["items"] == []


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=201",
        "limit=x",
        "limit=-1",
        "status=done",
        "kind=job",
        "cursor=nonsense",
        "cursor=%00",
        "limit=²",
    ],
)
async def test_a_wrong_query_is_named(tenant: Tenant, query: str) -> None:
    async with tenant.client() as client:
        body = refused(await client.get(f"/executions?{query}"), 422, "invalid_input")
    assert query.partition("=")[0] in body["message"]


async def test_a_tree_holds_the_children(tenant: Tenant) -> None:
    assignment = await tenant.running()
    await tenant.publish("code-blocks", "child")
    async with tenant.as_execution(assignment) as client:
        child = (await client.post("/code-blocks/child/executions", json=submit_body())).json()["execution_id"]
        tree = (await client.get(f"/executions/{assignment.execution_id}/tree")).json()
    assert tree["execution"]["execution_id"] == assignment.execution_id
    assert [node["execution"]["execution_id"] for node in tree["children"]] == [child]
    assert tree["children"][0]["execution"]["parent_execution_id"] == assignment.execution_id


async def _execute(tenant: Tenant, kind: str, component: str, token: str, **body: Any) -> Any:
    async with tenant.platform.client(token) as client:
        path = f"/api/v1/component-execution/{kind}/{component}/execute"
        return await client.post(path, json=body)


async def _submitted(tenant: Tenant, **where: str) -> Any:
    """The one execution that a call made, once it is there."""

    async def listed() -> list[Any]:
        async with tenant.client() as client:
            return (await client.get("/executions", params=where)).json()["items"]

    return (await eventually(listed, bool))[0]


async def test_an_inline_call_answers_with_the_ended_execution(tenant: Tenant) -> None:
    await tenant.publish("transforms")
    call = asyncio.create_task(_execute(tenant, "transforms", "echo", tenant.token(), input_data={"a": 1}))
    submitted = await _submitted(tenant)
    assert submitted["ring_id"] == tenant.rings["dev"]
    assignment = await tenant.platform.claim(submitted["execution_id"])
    assert assignment.timeout_seconds == 30
    await tenant.platform.finish(assignment, {"b": 2})
    answer = await call
    assert answer.status_code == 200
    assert (answer.json()["status"], answer.json()["output"]) == ("completed", {"b": 2})


async def test_an_inline_call_of_a_running_execution_is_its_child(tenant: Tenant) -> None:
    parent = await tenant.running()
    await tenant.publish("transforms")
    call = asyncio.create_task(_execute(tenant, "transforms", "echo", parent.token, input_data=1))
    submitted = await _submitted(tenant, parent_id=parent.execution_id)
    await tenant.platform.finish(await tenant.platform.claim(submitted["execution_id"]), 2)
    assert (await call).json()["parent_execution_id"] == parent.execution_id


async def test_what_an_inline_call_refuses(tenant: Tenant, platform: Platform) -> None:
    token = tenant.token()
    refused(await _execute(tenant, "transforms", "absent", token, input_data=1), 404, "not_found")
    refused(await _execute(tenant, "agents", "absent", token, input_data=1), 404, "not_found")
    refused(await _execute(tenant, "transforms", "absent", token), 422, "invalid_input")
    await tenant.publish("transforms")
    ring = tenant.rings["production"]
    refused(await _execute(tenant, "transforms", "echo", token, input_data=1, ring_id=ring), 409, "not_deployed")
    # A token for a whole organization names no workspace; that of the first tenant means the first workspace.
    tokens = platform.engine.tokens
    wide = tokens.for_user("ada", tenant.workspace.org_id, None, Role.ADMIN, HOUR, platform.now)
    refused(await _execute(tenant, "transforms", "echo", wide, input_data=1), 422, "invalid_input")
    first = tokens.for_user("ada", platform.engine.workspace.org_id, None, Role.ADMIN, HOUR, platform.now)
    refused(await _execute(tenant, "transforms", "echo", first, input_data=1), 404, "not_found")
