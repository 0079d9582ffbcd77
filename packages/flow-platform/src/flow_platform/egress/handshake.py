"""The first bytes of a connection: which host and port it wants, in HTTP (RFC 9110) or SOCKS 5.

One connection is for one host. h11 reads the head, with its strict view of what is HTTP; what it takes is narrowed
here.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

import h11

from flow_platform.domain.destination import parse_authority, shown_host
from flow_platform.egress import socks
from flow_platform.egress.refusal import Refusal, malformed

MAX_HEAD_BYTES: Final = 32 << 10
_ABSOLUTE: Final = re.compile(rb"http://(?P<authority>[^/?#@\\]+)(?P<path>/[^#]*|\?[^#]*)?", re.IGNORECASE)
_HTTP_PORT: Final = 80
_READ_BYTES: Final = 16 << 10


@dataclass(frozen=True)
class Tunnel:
    """Bytes both ways, whatever they are.

    Attributes:
        accepted: What to answer once the other side is there.
        early: What the client sent already.
    """

    host: str
    port: int
    accepted: bytes
    early: bytes = b""
    is_socks: bool = False


@dataclass(frozen=True)
class Forward:
    """One plain HTTP request. `path`: as it is sent on; `authority`: for the Host header."""

    host: str
    port: int
    authority: str
    path: bytes
    request: h11.Request
    inner: h11.Connection


async def read_handshake(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Tunnel | Forward | None:
    """Reads what the client wants; None when it left without a word.

    Raises:
        Refusal: It is neither HTTP nor SOCKS 5, or breaks their rules or our limits.
    """
    first = await reader.read(1)
    if not first:
        return None
    if first == socks.VERSION:
        host, port = await socks.read_request(reader, writer)
        return Tunnel(host, port, socks.ACCEPTED, is_socks=True)
    inner = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)
    request = await _read_head(inner, first, reader)
    if request.method == b"CONNECT":
        host, port = _authority(request.target)
        if port is None:
            raise malformed(f"CONNECT {_shown(request.target)!r}: expected host:port")
        return Tunnel(host, port, b"HTTP/1.1 200 Connection established\r\n\r\n", inner.trailing_data[0])
    return _forward(request, inner)


async def _read_head(inner: h11.Connection, first: bytes, reader: asyncio.StreamReader) -> h11.Request:
    data = first
    try:
        while True:
            inner.receive_data(data)
            event = inner.next_event()
            if isinstance(event, h11.Request):
                return event
            if event is not h11.NEED_DATA:
                raise malformed("the request ended before its head did")
            data = await reader.read(_READ_BYTES)
    except h11.RemoteProtocolError as error:
        if error.error_status_hint == HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE:
            text = f"the head of the request is larger than {MAX_HEAD_BYTES} bytes"
            raise Refusal(text, "limit", HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE) from error
        raise malformed(f"the request is not HTTP: {error}") from error


def _forward(request: h11.Request, inner: h11.Connection) -> Forward:
    found = _ABSOLUTE.fullmatch(request.target)
    if found is None:
        raise malformed(f"the request is for {_shown(request.target)!r}: expected CONNECT, or an http:// address")
    host, port = _authority(found["authority"])
    for value in (value for name, value in request.headers if name == b"host"):
        told_host, told_port = _authority(value)
        if (told_host, told_port or _HTTP_PORT) != (host, port or _HTTP_PORT):
            raise malformed(f"the Host header {_shown(value)!r} names another host than the request, {host!r}")
    path = found["path"] or b"/"
    authority = shown_host(host) if port in (None, _HTTP_PORT) else f"{shown_host(host)}:{port}"
    return Forward(host, port or _HTTP_PORT, authority, path if path.startswith(b"/") else b"/" + path, request, inner)


def _authority(text: bytes) -> tuple[str, int | None]:
    try:
        return parse_authority(text.decode())
    except ValueError as error:
        raise malformed(f"not a destination: {error}") from error


def _shown(text: bytes) -> str:
    return text[:100].decode("latin-1")
