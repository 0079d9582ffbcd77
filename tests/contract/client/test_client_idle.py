"""A workflow that only waits gives its container back; one that anything else can wake keeps it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import textwrap
from typing import Any

import pytest

from tests.contract.client.recording_server import Recorded, RecordingServer, Reply

PROGRAM = """
import asyncio, json, os, socket, threading
from flow_sdk import PlatformClient, sleep, step, wait_for_event
from flow_sdk.harness import idle
from flow_sdk.harness.failure import Suspended

cleaned = []

{code}

try:
    said = {{"done": idle.run(main(), 0.05)}}
except Suspended as suspended:
    said = {{"suspended": [detail["message"] for detail in suspended.document.details]}}
print(json.dumps(said | {{"cleaned": cleaned}}), flush=True)
os._exit(0)
"""
OPEN = {
    "checkpoint_id": "c1",
    "kind": "event",
    "name": "go",
    "status": "open",
    "created_at": "2026-01-01T00:00:00Z",
}


class Platform:
    """Holds every read of a checkpoint for ever, and every status read of an execution."""

    def __init__(self, server: RecordingServer, *, suspend: bool = True, child_timeout: float = 300) -> None:
        self.server = server
        self.suspend = suspend
        self.child = {"execution_id": "e1", "status": "running", "timeout_seconds": child_timeout}
        server.handler = self.handle

    async def handle(self, request: Recorded) -> Reply:
        if request.path.endswith("/suspension"):
            return Reply(200, {"suspend": self.suspend})
        if request.line.startswith("POST") and request.path.endswith("/code-blocks/slow/executions"):
            return Reply(202, {"execution_id": "e1", "status": "queued"})
        if request.line.startswith("POST"):
            return Reply(200, OPEN)
        if request.path.endswith("/executions/e1") and not self.read_before("/executions/e1"):
            return Reply(200, self.child)
        await asyncio.sleep(60)
        return Reply(200, OPEN)

    def read_before(self, path: str) -> bool:
        return sum(one.path.endswith(path) and one.line.startswith("GET") for one in self.server.requests) > 1

    @property
    def was_asked(self) -> bool:
        return any(one.path.endswith("/suspension") for one in self.server.requests)

    async def run(self, code: str) -> dict[str, Any]:
        variables = {
            "PLATFORM_API_URL": self.server.url,
            "AUTH_TOKEN": "t",
            "ORG_ID": "o1",
            "WORKSPACE_ID": "w1",
            "EXECUTION_ID": "e0",
            "RING_ID": "r1",
        }
        program = PROGRAM.format(code=textwrap.dedent(code))
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            program,
            env=os.environ | variables,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(process.communicate(), 90)
        assert out, err.decode()
        said: dict[str, Any] = json.loads(out)
        return said


async def test_an_event_that_is_waited_for_gives_it_back_and_no_clean_up_runs(server: RecordingServer) -> None:
    said = await Platform(server).run(
        """
        async def main():
            try:
                await wait_for_event("go")
            finally:
                cleaned.append("finally")
        """
    )
    assert said == {"suspended": ["c1"], "cleaned": []}


async def test_a_child_that_is_waited_for_gives_it_back(server: RecordingServer) -> None:
    platform = Platform(server)
    said = await platform.run(
        """
        async def main():
            async with PlatformClient() as client:
                return await client.execute_code_block("slow", {}, {}, ring_id="r1")
        """
    )
    assert said["suspended"] == ["e1"]
    [asked] = [one for one in server.requests if one.path.endswith("/suspension")]
    assert json.loads(asked.body) == {"details": [{"field": "execution_id", "message": "e1"}]}


async def test_side_by_side_waits_are_all_named(server: RecordingServer) -> None:
    said = await Platform(server).run(
        """
        async def main():
            async with PlatformClient() as client:
                child = client.execute_code_block("slow", {}, {}, ring_id="r1")
                return await asyncio.gather(child, wait_for_event("go"))
        """
    )
    assert sorted(said["suspended"]) == ["c1", "e1"]


KEPT = {
    "a timer of its own": """
        async def main():
            try:
                async with asyncio.timeout(0.7):
                    await wait_for_event("go")
            except TimeoutError:
                return "timer"
        """,
    "a task of its own that sleeps": """
        async def main():
            waiting = asyncio.ensure_future(wait_for_event("go"))
            await asyncio.sleep(0.7)
            waiting.cancel()
            return "timer"
        """,
    "a thread": """
        async def main():
            loop, done = asyncio.get_running_loop(), asyncio.Event()
            threading.Timer(0.7, lambda: loop.call_soon_threadsafe(done.set)).start()
            waiting = asyncio.ensure_future(wait_for_event("go"))
            await done.wait()
            waiting.cancel()
            return "timer"
        """,
    "a call in the executor": """
        import time
        async def main():
            waiting = asyncio.ensure_future(wait_for_event("go"))
            await asyncio.to_thread(time.sleep, 0.7)
            waiting.cancel()
            return "timer"
        """,
    "a socket": """
        import time
        async def main():
            ours, theirs = socket.socketpair()
            ours.setblocking(False)
            process = await asyncio.create_subprocess_shell(f"sleep 0.7; printf x >&{theirs.fileno()}",
                                                            pass_fds=[theirs.fileno()])
            waiting = asyncio.ensure_future(wait_for_event("go"))
            await asyncio.get_running_loop().sock_recv(ours, 1)
            await process.wait()
            waiting.cancel()
            return "timer"
        """,
    "a task that is always about to run": """
        import time
        async def main():
            waiting = asyncio.ensure_future(wait_for_event("go"))
            ends = time.monotonic() + 0.7
            while time.monotonic() < ends:
                await asyncio.sleep(0)
            waiting.cancel()
            return "timer"
        """,
}


@pytest.mark.parametrize("why", KEPT)
async def test_what_the_component_waits_for_itself_keeps_the_container(server: RecordingServer, why: str) -> None:
    platform = Platform(server)
    said = await platform.run(KEPT[why])
    assert (said["done"], platform.was_asked) == ("timer", False)


async def test_a_wait_that_gives_up_before_the_child_must_end_keeps_it(server: RecordingServer) -> None:
    platform = Platform(server, child_timeout=300)
    said = await platform.run(
        """
        async def main():
            async with PlatformClient() as client:
                try:
                    await client.await_execution_result("e1", timeout_seconds=1.5)
                except TimeoutError:
                    return "gave up"
        """
    )
    assert (said["done"], platform.was_asked) == ("gave up", False)


async def test_a_platform_that_objects_keeps_it_and_is_asked_again(server: RecordingServer) -> None:
    platform = Platform(server, suspend=False)

    async def give(request: Recorded) -> Reply:
        if request.line.startswith("GET") and platform.was_asked:
            await asyncio.sleep(0.5)
            return Reply(200, OPEN | {"status": "done", "value": 7})
        if request.line.startswith("GET"):
            await asyncio.sleep(0.5)
            return Reply(200, OPEN)
        return await platform.handle(request)

    server.handler = give
    said = await platform.run(
        """
        async def main():
            return await wait_for_event("go")
        """
    )
    assert (said["done"], platform.was_asked) == (7, True)


async def test_code_that_never_waits_just_returns_and_its_tasks_are_closed(server: RecordingServer) -> None:
    said = await Platform(server).run(
        """
        async def background():
            try:
                await asyncio.sleep(60)
            finally:
                cleaned.append("background")

        async def main():
            task = asyncio.ensure_future(background())
            await asyncio.sleep(0)
            return "done"
        """
    )
    assert said == {"done": "done", "cleaned": ["background"]}
