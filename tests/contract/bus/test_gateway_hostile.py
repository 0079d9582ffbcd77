"""Two executions side by side on one gateway; one of them is hostile."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from nats.errors import Error as NatsError
from nats.errors import TimeoutError as NatsTimeout
from nats.js.errors import APIError, NotFoundError

from flow_platform.bus import gateway as gateway_module
from flow_platform.bus import gateway_connection, gateway_limits
from flow_platform.bus.gateway import Gateway
from flow_platform.bus.gateway_limits import MAX_CONNECTIONS, MAX_IN_FLIGHT, MAX_PAYLOAD_BYTES, MAX_SUBSCRIPTIONS
from tests.support.gateway_executions import Execution, eventually, receive_all, receive_until, send


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    gateway = Gateway()
    yield gateway
    await gateway.close()


@pytest.fixture
async def hostile(gateway: Gateway) -> AsyncIterator[Execution]:
    execution = Execution(gateway, "0199-a", "token-a")
    yield execution
    await execution.close()


@pytest.fixture
async def victim(gateway: Gateway) -> AsyncIterator[Execution]:
    execution = Execution(gateway, "0199-b", "token-b")
    yield execution
    await execution.close()


async def lives(execution: Execution) -> None:
    """The whole life of a contract client, quickly."""
    async with asyncio.timeout(60):
        client = await execution.connect()
        subscription = await client.jetstream().subscribe(f"exec.input.{execution.id}")
        message = await subscription.next_msg(timeout=60)
        await message.ack()
        assert json.loads(message.data) == {"input_data": {"of": execution.id}}
        await client.jetstream().publish(f"exec.output.{execution.id}", b"{}")
        await client.drain()
    assert execution.session.denials == []


@pytest.mark.parametrize("token", ["token-b", "token", "token-aa", "", "x", "%ff%00", "%F0%9F%98%80"])
async def test_only_its_own_token_opens_a_connection(hostile, victim, token):
    with pytest.raises((NatsError, OSError)):
        await hostile.connect(hostile.url(token))
    bare = await hostile.dial()
    await send(bare, b'CONNECT {"auth_token":["token-a"],"pass":{"a":1},"user":"\\ud800"}\r\nPING\r\n')
    assert b"-ERR 'Authorization Violation'" in await receive_all(bare)
    await lives(victim)


async def test_nothing_is_served_before_the_token(hostile):
    for line in (
        b"PING",
        b"SUB _INBOX.a 1",
        b"PUB exec.output.0199-a 1\r\nx",
        b"PUB exec.output.0199-a 33000000\r\nx" + b"y" * 5000,
        b"A" * 10_000,
    ):
        bare = await hostile.dial()
        await send(bare, line + b"\r\n")
        answer = await receive_all(bare)
        assert answer.startswith(b"INFO ")
        assert b"-ERR" in answer
    assert hostile.session.published == []
    assert hostile.session.inputs == 0


async def test_who_says_nothing_is_cut_off(hostile, monkeypatch):
    monkeypatch.setattr(gateway_connection, "AUTH_TIMEOUT", 0.05)
    assert b"-ERR 'Authentication Timeout'" in await receive_all(await hostile.dial())


async def test_the_greeting_names_no_other_address(hostile):
    greeting = await receive_until(await hostile.dial(), b"\r\n")
    information = json.loads(greeting.removeprefix(b"INFO "))
    assert "connect_urls" not in information
    assert information["max_payload"] == MAX_PAYLOAD_BYTES


@pytest.mark.parametrize(
    "subject",
    [
        "exec.output.0199-b",
        "exec.events.0199-b",
        "exec.status.0199-b",
        "exec.input.0199-a",
        "exec.input.0199-b",
        "exec.output.*",
        "exec.output.>",
        "exec.output.0199-a.x",
        "EXEC.output.0199-a",
        "exec.outputs.0199-a",
        "flow.runner.claim",
        "flow.runner.heartbeat",
        "_INBOX.someone.else",
        "$SYS.REQ.SERVER.PING",
        "$O.FLOW_PAYLOADS.M.x",
    ],
)
async def test_publishing_elsewhere_fails_at_once(hostile, victim, subject):
    client = await hostile.connect()
    with pytest.raises(APIError, match="permissions violation") as caught:
        await client.jetstream().publish(subject, b"forged", timeout=60)
    assert caught.value.code == 403
    assert any("permissions violation for publish" in refusal for refusal in hostile.refusals)
    assert hostile.session.published == victim.session.published == []
    assert client.is_connected


@pytest.mark.parametrize(
    "request_subject",
    [
        "STREAM.DELETE.EXEC_INPUT",
        "STREAM.PURGE.EXEC_OUTPUT",
        "STREAM.LIST",
        "STREAM.INFO.EXEC_OUTPUT",
        "STREAM.MSG.GET.EXEC_INPUT",
        "STREAM.CREATE.X",
        "CONSUMER.CREATE.EXEC_OUTPUT",
        "CONSUMER.CREATE.EXEC_OUTPUT.x.exec.output.0199-b",
        "CONSUMER.CREATE.EXEC_INPUT.x.exec.input.0199-b",
        "CONSUMER.CREATE.EXEC_INPUT.x.exec.input.*",
        "CONSUMER.LIST.EXEC_INPUT",
        "CONSUMER.MSG.NEXT.EXEC_INPUT.nobodys",
        "DIRECT.GET.EXEC_INPUT",
        "DIRECT.GET.EXEC_INPUT.exec.input.0199-b",
        "DIRECT.GET.EXEC_OUTPUT.exec.output.0199-a",
        "INFO",
    ],
)
async def test_the_rest_of_jetstream_does_not_exist(hostile, request_subject):
    client = await hostile.connect()
    answer = await client.request(f"$JS.API.{request_subject}", b'{"config":{}}', timeout=60)
    assert json.loads(answer.data)["error"]["code"] in {403, 404}
    assert hostile.session.inputs == 0


async def test_the_victims_input_cannot_be_read(hostile, victim):
    stream = (await hostile.connect()).jetstream(timeout=60)
    with pytest.raises(NotFoundError):
        await stream.subscribe("exec.input.0199-b")
    for subject in ("exec.input.0199-b", "exec.input.*", "exec.>", ">"):
        with pytest.raises(APIError, match="permissions violation"):
            await stream.subscribe(subject, stream="EXEC_INPUT")
        with pytest.raises(APIError, match="permissions violation"):
            await stream.pull_subscribe(subject, stream="EXEC_INPUT")
    assert victim.session.inputs == 0
    await lives(victim)


@pytest.mark.parametrize("subject", [">", "*", "exec.>", "exec.input.0199-a", "exec.input.0199-b", "$JS.>", "_INBOX"])
async def test_only_inboxes_can_be_subscribed(hostile, subject):
    client = await hostile.connect()
    await client.subscribe(subject)

    def refused() -> None:
        assert any("permissions violation for subscription" in refusal for refusal in hostile.refusals)

    await eventually(refused)


async def test_an_inbox_wildcard_sees_only_its_own(hostile, victim):
    client = await hostile.connect()
    everything = await client.subscribe("_INBOX.>")
    await client.flush()
    await lives(victim)
    with pytest.raises(NatsTimeout):
        await everything.next_msg(timeout=0.1)


@pytest.mark.parametrize("target", ["exec.output.0199-b", "exec.output.0199-a", "$JS.API.INFO", "_INBOX.*", "_INBOX.>"])
async def test_the_gateway_is_no_deputy(hostile, victim, target):
    """Neither a delivery subject nor a reply subject makes the gateway publish in somebody's name."""
    client = await hostile.connect()
    body = json.dumps({"stream_name": "EXEC_INPUT", "config": {"deliver_subject": target}}).encode()
    answer = await client.request("$JS.API.CONSUMER.CREATE.EXEC_INPUT", body, timeout=60)
    assert json.loads(answer.data)["error"]["code"] == 403
    bare = await hostile.dial_authorized()
    for subject in ("exec.status.0199-a", "$JS.API.STREAM.NAMES", "$JS.API.DIRECT.GET.EXEC_INPUT.exec.input.0199-a"):
        await send(bare, f"PUB {subject} {target} 1\r\nx\r\n".encode())
    await send(bare, b"PING\r\n")
    answer = await receive_until(bare, b"PONG\r\n")
    assert b"MSG" not in answer
    if not target.startswith("_INBOX."):
        assert answer.count(b"-ERR 'Permissions Violation for Publish with Reply") == 3
        assert hostile.session.published == []
    assert victim.session.published == []


