"""Both channels with an unmodified `PlatformClient` in a container, and the relay to the API."""

from __future__ import annotations

from collections import Counter

import pytest

from flow_platform.runner import refusals
from flow_platform.runner.config import Channel
from flow_platform.runner.relay import MAX_NATS_ACCEPTED
from flow_sdk.wire.runner import Limits
from tests.contract.runner.conftest import StartRunner, http_api
from tests.contract.runner.fake_engine import FakeEngine, assignment, becomes
from tests.support.eventually import eventually

pytestmark = pytest.mark.asyncio(loop_scope="session")

CHANNELS: tuple[Channel, ...] = ("socket", "nats")

ALL_FOUR = """
import os
from flow_sdk import PlatformClient

async def main(name: str) -> dict:
    execution_id, deployment_id = os.environ["EXECUTION_ID"], os.environ["DEPLOYMENT_ID"]
    async with PlatformClient() as client:
        fetched = await client.fetch_execution_input(deployment_id, execution_id)
        for number in range(3):
            await client.push_execution_event(deployment_id, execution_id, "chunk", {"number": number})
        await client.publish_execution_status(execution_id, "thinking")
        status = await client.get_execution_status("some-id")
        await client.push_execution_output(
            deployment_id, execution_id, {"hello": fetched["input_data"]["name"], "api": status}, usage={"tokens": 7}
        )
    return {"hello": "ignored: the first output counts"}
"""


@pytest.mark.parametrize("channel", CHANNELS)
async def test_the_four_methods_and_http_work_in_a_container(
    engine: FakeEngine, start_runner: StartRunner, channel: Channel
) -> None:
    async with http_api(b'{"status": "running"}') as (port, heads):
        await start_runner(channel=channel, api_port=port)
        work = assignment(ALL_FOUR, {"name": "Ada"})
        output = await engine.run(work)
    assert output.content["error"] is None, output.content
    assert output.content["output"] == {"hello": "Ada", "api": {"status": "running"}}
    assert output.content["usage"] == {"tokens": 7}
    assert b"GET /api/v1/orgs/org/workspaces/workspace/executions/some-id" in heads[0]
    assert f"Authorization: Bearer {work.token}".encode().lower() in heads[0].lower()
    await becomes(lambda: len(engine.events.get(work.execution_id, [])), output.metrics.events)
    chunks = [event["event_data"] for event in engine.events[work.execution_id] if event["event_type"] == "chunk"]
    assert chunks == [{"number": 0}, {"number": 1}, {"number": 2}]
    await becomes(lambda: "thinking" in engine.statuses[work.execution_id], True)


async def test_the_nats_channel_runs_plain_components(engine: FakeEngine, start_runner: StartRunner) -> None:
    await start_runner(channel="nats")
    output = await engine.run(assignment("def main(n: int) -> int:\n    return n + 1", {"n": 1}))
    assert output.content["output"] == 2
    failed = await engine.run(assignment("def main():\n    raise ValueError('no')"))
    assert failed.error["code"] == "component_error"


async def test_a_foreign_token_is_refused(engine: FakeEngine, start_runner: StartRunner) -> None:
    await start_runner()
    code = """
import os
from flow_sdk import PlatformClient
async def main():
    os.environ["NATS_URL"] = "nats://x:another@127.0.0.1:4222"
    client = PlatformClient(auth_token="another")
    try:
        await client.publish_execution_status(os.environ["EXECUTION_ID"], "stolen")
    except Exception as error:
        return type(error).__name__
    finally:
        await client.close()
"""
    work = assignment(code)
    output = await engine.run(work)
    assert str(output.content["output"]).startswith("Platform"), output.content
    assert "stolen" not in engine.statuses.get(work.execution_id, [])


