"""What was given ahead is answered inside of the container: in its order, for its own execution, and told later."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import textwrap
from typing import Any

from flow_sdk.wire.replay import HEADER, Told, call_key, checkpoint_key, content_of, parse
from tests.contract.client.recording_server import Recorded, RecordingServer, Reply

PROGRAM = """
import asyncio, json, os, threading
from flow_sdk import PlatformClient, sleep, step
from flow_sdk.harness import idle

async def call(client, number, slug="block"):
    document = await client.execute_code_block(slug, {{"n": number}}, {{}}, ring_id="r1")
    return document["execution_id"]

{code}

try:
    said = idle.run(main(), 60)
except ValueError as error:
    said = str(error)
print(json.dumps(said), flush=True)
"""
COMPONENT = {"kind": "code_block", "id": "c1", "slug": "block", "version": 1, "name": "block"}


class Platform:
    """Had the calls 0 to 4, which ended in the reverse order, and a step; answers others as new ones that are done."""

    def __init__(self, server: RecordingServer) -> None:
        self.server = server
        server.handler = self.handle

    @property
    def told(self) -> list[Told]:
        """With each request; those of ordinary clients say nothing."""
        return [parse(one.header(HEADER) or "") for one in self.server.requests]

    @property
    def lines(self) -> list[str]:
        return [one.path.split("/")[-1] for one in self.server.requests]

    async def handle(self, request: Recorded) -> Reply:
        if request.path.endswith("/replayed"):
            return Reply(200, {})
        told = parse(request.header(HEADER) or "")
        body = json.loads(request.body)
        if request.path.endswith("/execute"):
            return Reply(200, self.document("inline"))
        if request.path.endswith("/checkpoints"):
            answer: dict[str, Any] = {**self.checkpoint, "checkpoint_id": "k2"}
        else:
            number = body["input_parameters"]["n"]
            document = self.document(f"e{number}" if number in range(5) else f"new {number}", 9 - len(str(number)))
            answer = {"execution_id": document["execution_id"], "status": "completed", "execution": document}
        ahead = {"ahead": {"calls": self.calls, "after": None}} if told.after == 0 else {}
        return Reply(200 if request.path.endswith("/checkpoints") else 202, answer | ahead)

    @property
    def checkpoint(self) -> dict[str, Any]:
        times = {"created_at": "2026-01-01T00:00:00Z", "finished_at": "2026-01-01T00:00:08Z"}
        return {"checkpoint_id": "k1", "kind": "step", "name": "s", "status": "done", "value": 7, **times}

    @property
    def calls(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = [
            {
                "ordinal": number + 1,
                "key": call_key("code_block", "c1", content_of({"n": number}, {}, [], {})),
                "occurrence": 0,
                "execution": self.document(f"e{number}", 5 - number),
            }
            for number in range(5)
        ]
        key = checkpoint_key("step", "s", None)
        return [*found, {"ordinal": 6, "key": key, "occurrence": 0, "checkpoint": self.checkpoint}]

    def document(self, execution_id: str, second: int = 1) -> dict[str, Any]:
        times = {"created_at": "2026-01-01T00:00:00Z", "finished_at": f"2026-01-01T00:00:{second:02}Z"}
        ids = {"execution_id": execution_id, "deployment_id": "d1", "ring_id": "r1"}
        return {**ids, "status": "completed", "component": COMPONENT, "output": None, **times}

    async def run(self, code: str, attempt: int = 2) -> Any:
        variables = {"PLATFORM_API_URL": self.server.url, "AUTH_TOKEN": "t", "ORG_ID": "o1", "WORKSPACE_ID": "w1"}
        variables |= {"EXECUTION_ID": "e0", "RING_ID": "r1", "ATTEMPT": str(attempt)}
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
        return json.loads(out)


async def test_calls_that_were_given_ahead_send_nothing_until_the_end(server: RecordingServer) -> None:
    platform = Platform(server)
    said = await platform.run(
        """
        async def main():
            async with PlatformClient() as client:
                ids = [await call(client, number) for number in range(5)]
                return ids, await step("s", int)
        """
    )
    assert said == [[f"e{number}" for number in range(5)], 7]
    assert platform.lines == ["executions", "replayed"]
    assert platform.told == [Told(0, 0), Told(made=((2, 6),), is_over=True)]


async def test_they_come_to_an_end_in_the_order_in_which_they_did(server: RecordingServer) -> None:
    platform = Platform(server)
    said = await platform.run(
        """
        async def main():
            seen = []
            async with PlatformClient() as client:
                await call(client, 0)

                async def one(number):
                    seen.append(await call(client, number))

                await asyncio.gather(*(one(number) for number in (2, 3, 4, 1)))
            return seen
        """
    )
    assert said == ["e4", "e3", "e2", "e1"]


async def test_calls_side_by_side_wait_for_the_one_that_asks(server: RecordingServer) -> None:
    platform = Platform(server)
    said = await platform.run(
        """
        async def main():
            async with PlatformClient() as client:
                return await asyncio.gather(*(call(client, number) for number in range(8)))
        """
    )
    assert said == [*(f"e{number}" for number in range(5)), *(f"new {number}" for number in range(5, 8))]
    assert platform.lines.count("executions") == 4
    assert platform.told[-1] == Told(is_over=True)  # The step was not made; the calls were told on the way.
    assert {one for told in platform.told for pair in told.made for one in pair} == {2, 5}


async def test_an_error_of_the_code_is_told_behind_its_calls(server: RecordingServer) -> None:
    platform = Platform(server)
    said = await platform.run(
        """
        async def main():
            async with PlatformClient() as client:
                await call(client, 0)
                await call(client, 1)
                raise ValueError("as ever")
        """
    )
    assert (said, platform.told[-1]) == ("as ever", Told(made=((2, 2),), is_over=True))


async def test_a_handle_of_a_call_that_was_given_ahead_is_one(server: RecordingServer) -> None:
    platform = Platform(server)
    first, second = await platform.run(
        """
        async def main():
            async with PlatformClient() as client:
                await call(client, 0)
                handle = await client.submit_code_block_execution("block", {"n": 1}, ring_id="r1")
                return handle, await client.submit_code_block_execution("c1", {"n": 2}, ring_id="r1")
        """
    )
    path = "/api/v1/orgs/o1/workspaces/w1/executions/e1"
    assert {name: first[name] for name in first if name != "execution"} == {
        "execution_id": "e1",
        "status": "completed",
        "status_url": path,
        "events_url": f"{path}/events",
        "deployment_id": "d1",
        "ring_id": "r1",
        "created_at": "2026-01-01T00:00:00Z",
    }
    assert (second["execution_id"], platform.lines) == ("e2", ["executions", "replayed"])


async def test_the_first_attempt_numbers_and_asks_for_nothing(server: RecordingServer) -> None:
    platform = Platform(server)
    await platform.run(
        """
        async def main():
            async with PlatformClient() as client:
                await asyncio.gather(*(call(client, "equal") for _ in range(3)))
        """,
        attempt=1,
    )
    assert sorted(told.occurrence or 0 for told in platform.told if told.occurrence is not None) == [0, 1, 2]
    assert [told.after for told in platform.told if told.occurrence == 0] == [None]


async def test_clients_that_speak_for_others_say_and_are_given_nothing(server: RecordingServer) -> None:
    """As another user, in another workspace, from another thread or process, or in a ring that is not its own."""
    platform = Platform(server)
    said = await platform.run(
        """
        async def other(**given):
            async with PlatformClient(**given) as client:
                return await call(client, 1)

        def in_thread(seen):
            seen.append(asyncio.run(other()))

        async def main():
            async with PlatformClient() as client:
                await call(client, 0)
            seen = [await other(auth_token="another"), await other(workspace_id="w2"), await other(org_id="o2")]
            thread = threading.Thread(target=in_thread, args=[seen])
            thread.start()
            while thread.is_alive():
                await asyncio.sleep(0.01)
            async with PlatformClient() as client:
                client.auth_token = "another"
                seen.append(await call(client, 1))
                client.auth_token = "t"
            async with PlatformClient() as client:
                document = await client.execute_code_block("block", {"n": 1}, {}, ring_id="r2")
                seen.append(document["execution_id"])
                seen.append(await call(client, 1))
            return seen
        """
    )
    assert said == ["e1"] * 7
    assert platform.lines == ["executions"] * 7 + ["replayed"]
    assert platform.told[1:-1] == [Told()] * 6
    assert platform.told[-1] == Told(made=((2, 2),), is_over=True)


async def test_large_inputs_are_asked_for(server: RecordingServer) -> None:
    platform = Platform(server)
    await platform.run(
        """
        async def main():
            async with PlatformClient() as client:
                await call(client, "x" * (70 << 10))
        """
    )
    assert platform.told == [Told()]


async def test_transforms_are_answered_as_well(server: RecordingServer) -> None:
    platform = Platform(server)
    said = await platform.run(
        """
        async def main():
            async with PlatformClient() as client:
                return (await client.execute_transform("shape", {"n": 1}, {}))["execution_id"]
        """
    )
    assert (said, platform.told[0]) == ("inline", Told(0, 0))