async def test_headers_carry_nothing_over(hostile):
    bare = await hostile.dial_authorized()
    headers = b"NATS/1.0\r\nFlow-Lease-Epoch: 99\r\nNats-Rollup: all\r\nNats-Expected-Stream: X\r\n\r\n"
    await send(bare, b"HPUB exec.output.0199-a %d %d\r\n%b{}\r\nPING\r\n" % (len(headers), len(headers) + 2, headers))
    assert await receive_until(bare, b"PONG\r\n") == b"PONG\r\n"
    assert hostile.session.published == [("output", b"{}")]


async def test_a_refused_subject_cannot_smuggle_lines_into_the_answer(hostile):
    bare = await hostile.dial_authorized()
    await send(bare, b"SUB a'b 1\r\nPUB x'\"y 0\r\n\r\nPING\r\n")
    answer = await receive_until(bare, b"PONG\r\n")
    lines = answer.split(b"\r\n")
    assert len(lines) == 4
    assert all(line.startswith(b"-ERR '") and line.count(b"'") == 2 for line in lines[:2])


@pytest.mark.parametrize(
    "line",
    [
        b"PUB exec.output.0199-a 99999999999\r\n",
        b"PUB exec.output.0199-a %d\r\n" % (MAX_PAYLOAD_BYTES + 1),
        b"PUB exec.output.0199-a -1\r\n",
        b"HPUB exec.output.0199-a 10 5\r\n",
        b"HPUB exec.output.0199-a 4 5\r\nabcde\r\n",
        b"PUB exec.output.0199-a 1\r\nxyz\r\n",
        b"PUB exec..output 1\r\nx\r\n",
        b"PUB exec.output.0199-a\r\n",
        b"PUB\r\n",
        b"SUB _INBOX.a\r\n",
        b"SUB _INBOX.\xff 1\r\n",
        b"CONNECT {}\r\n",
        b"MSG a 1 1\r\nx\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n",
        b"\r\n",
        b"A" * 5000,
    ],
)
async def test_malformed_input_ends_this_connection_and_no_other(hostile, victim, line):
    bare = await hostile.dial_authorized()
    await send(bare, line)
    assert b"-ERR '" in await receive_all(bare)
    assert hostile.session.published == []
    await lives(victim)


