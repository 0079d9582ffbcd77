"""The way out of an attempt, from its assignment to the events of its connections: real containers, a real bus."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from flow_platform.domain.operator_rules import parse_allow
from flow_platform.egress.policy import OperatorRules
from flow_platform.runner import network
from flow_platform.runner.network import Egress
from flow_sdk.wire.harness import NETWORK_EVENT
from tests.contract.runner.conftest import RUNNER_ID, StartRunner
from tests.contract.runner.fake_engine import FakeEngine, assignment, becomes
from tests.support.way_out import Names, names
from tests.support.web_server import WebServer

pytestmark = pytest.mark.asyncio(loop_scope="session")

GET = """
import urllib.request
def main(urls):
    answers = []
    for url in urls:
        try:
            answers.append(urllib.request.urlopen(url).read().decode())
        except OSError as error:
            answers.append(str(error))
    return answers
"""


@pytest.fixture
def server() -> Iterator[WebServer]:
    with WebServer() as started:
        yield started


def egress(resolver: Names) -> Egress:
    return Egress(resolver, OperatorRules(parse_allow("127.0.0.1")))


def connections(engine: FakeEngine, execution_id: str) -> list[dict[str, Any]]:
    events = engine.events.get(execution_id, [])
    return [event["event_data"] for event in events if event["event_type"] == NETWORK_EVENT]


async def test_each_connection_leaves_an_event(
    engine: FakeEngine, start_runner: StartRunner, server: WebServer
) -> None:
    await start_runner(egress=egress(names(api="127.0.0.1", metadata="169.254.169.254")))
    urls = [
        f"http://api.example.com:{server.port}/one",
        "http://metadata.example.com/latest",
        "http://other.example.org/",
        "http://none.example.com/",
    ]
    work = assignment(GET, {"urls": urls}, network=[f"api.example.com:{server.port}", "*.example.com"])
    output = await engine.run(work)
    assert output.content["output"][0] == f"GET /one api.example.com:{server.port}"
    assert "metadata" in output.content["output"][1]
    assert "not declared in network=[...]" in output.content["output"][2]
    assert "could not be resolved" in output.content["output"][3]
    await becomes(lambda: len(connections(engine, work.execution_id)), 4)
    found = connections(engine, work.execution_id)
    assert [one["verdict"] for one in found] == ["allowed", "refused", "refused", "failed"]
    assert [one["host"] for one in found] == [
        "api.example.com", "metadata.example.com", "other.example.org", "none.example.com"
    ]  # fmt: skip
    assert (found[0]["port"], found[0]["address"], found[0]["reason"]) == (server.port, "127.0.0.1", "")
    assert found[0]["bytes_out"] > 0
    assert found[0]["bytes_in"] > 0
    assert found[0]["duration_ms"] > 0
    assert "169.254.169.254" in found[1]["reason"]
    assert output.metrics.events == 4, "published before the end is reported"


async def test_the_number_of_events_is_bounded(
    engine: FakeEngine, start_runner: StartRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "MAX_NETWORK_EVENTS", 3)
    await start_runner(egress=egress(names()))
    code = (
        "import socket\ndef main():\n    for _ in range(8):\n"
        "        with socket.create_connection(('127.0.0.1', 3128)) as proxy:\n"
        "            proxy.sendall(b'CONNECT x.example.com:443 HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n')\n"
        "            proxy.recv(1000)\n"
    )
    work = assignment(code, network=["api.example.com"])
    await engine.run(work)
    await becomes(lambda: len(connections(engine, work.execution_id)), 4)
    assert connections(engine, work.execution_id)[3] == {"verdict": "dropped", "connections": 5}


HOLD = """
import signal, urllib.request
def main(url):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    urllib.request.urlopen(url).read()
"""

LEAVE = """
import socket
def main(url):
    global proxy
    host = url.split("/")[2]
    proxy = socket.create_connection(("127.0.0.1", 3128))
    proxy.sendall(f"CONNECT {host} HTTP/1.1\\r\\nHost: {host}\\r\\n\\r\\n".encode())
    proxy.recv(1000)
    proxy.sendall(f"GET /mute HTTP/1.1\\r\\nHost: {host}\\r\\n\\r\\n".encode())
    proxy.recv(1000)
"""


@pytest.mark.parametrize("way", ["cancelled", "lost", "over"])
async def test_connections_end_with_the_attempt(
    engine: FakeEngine, start_runner: StartRunner, server: WebServer, way: str
) -> None:
    await start_runner(egress=egress(names(api="127.0.0.1")))
    url = f"http://api.example.com:{server.port}/mute"
    limit = {"remaining_seconds": 4.0} if way == "over" else {}  # For the request on a slow machine.
    code = LEAVE if way == "over" else HOLD
    work = assignment(code, {"url": url}, network=[f"api.example.com:{server.port}"], **limit)
    await engine.work.put(work)
    await becomes(lambda: server.requests, ["GET /mute"])
    assert not server.ended.is_set()
    if way == "cancelled":
        await engine.notify_cancel(work, RUNNER_ID)
    elif way == "lost":
        engine.lost.add(work.execution_id)
    await becomes(server.ended.is_set, True)
    if way != "lost":
        error = (await engine.ended(work.execution_id)).error
        assert error["code"] == ("cancelled" if way == "cancelled" else "timeout")
        await becomes(lambda: len(connections(engine, work.execution_id)), 1)
        assert connections(engine, work.execution_id)[0]["reason"] == "closed with the attempt"


async def test_a_component_cannot_speak_for_the_platform(engine: FakeEngine, start_runner: StartRunner) -> None:
    await start_runner()
    by_sdk = "from flow_sdk import emit_event\ndef main():\n    emit_event('network', {'verdict': 'allowed'})\n"
    output = await engine.run(assignment(by_sdk))
    assert (output.error["code"], output.error["type"]) == ("component_error", "ValueError")
    by_hand = (
        "import json, os, struct\ndef main():\n"
        "    body = json.dumps({'event_type': 'network', 'event_data': 1}).encode()\n"
        "    os.write(3, struct.pack('>BI', 3, len(body)) + body)\n"
    )
    work = assignment(by_hand)
    assert (await engine.run(work)).error["code"] == "protocol_error"
    assert connections(engine, work.execution_id) == []
