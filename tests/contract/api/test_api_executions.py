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


async def test_cancel_by_a_filter_ends_what_matches_and_nothing_else(tenant: Tenant) -> None:
    echo = await tenant.publish()
    await tenant.publish(slug="other")
    assignment = await tenant.running()
    queued = [await tenant.submit() for _ in range(3)]
    spared = await tenant.submit(component="other")
    where = {"status": "queued", "component_id": echo["id"]}
    async with tenant.client() as client:

        async def status(execution_id: str) -> str:
            return (await client.get(f"/executions/{execution_id}")).json()["status"]

        answer = await client.post("/executions/cancel", json={"filter": where, "dry_run": True})
        expected = {"matched": 3, "execution_ids": queued, "dry_run": True, "truncated": False}
        assert (answer.status_code, answer.json()) == (200, expected)
        assert {await status(execution_id) for execution_id in queued} == {"queued"}
        answer = await client.post("/executions/cancel", json={"filter": where})
        assert answer.json() == {**expected, "dry_run": False}
        assert {await status(execution_id) for execution_id in queued} == {"cancelled"}
        assert await status(spared) == "queued"
        for ids in ([assignment.execution_id, spared], []):  # All that is left; then nothing is.
            answer = await client.post("/executions/cancel", json={"filter": {}})
            assert answer.json()["execution_ids"] == ids
        assert [await status(assignment.execution_id), await status(spared)] == ["cancelling", "cancelled"]


async def test_cancel_by_a_filter_takes_children_with_their_parents(tenant: Tenant) -> None:
    parent = await tenant.running()
    await tenant.publish()
    async with tenant.as_execution(parent) as inside:
        child = (await inside.post("/code-blocks/echo/executions", json=submit_body())).json()["execution_id"]
        refused(await inside.post("/executions/cancel", json={"filter": {"parent_id": child}}), 403, "forbidden")
    async with tenant.client() as client:
        answer = await client.post(
            "/executions/cancel", json={"filter": {"parent_id": parent.execution_id}, "dry_run": True}
        )
        assert answer.json()["execution_ids"] == [child]
        answer = await client.post("/executions/cancel", json={"filter": {}})
        assert answer.json()["execution_ids"] == [parent.execution_id, child]
        assert (await client.get(f"/executions/{child}")).json()["status"] == "cancelled"
    async with tenant.client(Role.VIEWER) as client:
        refused(await client.post("/executions/cancel", json={"filter": {}}), 403, "forbidden")


async def test_one_call_cancels_no_more_than_its_bound(tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flow_platform.engine.executions.MAX_CANCELLED", 2)
    await tenant.publish()
    for _ in range(3):
        await tenant.submit()
    async with tenant.client() as client:
        answers = [(await client.post("/executions/cancel", json={"filter": {}})).json() for _ in range(2)]
    assert [(answer["matched"], answer["truncated"]) for answer in answers] == [(2, True), (1, False)]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "filter"),
        ({"filter": None}, "filter"),
        ({"filter": {"state": "queued"}}, "filter.state"),
        ({"filter": {"status": "completed"}}, "filter.status"),
        ({"filter": {"component_id": None}}, "filter.component_id"),
        ({"filter": {"component_id": ""}}, "filter.component_id"),
        ({"filter": {"ring_id": 1}}, "filter.ring_id"),
        ({"filter": {}, "dry_run": "no"}, "dry_run"),
        ({"filter": {}, "dryrun": True}, "dryrun"),
    ],
)
async def test_cancel_by_a_filter_refuses_what_it_does_not_know(
    tenant: Tenant, body: dict[str, Any], field: str
) -> None:
    async with tenant.client() as client:
        error = refused(await client.post("/executions/cancel", json=body), 422, "invalid_input")
    assert error["details"][0]["field"] == field


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


async def test_filters_take_names_as_well_as_ids_and_refuse_what_is_not_there(tenant: Tenant) -> None:
    echo = await tenant.publish()
    await tenant.publish(slug="other")
    queued, spared = [await tenant.submit() for _ in range(2)], await tenant.submit(component="other")
    unknown = {"component_id": "ehco", "ring_id": "live", "parent_id": str(uuid.uuid4())}
    async with tenant.client() as client:
        for name in (echo["id"], "echo", "code_block/echo", "code-blocks/echo"):
            where = {"component_id": name, "ring_id": "dev"}
            page = (await client.get("/executions", params=where)).json()["items"]
            assert [item["execution_id"] for item in page] == queued[::-1], name
            answer = await client.post("/executions/cancel", json={"filter": where, "dry_run": True})
            assert answer.json()["execution_ids"] == queued, name
        for field, value in [*unknown.items(), ("component_id", "agents/echo"), ("component_id", "block/echo")]:
            answers = [
                await client.get("/executions", params={field: value}),
                *[
                    await client.post(f"/executions/{verb}", json={"filter": {field: value}, "dry_run": True})
                    for verb in ("cancel", "retry")
                ],
            ]
            for answer in answers:
                assert value in refused(answer, 404, "not_found")["message"]
        refused(await client.get("/deployments", params={"component_id": "ehco"}), 404, "not_found")
        refused(await client.get("/schedules", params={"component_id": "ehco"}), 404, "not_found")
        answer = await client.post("/executions/cancel", json={"filter": {"component_id": "echo"}})
        assert answer.json()["execution_ids"] == queued
        assert (await client.get(f"/executions/{spared}")).json()["status"] == "queued"


async def test_a_slug_of_several_kinds_has_to_be_named_with_its_kind(tenant: Tenant) -> None:
    await tenant.publish()
    async with tenant.client() as client:
        body = {"slug": "echo", "code": "def main(data): return data"}
        assert (await client.post("/transforms", json=body)).status_code == 201
        error = refused(await client.get("/executions", params={"component_id": "echo"}), 422, "invalid_input")
        assert "'code_block/echo' or 'transform/echo'" in error["message"]
        for params in ({"component_id": "transform/echo"}, {"component_id": "echo", "kind": "transform"}):
            assert (await client.get("/executions", params=params)).json()["items"] == []


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