async def test_connections_are_limited_per_session(gateway, hostile, victim):
    held = [await hostile.dial_authorized() for _ in range(MAX_CONNECTIONS)]
    assert await receive_all(await hostile.dial()) == b""
    await lives(victim)
    held[0].close()

    def forgotten() -> None:
        assert gateway._attached[id(hostile.session)].room.connections == MAX_CONNECTIONS - 1

    await eventually(forgotten)
    await hostile.dial_authorized()


async def test_subscriptions_are_limited_per_connection(hostile):
    bare = await hostile.dial_authorized()
    await send(bare, b"".join(b"SUB _INBOX.a%d %d\r\n" % (n, n) for n in range(MAX_SUBSCRIPTIONS + 1)))
    assert b"-ERR 'maximum subscriptions exceeded'" in await receive_all(bare)


async def test_overlapping_subscriptions_do_not_multiply_the_input(hostile):
    bare = await hostile.dial_authorized()
    await send(bare, b"".join(b"SUB _INBOX.> %d\r\n" % n for n in range(MAX_SUBSCRIPTIONS)))
    await send(bare, b"PUB $JS.API.DIRECT.GET.EXEC_INPUT.exec.input.0199-a _INBOX.a 0\r\n\r\n")
    await receive_until(bare, hostile.session.body + b"\r\n")
    await send(bare, b"PING\r\n")
    assert await receive_until(bare, b"PONG\r\n") == b"PONG\r\n"


