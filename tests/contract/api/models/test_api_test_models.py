"""Models of the provider `test`, through the API: what they answer, and what is kept of it."""

from __future__ import annotations

import base64
import json
import math
import struct
from typing import Any

import pytest

from flow_platform.domain.principal import Role
from tests.contract.api.hands import HOUR, Tenant, refused
from tests.contract.api.models.asking import CHAT, TestBudget, body, calls, chat, message, streamed, text_of

pytestmark = pytest.mark.asyncio(loop_scope="module")

ADD = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}


@pytest.fixture(scope="module")
def configuration() -> dict[str, Any]:
    turns = [{"tool_calls": [{"name": "add", "arguments": {"a": 1}}]}, {"text": "It is {{last_tool}}."}]
    return {
        "scripts": {"sums": {"turns": turns, "then": "repeat"}},
        "prices": {"version": "2026-11", "models": {"test/*": {"prompt": 2, "completion": 10, "cached": "0.5"}}},
    }


async def test_the_echo_answers_and_the_call_is_recorded_with_its_cost(tenant: Tenant) -> None:
    answer = await chat(tenant)

    assert message(answer) == {"role": "assistant", "content": "hello big world"}
    assert answer.json()["model"] == "test/echo"
    usage = {
        name: answer.json()["usage"][name] for name in ("prompt_tokens", "completion_tokens", "cost_micro_credits")
    }
    assert usage == {"prompt_tokens": 3, "completion_tokens": 3, "cost_micro_credits": 3 * 2 + 3 * 10}
    (call,) = await calls(tenant)
    assert call["model_call_id"] == answer.headers["x-flow-model-call"]
    kept = {name: call[name] for name in ("kind", "model", "prompt_tokens", "completion_tokens", "cost_micro_credits")}
    assert kept == {"kind": "chat", "model": "test/echo", **usage}
    assert (call["price_version"], call["attempts"], call["error_code"]) == ("2026-11", 1, None)
    assert (call["execution_id"], call["first_token_ms"], call["is_streamed"]) == (None, None, False)
    assert call["latency_ms"] > 0


async def test_a_stream_comes_word_by_word_and_ends_with_usage_only_when_asked(tenant: Tenant) -> None:
    events = streamed(await chat(tenant, stream=True, stream_options={"include_usage": True}))

    assert events[-1] == "[DONE]"
    deltas = [choice["delta"] for event in events[:-1] for choice in event["choices"]]
    assert deltas == [{"role": "assistant", "content": "hello "}, {"content": "big "}, {"content": "world"}, {}]
    assert events[-2]["choices"] == []
    assert events[-2]["usage"]["total_tokens"] == 6
    assert [event["usage"] for event in events[:-2] if "usage" in event] == []

    events = streamed(await chat(tenant, stream=True))
    assert text_of(events) == "hello big world"
    assert [event for event in events[:-1] if "usage" in event] == []
    assert [(call["is_streamed"], call["total"]) for call in map(with_total, await calls(tenant))] == [(True, 6)] * 2
    assert all(call["first_token_ms"] is not None for call in await calls(tenant))


async def test_the_echo_calls_tools_that_it_is_told_to_call_and_says_what_they_answered(tenant: Tenant) -> None:
    told = 'Please:\ncall add {"a": 1}\ncall add {"a": 2}\ncall unknown {}'
    answer = await chat(tenant, told, tools=[ADD])

    asked = message(answer)
    assert [json.loads(call["function"]["arguments"]) for call in asked["tool_calls"]] == [{"a": 1}, {"a": 2}]
    assert answer.json()["choices"][0]["finish_reason"] == "tool_calls"
    assert len({call["id"] for call in asked["tool_calls"]}) == 2

    results = [{"role": "tool", "tool_call_id": call["id"], "content": call["id"][-1]} for call in asked["tool_calls"]]
    messages = [{"role": "user", "content": told}, asked, *results]
    said = message(await chat(tenant, messages=messages, tools=[ADD]))["content"]
    assert said == "\n".join(result["content"] for result in results)
    again = streamed(await chat(tenant, told, tools=[ADD], stream=True))
    pieces = [piece for event in again[:-1] for c in event["choices"] for piece in c["delta"].get("tool_calls", [])]
    assert [piece["index"] for piece in pieces] == [0, 0, 1, 1]


