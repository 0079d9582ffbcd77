"""Real HTTP to a provider: what passes, what is tried again, what the caller and the record are told."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.contract.api.hands import Platform, Tenant, refused
from tests.contract.api.models.asking import CHAT, KEY, body, calls, chat, message, streamed, text_of
from tests.contract.api.serving import serving
from tests.support.eventually import eventually
from tests.support.fake_upstream import Answer, FakeUpstream, chunks, completion

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def configuration() -> dict[str, Any]:
    return {"aliases": {"fast": ["up/a", "other/b", "test/echo"]}}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def base_url(platform: Platform) -> AsyncIterator[str]:
    async with serving(platform.app) as url:
        yield url


async def test_a_request_passes_as_it_is_but_for_what_is_ours(tenant: Tenant, upstream: FakeUpstream) -> None:
    tools = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]
    asked = {
        "tools": tools,
        "temperature": 0.5,
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}},
        "metadata": {"script": [{"text": "x"}], "team": "blue"},
        "models": ["test/echo"],
        "provider_only": {"deep": [1]},
    }
    upstream.will(Answer(body=completion("hi", provider_said=True)))

    answer = await chat(tenant, model="up/org/model:free", **asked)

    assert message(answer)["content"] == "hi"
    assert answer.json()["provider_said"] is True
    assert answer.json()["model"] == "up/org/model:free"
    (seen,) = upstream.seen
    assert seen.path == "/v1/chat/completions"
    assert seen.headers["authorization"] == f"Bearer {KEY}"
    expected = body("hello big world", "org/model:free", **asked) | {"metadata": {"team": "blue"}}
    assert seen.body == {name: value for name, value in expected.items() if name != "models"}
    (call,) = await calls(tenant)
    assert (call["model"], call["prompt_tokens"], call["price_version"]) == ("up/org/model:free", 10, None)


async def test_a_stream_passes_chunk_by_chunk_as_it_comes(
    tenant: Tenant, upstream: FakeUpstream, base_url: str
) -> None:
    gate = asyncio.Event()
    upstream.will(Answer(events=[": comment\n\n", *chunks("one ", "two")], gate=gate, gate_at=2))
    async with (
        httpx.AsyncClient(headers={"Authorization": f"Bearer {tenant.token()}"}, trust_env=False) as client,
        client.stream("POST", base_url + CHAT, json=body(model="up/m", stream=True)) as answer,
    ):
        lines = answer.aiter_lines()
        first = json.loads((await anext(lines)).removeprefix("data: "))
        assert first["choices"][0]["delta"]["content"] == "one "  # While the provider has not gone on.
        gate.set()
        rest = [line async for line in lines if line]
    assert json.loads(rest[0].removeprefix("data: "))["choices"][0]["delta"]["content"] == "two"
    assert rest[-1] == "data: [DONE]"
    assert upstream.seen[0].body["stream_options"] == {"include_usage": True}
    (call,) = await calls(tenant)
    assert (call["prompt_tokens"], call["completion_tokens"], call["is_estimated"]) == (10, 2, False)


async def test_a_reader_that_leaves_ends_the_call_and_is_charged_an_estimate(
    tenant: Tenant, upstream: FakeUpstream, base_url: str
) -> None:
    upstream.will(Answer(events=chunks("one ", "two"), gate=asyncio.Event(), gate_at=1))
    async with (
        httpx.AsyncClient(headers={"Authorization": f"Bearer {tenant.token()}"}, trust_env=False) as client,
        client.stream("POST", base_url + CHAT, json=body(model="up/m", stream=True)) as answer,
    ):
        await anext(answer.aiter_lines())
        assert upstream.open == 1

    (call,) = await eventually(lambda: calls(tenant), lambda found: len(found) == 1)
    assert (call["error_code"], call["is_estimated"]) == ("cancelled", True)
    assert (call["prompt_tokens"], call["completion_tokens"]) == (4, 1)
    await eventually(lambda: _open(upstream), lambda count: count == 0)

    gate = asyncio.Event()
    upstream.will(Answer(body=completion(), gate=gate))
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {tenant.token()}"}, trust_env=False) as client:
        asking = asyncio.create_task(client.post(base_url + CHAT, json=body(model="up/m")))
        await eventually(lambda: _seen(upstream), lambda count: count == 1)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
    found = await eventually(lambda: calls(tenant), lambda found: len(found) == 2)
    assert found[0]["error_code"] == "cancelled"
    gate.set()


@pytest.mark.parametrize(
    "failure",
    [
        Answer(status=500, body={"error": {"message": "boom"}}),
        Answer(status=429, body={}, headers={"Retry-After": "0"}),
        Answer(status=503, body=b"<html>", headers={"retry-after-ms": "1"}),
        Answer(status=408, body=None),
        Answer(body=b"not json"),
        Answer(events=[], breaks=True),
        Answer(events=["data: {}\n"], breaks=True),
        Answer(events=[{"error": {"message": "overloaded", "code": 529}}]),
        Answer(events=[]),
    ],
    ids=lambda answer: f"{answer.status} {answer.body or answer.events}",
)
async def test_what_may_pass_is_tried_again(tenant: Tenant, upstream: FakeUpstream, failure: Answer) -> None:
    is_stream = failure.events is not None
    upstream.will(failure, Answer(events=chunks("there")) if is_stream else Answer(body=completion("there")))

    answer = await chat(tenant, model="up/m", stream=is_stream)

    said = text_of(streamed(answer)) if is_stream else message(answer)["content"]
    assert said == "there"
    (call,) = await calls(tenant)
    assert (call["attempts"], call["error_code"]) == (2, None)


@pytest.mark.parametrize(
    ("model", "failure", "status", "code", "attempts"),
    [
        ("up/m", Answer(status=500, body={"error": "boom"}), 502, "upstream_failed", 3),
        ("up/m", Answer(status=429, body={}, headers={"Retry-After": "90"}), 429, "upstream_rate_limited", 1),
        ("up/m", Answer(status=400, body={"error": {"message": "no such parameter"}}), 422, "upstream_refused", 1),
        ("up/m", Answer(status=404, body={"error": {"message": "no such model"}}), 422, "model_unavailable", 1),
        ("up/m", Answer(status=401, body={"error": {"message": f"key {KEY}"}}), 422, "model_key_refused", 1),
        ("up/m", Answer(status=302, body={}, headers={"Location": "http://127.0.0.1:1/"}), 502, "upstream_failed", 1),
        ("up/m", Answer(body={"object": "nothing"}), 502, "upstream_failed", 1),
        ("gone/m", Answer(), 502, "upstream_failed", 3),
        ("slow/m", Answer(body={}, gate=asyncio.Event()), 504, "upstream_timeout", 3),
    ],
)
async def test_what_stays_is_told_with_its_cause(
    tenant: Tenant, upstream: FakeUpstream, model: str, failure: Answer, status: int, code: str, attempts: int
) -> None:
    upstream.will(failure)

    answer = await chat(tenant, model=model)

    said = refused(answer, status, code)["message"]
    assert repr(model.partition("/")[0]) in said
    assert answer.headers.get("retry-after") == ("90" if status == 429 else None)
    (call,) = await calls(tenant)
    assert (call["attempts"], call["error_code"], call["model"]) == (attempts, code, model)


async def test_a_stream_that_breaks_behind_its_first_chunk_is_not_tried_again(
    tenant: Tenant, upstream: FakeUpstream
) -> None:
    upstream.will(Answer(events=chunks("one ", "two", usage=False, finish=False), breaks=True), Answer(body="no"))

    events = streamed(await chat(tenant, model="up/m", stream=True))

    assert text_of(events) == "one two"
    assert events[-1]["error"]["code"] == "upstream_failed"
    assert len(upstream.seen) == 1
    (call,) = await calls(tenant)
    assert (call["error_code"], call["is_estimated"], call["completion_tokens"]) == ("upstream_failed", True, 2)


async def test_a_stream_without_done_is_whole_when_it_has_said_why_it_ended(
    tenant: Tenant, upstream: FakeUpstream
) -> None:
    upstream.will(Answer(events=chunks("all", usage=False)[:-1]))

    assert streamed(await chat(tenant, model="up/m", stream=True))[-1] == "[DONE]"
    assert (await calls(tenant))[0]["is_estimated"] is True


async def test_the_next_model_of_a_chain_answers_when_one_does_not(tenant: Tenant, upstream: FakeUpstream) -> None:
    upstream.will(Answer(status=500, body={}), *[Answer(status=500, body={})] * 2, Answer(body=completion("from b")))

    answer = await chat(tenant, model="alias/fast")

    assert (message(answer)["content"], answer.json()["model"]) == ("from b", "other/b")
    assert [seen.path for seen in upstream.seen] == ["/v1/chat/completions"] * 3 + ["/other/chat/completions"]
    assert "authorization" not in upstream.seen[-1].headers
    (call,) = await calls(tenant)
    assert (call["model"], call["attempts"]) == ("other/b", 4)

    upstream.will(Answer(status=401, body={}), Answer(status=404, body={}))
    assert message(await chat(tenant, "to the echo", model="alias/fast"))["content"] == "to the echo"
    # A key that is missing is no reason to end either; a request that is wrong is wrong everywhere.
    assert message(await chat(tenant, model="openai/x", models=["test/echo"]))["content"] == "hello big world"
    upstream.will(Answer(status=400, body={"error": {"message": "wrong"}}))
    refused(await chat(tenant, model="alias/fast"), 422, "upstream_refused")


async def test_a_chain_does_not_wait_for_a_provider_that_asks_for_patience(
    tenant: Tenant, upstream: FakeUpstream
) -> None:
    upstream.will(Answer(status=429, body={}, headers={"Retry-After": "20"}))

    assert message(await chat(tenant, model="up/m", models=["test/echo"]))["content"] == "hello big world"
    assert len(upstream.seen) == 1


async def test_no_key_is_seen_anywhere(
    tenant: Tenant, upstream: FakeUpstream, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    told: list[str] = []
    for status in (400, 401, 429, 500):
        upstream.will(Answer(status=status, body={"error": {"message": f"your key {KEY} is not sk-other-key-99"}}))
        answer = await chat(tenant, model="up/m")
        told += [answer.text, str(answer.headers)]
    upstream.will(Answer(events=[{"error": {"message": f"bad {KEY}"}}]))
    told.append((await chat(tenant, model="up/m", stream=True)).text)
    told.append(json.dumps(await calls(tenant)))
    told += [record.getMessage() + str(vars(record)) for record in caplog.records]
    assert not [text for text in told if KEY in text or KEY[:12] in text or "sk-other" in text]


async def test_embeddings_and_lists_of_models_come_from_the_provider(tenant: Tenant, upstream: FakeUpstream) -> None:
    vectors = {"object": "list", "data": [{"object": "embedding", "index": 0, "embedding": [0.1]}], "model": "e"}
    upstream.will(Answer(body=vectors | {"usage": {"prompt_tokens": 5, "total_tokens": 5}}))
    async with tenant.platform.client(tenant.token()) as client:
        answer = await client.post("/api/v1/gateway/embeddings", json={"model": "up/e", "input": "a"})
        assert answer.json()["data"] == vectors["data"]
        assert upstream.seen[0].path == "/v1/embeddings"
        assert (await calls(tenant))[0]["prompt_tokens"] == 5

        upstream.will(Answer(body={"data": [{"id": "models/one"}, {"id": "two"}, {"no": "id"}]}))
        listed = [model["id"] for model in (await client.get("/api/v1/gateway/models")).json()["data"]]
        assert {"up/one", "up/two", "claude/one", "alias/fast", "test/echo"} <= set(listed)
        count = len(upstream.seen)
        await client.get("/api/v1/gateway/models")
        assert len(upstream.seen) == count, "asked once, remembered for a while"


async def _open(upstream: FakeUpstream) -> int:
    return upstream.open


async def _seen(upstream: FakeUpstream) -> int:
    return len(upstream.seen)
