"""`flow_sdk.pydantic_ai` outside of the platform: the agent runs as it always did."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic_ai import Agent
from pydantic_ai.models.test import TestModel

from flow_sdk.pydantic_ai import durable


async def test_an_agent_answers_with_its_tools_and_streams() -> None:
    agent = Agent(TestModel(), name="mine")
    asked: list[int] = []

    @agent.tool_plain
    def double(number: int) -> dict[str, int]:
        asked.append(number)
        return {"double": 2 * number}

    seen: list[Any] = []

    async def handler(_: object, events: Any) -> None:
        seen.extend([event async for event in events])

    plain = await agent.run("Go")
    kept = await durable(agent).run("Go")
    await durable(agent).run("Go", event_stream_handler=handler)

    assert kept.output == plain.output == '{"double":{"double":0}}'
    assert asked == [0, 0, 0]
    assert any(type(event).__name__ == "PartStartEvent" for event in seen)


async def test_an_agent_without_a_model_is_refused() -> None:
    with pytest.raises(ValueError, match="agent 'mine' has no model"):
        await durable(Agent(name="mine")).run("Go")
    assert (await durable(Agent(name="mine")).run("Go", model=TestModel(custom_output_text="yes"))).output == "yes"
