"""Code that takes what comes first sees, when it runs again, what came first before, however the answers overtake."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import textwrap
from typing import Any

from tests.contract.client.recording_server import Recorded, RecordingServer, Reply

PROGRAM = """
import asyncio, json
from flow_sdk import PlatformClient, sleep, step
from flow_sdk.harness import idle

seen = []

async def call(client, name):
    document = await client.execute_code_block(name, {{}}, {{}}, ring_id="r1")
    seen.append(document["execution_id"])
    return document["execution_id"]

{code}

idle.run(main(), 60)
print(json.dumps(seen), flush=True)
"""


class Replaying:
    """Answers each call with an execution that ended at the second, and after the pause, that its name says: `7.20`."""

    def __init__(self, server: RecordingServer) -> None:
        self.url = server.url
        server.handler = self.handle

    async def handle(self, request: Recorded) -> Reply:
        if request.path.endswith("/checkpoints"):
            ended = f"2026-01-01T00:00:{float((request.body and json.loads(request.body)['seconds']) or 0):02.0f}Z"
            document = {"checkpoint_id": "c1", "kind": "timer", "name": "sleep", "status": "done"}
            return Reply(200, document | {"created_at": "2026-01-01T00:00:00Z", "finished_at": ended})
        name = request.path.split("/")[-2]
        second, _, pause = name.partition(".")
        await asyncio.sleep(int(pause) / 1000)
        ended = {"execution_id": name, "status": "completed", "finished_at": f"2026-01-01T00:00:{int(second):02}Z"}
        return Reply(202, {"execution_id": name, "status": "completed", "execution": ended})

    async def run(self, code: str) -> list[Any]:
        variables = {
            "PLATFORM_API_URL": self.url,
            "AUTH_TOKEN": "t",
            "ORG_ID": "o1",
            "WORKSPACE_ID": "w1",
            "EXECUTION_ID": "e0",
            "RING_ID": "r1",
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            PROGRAM.format(code=textwrap.dedent(code)),
            env=os.environ | variables,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(process.communicate(), 90)
        assert out, err.decode()
        seen: list[Any] = json.loads(out)
        return seen


async def test_calls_side_by_side_end_in_the_order_in_which_they_ended(server: RecordingServer) -> None:
    seen = await Replaying(server).run(
        """
        async def main():
            async with PlatformClient() as client:
                await asyncio.gather(*(call(client, name) for name in ("3.0", "1.90", "2.30", "9.0", "5.60")))
        """
    )
    assert seen == ["1.90", "2.30", "3.0", "5.60", "9.0"]


async def test_what_follows_from_an_end_comes_before_a_later_one(server: RecordingServer) -> None:
    """The chain 1, 2, 3 is called one after the other; 4 was called with the first, and ended behind them."""
    seen = await Replaying(server).run(
        """
        async def chain(client):
            for name in ("1.60", "2.30", "3.60"):
                await asyncio.sleep(0)
                await call(client, name)

        async def main():
            async with PlatformClient() as client:
                await asyncio.gather(call(client, "4.0"), chain(client))
        """
    )
    assert seen == ["1.60", "2.30", "3.60", "4.0"]


async def test_a_race_against_a_sleep_has_the_same_winner(server: RecordingServer) -> None:
    code = """
        async def timer():
            await sleep({seconds})
            return "sleep"

        async def main():
            async with PlatformClient() as client:
                racing = [asyncio.ensure_future(timer()), asyncio.ensure_future(call(client, "5.50"))]
                done, _ = await asyncio.wait(racing, return_when=asyncio.FIRST_COMPLETED)
                seen[:] = [task.result() for task in done]
    """
    assert await Replaying(server).run(code.format(seconds=7)) == ["5.50"]
    assert await Replaying(server).run(code.format(seconds=3)) == ["sleep"]


async def test_an_end_that_nobody_waits_for_any_more_holds_nothing_up(server: RecordingServer) -> None:
    seen = await Replaying(server).run(
        """
        async def main():
            async with PlatformClient() as client:
                first, second = (asyncio.ensure_future(call(client, name)) for name in ("1.50000", "2.0"))
                await asyncio.sleep(0.03)
                first.cancel()
                await second
        """
    )
    assert seen == ["2.0"]
