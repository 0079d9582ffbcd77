"""Anthropic's Messages API behind chat completions: translated both ways, whole and streamed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.contract.api.hands import Tenant, refused
from tests.contract.api.models.asking import KEY, calls, chat, message, streamed, text_of
from tests.support.fake_upstream import Answer, FakeUpstream

pytestmark = pytest.mark.asyncio(loop_scope="module")

USAGE = {"input_tokens": 10, "cache_read_input_tokens": 5, "cache_creation_input_tokens": 2, "output_tokens": 3}
TOOL = {"name": "add", "description": "Adds.", "parameters": {"type": "object", "properties": {"a": {}}}}


def said(*content: Any, stop_reason: str = "end_turn") -> dict[str, Any]:
    return {"id": "m1", "model": "claude-x", "content": list(content), "stop_reason": stop_reason, "usage": USAGE}


async def test_a_conversation_is_translated(tenant: Tenant, upstream: FakeUpstream) -> None:
    upstream.will(Answer(body=said({"type": "thinking", "thinking": "?"}, {"type": "text", "text": "Three."})))
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    linked = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
    call = {"id": "t1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    messages: list[Any] = [
        {"role": "system", "content": "Be short."},
        {"role": "developer", "content": [{"type": "text", "text": "And kind."}]},
        {"role": "user", "content": [{"type": "text", "text": "Look"}, picture, linked]},
        {"role": "user", "content": "and add"},
        {"role": "assistant", "content": None, "tool_calls": [call, call | {"id": "t2"}]},
        {"role": "tool", "tool_call_id": "t1", "content": "3"},
        {"role": "tool", "tool_call_id": "t2", "content": "4"},
    ]

    answer = await chat(
        tenant,
        model="claude/claude-x",
        messages=messages,
        tools=[{"type": "function", "function": TOOL}],
        tool_choice="required",
        parallel_tool_calls=False,
        max_tokens=100,
        stop="END",
        temperature=0,
        user="ada",
        response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}},
    )

    assert message(answer) == {"role": "assistant", "content": "Three."}
    usage = answer.json()["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (17, 3, 20)
    assert usage["prompt_tokens_details"] == {"cached_tokens": 5}
    (seen,) = upstream.seen
    assert seen.path == "/claude/messages"
    assert (seen.headers["x-api-key"], seen.headers["anthropic-version"]) == (KEY, "2023-06-01")
    assert "authorization" not in seen.headers
    tool_use = {"type": "tool_use", "name": "add", "input": {"a": 1}}
    assert seen.body == {
        "model": "claude-x",
        "max_tokens": 100,
        "system": "Be short.\n\nAnd kind.",
        "temperature": 0,
        "stop_sequences": ["END"],
        "metadata": {"user_id": "ada"},
        "tools": [{"name": "add", "description": "Adds.", "input_schema": TOOL["parameters"]}],
        "tool_choice": {"type": "any", "disable_parallel_tool_use": True},
        "output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}},
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Look"},
                    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
                    {"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}},
                    {"type": "text", "text": "and add"},
                ],
            },
            {"role": "assistant", "content": [tool_use | {"id": "t1"}, tool_use | {"id": "t2"}]},
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "t1", "content": "3"},
                    {"type": "tool_result", "tool_use_id": "t2", "content": "4"},
                ],
            },
        ],
    }
    assert (await calls(tenant))[0]["cached_tokens"] == 5


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("auto", {"type": "auto"}),
        ("none", {"type": "none"}),
        ({"type": "function", "function": {"name": "add"}}, {"type": "tool", "name": "add"}),
        (None, None),
    ],
)
async def test_choices_of_tools(tenant: Tenant, upstream: FakeUpstream, choice: Any, expected: Any) -> None:
    upstream.will(
        Answer(body=said({"type": "tool_use", "id": "t1", "name": "add", "input": {}}, stop_reason="tool_use"))
    )

    answer = await chat(tenant, model="claude/x", tools=[{"type": "function", "function": TOOL}], tool_choice=choice)

    assert upstream.seen[0].body.get("tool_choice") == expected
    function = {"name": "add", "arguments": "{}"}
    assert message(answer)["tool_calls"] == [{"id": "t1", "type": "function", "function": function}]
    assert answer.json()["choices"][0]["finish_reason"] == "tool_calls"


async def test_a_stream_is_translated_event_by_event(tenant: Tenant, upstream: FakeUpstream) -> None:
    tool = {"type": "tool_use", "id": "t1", "name": "add", "input": {}}
    events = [
        {"type": "message_start", "message": {"id": "m1", "model": "claude-x", "usage": USAGE | {"output_tokens": 1}}},
        {"type": "ping"},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "One "}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "two"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "content_block_start", "index": 1, "content_block": tool},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": '{"a"'}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": ": 1}"}},
        {"type": "content_block_stop", "index": 1},
        {"type": "content_block_start", "index": 2, "content_block": tool | {"id": "t2"}},
        {"type": "content_block_stop", "index": 2},
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 9}},
        {"type": "message_stop"},
    ]
    upstream.will(Answer(events=events))

    got = streamed(await chat(tenant, model="claude/x", stream=True, stream_options={"include_usage": True}))

    assert text_of(got) == "One two"
    pieces = [p for event in got[:-1] for c in event["choices"] for p in c["delta"].get("tool_calls", [])]
    arguments = {index: "".join(p["function"]["arguments"] for p in pieces if p["index"] == index) for index in (0, 1)}
    assert {index: json.loads(text) for index, text in arguments.items()} == {0: {"a": 1}, 1: {}}
    assert [p["id"] for p in pieces if "id" in p] == ["t1", "t2"]
    assert [c["finish_reason"] for e in got[:-1] for c in e["choices"] if c["finish_reason"]] == ["tool_calls"]
    assert got[-2]["usage"]["prompt_tokens"] == 17
    assert got[-2]["usage"]["completion_tokens"] == 9
    assert got[-1] == "[DONE]"
    assert upstream.seen[0].body["stream"] is True
    assert "stream_options" not in upstream.seen[0].body


async def test_failures_are_told_apart(tenant: Tenant, upstream: FakeUpstream) -> None:
    overloaded = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    upstream.will(Answer(events=[overloaded]), Answer(status=529, body=overloaded), Answer(events=[{"type": "ping"}]))
    refused(await chat(tenant, model="claude/x", stream=True), 502, "upstream_failed")
    assert (await calls(tenant))[0]["attempts"] == 3
    invalid = {"type": "error", "error": {"type": "invalid_request_error", "message": "max_tokens is too large"}}
    upstream.will(Answer(status=400, body=invalid))
    assert (
        "max_tokens is too large" in refused(await chat(tenant, model="claude/x"), 422, "upstream_refused")["message"]
    )
    refused(await chat(tenant, model="claude/x", n=2), 422, "upstream_refused")
    audio = [{"role": "user", "content": [{"type": "input_audio"}]}]
    refused(await chat(tenant, model="claude/x", messages=audio), 422, "upstream_refused")
    async with tenant.platform.client(tenant.token()) as client:
        answer = await client.post("/api/v1/gateway/embeddings", json={"model": "claude/x", "input": "a"})
    refused(answer, 422, "model_unsuited")
