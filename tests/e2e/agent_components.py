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
