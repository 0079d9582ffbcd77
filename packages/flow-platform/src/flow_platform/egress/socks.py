"""SOCKS 5 without authentication: CONNECT to a name or an address, nothing else. Source: RFC 1928."""

from __future__ import annotations

import asyncio
import ipaddress
from typing import Final

from flow_platform.domain.destination import normal_host
from flow_platform.egress.refusal import Refusal, malformed

VERSION: Final = b"\x05"
ACCEPTED: Final = b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00"  # The bound address is nothing that a client may know.
_NO_AUTHENTICATION: Final = 0
_CONNECT: Final = 1
_IPV4, _NAME, _IPV6 = 1, 3, 4
_REPLIES: Final = {"refused": 2, "limit": 1, "failed": 4}


async def read_request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[str, int]:
    """Reads greeting and request, after the version of the greeting.

    Raises:
        Refusal: Not SOCKS 5, or something of it that is not offered.
    """
    methods = await reader.readexactly((await reader.readexactly(1))[0])
    if _NO_AUTHENTICATION not in methods:
        writer.write(b"\x05\xff")
        raise malformed("SOCKS: the client offers only authentication, and none is needed")
    writer.write(b"\x05\x00")
    version, command, _, kind = await reader.readexactly(4)
    if version != VERSION[0] or command != _CONNECT:
        raise malformed(f"SOCKS: version {version}, command {command}: only CONNECT of version 5 is offered")
    try:
        host = await _read_host(reader, kind)
    except ValueError as error:
        raise malformed(f"SOCKS: {error}") from error
    port = int.from_bytes(await reader.readexactly(2))
    if port == 0:
        raise malformed("SOCKS: port 0 is none")
    return host, port


def refused(refusal: Refusal) -> bytes:
    """The reply to a request that is not granted. SOCKS has no text."""
    return bytes([5, _REPLIES.get(refusal.verdict, 1), *ACCEPTED[2:]])


async def _read_host(reader: asyncio.StreamReader, kind: int) -> str:
    if kind == _IPV4:
        return str(ipaddress.IPv4Address(await reader.readexactly(4)))
    if kind == _IPV6:
        return normal_host(str(ipaddress.IPv6Address(await reader.readexactly(16))))
    if kind == _NAME:
        return normal_host((await reader.readexactly((await reader.readexactly(1))[0])).decode())
    raise ValueError(f"address type {kind}: expected a name, IPv4 or IPv6")
