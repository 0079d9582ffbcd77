"""Agents in real containers, on the `test/` provider: what they answer, what is on record, and how they end."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from flow_sdk.wire.status import Status
from tests.support.agent_platform import AgentRing, agent_platform, calls, script
from tests.support.eventually import eventually
from tests.support.flow_program import Platform
from tests.support.workflow_records import records_of, send

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

COMPONENTS = Path(__file__).with_name("agent_components.py")
BERN = ("forecast", {"city": "Bern"})


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    folder = tmp_path_factory.mktemp("agents")
    with agent_platform(folder, components=COMPONENTS, FLOW_SUSPEND_AFTER="0.5") as started:
        yield started


@pytest_asyncio.fixture
async def ring(platform: Platform) -> AsyncIterator[AgentRing]:
    async with AgentRing(platform) as client:
        yield client


async def test_both_modes_take_the_same_path(ring: AgentRing) -> None:
    weather = script(calls(BERN), {"text": "It is {{last_tool}} in {{last_user}}"})
    agent = await ring.publish(**weather, prompt="You know {country}.", tools=["forecast"])
    given = {"prompt": "Bern?", "country": "Switzerland"}

    inline = await ring.client.execute_agent(agent["slug"], given, {}, ring_id=ring.ring_id)
    isolated = await ring.client.execute_agent(agent["id"], given, {}, execution_mode="isolated", ring_id=ring.ring_id)

    for document in (inline, isolated):
        assert document["status"] == Status.COMPLETED, document
        assert document["output"] == 'It is {"city": "Bern", "degrees": 21} in Bern?'
        assert document["usage"] == document["usage"] | {"requests": 2, "tool_calls": 1}
        assert document["usage"]["cost_micro_credits"] == 1_000 * document["usage"]["total_tokens"] > 0
        assert document["lifecycle_event"] == "agent_run"
        assert [message["kind"] for message in document["messages"]] == ["request", "response"] * 2
        [child] = await ring.children(document["execution_id"])
        assert (child["component"]["slug"], child["status"]) == ("forecast", Status.COMPLETED)
        assert len(await ring.model_calls(document["execution_id"])) == 2


async def test_its_events_come_in_the_order_of_what_happened(ring: AgentRing) -> None:
    agent = await ring.publish(**script(calls(BERN), {"text": "one two three", "chunk_ms": 60}), tools=["forecast"])

    execution_id = await ring.begin(agent["slug"], "Weather!")
    seen = [event async for event in ring.follow(execution_id)]

    told = first_told(seen)
    names = [name for name, _ in told]
    # Three words come in one to three chunks: where the agent had to wait, those that had gathered are sent as one.
    assert 1 <= names.count("chunk") <= 3
    once = [name for number, name in enumerate(names) if name != "chunk" or names[number - 1] != "chunk"]
    assert once == ["message", *["tool_call"] * 2, "chunk", "message", "done"]
    assert told[0][1] == {"turn": 0, "role": "user", "text": "Weather!"}
    assert [data["status"] for name, data in told if name == "tool_call"] == ["called", "completed"]
    assert "".join(data["text"] for name, data in told if name == "chunk") == "one two three"
    assert told[-2][1]["text"] == told[-1][1]["output"] == "one two three"


def first_told(events: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """Without what is told of a tool call again: on a slow machine the agent gives its container back meanwhile."""
    told: list[tuple[str, Any]] = []
    known: set[tuple[str, str]] = set()
    for name, data in events:
        if name == "tool_call":
            if (key := (data["tool_call_id"], data["status"])) in known:
                continue
            known.add(key)
        if name in ("message", "chunk", "tool_call", "done", "error"):
            told.append((name, data))
    return told


async def test_a_declared_agent_answers_with_its_type(ring: AgentRing, platform: Platform) -> None:
    found = (await ring.get("/agents/triage"))["newest"]
    assert found["output_schema"]["properties"]["team"] == {
        "enum": ["sales", "support"],
        "title": "Team",
        "type": "string",
    }
    assert found["input_schema"]["required"] == ["prompt", "company"]
    assert [tool["name"] for tool in found["agent"]["tools"]] == ["forecast", "helper", "refuse"]

    ticket = 'call final_result {"team": "support", "urgent": true}'
    given = json.dumps({"prompt": ticket, "company": "Kettles"})
    done = platform.flow("run", "agents/triage", "--input", given, "--follow")

    assert (done.returncode, json.loads(done.stdout)) == (0, {"team": "support", "urgent": True})
    assert " done: " in done.stderr


async def test_an_answer_that_does_not_fit_is_asked_for_again_and_then_refused(ring: AgentRing) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    wrong, right = calls(("final_result", {"n": "many"})), calls(("final_result", {"n": 3}))

    mended = await ring.ask((await ring.publish(**script(wrong, right), output=schema))["slug"])
    hopeless = await ring.ask((await ring.publish(**script(*[wrong] * 5), output=schema))["slug"])
    listed = await ring.publish(**script(calls(("final_result", {"answer": [1, 2]}))), output={"type": "array"})

    assert (mended["output"], mended["usage"]["requests"]) == ({"n": 3}, 2)
    assert hopeless["error"]["code"] == "output_mismatch"
    assert "answer.n: 'many' is not of type 'integer'" in hopeless["error"]["message"]
    assert len(await ring.model_calls(hopeless["execution_id"])) == 3
    assert (await ring.ask(listed["slug"]))["output"] == [1, 2]


async def test_an_answer_may_be_a_tree_of_any_depth(ring: AgentRing) -> None:
    node = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "kids": {"type": "array", "items": {"$ref": "#/$defs/Node"}}},
        "required": ["name"],
    }
    tree = {"name": "a", "kids": [{"name": "b", "kids": [{"name": "c"}]}]}
    wrong = calls(("final_result", {"answer": {"name": "a", "kids": [{"name": 3}]}}))
    schema = {"$ref": "#/$defs/Node", "$defs": {"Node": node}}

    agent = await ring.publish(**script(wrong, calls(("final_result", {"answer": tree}))), output=schema)
    document = await ring.ask(agent["slug"])

    assert (document["output"], document["usage"]["requests"]) == (tree, 2), document["error"]
    refused = await ring.refused(model="test/echo", output={"$ref": "#/$defs/Leaf", "$defs": {"Node": node}})
    assert refused["details"][0]["field"] == "output.$ref"


@pytest.mark.parametrize(
    ("limits", "code", "turns"),
    [
        ({"turns": 2}, "turn_limit", 2),
        ({"tool_calls": 2}, "tool_call_limit", 3),
        ({"tokens": 10}, "token_limit", 1),
        ({"cost_micro_credits": 5_000}, "cost_limit", 1),
    ],
)
async def test_each_limit_ends_the_run(ring: AgentRing, limits: dict[str, int], code: str, turns: int) -> None:
    endless = script(*[calls(("forecast", {"city": f"C{turn}"})) for turn in range(9)])
    agent = await ring.publish(**endless, tools=["forecast"], limits=limits, prompt="Some words that are tokens here.")

    document = await ring.ask(agent["slug"], "And some more words, so that there are enough.")

    assert (document["status"], document["error"]["code"]) == (Status.FAILED, code), document["error"]
    [name] = limits
    assert f"limits.{name}" in document["error"]["message"]
    assert len(await ring.model_calls(document["execution_id"])) == turns
    assert [data["code"] for kind, data in await ring.events(document["execution_id"]) if kind == "error"] == [code]


async def test_every_kind_of_component_is_a_tool_and_a_failure_is_told_to_the_model(ring: AgentRing) -> None:
    turns = [
        calls(("doubled", {"input": 4}), ("asks_the_helper", {"question": "Who?"})),
        calls(("helper", {"prompt": "Repeat me"}), ("refuses", {"reason": "no"}), ("forecast", {})),
        {"text": "done"},
    ]
    named = ["doubled", "asks-the-helper", "agent/helper", "refuses", "forecast"]
    document = await ring.ask((await ring.publish(**script(*turns), tools=named))["slug"])

    assert document["output"] == "done", document["error"]
    told = [part for message in document["messages"] for part in message["parts"] if part["part_kind"] == "tool-return"]
    answers = {part["tool_name"]: part["content"] for part in told}
    assert (answers["doubled"], answers["asks_the_helper"], answers["helper"]) == ("8", "Who?", "Repeat me")
    assert "ValueError" in answers["refuses"] or "component_error" in answers["refuses"]
    assert "'city' is a required property" in answers["forecast"]
    kinds = sorted(child["component"]["kind"] for child in await ring.children(document["execution_id"]))
    assert kinds == ["agent", "code_block", "transform", "workflow"]


async def test_a_tool_that_needs_approval_waits_without_a_container(ring: AgentRing) -> None:
    asked = [{"ref": "forecast", "approval": {"message": "May it look?"}}]
    agent = await ring.publish(**script(calls(BERN), {"text": "{{last_tool}}"}), tools=asked)
    allowed, refused = await ring.begin(agent["slug"]), await ring.begin(agent["slug"])

    for execution_id, answer in ((allowed, True), (refused, False)):
        waiting = await ring.reached(execution_id, Status.WAITING)
        assert waiting["waiting_on"]["reason"] == "approval"
        assert 'May it look?: forecast {"city": "Bern"}' in waiting["waiting_on"]["message"]
        body = {"approved": answer, "comment": "as you like"}
        sent = await ring.client.client.post(f"{ring.path}/executions/{execution_id}/events/forecast", json=body)
        assert sent.status_code == 202, sent.text

    assert json.loads((await ring.ended(allowed))["output"])["degrees"] == 21
    assert "A person did not allow this call" in (await ring.ended(refused))["output"]
    assert [len(await ring.children(one)) for one in (allowed, refused)] == [1, 0]
    assert [len(await ring.model_calls(one)) for one in (allowed, refused)] == [2, 2]


async def test_an_agent_that_waits_for_a_long_tool_gives_its_container_back(ring: AgentRing) -> None:
    turns = [calls(BERN), calls(("waits_for", {"word": "hear"})), {"text": "{{last_tool}}"}]
    agent = await ring.publish(**script(*turns), tools=["forecast", "waits-for"])

    execution_id = await ring.begin(agent["slug"])
    # On a slow machine it may give its container back for the first tool already.
    [_, child] = await eventually(lambda: ring.children(execution_id), lambda found: len(found) == 2, 60)
    await eventually(lambda: ring.status(child["execution_id"]), lambda found: found["status"] == Status.WAITING, 60)
    await ring.reached(execution_id, Status.WAITING)
    url = f"{ring.path}/executions/{child['execution_id']}/events/go"
    assert (await ring.client.client.post(url, json="me")).status_code == 202
    document = await ring.ended(execution_id)

    assert (document["output"], document["attempt"] >= 2) == ("hear me", True)
    assert len(await ring.model_calls(execution_id)) == 3
    assert len(await ring.children(execution_id)) == 2
    events = await ring.events(execution_id)
    assert [data["text"] for name, data in events if name == "chunk"] == ["hear ", "me"] or "".join(
        data["text"] for name, data in events if name == "chunk"
    ) == "hear me"
    told = [data for name, data in events if name == "tool_call" and data["turn"] == 1]
    assert {(data["tool_call_id"], data["status"]) for data in told} == {
        (told[0]["tool_call_id"], status) for status in ("called", "completed")
    }
    assert next(data["status"] for data in told if not data.get("replayed")) == "called"


async def test_parts_are_versioned_and_frozen_into_the_agents_version(ring: AgentRing) -> None:
    await ring.publish("models", slug="echo", model="test/echo")
    await ring.publish("prompts", slug="greeting", prompt="Be kind to {name}.")
    await ring.publish("tools", slug="weather", ref="code_block/forecast", name="weather")
    await ring.publish("schemas", slug="word", schema={"type": "object", "properties": {"w": {"type": "string"}}})
    await ring.publish("states", slug="short", persistence="session", initial={"mood": "good"})
    refs: dict[str, Any] = {
        "model_ref": "echo",
        "prompt_ref": "greeting",
        "tool_refs": ["weather"],
        "schema_refs": {"output": "word@1"},
        "state_ref": "short",
    }

    first = await ring.publish(slug="of-parts", **refs)
    again = await ring.publish("prompts", slug="greeting", prompt="Be kind to {name}.")
    changed = await ring.publish("prompts", slug="greeting", prompt="Be brief.")
    second = await ring.publish(slug="of-parts", **refs)
    refused = await ring.refused(model_ref="echo", prompt_ref="greeting@9")

    assert (again["version"], changed["version"], first["version"], second["version"]) == (1, 2, 1, 2)
    kept = (await ring.get("/agents/of-parts/versions/1"))["agent"]
    assert (kept["models"], kept["prompt"]) == (["test/echo"], "Be kind to {name}.")
    assert kept["tools"][0]["parameters"]["required"] == ["city"]
    assert kept["state"]["initial"] == {"mood": "good"}
    assert [one["version"] for one in (await ring.get("/prompts/greeting/versions"))["items"]] == [2, 1]
    assert refused["details"][0]["field"] == "prompt_ref"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"model": "gpt"}, "model"),
        ({}, "model"),
        ({"model": "test/echo", "tools": ["nobody"]}, "tools.0"),
        ({"model": "test/echo", "tools": ["forecast", "forecast"]}, "tools"),
        ({"model": "test/echo", "tools": ["nothing:of/it"]}, "tools.0"),
        ({"model": "test/echo", "settings": {"messages": []}}, "settings"),
        ({"model": "test/echo", "output": {"type": "no type"}}, "output"),
        ({"model": "test/echo", "code": "x = 1"}, "output_type"),
        ({"model": "test/echo", "promt": "?"}, "promt"),
    ],
)
async def test_what_cannot_be_an_agent_is_refused_with_the_field(
    ring: AgentRing, body: dict[str, Any], field: str
) -> None:
    assert (await ring.refused(**body))["details"][0]["field"] == field


@pytest.mark.parametrize(
    ("fields", "code"),
    [({"prompt": " "}, "invalid_input"), ({"text": "?"}, "invalid_input"), ({"prompt": "Hi"}, "invalid_input")],
)
async def test_an_input_that_does_not_fit_is_refused(ring: AgentRing, fields: dict[str, str], code: str) -> None:
    agent = await ring.publish(slug="picky", model="test/echo", prompt="For {customer}.")
    handle = await ring.client.submit_agent_execution(agent["slug"], fields, ring_id=ring.ring_id)

    document = await ring.ended(handle["execution_id"])

    assert (document["status"], document["error"]["code"]) == (Status.FAILED, code)


async def test_a_model_without_a_key_is_named_with_what_helps(ring: AgentRing) -> None:
    document = await ring.ask((await ring.publish(model="mistral/some-model"))["slug"])

    assert document["error"]["code"] == "model_key_missing"
    assert "MISTRAL_API_KEY" in document["error"]["message"]


async def test_an_agent_of_the_users_own_keeps_its_calls_as_steps(ring: AgentRing) -> None:
    execution_id = await ring.submit_workflow("own-agent", {"question": "Well?"}, 120)
    await ring.reached(execution_id, Status.WAITING)
    steps = [one for one in (await records_of(ring, execution_id)).checkpoints if one["kind"] == "step"]
    assert (await send(ring, execution_id, "go", "on")).status_code == 202
    document = await ring.ended(execution_id)

    assert [one["name"] for one in steps] == ["mine: model", "mine: look", "mine: model", "mine: look", "mine: model"]
    assert (document["output"], document["attempt"]) == ({"output": "Well? 2", "word": "on", "done": []}, 2)