async def test_the_echo_makes_what_a_schema_asks_for(tenant: Tenant) -> None:
    schema = {
        "type": "object",
        "required": ["name", "age", "tags", "kind"],
        "properties": {
            "name": {"type": "string", "maxLength": 5},
            "age": {"type": "integer", "minimum": 18},
            "tags": {"type": "array", "items": {"$ref": "#/$defs/tag"}, "minItems": 1},
            "kind": {"enum": ["a", "b"]},
        },
        "$defs": {"tag": {"type": "boolean"}},
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "person", "schema": schema}}

    made = message(await chat(tenant, response_format=wanted))["content"]
    assert json.loads(made) == {"name": "hello", "age": 18, "tags": [False], "kind": "a"}
    given = '{"name": "Ada", "age": 36, "tags": [], "kind": "b"}'
    assert json.loads(message(await chat(tenant, given, response_format=wanted))["content"]) == json.loads(given)
    tool = {"type": "function", "function": {"name": "final", "parameters": schema}}
    (call,) = message(await chat(tenant, tools=[tool], tool_choice="required"))["tool_calls"]
    assert json.loads(call["function"]["arguments"]) == json.loads(made)


async def test_a_script_of_the_configuration_answers_turn_by_turn(tenant: Tenant) -> None:
    first = message(await chat(tenant, model="test/sums"))
    (call,) = first["tool_calls"]
    messages: list[Any] = [
        {"role": "user", "content": "add"},
        first,
        {"role": "tool", "tool_call_id": call["id"], "content": "3"},
    ]

    second = await chat(tenant, model="test/sums", messages=messages)

    assert message(second)["content"] == "It is 3."
    later = [*messages, message(second), {"role": "user", "content": "again"}]
    assert message(await chat(tenant, model="test/sums", messages=later))["content"] == "It is 3."


async def test_a_script_may_come_with_the_request_as_object_list_or_text(tenant: Tenant) -> None:
    usage = {"prompt_tokens": 100, "completion_tokens": 7, "cached_tokens": 40}
    turn = {"text": "scripted: {{last_user}}", "usage": usage, "finish_reason": "length", "chunk_ms": 1}
    for script in ({"turns": [turn]}, [turn], json.dumps([turn])):
        answer = await chat(tenant, "hi", model="test/script", metadata={"script": script})
        assert message(answer)["content"] == "scripted: hi"
        assert answer.json()["choices"][0]["finish_reason"] == "length"
        # 60 of the prompt at 2, 40 cached at 0.5, 7 at 10.
        assert answer.json()["usage"]["cost_micro_credits"] == 120 + 20 + 70


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ({"turns": []}, "invalid_script"),
        ({"turns": [{"txt": "?"}]}, "invalid_script"),
        ("not json", "invalid_script"),
        (None, "invalid_script"),
        ([{"error": {"status": 400, "message": "too long"}}], "upstream_refused"),
        ([{"error": {"status": 401}}], "model_key_refused"),
        ([{"error": {"status": 404}}], "model_unavailable"),
    ],
)
async def test_a_script_that_is_none_or_says_no_is_refused(tenant: Tenant, script: Any, code: str) -> None:
    metadata = {} if script is None else {"script": script}

    refused(await chat(tenant, model="test/script", metadata=metadata), 422, code)


async def test_a_script_that_is_over_says_so(tenant: Tenant) -> None:
    messages = [{"role": "assistant", "content": "1"}, {"role": "user", "content": "2"}]

    answer = await chat(tenant, model="test/script", messages=messages, metadata={"script": [{"text": "only"}]})

    assert "has 1 turns" in refused(answer, 422, "script_ended")["message"]


@pytest.mark.parametrize(
    ("status", "answered", "code"),
    [(500, 502, "upstream_failed"), (0, 502, "upstream_failed"), (429, 429, "upstream_rate_limited")],
)
async def test_a_scripted_failure_is_tried_again_and_told_when_it_stays(
    tenant: Tenant, status: int, answered: int, code: str
) -> None:
    once = [{"text": "there", "error": {"status": status, "times": 1}}]
    assert message(await chat(tenant, model="test/script", metadata={"script": once}))["content"] == "there"
    always = [{"text": "there", "error": {"status": status, "retry_after": 0}}]
    answer = await chat(tenant, model="test/script", metadata={"script": always})
    refused(answer, answered, code)
    assert ("retry-after" in answer.headers) == (status == 429)

    last, first = await calls(tenant)
    assert (first["attempts"], first["error_code"]) == (2, None)
    assert (last["attempts"], last["error_code"], last["cost_micro_credits"]) == (3, code, 0)


async def test_a_stream_that_breaks_after_its_first_chunk_ends_with_an_error_event(tenant: Tenant) -> None:
    script = [{"text": "one two three", "error": {"status": 500, "after_chunks": 2}}]

    events = streamed(await chat(tenant, model="test/script", stream=True, metadata={"script": script}))

    assert text_of(events) == "one two "
    assert events[-1]["error"]["code"] == "upstream_failed"
    assert "[DONE]" not in events
    (call,) = await calls(tenant)
    assert (call["attempts"], call["error_code"], call["is_estimated"]) == (1, "upstream_failed", True)
    assert call["completion_tokens"] == 2  # Eight characters: what was written is paid for.


