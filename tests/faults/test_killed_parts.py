"""Any part is killed, or its streams are deleted, under 200 executions: each ends once, with its own result."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from typing import Any

import nats
import pytest

from flow_sdk import PlatformClient
from flow_sdk.wire import subjects
from tests.support.eventually import eventually
from tests.support.flow_program import Platform

pytestmark = pytest.mark.slow

EXECUTIONS = 200
KILL_AFTER = 40  # Results that are in when the part is killed: the others are queued, running, or on their way back.


def client_of(platform: Platform) -> tuple[PlatformClient, str]:
    ready = platform.wait_ready()
    client = PlatformClient(
        base_url=ready["base_url"],
        auth_token=ready["token"],
        org_id=ready["org_id"],
        workspace_id=ready["workspace_id"],
    )
    return client, ready["rings"]["dev"]


async def run_while(platform: Platform, harm: Callable[[], Awaitable[None]]) -> list[dict[str, Any]]:
    """Runs all executions, does the harm in their midst, and returns the documents in the order of their numbers."""
    client, ring_id = client_of(platform)
    done = 0

    async def run(number: int) -> dict[str, Any]:
        nonlocal done
        arguments = {"number": number, "seconds": 0.02}
        document = await client.execute_code_block("square", arguments, {}, ring_id=ring_id, timeout_seconds=90)
        done += 1
        return document

    async def finished() -> int:
        return done

    async with client:
        running = [asyncio.create_task(run(number)) for number in range(EXECUTIONS)]
        await eventually(finished, lambda count: count >= KILL_AFTER, timeout_seconds=60)
        await harm()
        return list(await asyncio.gather(*running))


def check(documents: list[dict[str, Any]]) -> None:
    assert [document["status"] for document in documents] == ["completed"] * EXECUTIONS
    assert [document["output"] for document in documents] == [number * number for number in range(EXECUTIONS)]
    assert len({document["execution_id"] for document in documents}) == EXECUTIONS


async def listed(platform: Platform) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = platform.output_of("ps", "--limit", "500", "--json")
    return found


@pytest.mark.parametrize("part", ["nats-server", "bootstrap runner", "bootstrap server"])
async def test_a_killed_part_loses_no_execution(platform: Platform, part: str) -> None:
    async def kill() -> None:
        os.kill(platform.child(part), signal.SIGKILL)

    check(await run_while(platform, kill))
    assert len(await listed(platform)) == EXECUTIONS, "no request made two executions"


async def test_deleted_streams_lose_no_execution(platform: Platform) -> None:
    url = platform.wait_ready()["nats_url"]

    async def delete() -> None:
        connection = await nats.connect(url)
        for stream in (subjects.STREAM_OUTPUT, subjects.STREAM_EVENTS, subjects.STREAM_STATUS, subjects.STREAM_INPUT):
            await connection.jetstream().delete_stream(stream)
        await connection.close()

    check(await run_while(platform, delete))


async def test_a_paused_runner_loses_its_lease_and_what_it_says_later_changes_nothing(platform: Platform) -> None:
    client, ring_id = client_of(platform)
    async with client:
        handle = await client.submit_code_block_execution("square", {"number": 3, "seconds": 4.0}, ring_id=ring_id)
        execution_id = handle["execution_id"]
        status = lambda: client.get_execution_status(execution_id)  # noqa: E731
        await eventually(status, lambda document: document["status"] == "running")
        runner = platform.child("bootstrap runner")
        os.kill(runner, signal.SIGSTOP)
        try:
            await eventually(status, lambda document: document["status"] == "queued")
        finally:
            os.kill(runner, signal.SIGCONT)
        document = await client.await_execution_result(execution_id, timeout_seconds=60)
    assert (document["status"], document["output"], document["attempt"]) == ("completed", 9, 2)


async def test_a_workflow_whose_runner_dies_repeats_no_finished_step(platform: Platform) -> None:
    client, ring_id = client_of(platform)
    numbers = list(range(16))

    async def steps() -> list[dict[str, Any]]:
        path = f"/api/v1/orgs/{client.org_id}/workspaces/{client.workspace_id}/executions"
        answer = await client.client.get(f"{path}?component_id=code-blocks/square&limit=100")
        found: list[dict[str, Any]] = answer.json()["items"]
        return found

    async with client:
        handle = await client.submit_workflow_execution("squares", {"numbers": numbers}, ring_id=ring_id)
        await eventually(steps, lambda found: sum(step["status"] == "completed" for step in found) >= 3)
        os.kill(platform.child("bootstrap runner"), signal.SIGKILL)
        document = await client.await_execution_result(handle["execution_id"], timeout_seconds=60)
        made = await steps()
    assert document["status"] == "completed"
    assert document["attempt"] >= 2
    assert document["output"] == [number * number for number in numbers]
    assert len(made) == len(numbers), "no step was made twice"
    again = document["attempt"] - 1
    assert sum(step["attempt"] for step in made) <= len(numbers) + again, "only the one under way may have begun again"
