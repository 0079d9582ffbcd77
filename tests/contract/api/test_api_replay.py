"""The harness's header over HTTP: only who sends it is answered differently, and each only of its own calls."""

from __future__ import annotations

from typing import Any

import pytest

from flow_sdk.wire.replay import HEADER
from flow_sdk.wire.runner import Assignment
from tests.contract.api.hands import Tenant, refused, submit_body

pytestmark = pytest.mark.asyncio(loop_scope="module")

DRAINED = {"code": "runner_drained", "message": "its runner stops"}


async def submit(
    tenant: Tenant, inside: Assignment, number: int, told: str | None = None, path: str = "/code-blocks/echo/executions"
) -> Any:
    headers = {} if told is None else {HEADER: told}
    async with tenant.as_execution(inside) as client:
        return await client.post(path, json=submit_body(input_parameters={"n": number}), headers=headers)


async def resumed(tenant: Tenant, told: str | None = "occurrence=0") -> tuple[Assignment, list[str]]:
    """A workflow's second attempt, and the children of its first, which have ended."""
    await tenant.publish()
    first = await tenant.running()
    made = []
    for number in range(3):
        made.append((await submit(tenant, first, number, told)).json()["execution_id"])
        await tenant.platform.finish(await tenant.platform.claim(made[-1]), {"n": number})
    await tenant.platform.finish(first, error=DRAINED)
    return await tenant.platform.claim(first.execution_id), made


async def test_an_ordinary_client_is_answered_as_ever(tenant: Tenant) -> None:
    inside, made = await resumed(tenant)
    for number in range(3):
        answer = await submit(tenant, inside, number)
        assert (answer.status_code, answer.json()["execution_id"]) == (202, made[number])
        assert "ahead" not in answer.json()


async def test_who_asks_is_given_the_next_with_the_answer(tenant: Tenant) -> None:
    inside, made = await resumed(tenant)
    body = (await submit(tenant, inside, 0, "occurrence=0; after=0")).json()
    assert [call["execution"]["execution_id"] for call in body["ahead"]["calls"]] == made[1:]
    assert body["ahead"]["after"] is None
    async with tenant.as_execution(inside) as client:
        documents = [(await client.get(f"/executions/{one}")).json() for one in made]
    assert [body["execution"], *(call["execution"] for call in body["ahead"]["calls"])] == documents


async def test_a_checkpoint_is_answered_with_what_comes_next_as_well(tenant: Tenant) -> None:
    inside, made = await resumed(tenant)
    path = f"/executions/{inside.execution_id}/checkpoints"
    step = {"kind": "step", "name": "a", "occurrence": 0}
    async with tenant.as_execution(inside) as client:
        answer = await client.post(path, json=step, headers={HEADER: "occurrence=0; after=1"})
        plain = await client.post(path, json={**step, "name": "b"})
    assert [call["execution"]["execution_id"] for call in answer.json()["ahead"]["calls"]] == made[1:]
    assert (answer.status_code, answer.json()["status"], "ahead" in plain.json()) == (200, "open", False)


async def test_an_older_client_s_calls_are_not_given_ahead(tenant: Tenant) -> None:
    inside, _ = await resumed(tenant, told=None)
    assert (await submit(tenant, inside, 0, "occurrence=0; after=0")).json()["ahead"]["calls"] == []


@pytest.mark.parametrize("told", ["occurrence", "made=1-2,x", "after=-1", "select=1", "a" * 4000])
async def test_what_is_no_such_header_is_refused(tenant: Tenant, told: str) -> None:
    await tenant.publish()
    inside = await tenant.running()
    error = refused(await submit(tenant, inside, 0, told), 422, "invalid_input")
    assert error["details"][0]["field"] == HEADER


async def test_users_and_other_executions_are_given_nothing(tenant: Tenant) -> None:
    inside, made = await resumed(tenant)
    everything = {HEADER: "after=0; made=0-999999999; over"}
    async with tenant.client() as user:
        answer = await user.post("/code-blocks/echo/executions", json=submit_body(), headers=everything)
        assert answer.json()["ahead"] == {"calls": [], "after": None}
        refused(await user.post(f"/executions/{inside.execution_id}/replayed", headers=everything), 403, "forbidden")
    other = await tenant.platform.claim(await tenant.submit("workflows", "running"))
    answer = await submit(tenant, other, 9, everything[HEADER])
    assert answer.json()["ahead"] == {"calls": [], "after": None}
    async with tenant.as_execution(other) as client:
        path = f"/executions/{inside.execution_id}/replayed"
        refused(await client.post(path, headers=everything), 403, "forbidden")
    assert [(await submit(tenant, inside, n)).json()["execution_id"] for n in range(3)] == made


async def test_an_attempt_that_ended_says_and_hears_nothing(tenant: Tenant) -> None:
    inside, made = await resumed(tenant)
    await tenant.platform.finish(inside, error=DRAINED)
    refused(await submit(tenant, inside, 0, "after=0"), 409, "parent_ended")
    again = await tenant.platform.claim(inside.execution_id)
    async with tenant.as_execution(inside) as client:
        path = f"/executions/{inside.execution_id}/replayed"
        refused(await client.post(path, headers={HEADER: "made=1-3; over"}), 409, "parent_ended")
    assert (await submit(tenant, again, 0)).json()["execution_id"] == made[0]
