"""The head of a request is bounded, in bytes and in time, before anybody has asked who sends it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
import uvicorn
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from flow_platform.api import http_protocol
from flow_platform.api.http_protocol import MAX_HEAD_BYTES, BoundedHttpProtocol

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with the size of the body."""
    size, more = 0, True
    while more:
        message = await receive()
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    await PlainTextResponse(f"got {size};")(scope, receive, send)


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self):
        yield


@pytest_asyncio.fixture
async def port() -> AsyncIterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(echo, http=BoundedHttpProtocol, log_config=None, lifespan="off", ws="none")
        server = _Server(config)
        task = asyncio.create_task(server.serve(sockets=[listener]))
        yield listener.getsockname()[1]
        server.should_exit = True
        await task


async def heard(port: int, *pieces: bytes, until: bytes = b"") -> bytes:
    """All that is answered, until the server closes or those bytes came."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answer = b""
    async with asyncio.timeout(60):
        with contextlib.suppress(OSError):
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
            while not until or until not in answer:
                part = await reader.read(65536)
                if not part:
                    break
                answer += part
    writer.close()
    return answer


def head(*lines: bytes) -> bytes:
    return b"\r\n".join((b"POST / HTTP/1.1", b"Host: x", *lines, b"", b""))


async def test_a_head_within_its_bound_is_served(port: int) -> None:
    large = b"X-Large: " + b"x" * (MAX_HEAD_BYTES - 100)
    assert b"got 0;" in await heard(port, head(large), until=b"got")


@pytest.mark.parametrize(
    "lines",
    [[b"X-Large: " + b"x" * MAX_HEAD_BYTES], [b"X-%d: %s" % (number, b"x" * 20) for number in range(5_000)]],
    ids=["one large header", "many headers"],
)
async def test_a_head_beyond_it_is_refused(port: int, lines: list[bytes]) -> None:
    assert (await heard(port, head(*lines))).startswith(b"HTTP/1.1 431 ")


async def test_a_head_without_an_end_is_cut(port: int) -> None:
    pieces = [b"POST / HTTP/1.1\r\nX-Endless: ", *[b"x" * 65536] * 1000]
    answer = await heard(port, *pieces)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 431 ")  # A reset may overtake the answer.


async def test_bodies_and_requests_behind_them_are_not_counted(port: int) -> None:
    body = b"x" * (4 * MAX_HEAD_BYTES)
    one = head(b"Content-Length: %d" % len(body)) + body
    answer = await heard(port, one + one, head(b"Connection: close"))
    assert answer.count(b"got %d;" % len(body)) == 2
    assert answer.count(b"got 0;") == 1


@pytest.mark.parametrize("begun", [b"", b"POST / HT", head()[:-2], b"GET / HTTP/1.1\r\n\r\nPOST / HTT"])
async def test_a_head_that_does_not_come_is_given_up(port: int, begun: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "HEAD_SECONDS", 0.5)
    answer = await heard(port, begun)
    assert (b"HTTP/1.1 408 " in answer) == bool(begun)


async def test_nonsense_is_refused_as_before(port: int) -> None:
    assert (await heard(port, b"\x16\x03\x01 nonsense\r\n\r\n")).startswith(b"HTTP/1.1 400 ")
