"""An agent whose container is killed goes on: no finished call of a model or a tool is made again."""

from __future__ import annotations

import contextlib
import os
import signal
from collections import Counter
from pathlib import Path

import pytest

from flow_sdk.wire.status import Status
from tests.support.agent_platform import AgentRing, agent_platform, calls, script
from tests.support.eventually import eventually
from tests.support.flow_program import Platform, descendants

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

COMPONENTS = Path(__file__).parents[1] / "e2e" / "agent_components.py"
SLOW_MS = 4_000  # Of the model call that the container is killed in.


def kill_all_containers(platform: Platform) -> None:
    """With their templates: whatever runs below the runner."""
    for process in descendants(platform.child("bootstrap runner")):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


async def test_an_agent_is_killed_while_a_tool_runs_and_while_the_model_answers(tmp_path: Path) -> None:
    turns = [
        calls(("forecast", {"city": "Bern"}), ("forecast", {"city": "Oslo"})),
        calls(("waits_for", {"word": "hear"})),
        {"text": "The end: {{last_tool}}", "first_chunk_ms": SLOW_MS},
    ]
    with agent_platform(tmp_path, components=COMPONENTS, FLOW_SUSPEND_AFTER="3600") as platform:
        async with AgentRing(platform) as ring:
            agent = await ring.publish(**script(*turns), tools=["forecast", "waits-for"])
            execution_id = await ring.begin(agent["slug"])
            children = await eventually(lambda: ring.children(execution_id), lambda found: len(found) == 3)

            kill_all_containers(platform)
            await eventually(lambda: ring.status(execution_id), lambda found: found["attempt"] == 2)
            waits = children[2]["execution_id"]
            sent = await ring.client.client.post(f"{ring.path}/executions/{waits}/events/go", json="me")
            assert sent.status_code == 202, sent.text
            await ring.ended(waits)
            await eventually(lambda: ring.model_calls(execution_id), lambda found: len(found) == 2)

            kill_all_containers(platform)
            document = await ring.ended(execution_id)

            assert (document["status"], document["output"]) == (Status.COMPLETED, "The end: hear me"), document["error"]
            made = Counter(child["component"]["slug"] for child in await ring.children(execution_id))
            assert made == {"forecast": 2, "waits-for": 1}
            assert len(await ring.model_calls(execution_id)) == 3
            assert document["usage"]["requests"] == 3
            texts = [data["text"] for kind, data in await ring.events(execution_id) if kind == "message"]
            assert texts.count("The end: hear me") == 1
