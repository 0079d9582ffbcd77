from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from flow_platform.build.egress import Denied, EgressPolicy, EgressProxy

POLICY = EgressPolicy(
    index_hosts=frozenset({("index.corp", 8443), ("127.0.0.1", 9000)}), private_hosts=frozenset({"files.corp"})
)

ALLOWED = [
    ("anything.example", 443, "8.8.8.8"),
    ("anything.example", 80, "2001:4860:4860::8888"),
    ("index.corp", 8443, "10.1.2.3"),
    ("files.corp", 443, "192.168.7.7"),
    ("127.0.0.1", 9000, "127.0.0.1"),
]

DENIED = [
    ("anything.example", 443, "127.0.0.1"),
    ("anything.example", 443, "::1"),
    ("anything.example", 443, "10.0.0.1"),
    ("anything.example", 443, "172.31.0.1"),
    ("anything.example", 443, "192.168.1.1"),
    ("anything.example", 443, "100.64.0.1"),
    ("anything.example", 443, "fd12::1"),
    ("anything.example", 443, "169.254.169.254"),
    ("anything.example", 443, "fe80::1"),
    ("anything.example", 443, "fd00:ec2::254"),
    ("anything.example", 443, "168.63.129.16"),
    ("anything.example", 443, "0.0.0.0"),
    ("anything.example", 443, "255.255.255.255"),
    ("anything.example", 443, "224.0.0.1"),
    ("anything.example", 443, "::ffff:127.0.0.1"),
    ("anything.example", 443, "::ffff:10.0.0.1"),
    ("anything.example", 443, "64:ff9b::7f00:1"),
    ("anything.example", 443, "2002:7f00:1::"),
    ("index.corp", 8443, "127.0.0.1"),  # A name of the operator that turns to this machine.
    ("index.corp", 8443, "169.254.169.254"),
    ("127.0.0.1", 9001, "127.0.0.1"),
    ("localhost", 9000, "127.0.0.1"),
]


@pytest.mark.parametrize(("host", "port", "address"), ALLOWED)
def test_allowed(host: str, port: int, address: str) -> None:
    POLICY.check_destination(host, port)
    POLICY.check_address(host, port, ipaddress.ip_address(address))


@pytest.mark.parametrize(("host", "port", "address"), DENIED)
def test_denied(host: str, port: int, address: str) -> None:
    with pytest.raises(Denied, match=host):
        POLICY.check_address(host, port, ipaddress.ip_address(address))


@pytest.mark.parametrize(("host", "port"), [("x.example", 22), ("x.example", 8443), ("index.corp", 9000)])
def test_denied_ports(host: str, port: int) -> None:
    with pytest.raises(Denied, match=str(port)):
        POLICY.check_destination(host, port)


@pytest_asyncio.fixture
async def server() -> AsyncIterator[int]:
    """Answers each connection with what it read first."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read(1000))
        writer.close()

    started = await asyncio.start_server(echo, "127.0.0.1", 0)
    yield started.sockets[0].getsockname()[1]
    started.close()
    await started.wait_closed()


async def _ask(policy: EgressPolicy, request: bytes) -> bytes:
    ours, theirs = socket.socketpair()
    serving = asyncio.create_task(EgressProxy(policy).serve(theirs))
    reader, writer = await asyncio.open_connection(sock=ours)
    writer.write(request)
    try:
        return await asyncio.wait_for(reader.read(), 5)
    except ConnectionResetError:
        return b""
    finally:
        writer.close()
        await serving


async def test_a_tunnel_carries_both_ways(server: int) -> None:
    policy = EgressPolicy(frozenset({("127.0.0.1", server)}))
    answer = await _ask(policy, f"CONNECT 127.0.0.1:{server} HTTP/1.1\r\nHost: x\r\n\r\nhello".encode())
    assert answer == b"HTTP/1.1 200 Connection established\r\n\r\nhello"


async def test_plain_requests_are_forwarded_in_origin_form(server: int) -> None:
    policy = EgressPolicy(frozenset({("127.0.0.1", server)}))
    url = f"http://127.0.0.1:{server}/simple/x?y=1"
    request = f"GET {url} HTTP/1.1\r\nHost: other\r\nAccept: text/html\r\nConnection: keep-alive\r\n\r\n"
    answer = await _ask(policy, request.encode())
    lines = answer.decode().split("\r\n")
    assert lines[:2] == ["GET /simple/x?y=1 HTTP/1.1", f"Host: 127.0.0.1:{server}"]
    assert "Accept: text/html" in lines
    assert "Connection: close" in lines
    assert "Connection: keep-alive" not in lines


@pytest.mark.parametrize(
    "request_head",
    [
        b"CONNECT 127.0.0.1:1 HTTP/1.1\r\n\r\n",
        b"CONNECT nonsense HTTP/1.1\r\n\r\n",
        b"POST http://example.test/ HTTP/1.1\r\n\r\n",
        b"GET ftp://example.test/ HTTP/1.1\r\n\r\n",
        b"GET /etc/passwd HTTP/1.1\r\n\r\n",
        b"\r\n\r\n",
        b"CONNECT [::1]:443 HTTP/1.1\r\n\r\n",
        b"CONNECT 0x7f000001:443 HTTP/1.1\r\n\r\n",
    ],
)
async def test_anything_else_is_refused(request_head: bytes) -> None:
    assert (await _ask(EgressPolicy(), request_head))[:12] == b"HTTP/1.1 403"


async def test_an_endless_head_is_cut() -> None:
    assert await _ask(EgressPolicy(), b"GET http://x.test/ HTTP/1.1\r\nX: " + b"y" * 100_000) == b""
