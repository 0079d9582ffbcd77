"""The only way out of a build: an HTTP proxy that knows where a build may go.

Names are resolved out here; the address is checked and then that very address is connected to, so a name that changes
between check and use gains nothing. Allowed are the web's two ports and the port of a configured index. Refused are:

    always                 this machine itself, link-local, metadata services, multicast, reserved ranges
    unless configured      private ranges: only for a host of the configured index, or one that the operator added
    loopback               only for an index that the operator himself configured on loopback, on exactly its port

Everything in a tunnel is opaque; what a build downloads is held against the lock's hashes, not against this proxy.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

logger = logging.getLogger(__name__)

PORTS: Final = frozenset({80, 443})
MAX_CONNECTIONS: Final = 96  # Open at once per build; uv downloads 50 files at a time.
MAX_ACCEPTED: Final = 5_000  # Over the whole build.
MAX_BYTES: Final = 8 << 30  # Both directions, over the whole build; the largest common stacks have 5 GB of wheels.
MAX_HEAD_BYTES: Final = 32 << 10
HEAD_SECONDS: Final = 15.0
CONNECT_SECONDS: Final = 15.0
IDLE_SECONDS: Final = 120.0
CHUNK_BYTES: Final = 64 << 10

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_METADATA: Final = frozenset(
    ipaddress.ip_address(text) for text in ("169.254.169.254", "fd00:ec2::254", "100.100.100.200", "168.63.129.16")
)
_PRIVATE: Final = tuple(
    ipaddress.ip_network(text)
    for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")
)
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")


class Denied(Exception):
    """The destination is not allowed; the message says which rule."""


@dataclass(frozen=True)
class EgressPolicy:
    """Where a build may go.

    Attributes:
        index_hosts: `(host, port)` of each configured index.
        private_hosts: More hosts that may have a private address, e.g. the file server of an internal index.
    """

    index_hosts: frozenset[tuple[str, int]] = frozenset()
    private_hosts: frozenset[str] = field(default_factory=frozenset[str])

    def check_destination(self, host: str, port: int) -> None:
        """Raises `Denied` when the port is none that a build may use."""
        if port not in PORTS and (host.lower(), port) not in self.index_hosts:
            raise Denied(f"port {port!r} of {host!r}: expected 80, 443 or the port of the configured index")

    def check_address(self, host: str, port: int, address: Address) -> None:
        """Raises `Denied` when the address that the name resolved to is out of bounds."""
        real = _unwrapped(address)
        if real in _METADATA or real.is_link_local or real.is_multicast or real.is_unspecified or _is_reserved(real):
            raise Denied(f"{host!r} is at {str(address)!r}, where no build may go")
        if real.is_loopback:
            if not ((host.lower(), port) in self.index_hosts and _names_loopback(host)):
                raise Denied(f"{host!r} is at {str(address)!r}, which is this machine")
            return
        known = {name for name, _ in self.index_hosts} | self.private_hosts
        if any(real in network for network in _PRIVATE) and host.lower() not in known:
            raise Denied(f"{host!r} is at the private address {str(address)!r} and is no configured index")
        if _is_own(real):
            raise Denied(f"{host!r} is at {str(address)!r}, which is this machine")


class EgressProxy:
    """Serves the connections of one build."""

    def __init__(self, policy: EgressPolicy) -> None:
        self._policy = policy
        self._open = 0
        self._accepted = 0
        self._bytes = 0
        self.denied: list[str] = []

    async def serve(self, connection: socket.socket) -> None:
        """Serves one accepted connection to its end and closes it."""
        self._accepted += 1
        if self._open >= MAX_CONNECTIONS or self._accepted > MAX_ACCEPTED:
            connection.close()
            return
        self._open += 1
        connection.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=connection, limit=MAX_HEAD_BYTES)
        try:
            await self._serve(reader, writer)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            logger.info("a build's connection ended: %s", error or type(error).__name__)
        finally:
            self._open -= 1
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(HEAD_SECONDS):
            head = await reader.readuntil(b"\r\n\r\n")
        try:
            host, port, forwarded = _destination(head)
            self._policy.check_destination(host, port)
            outer_reader, outer_writer = await self._connect(host, port)
        except Denied as error:
            logger.warning("a build was refused a connection: %s", error)
            self.denied.append(str(error))
            writer.write(_answer("403 Forbidden", str(error)))
            await writer.drain()
            return
        except (OSError, TimeoutError) as error:
            logger.info("a build's connection failed: %s", error or type(error).__name__)
            writer.write(_answer("502 Bad Gateway", str(error) or type(error).__name__))
            await writer.drain()
            return
        logger.info("a build connects", extra={"host": host, "port": port})
        try:
            if forwarded is None:
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                outer_writer.write(forwarded)
            await asyncio.gather(self._copy(reader, outer_writer), self._copy(outer_reader, writer))
        finally:
            outer_writer.transport.abort()

    async def _connect(self, host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connects to the first address that answers; all must be allowed, or the name is not."""
        addresses = await _resolve(host, port)
        for address in addresses:
            self._policy.check_address(host, port, address)
        failure: Exception = OSError(f"{host!r} has no address")
        for address in addresses:
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    return await asyncio.open_connection(str(address), port)
            except (OSError, TimeoutError) as error:
                failure = error
        raise failure

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            async with asyncio.timeout(IDLE_SECONDS):
                data = await reader.read(CHUNK_BYTES)
            if not data:
                break
            self._bytes += len(data)
            if self._bytes > MAX_BYTES:
                self.denied.append(f"more than {MAX_BYTES} bytes in one build")
                raise OSError(self.denied[-1])
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()