async def test_messages_in_flight_are_limited_and_none_is_lost(hostile, victim):
    hostile.session.going.clear()
    bare = await hostile.dial_authorized()
    count = 20 * MAX_IN_FLIGHT
    await send(bare, b"".join(b"PUB exec.events.0199-a 1\r\nx\r\n" for _ in range(count)))

    def as_many_as_may_wait() -> None:
        assert hostile.session.most_waiting == MAX_IN_FLIGHT

    await eventually(as_many_as_may_wait)
    await lives(victim)
    as_many_as_may_wait()
    hostile.session.going.set()
    await send(bare, b"PING\r\n")
    await receive_until(bare, b"PONG\r\n")

    def all_published() -> None:
        assert len(hostile.session.published) == count

    await eventually(all_published)


async def test_large_messages_of_many_connections_are_received_one_after_the_other(hostile, victim):
    """What one execution can make the runner hold does not grow with its connections."""
    held = [await hostile.dial_authorized() for _ in range(MAX_CONNECTIONS)]
    size = MAX_PAYLOAD_BYTES
    sending = [
        asyncio.create_task(send(each, b"PUB exec.events.0199-a %d\r\n" % size + bytes(size // 2))) for each in held
    ]
    await asyncio.wait(sending, return_when=asyncio.FIRST_COMPLETED)
    await lives(victim)
    assert sum(task.done() for task in sending) == 1
    for task in sending:
        task.cancel()
    await asyncio.gather(*sending, return_exceptions=True)


async def test_who_does_not_read_is_not_written_to_without_end(hostile, victim):
    hostile.session.body = bytes(4 << 20)
    bare = await hostile.dial_authorized()
    await send(bare, b"SUB _INBOX.> 1\r\n")
    ask = b"PUB $JS.API.DIRECT.GET.EXEC_INPUT.exec.input.0199-a _INBOX.a 0\r\n\r\n"
    flood = asyncio.create_task(send(bare, ask * 2000))
    await lives(victim)
    await lives(victim)
    # One is in the socket, one in the buffer.
    assert hostile.session.inputs <= 3
    flood.cancel()
    await asyncio.gather(flood, return_exceptions=True)


async def test_a_flood_of_operations_is_slowed_down(hostile, victim):
    bare = await hostile.dial_authorized()
    count = 3 * gateway_limits.MAX_OPERATIONS_AT_ONCE
    started = asyncio.get_running_loop().time()
    await send(bare, b"PING\r\n" * count)
    await lives(victim)
    received = 0
    while received < count * len(b"PONG\r\n"):
        received += len(await asyncio.get_running_loop().sock_recv(bare, 1 << 20))
    least = gateway_limits.TICK * (count - gateway_limits.MAX_OPERATIONS_AT_ONCE) / gateway_limits.OPERATIONS_PER_TICK
    assert asyncio.get_running_loop().time() - started >= least - 2 * gateway_limits.TICK


async def test_what_is_not_allowed_is_told_of_and_nothing_else(gateway, hostile):
    """The session hears what was tried, with what, and why not; each time."""

    async def denied(line: bytes) -> list[tuple[str, str, str]]:
        hostile.session.denials.clear()
        bare = await hostile.dial_authorized()
        await send(bare, line + b"PING\r\n")
        await receive_until(bare, b"PONG\r\n")
        bare.close()
        return hostile.session.denials

    assert await denied(b"SUB _INBOX.> 1\r\nPUB exec.events.0199-a 2\r\n{}\r\n") == []
    assert await denied(b"SUB exec.> 1\r\nSUB > 2\r\n") == [("SUB", "forbidden", "exec.>"), ("SUB", "forbidden", ">")]
    assert await denied(b"PUB exec.output.0199-b 0\r\n\r\n" * 2) == [("PUB", "forbidden", "exec.output.0199-b")] * 2
    assert await denied(b"PUB exec.status.0199-a flow.wake 0\r\n\r\n") == [("PUB", "forbidden", "flow.wake")]
    assert await denied(b"PUB $JS.API.STREAM.LIST _INBOX.a 0\r\n\r\n") == [("PUB", "forbidden", "$JS.API.STREAM.LIST")]
    create = b'{"config":{"filter_subject":"exec.input.0199-b"}}'
    assert await denied(b"PUB $JS.API.CONSUMER.CREATE.EXEC_INPUT _INBOX.a %d\r\n%b\r\n" % (len(create), create)) == [
        ("PUB", "forbidden", "a consumer for 'exec.input.0199-b'")
    ]
    many = b"".join(b"SUB _INBOX.a%d %d\r\n" % (n, n) for n in range(MAX_SUBSCRIPTIONS + 1))
    assert await denied(many) == [("SUB", "rate_limited", f"_INBOX.a{MAX_SUBSCRIPTIONS}")]


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b'CONNECT {"auth_token":"token-b"}\r\n', "token_invalid"),
        (b"CONNECT {}\r\n", "unauthenticated"),
        (b"CONNECT no JSON\r\n", "unauthenticated"),
        (b"SUB exec.> 1\r\n", "unauthenticated"),
        (b"PUB exec.output.0199-a 33000000\r\nx" + b"y" * 5000, "unauthenticated"),
    ],
)
async def test_who_does_not_show_a_token_is_told_of_once(hostile, line, code):
    bare = await hostile.dial()
    await send(bare, line + b"PING\r\n")
    assert b"-ERR" in await receive_all(bare)
    assert hostile.session.denials == [("CONNECT", code, "")]


