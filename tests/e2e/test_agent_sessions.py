"""Conversations that the platform keeps: in real containers, one turn at a time."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from flow_sdk.wire.status import Status
from tests.support.agent_platform import AgentRing, agent_platform, calls, script
from tests.support.flow_program import Platform

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

COMPONENTS = Path(__file__).with_name("agent_components.py")


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    folder = tmp_path_factory.mktemp("sessions")
    with agent_platform(folder, "--channel", "nats", components=COMPONENTS, FLOW_SUSPEND_AFTER="0.5") as started:
        yield started


@pytest_asyncio.fixture
async def ring(platform: Platform) -> AsyncIterator[AgentRing]:
    async with AgentRing(platform) as client:
        yield client


def asked(document: dict[str, Any]) -> list[str]:
    """What the user said in a conversation, in its order."""
    parts = [part for message in document["messages"] for part in message["parts"]]
    return [part["content"] for part in parts if part["part_kind"] == "user-prompt"]


async def test_the_turns_of_a_session_come_one_after_the_other(ring: AgentRing) -> None:
    agent = await ring.publish(model="test/echo", enable_conversations=True)

    ids = [await ring.begin(agent["slug"], f"turn {turn}", session_id="s") for turn in range(4)]
    other = await ring.begin(agent["slug"], "elsewhere", session_id="t")
    documents = [await ring.ended(one) for one in ids]

    assert [asked(document) for document in documents] == [[f"turn {n}" for n in range(turn + 1)] for turn in range(4)]
    assert [document["session_id"] for document in documents] == ["s"] * 4
    spans = [(document["started_at"], document["finished_at"]) for document in documents]
    assert all(later[0] >= earlier[1] for earlier, later in itertools.pairwise(spans))
    assert asked(await ring.ended(other)) == ["elsewhere"]
    kept = await ring.get(f"/agents/{agent['slug']}/sessions/s")
    assert (kept["turns"], kept["running_execution_id"], kept["queued"]) == (4, None, 0)
    assert asked(kept) == asked(documents[-1])


async def test_a_turn_that_fails_or_is_cancelled_leaves_the_session_as_it_was(ring: AgentRing) -> None:
    turns = script({"text": "first"}, {"text": "late", "error": {"status": 400, "message": "no"}}, then="error")
    agent = await ring.publish(**turns, enable_conversations=True, state={"persistence": "session"})
    first = await ring.ask(agent["slug"], "one", session_id="s")
    before = await ring.get(f"/agents/{agent['slug']}/sessions/s")

    failed = await ring.ask(agent["slug"], "two", session_id="s")
    after = await ring.get(f"/agents/{agent['slug']}/sessions/s")

    assert (first["output"], failed["status"]) == ("first", Status.FAILED)
    assert after == before | {"running_execution_id": None}
    assert asked(after) == ["one"]


async def test_a_turn_that_waits_for_a_person_keeps_its_turn(ring: AgentRing) -> None:
    tools = [{"ref": "forecast", "approval": True}]
    turns = script(calls(("forecast", {"city": "Bern"})), {"text": "first"}, {"text": "second"})
    agent = await ring.publish(**turns, tools=tools, enable_conversations=True)
    holds = await ring.begin(agent["slug"], "one", session_id="s")
    await ring.reached(holds, Status.WAITING)

    cancelled, follows = [await ring.begin(agent["slug"], text, session_id="s") for text in ("two", "three")]
    waiting = (await ring.status(follows))["waiting_on"]
    busy = await ring.client.client.delete(f"{ring.path}/agents/{agent['slug']}/sessions/s")
    await ring.client.cancel_execution(cancelled)
    sent = await ring.client.client.post(f"{ring.path}/executions/{holds}/events/forecast", json={"approved": True})

    assert (waiting["reason"], busy.status_code, sent.status_code) == ("session", 409, 202)
    assert busy.json()["code"] == "session_busy"
    assert (await ring.ended(holds))["output"] == "first"
    document = await ring.ended(follows)
    assert (document["output"], asked(document)) == ("second", ["one", "three"])
    gone = await ring.client.client.delete(f"{ring.path}/agents/{agent['slug']}/sessions/s")
    assert gone.status_code == 204


async def test_long_term_state_is_kept_across_sessions_of_one_person(ring: AgentRing) -> None:
    turns = script(calls(("save_state", {"values": {"likes": "tea"}})), {"text": "noted"})
    state = {"persistence": "long_term", "key": "customer"}
    agent = await ring.publish(**turns, prompt="You know: {state}", state=state, enable_conversations=True)

    first = await ring.ask(agent["slug"], "I like tea", customer="ada", session_id="monday")
    second = await ring.ask(agent["slug"], "What do I like?", customer="ada", session_id="friday")
    stranger = await ring.ask(agent["slug"], "And I?", customer="bob", session_id="friday")
    handle = ring.client.submit_agent_execution(agent["slug"], {"prompt": "Who?"}, ring_id=ring.ring_id)

    assert first["state"] == second["state"] == {"likes": "tea"}
    assert (asked(second), stranger["output"]) == (["What do I like?"], "noted")
    kept = await ring.get(f"/agents/{agent['slug']}/sessions/-?owner=ada")
    assert (kept["state"], kept["turns"]) == ({"likes": "tea"}, 2)
    with pytest.raises(Exception, match=r"input_data\.customer"):
        await handle


async def test_without_persistence_messages_and_state_are_the_callers(ring: AgentRing) -> None:
    agent = await ring.publish(model="test/echo", prompt="{state}")
    body = {"input_data": {"prompt": "again"}, "ring_id": ring.ring_id, "session_id": "s", "state": {"n": 1}}
    earlier = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}]

    async def run(messages: list[Any]) -> dict[str, Any]:
        path = f"{ring.path}/agents/{agent['slug']}/executions"
        answer = await ring.client.client.post(path, json={**body, "messages": messages})
        assert answer.status_code == 202, answer.text
        return await ring.ended(answer.json()["execution_id"])

    first, alone = await asyncio.gather(run(earlier), run([]))
    second = await run(first["messages"])

    assert (asked(first), asked(alone), asked(second)) == (["hello", "again"], ["again"], ["hello", "again", "again"])
    assert first["state"] == {"n": 1}
    assert (await ring.get(f"/agents/{agent['slug']}/sessions"))["items"] == []