async def _resolve(host: str, port: int) -> Sequence[Address]:
    try:
        return [ipaddress.ip_address(host.strip("[]"))]
    except ValueError:
        pass
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found))


def _destination(head: bytes) -> tuple[str, int, bytes | None]:
    """Reads the request line.

    Returns:
        Host, port, and for plain HTTP the head to send on; None for a tunnel.

    Raises:
        Denied: Not a request of a proxy, or a method that writes.
    """
    try:
        line, _, rest = head.decode("latin-1").partition("\r\n")
        method, target, version = line.split(" ")
        if method == "CONNECT":
            host, separator, port = target.rpartition(":")
            return host.strip("[]") if separator else target, int(port), None
        parts = urlsplit(target)
        if parts.scheme != "http" or not parts.hostname or method not in {"GET", "HEAD"} or version != "HTTP/1.1":
            raise Denied(f"the request {line[:200]!r}: expected CONNECT, or GET of an http:// address")
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        kept = [
            header
            for header in rest.split("\r\n")
            if header and not header.lower().startswith(("connection:", "proxy-", "keep-alive:", "host:"))
        ]
        lines = [f"{method} {path} HTTP/1.1", f"Host: {parts.netloc.rpartition('@')[2]}", *kept, "Connection: close"]
        return parts.hostname, parts.port or 80, ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
    except ValueError as error:
        raise Denied(f"the request {head[:200]!r} is malformed: {error}") from error


def _answer(status: str, reason: str) -> bytes:
    body = reason.encode("utf-8", "replace") + b"\n"
    head = f"HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode() + body


def _unwrapped(address: Address) -> Address:
    """The IPv4 address inside an IPv6 one, for the ways in which one can be hidden in the other."""
    if isinstance(address, ipaddress.IPv6Address):
        if address in _NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        return address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else address)
    return address


def _is_reserved(address: Address) -> bool:
    if isinstance(address, ipaddress.IPv4Address):
        return address in ipaddress.ip_network("0.0.0.0/8") or address in ipaddress.ip_network("240.0.0.0/4")
    return address.is_site_local


def _names_loopback(host: str) -> bool:
    """Whether the operator wrote loopback himself, as opposed to a name that happens to resolve to it."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _is_own(address: Address) -> bool:
    """Whether it is an address of this machine: only those can be bound."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((str(address), 0))
    except OSError:
        return False
    return True