async def test_one_connection_too_many_is_told_of(hostile):
    for _ in range(MAX_CONNECTIONS):
        await hostile.dial_authorized()
    assert await receive_all(await hostile.dial()) == b""
    assert hostile.session.denials == [("CONNECT", "rate_limited", "")]


async def test_who_goes_on_after_the_end_is_told_of(gateway, hostile, monkeypatch):
    """An ended execution's connection that still sends; one that is quiet is cut without a word."""
    monkeypatch.setattr(gateway_module, "END_GRACE", 0.0)
    await hostile.dial_authorized()
    await gateway.end(hostile.session)
    assert hostile.session.denials == []
    hostile.session.going.clear()
    sending = await hostile.dial_authorized()
    await send(sending, b"PUB exec.events.0199-a 2\r\n{}\r\n" * 2 * MAX_IN_FLIGHT)

    def has_more_to_say() -> None:
        assert any(each.is_cut_short for each in gateway._attached[id(hostile.session)].connections)

    await eventually(has_more_to_say)
    ending = asyncio.create_task(gateway.end(hostile.session))

    def told() -> None:
        assert hostile.session.denials == [("CONNECT", "token_revoked", "")]

    await eventually(told)
    hostile.session.going.set()
    await ending


async def test_an_api_request_is_small(hostile):
    client = await hostile.connect()
    answer = await client.request("$JS.API.STREAM.NAMES", b"[" * 200_000, timeout=60)
    assert json.loads(answer.data)["error"]["code"] == 400
    answer = await client.request("$JS.API.CONSUMER.CREATE.EXEC_INPUT", b"[" * 60_000, timeout=60)
    assert json.loads(answer.data)["error"]["code"] == 400
