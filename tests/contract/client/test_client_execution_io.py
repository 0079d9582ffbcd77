"""The client contract, section 3: subjects, payloads and acknowledgements on a real nats-server with JetStream."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from flow_sdk import PlatformClient, errors
from flow_sdk.retry import Retry
from tests.contract.client.nats_platform import MakeClient, Platform, eventually
from tests.contract.client.nats_process import NatsProcess, WireTap

DEPLOYMENT = UUID("0192f0c1-2222-7333-8444-555566667777")
NOT_CONFIGURED = "NATS_URL not configured. Set NATS_URL environment variable for execution I/O."
OLD, NEW = "eyJhbGciOiJub25lIn0.b2xk.sig", "eyJhbGciOiJub25lIn0.bmV3.sig"


def timeless(payload: bytes) -> bytes:
    """The payload with its timestamp checked and cut."""
    found = re.search(rb', "timestamp": "([^"]+)"}$', payload)
    assert found is not None, payload
    at = datetime.fromisoformat(found[1].decode())
    assert at.utcoffset() == datetime.now(UTC).utcoffset()  # noqa: TID251
    assert abs((datetime.now(UTC) - at).total_seconds()) < 60  # noqa: TID251
    return payload[: found.start()]


@pytest.mark.parametrize(
    "action",
    [
        lambda c: c.fetch_execution_input("d", "e"),
        lambda c: c.push_execution_output("d", "e", {}),
        lambda c: c.push_execution_event("d", "e", "message", {}),
        lambda c: c.publish_execution_status("e", "running"),
    ],
)
async def test_without_nats_url(action: Callable[[PlatformClient], Awaitable[Any]], client: PlatformClient) -> None:
    with pytest.raises(errors.PlatformClientError) as caught:
        await action(client)
    assert (type(caught.value), str(caught.value)) == (errors.PlatformClientError, NOT_CONFIGURED)


async def test_output(platform: Platform, nats_client: PlatformClient, execution_id: str) -> None:
    await nats_client.push_execution_output(None, execution_id, {"ok": True})
    await nats_client.push_execution_output(
        DEPLOYMENT,
        execution_id,
        {"day": date(2026, 1, 2), "ä": DEPLOYMENT},
        usage={"tokens": 1},
        messages=[1],
        state={"s": 1},
        error={"code": "component_error"},
    )
    first, second = await platform.messages("output", execution_id)
    assert timeless(first).decode() == (
        f'{{"execution_id": "{execution_id}", "deployment_id": null, "output": {{"ok": true}}, "usage": null, '
        '"messages": null, "state": null, "error": null'
    )
    assert timeless(second).decode() == (
        f'{{"execution_id": "{execution_id}", "deployment_id": "{DEPLOYMENT}", '
        f'"output": {{"day": "2026-01-02", "\\u00e4": "{DEPLOYMENT}"}}, "usage": {{"tokens": 1}}, "messages": [1], '
        '"state": {"s": 1}, "error": {"code": "component_error"}'
    )


async def test_events_are_numbered_per_client(
    platform: Platform, nats_client: PlatformClient, execution_id: str
) -> None:
    await nats_client.push_execution_event(DEPLOYMENT, execution_id, "message", {"text": "hi"})
    await nats_client.push_execution_event(None, execution_id, "progress", 0.5)
    first, second = await platform.messages("events", execution_id)
    assert timeless(first).decode() == (
        f'{{"execution_id": "{execution_id}", "sequence": 1, "event_type": "message", "event_data": {{"text": "hi"}}'
    )
    assert timeless(second).decode() == (
        f'{{"execution_id": "{execution_id}", "sequence": 2, "event_type": "progress", "event_data": 0.5'
    )


async def test_status(platform: Platform, nats_client: PlatformClient, execution_id: str) -> None:
    await nats_client.publish_execution_status(execution_id, "running")
    (status,) = await platform.messages("status", execution_id)
    assert timeless(status).decode() == f'{{"execution_id": "{execution_id}", "status": "running"'


async def test_input_is_taken_acknowledged_and_reported(
    platform: Platform, nats_client: PlatformClient, execution_id: str
) -> None:
    given = {"input_data": {"a": 1}, "session_id": "s", "messages": [1], "state": {"k": 1}, "unknown": 2}
    await platform.put_input(execution_id, given)
    taken = await nats_client.fetch_execution_input(DEPLOYMENT, execution_id)
    assert taken == {"input_data": {"a": 1}, "session_id": "s", "messages": [1], "state": {"k": 1}}
    assert await platform.is_taken(execution_id)
    (status,) = await platform.messages("status", execution_id)
    assert timeless(status).decode() == f'{{"execution_id": "{execution_id}", "status": "running"'


async def test_input_defaults(platform: Platform, nats_client: PlatformClient, execution_id: str) -> None:
    await platform.put_input(execution_id, {})
    taken = await nats_client.fetch_execution_input(None, execution_id)
    assert taken == {"input_data": {}, "session_id": None, "messages": [], "state": {}}


async def test_input_that_comes_later(platform: Platform, nats_client: PlatformClient, execution_id: str) -> None:
    before = await platform.consumers()
    fetching = asyncio.create_task(nats_client.fetch_execution_input(None, execution_id))
    await eventually(lambda: platform.is_fetched_from(before))
    await platform.put_input(execution_id, {"input_data": 7})
    assert (await fetching)["input_data"] == 7


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff"])
async def test_input_that_is_none(
    content: bytes, platform: Platform, nats_client: PlatformClient, execution_id: str
) -> None:
    await platform.put_input(execution_id, content)
    with pytest.raises(errors.PlatformClientError, match=f"The input of execution '{execution_id}' is not"):
        await nats_client.fetch_execution_input(None, execution_id)
    await eventually(lambda: platform.is_taken(execution_id))
    assert await platform.messages("status", execution_id) == []


@pytest.mark.slow
async def test_no_input_within_the_wait_gives_the_subscription_back(
    nats_process: NatsProcess,
    platform: Platform,
    make_client: MakeClient,
    execution_id: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tap = WireTap(nats_process.port)
    await tap.start()
    monkeypatch.setenv("NATS_URL", f"nats://127.0.0.1:{tap.port}")
    client = make_client()
    assert client._exec_io.input_seconds == 60.0
    client._exec_io.input_seconds = 0.5
    with pytest.raises(errors.PlatformConnectionError, match=r"no input for execution .* came within 0.5 s"):
        await client.fetch_execution_input(None, execution_id)
    await client.publish_execution_status(execution_id, "x")
    (sent,) = tap.sent
    subscribed = re.findall(rb"SUB _INBOX\.\w+  (\d+)\r\n", bytes(sent))  # The consumer's own inbox.
    assert subscribed
    for number in subscribed:
        assert b"UNSUB %b" % number in sent
    create = re.search(rb"PUB \$JS\.API\.CONSUMER\.CREATE\.EXEC_INPUT \S+ \d+\r\n(\{.*?\})\r\n", bytes(sent))
    assert create is not None
    config = json.loads(create[1])["config"]
    assert (config["deliver_policy"], config["ack_policy"]) == ("all", "explicit")
    assert config["filter_subject"] == f"exec.input.{execution_id}"
    await client.close()
    await tap.stop()


async def test_cancelled_while_waiting_gives_the_subscription_back(
    nats_client: PlatformClient, platform: Platform, execution_id: str
) -> None:
    before = await platform.consumers()
    waiting = asyncio.create_task(nats_client.fetch_execution_input(None, execution_id))
    await eventually(lambda: platform.is_fetched_from(before))
    subscribing = asyncio.create_task(nats_client.fetch_execution_input(None, execution_id + "b"))
    await nats_client.publish_execution_status(
        execution_id, "x"
    )  # Comes back together with an answer to `subscribing`.
    for fetching in (waiting, subscribing):
        fetching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await fetching
    link = nats_client._exec_io._link
    assert link is not None
    assert link._link is not None
    assert link._link.users == 0


async def test_one_lazy_connection(
    nats_process: NatsProcess,
    platform: Platform,
    make_client: MakeClient,
    execution_id: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tap = WireTap(nats_process.port)
    await tap.start()
    monkeypatch.setenv("NATS_URL", f"nats://127.0.0.1:{tap.port}")
    monkeypatch.setenv("EXECUTION_ID", execution_id)
    client = make_client()
    assert client.execution_id == execution_id
    assert tap.sent == []
    await asyncio.gather(*(client.push_execution_event(None, execution_id, "message", n) for n in range(10)))
    assert len(tap.sent) == 1
    (connect,) = tap.connects()
    assert connect["name"] == f"flow-sdk {execution_id}"
    assert not {"auth_token", "user", "pass"} & connect.keys(), "no credential that the URL does not hold"
    numbers = [json.loads(message)["sequence"] for message in await platform.messages("events", execution_id)]
    assert sorted(numbers) == list(range(1, 11))
    await client.close()
    await tap.stop()


async def test_close_drains_what_was_published(
    platform: Platform, nats_client: PlatformClient, execution_id: str
) -> None:
    pushing = [
        asyncio.create_task(nats_client.push_execution_event(None, execution_id, "message", n)) for n in range(20)
    ]
    await asyncio.gather(*pushing)
    await nats_client.close()
    await nats_client.close()
    assert len(await platform.messages("events", execution_id)) == 20


async def test_a_message_that_is_too_large(nats_client: PlatformClient, execution_id: str) -> None:
    with pytest.raises(
        errors.PlatformValidationError, match=r"a message of \d+ bytes .* at most 65536 bytes"
    ) as caught:
        await nats_client.push_execution_output(None, execution_id, "x" * 70_000)
    assert caught.value.code == "payload_too_large"


async def test_output_that_is_not_json(nats_client: PlatformClient, execution_id: str) -> None:
    with pytest.raises(errors.PlatformValidationError, match="cannot be sent as JSON"):
        await nats_client.push_execution_output(None, execution_id, float("nan"))


async def test_no_server(
    make_client: MakeClient, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NATS_URL", "nats://x:s3cret@127.0.0.1:1")
    client = make_client()
    client._exec_io.retry = Retry(1, 0.01)
    with pytest.raises(errors.PlatformConnectionError, match=r"NATS at '127.0.0.1:1' cannot be reached") as caught:
        await client.publish_execution_status("e", "running")
    assert "s3cret" not in str(caught.value)
    client._exec_io.input_seconds = 0.1
    with pytest.raises(errors.PlatformConnectionError, match="no input for execution 'e' came"):
        await client.fetch_execution_input(None, "e")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("url", ["nats://127.0.0.1:port", "http://x", "::"])
async def test_a_nats_url_that_is_none(url: str, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NATS_URL", url)
    client = make_client()
    client._exec_io.retry = Retry(0)
    with pytest.raises(errors.PlatformConnectionError):
        await client.publish_execution_status("e", "running")


@pytest.mark.slow
async def test_no_stream_for_the_subject(
    tmp_path: Path, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = NatsProcess(tmp_path)
    monkeypatch.setenv("NATS_URL", process.url)
    client = make_client()
    client._exec_io.retry = Retry(1, 0.01)
    client._exec_io.input_seconds = 0.2
    with pytest.raises(errors.PlatformConnectionError, match=r"publishing exec\.status\.e had no answer"):
        await client.publish_execution_status("e", "running")
    with pytest.raises(errors.PlatformConnectionError, match="no input for execution 'e' came"):
        await client.fetch_execution_input(None, "e")
    await client.close()
    process.stop()


@pytest.mark.slow
async def test_a_publish_that_was_stored_but_not_acknowledged_is_stored_once(
    nats_process: NatsProcess,
    platform: Platform,
    make_client: MakeClient,
    execution_id: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The connection breaks between the message and its acknowledgement."""
    tap = WireTap(nats_process.port)
    await tap.start()
    monkeypatch.setenv("NATS_URL", f"nats://127.0.0.1:{tap.port}")
    monkeypatch.setattr("flow_sdk.exec_io.REQUEST_SECONDS", 1.0)
    client = make_client()
    await client.publish_execution_status(execution_id, "connected")
    stored = asyncio.Event()

    async def cut(_: Any) -> None:
        if not stored.is_set():
            tap.cut()
            stored.set()

    watch = await platform.connection.subscribe(f"exec.output.{execution_id}", cb=cut)
    await platform.connection.flush()
    await client.push_execution_output(None, execution_id, {"ok": True})
    assert stored.is_set()
    assert len(await platform.messages("output", execution_id)) == 1
    await watch.unsubscribe()
    await client.close()
    await tap.stop()
