from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from flow_platform.build.egress import BuildEgress, BuildPolicy
from flow_platform.domain.operator_rules import parse_deny
from flow_platform.egress.policy import OperatorRules
from flow_platform.egress.refusal import Refusal
from tests.support.way_out import Names, names

POLICY = BuildPolicy(
    index_hosts=frozenset({("index.corp", 8443), ("127.0.0.1", 9000)}),
    hosts=frozenset({"files.corp"}),
    file_hosts=frozenset({("linked.example", 443), ("localhost", 9100)}),
    rules=OperatorRules((), *parse_deny("10.66.0.0/16, bad.corp")),
)

ALLOWED = [
    ("index.corp", 8443, "8.8.8.8"),
    ("files.corp", 80, "2600::8888"),
    ("index.corp", 8443, "10.1.2.3"),
    ("files.corp", 443, "192.168.7.7"),
    ("files.corp", 443, "fd12::1"),
    ("127.0.0.1", 9000, "127.0.0.1"),
    ("linked.example", 443, "2600::8888"),
    ("linked.example", 443, "10.1.2.3"),  # A mirror's.
    ("linked.example", 443, "203.0.113.80"),
]

DENIED = [
    ("files.corp", 443, "127.0.0.1"),  # A name of the operator's that turns to this machine.
    ("files.corp", 443, "::1"),
    ("index.corp", 8443, "127.0.0.1"),
    ("index.corp", 8443, "::ffff:127.0.0.1"),
    ("index.corp", 8443, "169.254.169.254"),
    ("index.corp", 8443, "fe80::1"),
    ("index.corp", 8443, "fd00:ec2::254"),
    ("index.corp", 8443, "168.63.129.16"),
    ("index.corp", 8443, "0.0.0.0"),
    ("index.corp", 8443, "224.0.0.1"),
    ("index.corp", 8443, "64:ff9b::7f00:1"),
    ("index.corp", 8443, "10.66.1.1"),
    ("linked.example", 443, "127.0.0.1"),
    ("linked.example", 443, "169.254.169.254"),
    ("linked.example", 443, "10.66.1.1"),
    ("localhost", 9100, "127.0.0.1"),  # The index says so, not the operator.
]


def check(host: str, port: int, address: str) -> None:
    POLICY.check_destination(host, port)
    POLICY.check_address(host, port, ipaddress.ip_address(address))


@pytest.mark.parametrize(("host", "port", "address"), ALLOWED)
def test_allowed(host: str, port: int, address: str) -> None:
    check(host, port, address)


@pytest.mark.parametrize(("host", "port", "address"), DENIED)
def test_denied(host: str, port: int, address: str) -> None:
    with pytest.raises(Refusal, match=host):
        check(host, port, address)


@pytest.mark.parametrize(
    ("host", "port"),
    [("anywhere.example", 443), ("index.corp", 443), ("files.corp", 22), ("localhost", 9000), ("127.0.0.1", 9001)],
)
def test_only_the_index_and_its_files(host: str, port: int) -> None:
    with pytest.raises(Refusal, match="FLOW_BUILD_HOSTS"):
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


async def ask(policy: BuildPolicy, request: bytes, resolver: Names | None = None) -> tuple[bytes, list[str]]:
    ours, theirs = socket.socketpair()
    egress = BuildEgress(policy, resolver or names())
    serving = asyncio.create_task(egress.serve(theirs))
    reader, writer = await asyncio.open_connection(sock=ours)
    writer.write(request)
    try:
        return await asyncio.wait_for(reader.read(), 5), egress.denied
    finally:
        writer.close()
        await serving


async def test_a_tunnel_carries_both_ways(server: int) -> None:
    policy = BuildPolicy(frozenset({("127.0.0.1", server)}))
    answer, denied = await ask(policy, f"CONNECT 127.0.0.1:{server} HTTP/1.1\r\nHost: x\r\n\r\nhello".encode())
    assert answer == b"HTTP/1.1 200 Connection established\r\n\r\nhello"
    assert denied == []


async def test_what_is_refused_is_told_to_the_publisher() -> None:
    request = b"CONNECT evil.example:443 HTTP/1.1\r\nHost: x\r\n\r\n"
    resolver = Names({"evil.example": [["8.8.8.8"]]})
    answer, denied = await ask(POLICY, request, resolver)
    assert answer.startswith(b"HTTP/1.1 403 evil.example:443 is neither a configured package index")
    await asyncio.sleep(0)
    assert len(denied) == 1
    assert resolver.asked == []
