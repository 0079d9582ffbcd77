"""A workflow of 20 calls that stops at a boundary of the test's choice, once, so that something can be killed there."""

import asyncio
import ctypes
import os
import uuid
from collections.abc import Awaitable
from typing import Any

from flow_sdk import code_block, emit_event, sleep, step, wait_for_event, workflow
from flow_sdk.errors import PlatformExecutionError, PlatformStepError

PR_SET_NAME = 15


@code_block
def square(number: int) -> int:
    return number * number


@code_block
def refuses(number: int) -> int:
    raise ValueError(f"not {number}")


@code_block
def chance() -> str:
    """Another value in each execution of it, as the world gives it."""
    return uuid.uuid4().hex


@workflow(slug="next-square")
async def next_square(number: int) -> int:
    return await square.call(number=number + 1)


class Boundaries:
    """Stops at the boundary with that number, the first time that code comes there.

    Args:
        how: `hang`: until the container dies. `wait`: until an event comes, so for all attempts in the same way.
    """

    def __init__(self, stop_at: int, how: str) -> None:
        self.stop_at = stop_at
        self.how = how
        self.passed = 0

    async def __call__(self, work: Awaitable[Any]) -> Any:
        """One call; a boundary is before it."""
        await self.boundary()
        return await work

    async def boundary(self) -> None:
        self.passed += 1
        if self.passed != self.stop_at:
            return
        if self.how == "hang" and os.environ["ATTEMPT"] == "1":
            name_process(f"stop-{self.stop_at}")
            emit_event("stopped", {"at": self.stop_at})
            await asyncio.sleep(3600)
        if self.how == "wait":
            emit_event("stopped", {"at": self.stop_at})
            await wait_for_event("go on")


def name_process(name: str) -> None:
    """So that the process is found from outside of its namespaces."""
    ctypes.CDLL(None).prctl(PR_SET_NAME, name.encode(), 0, 0, 0)


def fails() -> None:
    raise LookupError("this step fails")


@workflow(slug="many-calls", timeout_seconds=200)
async def many_calls(stop_at: int, how: str) -> dict:
    at = Boundaries(stop_at, how)
    seen: dict[str, Any] = {}
    seen["loop"] = [await at(square.call(number=number)) for number in range(2)]
    seen["side by side"] = await asyncio.gather(
        at(square.call(number=10)), at(caught(11)), at(next_square.call(number=3))
    )
    seen["token"] = await at(step("token", lambda: uuid.uuid4().hex))
    try:
        await at(step("bad", fails))
    except PlatformStepError as error:
        seen["step"] = error.type_name
    await at(sleep(0.2))
    seen["tries"] = 0
    while seen["tries"] < 2:
        try:
            await at(refuses.call(number=seen["tries"]))
        except PlatformExecutionError:
            seen["tries"] += 1
    seen["event"] = await at(wait_for_event("news"))
    seen["equal"] = await asyncio.gather(*(at(chance.call()) for _ in range(2)))
    seen["of equal"] = [await at(step(f"{place}: {word}", str)) for place, word in enumerate(seen["equal"])]
    seen["steps"] = [await at(step("one of many", int, number)) for number in range(4)]
    seen["last"] = await at(square.call(number=99))
    await at.boundary()
    seen["boundaries"] = at.passed
    return seen


async def caught(number: int) -> str:
    try:
        return str(await refuses.call(number=number))
    except PlatformExecutionError as error:
        return str(error.execution and error.execution["error"]["message"])