async def test_what_a_container_was_refused_is_told_with_heartbeats(
    engine: FakeEngine, start_runner: StartRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when it tries all the time: a kind with its number."""
    monkeypatch.setattr(refusals, "EVERY_SECONDS", 0.0)  # Each heartbeat tells, so that nothing is waited for.
    await start_runner()
    guesses = """
import contextlib, socket
def main(times: int) -> int:
    heard = b""
    for _ in range(times):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", 4222), 10) as gateway:
            gateway.sendall(b'CONNECT {"auth_token":"guess"}\\r\\n')
            while part := gateway.recv(65536):
                heard += part
    return heard.count(b"Authorization Violation")
"""
    inside = """
import os, socket, urllib.parse
def main(times: int) -> int:
    token = urllib.parse.urlsplit(os.environ["NATS_URL"]).password
    heard = b""
    with socket.create_connection(("127.0.0.1", 4222), 10) as gateway:
        lines = "PUB exec.output.another 2\\r\\n{}\\r\\n" * times
        gateway.sendall(('CONNECT {"auth_token":"%s"}\\r\\n' % token + lines + "PING\\r\\n").encode())
        while not heard.endswith(b"PONG\\r\\n"):
            heard += gateway.recv(65536)
    return heard.count(b"Permissions Violation")
"""
    guessing, publishing = assignment(guesses, {"times": MAX_NATS_ACCEPTED + 6}), assignment(inside, {"times": 400})
    assert (await engine.run(guessing)).content["output"] == MAX_NATS_ACCEPTED
    assert (await engine.run(publishing)).content["output"] == 400

    def counted() -> dict[tuple[str, ...], int]:
        found: Counter[tuple[str, ...]] = Counter()
        for told in [one for beat in engine.heartbeats for one in beat.refusals]:
            found[told.execution_id, told.tried, told.code] += told.count
        return found

    expected = {
        (guessing.execution_id, "CONNECT", "token_invalid"): MAX_NATS_ACCEPTED,
        (guessing.execution_id, "CONNECT", "rate_limited"): 6,
        (publishing.execution_id, "PUB", "forbidden"): 400,
    }

    async def probe() -> dict[tuple[str, ...], int]:
        return counted()

    # More, if the answer to a heartbeat was lost: then it is told again.
    found = await eventually(probe, lambda seen: all(seen.get(key, 0) >= least for key, least in expected.items()), 30)
    assert found.keys() == expected.keys()


async def test_events_over_nats_count_against_the_limit(engine: FakeEngine, start_runner: StartRunner) -> None:
    await start_runner()
    code = """
import os
from flow_sdk import PlatformClient, PlatformClientError
async def main():
    async with PlatformClient() as client:
        for number in range(10):
            try:
                await client.push_execution_event(None, os.environ["EXECUTION_ID"], "chunk", number)
            except PlatformClientError as error:
                return [number, str(error)]
"""
    output = await engine.run(assignment(code, limits=Limits(events=4)))
    number, message = output.content["output"]
    assert number == 4
    assert "limits.events" in message


async def test_the_relay_reaches_only_the_api(engine: FakeEngine, start_runner: StartRunner) -> None:
    code = """
import socket
def main(ports: list[int]) -> list[str]:
    seen = []
    for port in ports:
        try:
            socket.create_connection(("127.0.0.1", port), 20).close()
            seen.append("connected")
        except OSError as error:
            seen.append(type(error).__name__)
    return seen
"""
    async with http_api(b"{}") as (port, _):
        await start_runner(api_port=port)
        output = await engine.run(assignment(code, {"ports": [8420, 4222, port, 22]}))
    assert output.content["output"] == ["connected", "connected", "ConnectionRefusedError", "ConnectionRefusedError"]


async def test_connections_of_a_container_are_bounded(engine: FakeEngine, start_runner: StartRunner) -> None:
    code = """
import socket
def main() -> list[int]:
    held = [socket.create_connection(("127.0.0.1", 8420), 20) for _ in range(400)]
    for connection in held:
        connection.settimeout(20)
        connection.sendall(b"GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
    answered = 0
    for connection in held:
        try:
            answered += bool(connection.recv(10))
        except OSError:
            pass
    return [len(held), answered]
"""
    async with http_api(b"{}") as (port, _):
        await start_runner(api_port=port)
        output = await engine.run(assignment(code))
    assert output.content["error"] is None, output.content["error"]
    assert output.content["output"] == [400, 384]


async def test_large_bodies_pass_the_relay_whole(engine: FakeEngine, start_runner: StartRunner) -> None:
    body = b'{"text": "' + b"x" * (8 << 20) + b'"}'
    code = """
import hashlib, urllib.request
def main() -> str:
    with urllib.request.urlopen("http://127.0.0.1:8420/", timeout=20) as answer:
        return hashlib.sha256(answer.read()).hexdigest()
"""
    import hashlib

    async with http_api(body) as (port, _):
        await start_runner(api_port=port)
        output = await engine.run(assignment(code))
    assert output.content["output"] == hashlib.sha256(body).hexdigest()
