"""Workflows that wait, in every way, and what they wait for."""

import asyncio
import os
import time
from time import time as now  # noqa: TID251 - what the container itself sees.
from typing import Any

import flow_sdk
from flow_sdk import PlatformClient, approval, code_block, sleep, step, transform, wait_for_event, workflow


@code_block
def rests(seconds: float, name: str = "") -> str:
    time.sleep(seconds)
    return name


@code_block(slug="even-only")
def even_only(number: int) -> int:
    if number % 2:
        raise ValueError(f"{number} is odd")
    return number // 2


@transform
def doubled(data: dict) -> dict:
    return {"n": data["n"] * 2}


@workflow(slug="sleeper-flow", timeout_seconds=4000)
async def sleeper_flow(seconds: float) -> dict:
    began = await step("began", now)
    await sleep(seconds)
    return {"slept": now() - began, "attempt": int(os.environ["ATTEMPT"])}


@workflow(slug="event-flow", timeout_seconds=90)
async def event_flow(before: str = "") -> dict:
    if before:
        await wait_for_event(before)
    city = await wait_for_event("address", payload=dict)
    return {"city": city["city"], "attempt": int(os.environ["ATTEMPT"])}


@workflow(slug="approval-flow", timeout_seconds=60)
async def approval_flow(approvers: list[str]) -> dict:
    answer = await approval("ship it", "40 boxes", approvers=approvers)
    return {"approved": answer.approved, "comment": answer.comment, "by": answer.by}


@workflow(slug="expiring-flow", timeout_seconds=60)
async def expiring_flow() -> str:
    try:
        await wait_for_event("never", timeout=3)
    except TimeoutError as error:
        return str(error)
    return "it came"


@workflow(slug="child-flow", timeout_seconds=60)
async def child_flow(seconds: float) -> str:
    return await rests.call(seconds=seconds, name="rested")


@workflow(slug="map-flow", timeout_seconds=60)
async def map_flow(count: int) -> dict:
    found = await flow_sdk.map(even_only, range(count), concurrency=8)
    return {
        "outputs": [item.output for item in found],
        "failed": [item.index for item in found if not item.ok],
        "why": str(found[1].error and found[1].error.execution and found[1].error.execution["error"]["message"]),
    }


@workflow(slug="nested-flow", timeout_seconds=60)
async def nested_flow(depth: int, seconds: float) -> dict:
    """All levels wait without containers for the timer of the lowest one."""
    if depth == 0:
        await sleep(seconds)
        return {"depth": 0}
    return {"depth": depth, "below": await nested_flow.call(depth=depth - 1, seconds=seconds)}


@workflow(slug="first-flow", timeout_seconds=90)
async def first_flow() -> list[str]:
    """Goes on with what ends first, three times, and gives its container back in between."""
    seen = []
    waiting = {
        asyncio.ensure_future(comes("third")),
        asyncio.ensure_future(sleeps(0.6, "first")),
        asyncio.ensure_future(told.call(name="second")),
    }
    while waiting:
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            seen.append(await rests.call(seconds=0, name=f"after {task.result()}"))
    return seen


async def sleeps(seconds: float, name: str) -> str:
    await sleep(seconds)
    return name


async def comes(name: str) -> str:
    await wait_for_event(name)
    return name


@workflow(timeout_seconds=90)
async def told(name: str) -> str:
    return await comes(name)


@workflow(slug="mixed-flow", timeout_seconds=60)
async def mixed_flow() -> list[Any]:
    """A client of its own besides `.call`, an inline transform, and a call that it gives up waiting for."""
    async with PlatformClient() as client:
        ring_id = os.environ["RING_ID"]
        own = await client.execute_code_block("rests", {"seconds": 1.0, "name": "own"}, {}, ring_id=ring_id)
        inline = await client.execute_transform("doubled", {"n": 4}, None)
    given_up = asyncio.ensure_future(rests.call(seconds=3, name="given up"))
    await sleep(0.5)
    given_up.cancel()
    await sleep(0.6)
    return [own["output"], inline["output"], await doubled.call({"n": 5})]


@workflow(slug="plain-flow", timeout_seconds=60)
def plain_flow(seconds: float) -> int:
    """Not a coroutine: it keeps its container."""
    asyncio.run(rests.call(seconds=seconds))
    return int(os.environ["ATTEMPT"])


@workflow(slug="retried-flow", timeout_seconds=60, retry={"max_attempts": 2, "initial_interval_seconds": 0.1})
async def retried_flow() -> list[Any]:
    value = await step("once", now)
    await sleep(0.5)
    again = await step("twice", lambda: os.environ["ATTEMPT"])
    if not await wait_for_event("go"):
        raise RuntimeError("try again")
    return [value, again]
