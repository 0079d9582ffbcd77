"""500 executions leave nothing behind: no process, mount, network namespace, cgroup, descriptor, file or consumer."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path
from typing import Any

import nats
import pytest

from flow_sdk.wire import subjects
from tests.faults.test_killed_parts import client_of
from tests.support.eventually import eventually
from tests.support.flow_program import Platform, mounts

pytestmark = pytest.mark.slow

EXECUTIONS = 500
IN_FLIGHT = 64
ROUNDS = 3  # What a slow machine had not made yet before the first of them is no leak.


async def run(platform: Platform, count: int) -> None:
    client, ring_id = client_of(platform)
    limit = asyncio.Semaphore(IN_FLIGHT)

    async def one(number: int) -> None:
        async with limit:
            document = await client.execute_code_block("square", {"number": number}, {}, ring_id=ring_id)
            assert document["status"] == "completed", document

    async with client:
        await asyncio.gather(*(one(number) for number in range(count)))


@pytest.mark.timeout(400)
async def test_500_executions_leave_nothing(platform: Platform) -> None:
    await run(platform, 2 * IN_FLIGHT)  # Whatever is made once under load, pools included, is there now.
    before = await settled(platform)
    for _ in range(ROUNDS):
        await run(platform, EXECUTIONS)
        after = await no_more_than(platform, before)
        if after is None:
            break
        was, before = before, after
    else:
        assert after == was, "it grows with each round"
    assert await consumers(platform) == {"engine"}


async def no_more_than(platform: Platform, before: dict[str, Any]) -> dict[str, Any] | None:
    """None as soon as it is so; else what there is."""

    async def now() -> dict[str, Any]:
        return state(platform)

    try:
        await eventually(now, lambda after: all(after[name] <= before[name] for name in before), timeout_seconds=30)
    except AssertionError:
        return state(platform)
    return None


async def settled(platform: Platform) -> dict[str, Any]:
    """The state once the pool is full again: twice the same, a while apart."""

    async def pair() -> tuple[dict[str, Any], dict[str, Any]]:
        first = state(platform)
        await asyncio.sleep(0.5)
        return first, state(platform)

    return (await eventually(pair, lambda both: both[0] == both[1], timeout_seconds=30))[1]


def state(platform: Platform) -> dict[str, Any]:
    processes = platform.processes()
    return {
        "processes": len(processes),
        "mounts": len(mounts()),
        "network namespaces": len(network_namespaces(processes)),
        "cgroups": len(cgroups(platform.child("bootstrap runner"))),
        "descriptors of the runner": descriptors(platform.child("bootstrap runner")),
        "descriptors of the server": descriptors(platform.child("bootstrap server")),
        "temporary files": sum(1 for path in Path("/tmp").iterdir() if "flow" in path.name.lower()),
    }


def network_namespaces(processes: list[int]) -> set[str]:
    found: set[str] = set()
    for process in processes:
        with contextlib.suppress(OSError):
            found.add(os.readlink(f"/proc/{process}/ns/net"))  # noqa: PTH115
    return found


def cgroups(runner: int) -> list[str]:
    """A runner's groups are below one that is named after its process."""
    return [folder for folder, _, _ in os.walk("/sys/fs/cgroup") if f"/flow-{runner}-" in folder]


def descriptors(process: int) -> int:
    """But for those of the database: its readers connect one by one, as load needs them, up to a fixed number."""
    count = 0
    for name in os.listdir(f"/proc/{process}/fd"):  # noqa: PTH208
        with contextlib.suppress(OSError):
            count += "flow.db" not in os.readlink(f"/proc/{process}/fd/{name}")  # noqa: PTH115
    return count


async def consumers(platform: Platform) -> set[str]:
    connection = await nats.connect(platform.wait_ready()["nats_url"])
    found: set[str] = set()
    for stream in (subjects.STREAM_OUTPUT, subjects.STREAM_EVENTS, subjects.STREAM_STATUS, subjects.STREAM_INPUT):
        found |= {consumer.name for consumer in await connection.jetstream().consumers_info(stream)}
    await connection.close()
    return found