async def test_embeddings_are_the_same_each_time_and_near_for_texts_alike(tenant: Tenant) -> None:
    async with tenant.platform.client(tenant.token()) as client:
        request: dict[str, Any] = {
            "model": "test/embedding",
            "input": ["the red cat", "a red cat", "stock prices fell"],
        }
        answers = [(await client.post("/api/v1/gateway/embeddings", json=request)).json() for _ in range(2)]
        packed = (await client.post("/api/v1/gateway/embeddings", json=request | {"encoding_format": "base64"})).json()
        refused(
            await client.post("/api/v1/gateway/embeddings", json=request | {"model": "test/echo"}),
            422,
            "model_unsuited",
        )

    assert answers[0] == answers[1]
    one, two, three = (item["embedding"] for item in answers[0]["data"])
    assert math.isclose(sum(x * x for x in one), 1)
    assert dot(one, two) > 0.5 > dot(one, three)
    assert answers[0]["usage"]["prompt_tokens"] == 9
    decoded = struct.unpack("<64f", base64.b64decode(packed["data"][0]["embedding"]))
    assert decoded == pytest.approx(one, abs=1e-6)
    assert {call["kind"] for call in await calls(tenant)} == {"embedding"}


async def test_what_is_configured_is_listed_and_named_when_a_model_is_not_known(tenant: Tenant) -> None:
    async with tenant.platform.client(tenant.token()) as client:
        listed = (await client.get("/api/v1/gateway/models")).json()
    assert {"test/echo", "test/script", "test/sums", "test/embedding"} <= {model["id"] for model in listed["data"]}
    assert not any(model["id"].startswith("openai/") for model in listed["data"])
    for model in ("nobody/x", "gpt-5", "test/none", "alias/none", "", "openai/"):
        said = refused(
            await chat(tenant, model=model), *((404, "model_not_found") if model else (422, "invalid_input"))
        )
        assert not model or ("providers: anthropic, claude" in said["message"] and "sums" in said["message"])
    said = refused(await chat(tenant, model="openai/gpt-5"), 422, "model_key_missing")["message"]
    assert "OPENAI_API_KEY" in said
    assert await calls(tenant) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"messages": []},
        {"messages": "hi"},
        {"messages": None},
        {"model": 7},
        {"model": None},
        {"models": ["test/echo"] * 9},
        {"stream": "often"},
        {"tools": {}},
        {"metadata": "x"},
    ],
)
async def test_a_request_that_is_none_is_refused_before_anything_is_called(tenant: Tenant, wrong: Any) -> None:
    refused(await chat(tenant, **wrong), 422, "invalid_input")


async def test_who_may_call(tenant: Tenant, other: Tenant) -> None:
    for role, status in ((Role.VIEWER, 403), (Role.RUNNER, 200), (Role.BUILDER, 200)):
        async with tenant.platform.client(tenant.token(role)) as client:
            assert (await client.post(CHAT, json=body())).status_code == status
    async with tenant.platform.client() as client:
        refused(await client.post(CHAT, json=body()), 401, "unauthenticated")
    async with tenant.platform.client(tenant.token()) as client:
        headers = {"X-Flow-Workspace": other.workspace.workspace_id}
        refused(await client.post(CHAT, json=body(), headers=headers), 404, "not_found")
    tokens = tenant.platform.engine.tokens
    now = tenant.platform.now
    whole = tokens.for_user("ada", tenant.workspace.org_id, None, Role.ADMIN, HOUR, now)
    async with tenant.platform.client(whole) as client:
        refused(await client.post(CHAT, json=body()), 422, "invalid_input")
        headers = {"X-Flow-Workspace": tenant.workspace.workspace_id, "X-Parent-Billing-Txn-Id": "txn-1"}
        assert (await client.post(CHAT, json=body(), headers=headers)).status_code == 200
        refused(await client.post(CHAT, json=body(), headers={"X-Flow-Workspace": "nowhere"}), 404, "not_found")
    assert len(await calls(tenant)) == 3
    assert (await calls(tenant))[0]["transaction_id"] == "txn-1"
    assert await calls(other) == []


async def test_a_budget_that_is_used_up_refuses_before_the_call(tenant: Tenant, budget: TestBudget) -> None:
    budget.exhausted.add(tenant.workspace.workspace_id)

    refused(await chat(tenant), 402, "budget_exhausted")

    assert budget.asked[-1] == (tenant.workspace.org_id, tenant.workspace.workspace_id, None)
    assert await calls(tenant) == []


def with_total(call: dict[str, Any]) -> dict[str, Any]:
    return call | {"total": call["prompt_tokens"] + call["completion_tokens"]}


def dot(one: list[float], two: list[float]) -> float:
    return sum(a * b for a, b in zip(one, two, strict=True))
