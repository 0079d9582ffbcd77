"""Submitting: every kind, every field, and what a repetition gets."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import pytest

from flow_platform.domain.principal import Role
from tests.contract.api.hands import Tenant, refused, submit_body

pytestmark = pytest.mark.asyncio(loop_scope="module")

KINDS = ("code-blocks", "transforms", "workflows")


@pytest.mark.parametrize("kind", KINDS)
async def test_a_submit_is_accepted_with_a_handle(tenant: Tenant, kind: str) -> None:
    published = await tenant.publish(kind)
    async with tenant.client() as client:
        answer = await client.post(f"/{kind}/{published['id']}/executions", json=submit_body(kind))
        assert answer.status_code == 202
        handle = answer.json()
        status = await tenant.platform.client(tenant.token()).get(handle["status_url"])
    assert handle["status"] == "queued"
    assert handle["ring_id"] == tenant.rings["dev"]
    assert handle["deployment_id"]
    assert handle["events_url"] == handle["status_url"] + "/events"
    document = status.json()
    assert document["execution_id"] == handle["execution_id"]
    assert document["component"]["slug"] == "echo"
    assert document["lifecycle_event"] == "workflow"


async def test_the_body_is_handed_to_the_container_as_it_came(tenant: Tenant) -> None:
    await tenant.publish()
    given = {"text": 'größe "\\u0000"', "nested": [{"a": None}, 1.5, -(10**30), True], "empty": {}}
    execution_id = await tenant.submit(
        input_parameters=given, config={"k": [1]}, session_id="s-1", messages=[{"role": "user"}], state={"n": 1}
    )
    assignment = await tenant.platform.claim(execution_id)
    assert assignment.input == {
        "input_data": given,
        "session_id": "s-1",
        "messages": [{"role": "user"}],
        "state": {"n": 1},
    }
    assert assignment.config == {"k": [1]}


async def test_inline_context_is_the_config_when_there_is_none(tenant: Tenant) -> None:
    await tenant.publish("workflows")
    execution_id = await tenant.submit("workflows", context={"user": "ada"})
    assert (await tenant.platform.claim(execution_id)).config == {"user": "ada"}


async def test_unknown_fields_are_ignored(tenant: Tenant) -> None:
    await tenant.publish()
    assert await tenant.submit(invented_later={"x": 1})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("input_parameters", [1]),
        ("input_parameters", None),
        ("config", "text"),
        ("ring_id", 7),
        ("ring_id", "a\0b"),
        ("ring_id", "x" * 256),
        ("timeout_seconds", 0),
        ("timeout_seconds", -1),
        ("timeout_seconds", "300"),
        ("timeout_seconds", True),
        ("timeout_seconds", 1e8),
        ("lifecycle_event", "party"),
        ("lifecycle_event", 3),
        ("auto_deploy", "yes"),
        ("messages", {}),
        ("state", []),
        ("session_id", ""),
        ("caller_deployment_id", {}),
    ],
)
async def test_a_field_of_the_wrong_type_is_named_with_its_value(tenant: Tenant, field: str, value: Any) -> None:
    await tenant.publish()
    async with tenant.client() as client:
        answer = await client.post("/code-blocks/echo/executions", json=submit_body(**{field: value}))
    body = refused(answer, 422, "invalid_input")
    assert body["details"][0]["field"] == field
    assert field in body["message"]
    assert "expected" in body["message"]


async def test_a_missing_input_is_named(tenant: Tenant) -> None:
    await tenant.publish("workflows")
    async with tenant.client() as client:
        answer = await client.post("/workflows/echo/executions", json={"input_parameters": {}})
    assert refused(answer, 422, "invalid_input")["details"][0]["field"] == "input_data"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"nonsense",
        b'{"input_parameters": {"x": NaN}}',
        b'{"input_parameters": {"x": Infinity}}',
        b'{"input_parameters": {"x": 1e999}}',
        b'{"input_parameters": {"x": ' + b"9" * 400 + b".0}}",
        b'{"input_parameters": {"x": ' + b"9" * 5000 + b"}}",
        b'{"input_parameters": {"x": "\\ud800"}}',
        b'{"input_parameters": {"x": "\xed\xa0\x80"}}',
        b'{"input_parameters": {"x": "\xff"}}',
        b'{"input_parameters": {}} {}',
        '{"input_parameters": {"x": "ü"}}'.encode("utf-16"),
        b'{"input_parameters": {"x": ' + b"[" * 100_000,
    ],
    ids=range(14),
)
async def test_what_is_not_strictly_json_is_refused(tenant: Tenant, content: bytes) -> None:
    await tenant.publish()
    async with tenant.client() as client:
        answer = await client.post("/code-blocks/echo/executions", content=content)
    refused(answer, 422, "invalid_json")


async def test_a_body_that_is_no_object_is_refused(tenant: Tenant) -> None:
    async with tenant.client() as client:
        answer = await client.post("/code-blocks/echo/executions", json=[1, 2])
    assert "JSON object" in refused(answer, 422, "invalid_input")["message"]


async def test_a_large_body_is_taken(tenant: Tenant) -> None:
    await tenant.publish()
    text = "ü" * 300_000
    execution_id = await tenant.submit(input_parameters={"text": text})
    stored = await tenant.platform.engine.store.read(lambda tx: tx.executions.payload(execution_id))
    assert stored.input_data == {"text": text}


async def test_the_same_key_and_request_give_the_same_execution(tenant: Tenant) -> None:
    await tenant.publish()
    headers = {"Idempotency-Key": "key-1"}
    async with tenant.client() as client:
        path = "/code-blocks/echo/executions"
        answers = await asyncio.gather(*(client.post(path, json=submit_body(), headers=headers) for _ in range(20)))
        assert {answer.status_code for answer in answers} == {202}
        assert len({answer.text for answer in answers}) == 1
        # The order of the keys is no other request.
        shuffled = dict(reversed(submit_body().items()))
        again = await client.post(path, json=shuffled, headers=headers)
        assert again.text == answers[0].text
        listed = (await client.get("/executions")).json()["items"]
    assert len(listed) == 1


async def test_a_key_reused_with_another_request_is_refused(tenant: Tenant, other: Tenant) -> None:
    published = await tenant.publish()
    await other.publish()
    headers = {"Idempotency-Key": "key-1"}
    async with tenant.client() as client:
        path = "/code-blocks/echo/executions"
        first = await client.post(path, json=submit_body(), headers=headers)
        another_body = await client.post(path, json=submit_body(timeout_seconds=9), headers=headers)
        another_path = f"/code-blocks/{published['id']}/executions"
        refused(another_body, 409, "idempotency_key_reused")
        refused(await client.post(another_path, json=submit_body(), headers=headers), 409, "idempotency_key_reused")
        too_long = await client.post(path, json=submit_body(), headers={"Idempotency-Key": "k" * 300})
        refused(too_long, 422, "invalid_input")
    async with other.client() as client:  # Keys are the tenant's own.
        answer = await client.post(path, json=submit_body(timeout_seconds=9), headers=headers)
        assert answer.status_code == 202
        assert answer.json()["execution_id"] != first.json()["execution_id"]


async def test_headers_name_what_the_body_does_not(tenant: Tenant) -> None:
    await tenant.publish()
    transaction = str(uuid.uuid4())
    headers = {"X-Parent-Billing-Txn-Id": transaction, "X-Lifecycle-Event": "mcp_session"}
    plain = {"input_parameters": {}}
    async with tenant.client() as client:

        async def event_of(body: dict[str, Any]) -> dict[str, Any]:
            handle = await client.post("/code-blocks/echo/executions", json=body, headers=headers)
            return (await client.get(f"/executions/{handle.json()['execution_id']}")).json()

        from_header = await event_of(plain)
        assert from_header["lifecycle_event"] == "mcp_session"
        assert from_header["billing"]["parent_transaction_id"] == transaction
        assert (await event_of({**plain, "lifecycle_event": "test"}))["lifecycle_event"] == "test"
        headers["X-Lifecycle-Event"] = "party"
        answer = await client.post("/code-blocks/echo/executions", json=plain, headers=headers)
        assert refused(answer, 422, "invalid_input")["details"][0]["field"] == "X-Lifecycle-Event"


async def test_rings_other_than_dev_want_a_deployment(tenant: Tenant) -> None:
    published = await tenant.publish()
    async with tenant.client() as client:
        path, production = "/code-blocks/echo/executions", tenant.rings["production"]
        body = refused(await client.post(path, json=submit_body(ring_id=production)), 409, "not_deployed")
        assert "'echo'" in body["message"]
        assert "'production'" in body["message"]
        await client.post("/deployments", json={"component_id": published["id"], "ring_id": production})
        answer = await client.post(path, json=submit_body(ring_id=production))
        assert answer.json()["ring_id"] == production
        caller = answer.json()["deployment_id"]
        inherited = await client.post(path, json=submit_body(caller_deployment_id=caller))
        assert inherited.json()["ring_id"] == production
        refused(await client.post(path, json=submit_body(ring_id=str(uuid.uuid4()))), 404, "not_found")
        refused(await client.post(path, json=submit_body(caller_deployment_id=str(uuid.uuid4()))), 404, "not_found")


@pytest.mark.parametrize("component", [str(uuid.uuid4()), "absent", "a%00b", "%2e%2e", "x" * 80, "a'--"])
async def test_an_unknown_component_is_not_found(tenant: Tenant, component: str) -> None:
    async with tenant.client() as client:
        for kind in (*KINDS, "agents"):
            answer = await client.post(f"/{kind}/{component}/executions", json=submit_body(kind))
            refused(answer, 404, "not_found")


async def test_a_component_is_of_one_kind(tenant: Tenant) -> None:
    published = await tenant.publish("code-blocks")
    async with tenant.client() as client:
        for component in ("echo", published["id"]):
            answer = await client.post(f"/workflows/{component}/executions", json=submit_body("workflows"))
            refused(answer, 404, "not_found")


async def test_who_may_submit(tenant: Tenant) -> None:
    await tenant.publish()
    for role, status in ((Role.RUNNER, 202), (Role.BUILDER, 202), (Role.VIEWER, 403)):
        async with tenant.client(role) as client:
            answer = await client.post("/code-blocks/echo/executions", json=submit_body())
            assert answer.status_code == status
            if status == 403:
                refused(answer, 403, "forbidden")
