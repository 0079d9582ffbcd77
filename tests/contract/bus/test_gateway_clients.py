"""The gateway serves unmodified clients: nats-py as the contract uses it, and the platform's own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from nats.errors import TimeoutError as NatsTimeout
from nats.js.errors import APIError, NotFoundError

from flow_platform.bus.gateway import Gateway
from flow_platform.bus.gateway_limits import MAX_PAYLOAD_BYTES
from flow_platform.domain.errors import BusUnavailable, RateLimited
from flow_sdk import PlatformClient, PlatformClientError
from tests.support.gateway_executions import Execution, eventually, receive_all, send


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    gateway = Gateway()
    yield gateway
    await gateway.close()


@pytest.fixture
async def execution(gateway: Gateway) -> AsyncIterator[Execution]:
    execution = Execution(gateway, "0199-a", "token-a")
    yield execution
    await execution.close()


@pytest.fixture
def platform_client(execution: Execution, monkeypatch: pytest.MonkeyPatch) -> PlatformClient:
    monkeypatch.setenv("NATS_URL", execution.url())
    monkeypatch.setenv("EXECUTION_ID", execution.id)
    return PlatformClient("http://127.0.0.1:1", "jwt", "org", "workspace")


async def test_the_whole_life_of_a_contract_client(execution):
    client = await execution.connect()
    stream = client.jetstream()
    subscription = await stream.subscribe(f"exec.input.{execution.id}")
    message = await subscription.next_msg(timeout=60)
    await message.ack()
    await subscription.unsubscribe()
    assert message.data == execution.session.body
    assert message.subject == f"exec.input.{execution.id}"
    assert message.metadata.stream == "EXEC_INPUT"
    for number, kind in enumerate(("status", "events", "output"), 1):
        answer = await stream.publish(f"exec.{kind}.{execution.id}", b'{"n":%d}' % number)
        assert (answer.stream, answer.seq) == (f"EXEC_{kind.upper()}", number)
    await client.drain()
    assert execution.session.published == [("status", b'{"n":1}'), ("events", b'{"n":2}'), ("output", b'{"n":3}')]
    assert execution.refusals == []


async def test_the_platforms_own_client(execution, platform_client):
    async with platform_client as client:
        assert (await client.fetch_execution_input(None, execution.id))["input_data"] == {"of": execution.id}
        await client.push_execution_event(None, execution.id, "progress", {"done": 1})
        await client.push_execution_output(None, execution.id, {"answer": 42})
    kinds = [kind for kind, _ in execution.session.published]
    assert kinds == ["status", "events", "output"]
    assert json.loads(execution.session.published[-1][1])["output"] == {"answer": 42}


async def test_the_platforms_own_client_is_told_what_was_refused(execution, platform_client):
    execution.session.refuse = RateLimited("ten thousand events are enough", retry_after=1)
    async with platform_client as client:
        with pytest.raises(PlatformClientError, match="ten thousand events are enough"):
            await client.push_execution_event(None, execution.id, "progress", {})
        with pytest.raises(PlatformClientError, match="refused"):
            await client.push_execution_output(None, "0199-b", {})


@pytest.mark.parametrize("form", ["nats://{token}@{host}", "nats://{token}:{token}@{host}", "nats://x:{token}@{host}"])
async def test_the_token_may_stand_in_any_field(execution, form):
    url = form.format(token=execution.session.token, host=f"127.0.0.1:{execution.port}")
    assert (await execution.connect(url)).is_connected


async def test_the_input_is_served_as_often_as_it_is_asked_for(execution):
    for _ in range(3):
        client = await execution.connect()
        stream = client.jetstream()
        for _ in range(2):
            subscription = await stream.subscribe(f"exec.input.{execution.id}", stream="EXEC_INPUT")
            assert (await subscription.next_msg(timeout=60)).data == execution.session.body
            await subscription.unsubscribe()
        await client.close()
    assert execution.session.inputs == 6


async def test_a_refused_message_comes_again(execution):
    subscription = await (await execution.connect()).jetstream().subscribe(f"exec.input.{execution.id}", durable="d")
    message = await subscription.next_msg(timeout=60)
    await message.nak()
    again = await subscription.next_msg(timeout=60)
    assert (await again.ack_sync(timeout=60)).data == b""


async def test_pull_subscriptions(execution):
    stream = (await execution.connect()).jetstream()
    pull = await stream.pull_subscribe(f"exec.input.{execution.id}", durable="worker")
    assert [message.data for message in await pull.fetch(1, timeout=60)] == [execution.session.body]
    with pytest.raises(NatsTimeout):
        await pull.fetch(1, timeout=0.05)
    assert (await pull.consumer_info()).name == "worker"
    await stream.delete_consumer("EXEC_INPUT", "worker")
    with pytest.raises(NotFoundError):
        await stream.consumer_info("EXEC_INPUT", "worker")
    several = await stream.pull_subscribe(f"exec.input.{execution.id}")
    assert len(await several.fetch(5, timeout=60)) == 1


async def test_direct_get(execution):
    stream = (await execution.connect()).jetstream()
    message = await stream.get_last_msg("EXEC_INPUT", f"exec.input.{execution.id}", direct=True)
    assert (message.data, message.seq) == (execution.session.body, 1)


async def test_callbacks_and_iterators(execution):
    arrived: asyncio.Queue[bytes] = asyncio.Queue()

    async def callback(message) -> None:
        arrived.put_nowait(message.data)

    stream = (await execution.connect(verbose=True, pedantic=True)).jetstream()
    await stream.subscribe(f"exec.input.{execution.id}", cb=callback)
    async with asyncio.timeout(60):
        assert await arrived.get() == execution.session.body


async def test_large_messages_in_both_directions(execution):
    execution.session.body = bytes(32 << 20)
    client = await execution.connect()
    stream = client.jetstream()
    subscription = await stream.subscribe(f"exec.input.{execution.id}")
    assert len((await subscription.next_msg(timeout=60)).data) == 32 << 20
    assert client.max_payload == MAX_PAYLOAD_BYTES
    await stream.publish(f"exec.output.{execution.id}", bytes(32 << 20), timeout=60)
    assert len(execution.session.published[0][1]) == 32 << 20


async def test_publishes_are_stored_side_by_side_and_without_waiting(execution):
    client = await execution.connect()
    stream = client.jetstream()
    futures = [await stream.publish_async(f"exec.events.{execution.id}", b"%d" % number) for number in range(500)]
    async with asyncio.timeout(60):
        answers = await asyncio.gather(*futures)
    assert sorted(answer.seq for answer in answers) == list(range(1, 501))
    assert [body for _, body in execution.session.published] == [b"%d" % number for number in range(500)]
    await client.publish(f"exec.status.{execution.id}", b"done")
    await client.drain()
    assert execution.session.published[-1] == ("status", b"done")


async def test_a_repeated_message_is_stored_once(execution):
    stream = (await execution.connect()).jetstream()
    other = (await execution.connect()).jetstream()
    headers = {"Nats-Msg-Id": "once", "Nats-Expected-Stream": "X"}
    execution.session.going.clear()
    first = asyncio.create_task(stream.publish(f"exec.output.{execution.id}", b"1", headers=headers))
    second = asyncio.create_task(other.publish(f"exec.output.{execution.id}", b"1", headers=headers))
    execution.session.going.set()
    answers = [await first, await second, await stream.publish(f"exec.output.{execution.id}", b"1", headers=headers)]
    assert {answer.seq for answer in answers} == {1}
    assert sorted(bool(answer.duplicate) for answer in answers) == [False, True, True]
    await stream.publish(f"exec.events.{execution.id}", b"1", headers=headers)
    assert [kind for kind, _ in execution.session.published] == ["output", "events"]


async def test_what_failed_may_be_repeated(execution):
    stream = (await execution.connect()).jetstream()
    execution.session.refuse = BusUnavailable("the engine is away")
    with pytest.raises(APIError, match="the engine is away") as caught:
        await stream.publish(f"exec.output.{execution.id}", b"1", headers={"Nats-Msg-Id": "once"})
    assert caught.value.code == 503
    execution.session.refuse = None
    await stream.publish(f"exec.output.{execution.id}", b"1", headers={"Nats-Msg-Id": "once"})
    assert execution.session.published == [("output", b"1")]


async def test_the_end_of_a_session_stores_what_was_sent_and_cuts_the_connection(gateway, execution):
    client = await execution.connect()
    bare = await execution.dial_authorized()
    # Sent, but nobody has read it when the session ends.
    await send(bare, b"".join(b"PUB exec.events.0199-a 1\r\n%d\r\n" % (number % 10) for number in range(1000)))
    await gateway.end(execution.session)
    assert len(execution.session.published) == 1000
    assert b"-ERR" in await receive_all(bare)

    def closed() -> None:
        assert client.is_closed

    await eventually(closed)


async def test_the_gateway_forgets_a_session_without_connections(gateway, execution):
    client = await execution.connect()
    await client.jetstream().publish(f"exec.output.{execution.id}", b"1")
    await client.close()

    def forgotten() -> None:
        assert gateway._attached == {}

    await eventually(forgotten)
