"""Both ways between a container and the world: the same components, the same results."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.clients import RingClient
from tests.support.flow_program import Platform, eventually, running

pytestmark = pytest.mark.slow

COMPONENTS = Path(__file__).with_name("nested_components.py")
PAYLOAD = 2 << 20
TRESPASSER = r"""
import socket
from flow_sdk import code_block

@code_block
def trespasser() -> bool:
    heard = b""
    with socket.create_connection(("127.0.0.1", 4222), 10) as gateway:
        gateway.sendall(b'CONNECT {"auth_token":"guess"}\r\n')
        while part := gateway.recv(65536):
            heard += part
    return b"Authorization Violation" in heard
"""


@pytest.fixture(scope="module", params=["socket", "nats"])
def channel(
    request: pytest.FixtureRequest, platform: Platform, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Platform]:
    """A platform whose containers use one of the two; the one that all tests share uses the socket."""
    if request.param == "socket":
        publish(platform)
        yield platform
    else:
        with running(tmp_path_factory.mktemp("nats"), "--channel", "nats") as started:
            publish(started)
            yield started


def publish(platform: Platform) -> None:
    published = platform.flow("publish", COMPONENTS)
    assert published.returncode == 0, published.stderr


def events_of(platform: Platform, execution_id: str) -> list[dict[str, Any]]:
    """All of them: following ends when the execution and its events have."""
    done = platform.flow("events", execution_id, "--follow", "--json")
    return [json.loads(line) for line in done.stdout.splitlines()]


async def test_input_output_and_events(channel: Platform) -> None:
    async with RingClient(channel) as ring:
        document = await ring.run("echo", {"value": "hello"})
    assert (document["status"], document["output"], document["attempt"]) == ("completed", "hello", 1)
    events = events_of(channel, document["execution_id"])
    assert ["5 characters" in str(event["event_data"]) for event in events if event["event_type"] == "log"] == [True]


async def test_an_error_is_the_same_document(channel: Platform) -> None:
    async with RingClient(channel) as ring:
        document = await ring.run("refuses", {"number": 3})
        refused = await ring.run("refuses", {"number": "three"})
    assert (document["status"], document["error"]["type"], document["error"]["message"]) == (
        "failed",
        "ValueError",
        "not 3",
    )
    assert "in refuses" in document["error"]["traceback"]
    assert (refused["status"], refused["error"]["code"]) == ("failed", "invalid_input")
    assert refused["error"]["details"][0]["field"] == "number"


async def test_a_workflow_with_children(channel: Platform) -> None:
    async with RingClient(channel) as ring:
        document = await ring.run_workflow("all-at-once", {"numbers": [2, 3, 4]})
        nested = await ring.run_workflow("nested", {"depth": 2, "number": 3})
    assert (document["status"], document["output"]) == ("completed", [4, 9, 16]), document["error"]
    assert (nested["status"], nested["output"]) == ("completed", 11), nested["error"]


async def test_a_payload_of_two_mebibytes(channel: Platform) -> None:
    value = "\N{SNOWMAN}" * (PAYLOAD // 3)
    async with RingClient(channel) as ring:
        document = await ring.run("echo", {"value": value})
    assert document["status"] == "completed", document["error"]
    assert document["output"] == value


@pytest.mark.parametrize("padding", ["", "x" * PAYLOAD], ids=["small", "large"])
async def test_a_component_that_speaks_the_contract_itself(channel: Platform, padding: str) -> None:
    async with RingClient(channel) as ring:
        document = await ring.run("speaks-for-itself", {"word": "hi", "padding": padding})
    assert (document["status"], document["attempt"]) == ("completed", 1), document["error"]
    assert document["output"] == {"pushed": "hi", "own_status": "running", "padding": padding}
    assert document["usage"] == {"tokens": 3}
    assert (document["messages"], document["state"]) == ([{"role": "user"}], {"turn": 1})
    events = [(event["event_type"], event["event_data"]) for event in events_of(channel, document["execution_id"])]
    # Statuses travel on a stream of their own, so their place among the events is open.
    assert ("status", {"status": "thinking"}) in events
    assert [event for event in events if event[0] != "status"] == [("message", {"saw": "hi"}), ("chunk", {"text": "a"})]


async def test_what_the_gateway_refuses_is_in_the_audit_log(channel: Platform, tmp_path: Path) -> None:
    source = tmp_path / "trespasser.py"
    source.write_text(TRESPASSER)
    published = channel.flow("publish", source)
    assert published.returncode == 0, published.stderr
    async with RingClient(channel) as ring:
        document = await ring.run("trespasser", {})
    assert document["output"] is True, document
    subject = f"execution:{document['execution_id']}"

    def told() -> list[dict[str, Any]]:
        return json.loads(channel.flow("audit", "--subject", subject, "--json").stdout)

    entry = eventually(told, 60)[-1]  # Of an answer that got lost there would be another.
    assert (entry["kind"], entry["action"], entry["code"]) == ("refusal", "NATS CONNECT", "token_invalid")
    assert (entry["who"]["credential"], entry["from"]["gateway"]) == ("attempt:1", "nats")
    assert entry["from"]["runner"]
    listed = channel.flow("audit", "--subject", subject).stdout
    assert "NATS CONNECT" in listed
    assert "401 token_invalid x" in listed
