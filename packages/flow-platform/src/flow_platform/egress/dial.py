"""From a name to a connection: resolved once, every address checked, and connected to an address that was checked.

So a name that changes between check and use gains nothing: there is no second look at it.
"""

from __future__ import annotations

import asyncio
import ipaddress
import itertools
import socket
from collections.abc import Sequence
from typing import Final

from flow_platform.domain.address import Address
from flow_platform.domain.destination import is_address, shown_host
from flow_platform.egress.policy import Policy
from flow_platform.egress.refusal import unreachable
from flow_platform.egress.resolver import Resolver

RESOLVE_SECONDS: Final = 10.0
CONNECT_SECONDS: Final = 15.0  # For all addresses of a name together.
STAGGER_SECONDS: Final = 0.25  # Before the next address is tried beside the last. Source: RFC 8305, section 5.
MAX_ADDRESSES: Final = 16  # Tried of one name; all are checked.


async def dial(host: str, port: int, policy: Policy, resolver: Resolver) -> tuple[socket.socket, Address]:
    """Connects to the host; the socket's peer is the address that comes with it.

    Raises:
        Refusal: One of its addresses is not allowed, so none is; or none answered.
    """
    addresses = await _resolve(host, resolver)
    for address in addresses:
        policy.check_address(host, port, address)
    targets = _alternating([_reachable_form(address) for address in addresses])[:MAX_ADDRESSES]
    where = f"{shown_host(host)}:{port}"
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            return await _first(targets, port)
    except TimeoutError:
        raise unreachable(f"{where!r} did not take a connection within {CONNECT_SECONDS:g} s") from None
    except OSError as error:
        raise unreachable(f"{where!r} could not be reached: {error.strerror or error}") from error


async def _resolve(host: str, resolver: Resolver) -> Sequence[Address]:
    if is_address(host):
        return [ipaddress.ip_address(host)]
    try:
        async with asyncio.timeout(RESOLVE_SECONDS):
            found = await resolver.resolve(host)
    except TimeoutError:
        raise unreachable(f"host {host!r} was not resolved within {RESOLVE_SECONDS:g} s") from None
    except (OSError, UnicodeError, ValueError) as error:
        raise unreachable(f"host {host!r} could not be resolved: {error}") from error
    if not found:
        raise unreachable(f"host {host!r} has no address")
    return found


def _reachable_form(address: Address) -> Address:
    """IPv4 in IPv6's clothes is spoken to as IPv4: the same address, also where this machine has no IPv6."""
    return address.ipv4_mapped or address if isinstance(address, ipaddress.IPv6Address) else address


def _alternating(addresses: Sequence[Address]) -> list[Address]:
    """The families in turns, each in its order, so that one that leads nowhere costs one pause."""
    preferred = [one for one in addresses if one.version == addresses[0].version]
    others = [one for one in addresses if one.version != addresses[0].version]
    pairs = itertools.zip_longest(preferred, others)
    return list(dict.fromkeys(one for pair in pairs for one in pair if one is not None))


async def _first(targets: Sequence[Address], port: int) -> tuple[socket.socket, Address]:
    """The first address that answers; the next one is tried when the last failed or took long."""
    trying: set[asyncio.Task[tuple[socket.socket, Address]]] = set()
    failure: OSError = OSError("it has no address")
    left = list(targets)
    try:
        while left or trying:
            if left:
                trying.add(asyncio.create_task(_connect(left.pop(0), port), name="dial"))
            pause = STAGGER_SECONDS if left else None
            done, trying = await asyncio.wait(trying, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                error = task.exception()
                if error is None:
                    trying |= done - {task}  # Two at one moment: the other one is closed below.
                    return task.result()
                if not isinstance(error, OSError):
                    raise error
                failure = error
        raise failure
    finally:
        for task in trying:
            task.cancel()
            task.add_done_callback(_discard)


async def _connect(address: Address, port: int) -> tuple[socket.socket, Address]:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    connection = socket.socket(family, socket.SOCK_STREAM)
    try:
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(connection, (str(address), port))
    except BaseException:
        connection.close()
        raise
    return connection, address


def _discard(task: asyncio.Task[tuple[socket.socket, Address]]) -> None:
    if not task.cancelled() and task.exception() is None:
        task.result()[0].close()
