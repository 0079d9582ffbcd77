"""Executions that call models: the same key answers again, and an attempt that is over is not let in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.contract.api.hands import Platform, Tenant, refused
from tests.contract.api.models.asking import CHAT, TestBudget, body, calls, chat_inside, message, streamed, text_of
from tests.contract.api.serving import serving
from tests.support.eventually import eventually
from tests.support.fake_upstream import Answer, FakeUpstream, chunks, completion

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def base_url(platform: Platform) -> AsyncIterator[str]:
    async with serving(platform.app) as url:
        yield url


async def test_an_execution_calls_a_model_for_itself(tenant: Tenant, budget: TestBudget) -> None:
    assignment = await tenant.running()

    answer = await chat_inside(tenant, assignment, None)

    assert message(answer)["content"] == "hello big world"
    (call,) = await calls(tenant, f"?execution_id={assignment.execution_id}")
    async with tenant.client() as client:
        status = (await client.get(f"/executions/{assignment.execution_id}")).json()
    assert call["execution_id"] == assignment.execution_id
    assert call["transaction_id"] == status["billing"]["transaction_id"]
    assert budget.asked[-1][2] == assignment.execution_id
    assert await calls(tenant, "?execution_id=another") == []
    async with tenant.as_execution(assignment) as client:
        refused(await client.get("/model-calls"), 403, "forbidden")
        refused(await client.get("/model-settings"), 403, "forbidden")
        refused(await client.put("/model-settings", json={}), 403, "forbidden")


async def test_the_token_of_an_attempt_that_is_over_calls_no_model(tenant: Tenant, upstream: FakeUpstream) -> None:
    assignment = await tenant.running()
    upstream.will(Answer(body=completion()))
    await chat_inside(tenant, assignment, "k1", model="up/m")
    await tenant.platform.finish(assignment, output=1)

    refused(await chat_inside(tenant, assignment, "k1", model="up/m"), 401, "token_revoked")
    assert len(upstream.seen) == 1


async def test_the_same_key_answers_again_without_calling(tenant: Tenant, upstream: FakeUpstream) -> None:
    assignment = await tenant.running()
    upstream.will(Answer(body=completion("first")), Answer(body=completion("second")))

    first = await chat_inside(tenant, assignment, "turn-1", model="up/m")
    again = await chat_inside(tenant, assignment, "turn-1", model="up/m")
    as_stream = streamed(
        await chat_inside(
            tenant, assignment, "turn-1", model="up/m", stream=True, stream_options={"include_usage": True}
        )
    )
    other = await chat_inside(tenant, assignment, "turn-2", model="up/m")

    assert message(first)["content"] == "first"
    assert again.json() == first.json()
    assert again.headers["x-flow-model-call"] == first.headers["x-flow-model-call"]
    assert (first.headers.get("idempotent-replayed"), again.headers["idempotent-replayed"]) == (None, "true")
    assert text_of(as_stream) == "first"
    assert (len(as_stream), as_stream[1]["usage"], as_stream[2]) == (3, first.json()["usage"], "[DONE]")
    assert message(other)["content"] == "second"
    assert len(await calls(tenant)) == 2
    refused(await chat_inside(tenant, assignment, "turn-1", "other", model="up/m"), 409, "idempotency_key_reused")


async def test_a_streamed_answer_is_kept_whole(tenant: Tenant, upstream: FakeUpstream) -> None:
    assignment = await tenant.running()
    upstream.will(Answer(events=chunks("one ", "two")), Answer(status=500))
    first = streamed(await chat_inside(tenant, assignment, "k", model="up/m", stream=True))

    again = await chat_inside(tenant, assignment, "k", model="up/m")

    assert text_of(first) == message(again)["content"] == "one two"
    assert again.json()["usage"]["completion_tokens"] == 2


async def test_a_failure_is_not_kept(tenant: Tenant, upstream: FakeUpstream) -> None:
    assignment = await tenant.running()
    upstream.will(Answer(status=400, body={}), Answer(body=completion("better")))

    refused(await chat_inside(tenant, assignment, "k", model="up/m"), 422, "upstream_refused")

    assert message(await chat_inside(tenant, assignment, "k", model="up/m"))["content"] == "better"


async def test_keys_are_an_executions_own(tenant: Tenant, other: Tenant, upstream: FakeUpstream) -> None:
    upstream.will(*(Answer(body=completion(str(number))) for number in range(4)))
    said = []
    for who in (tenant, other):
        assignment = await who.running()
        said.append(message(await chat_inside(who, assignment, "k", model="up/m"))["content"])
    async with tenant.platform.client(tenant.token()) as client:
        for _ in range(2):  # People's keys mean nothing.
            answer = await client.post(CHAT, json=body(model="up/m"), headers={"Idempotency-Key": "k"})
            said.append(message(answer)["content"])
    assert said == ["0", "1", "2", "3"]


async def test_an_attempt_that_comes_while_the_call_is_on_its_way_joins_it(
    tenant: Tenant, upstream: FakeUpstream, base_url: str
) -> None:
    assignment = await tenant.running()
    gate = asyncio.Event()
    upstream.will(Answer(events=chunks("one ", "two"), gate=gate, gate_at=1), Answer(status=500))
    headers = {"Authorization": f"Bearer {assignment.token}", "Idempotency-Key": "k"}
    request: dict[str, Any] = body(model="up/m", stream=True)
    async with httpx.AsyncClient(headers=headers, trust_env=False) as client:
        async with client.stream("POST", base_url + CHAT, json=request) as answer:
            await anext(answer.aiter_lines())
        # The reader is gone, its call goes on: the answer will be asked for again.
        whole = asyncio.create_task(client.post(base_url + CHAT, json=body(model="up/m")))
        async with client.stream("POST", base_url + CHAT, json=request) as answer:
            lines = answer.aiter_lines()
            await anext(lines)
            gate.set()
            rest = [line async for line in lines]
        assert "data: [DONE]" in rest
        assert message(await whole)["content"] == "one two"

    assert len(upstream.seen) == 1
    (call,) = await eventually(lambda: calls(tenant), lambda found: len(found) == 1)
    assert (call["error_code"], call["completion_tokens"]) == (None, 2)


async def test_what_was_paid_for_survives_a_reader_that_left(
    tenant: Tenant, upstream: FakeUpstream, base_url: str
) -> None:
    assignment = await tenant.running()
    gate = asyncio.Event()
    upstream.will(Answer(body=completion("kept"), gate=gate), Answer(status=500))
    headers = {"Authorization": f"Bearer {assignment.token}", "Idempotency-Key": "k"}
    async with httpx.AsyncClient(headers=headers, trust_env=False) as client:
        asking = asyncio.create_task(client.post(base_url + CHAT, json=body(model="up/m")))
        await eventually(lambda: _seen(upstream), lambda count: count == 1)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
    gate.set()
    await eventually(lambda: calls(tenant), lambda found: len(found) == 1)

    assert message(await chat_inside(tenant, assignment, "k", model="up/m"))["content"] == "kept"
    assert len(upstream.seen) == 1


async def _seen(upstream: FakeUpstream) -> int:
    return len(upstream.seen)
