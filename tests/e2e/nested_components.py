"""Workflows in workflows, and components that speak the client contract themselves."""

import asyncio
import os

from flow_sdk import PlatformClient, code_block, workflow


@code_block
def square(number: int) -> int:
    return number * number


@code_block
def refuses(number: int) -> int:
    raise ValueError(f"not {number}")


@workflow(slug="one-by-one")
async def one_by_one(numbers: list[int]) -> list:
    return [await square.call(number=number) for number in numbers]


@workflow(slug="all-at-once")
async def all_at_once(numbers: list[int]) -> list:
    return list(await asyncio.gather(*(square.call(number=number) for number in numbers)))


@workflow
async def nested(depth: int, number: int) -> int:
    if depth == 0:
        return await square.call(number=number)
    return 1 + await nested.call(depth=depth - 1, number=number)


@workflow
async def catches(number: int) -> dict:
    async with PlatformClient() as client:
        document = await client.execute_code_block("refuses", {"number": number}, {}, ring_id=os.environ["RING_ID"])
    return {"status": document["status"], "message": document["error"]["message"]}


@code_block
def echo(value: str) -> str:
    print(f"{len(value)} characters")  # noqa: T201
    return value


@code_block(slug="speaks-for-itself")
async def speaks_for_itself(word: str, padding: str = "") -> str:
    """Does by the client what the harness does for everybody else."""
    deployment_id, execution_id = os.environ["DEPLOYMENT_ID"], os.environ["EXECUTION_ID"]
    async with PlatformClient() as client:
        given = await client.fetch_execution_input(deployment_id, execution_id)
        await client.push_execution_event(deployment_id, execution_id, "message", {"saw": given["input_data"]["word"]})
        await client.push_execution_event(deployment_id, execution_id, "chunk", {"text": "a"})
        await client.publish_execution_status(execution_id, "thinking")
        own = await client.get_execution_status(execution_id)
        output = {"pushed": word, "own_status": own["status"], "padding": padding}
        await client.push_execution_output(
            deployment_id, execution_id, output, usage={"tokens": 3}, messages=[{"role": "user"}], state={"turn": 1}
        )
    return "what was pushed came first"
