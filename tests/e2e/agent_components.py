"""What the agents of the tests call, and one that is declared in Python."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

from flow_sdk import agent, code_block, tool, transform, wait_for_event, workflow


class Ticket(BaseModel):
    team: Literal["sales", "support"]
    urgent: bool = False


@code_block
def forecast(city: str) -> dict:
    """The weather of a city."""
    return {"city": city, "degrees": 21}


@code_block
def refuses(reason: str) -> str:
    raise ValueError(reason)


@transform
def doubled(number: int) -> int:
    return 2 * number


@workflow
async def waits_for(word: str) -> str:
    """Ends when somebody says so."""
    return f"{word} {await wait_for_event('go')}"


@workflow(slug="own-agent", dependencies=["pydantic-ai-slim[openai]"], memory_mb=512)
async def own_agent(question: str) -> dict:
    """A pydantic-ai agent of the user's own. Tells what its model and tool were really asked in this attempt."""
    from pydantic_ai import Agent, ModelRetry
    from pydantic_ai.messages import ModelResponse, TextPart, ToolCallPart
    from pydantic_ai.models.function import FunctionModel

    from flow_sdk.pydantic_ai import durable

    done: list[str] = []
    arguments = [{"city": "Atlantis"}, {"city": "Bern"}]

    async def answer(messages: list, _: object) -> ModelResponse:
        done.append("model")
        turn = sum(isinstance(message, ModelResponse) for message in messages)
        if turn < len(arguments):
            return ModelResponse(parts=[ToolCallPart("look", arguments[turn])])
        return ModelResponse(parts=[TextPart(f"{question} {turn}")])

    mine = Agent(FunctionModel(answer), name="mine")

    @mine.tool_plain
    async def look(city: str) -> dict:
        done.append("tool")
        if city == "Atlantis":
            raise ModelRetry("there is no such city")
        return {"city": city}

    result = await durable(mine).run(question)
    word = await wait_for_event("go")
    return {"output": result.output, "word": word, "done": done}


@workflow
async def asks_the_helper(question: str) -> str:
    return await helper.call(question)


helper = agent("helper", model="test/echo", prompt="You repeat.", description="Repeats what it is told.")
triage = agent(
    "triage",
    model="test/echo",
    prompt="You sort for {company}.",
    tools=[forecast, helper, tool(refuses, name="refuse", approval=True)],
    output=Ticket,
)
