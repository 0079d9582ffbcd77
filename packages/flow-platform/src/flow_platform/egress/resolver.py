"""The port of name resolution, and the system's own resolver behind it."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Protocol

from flow_platform.domain.address import Address

THREADS: Final = 16  # Names that resolve slowly hold up other components' names, and nothing else of the runner.


class Resolver(Protocol):
    async def resolve(self, host: str) -> Sequence[Address]:
        """All addresses of a name in normal form, the preferred one first.

        Raises:
            OSError: It has none, or cannot be resolved now.
        """
        ...


class SystemResolver:
    """Asks as this machine is configured to. `close` does not wait for what is being asked."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="flow-resolve")

    async def resolve(self, host: str) -> Sequence[Address]:
        found = await asyncio.get_running_loop().run_in_executor(self._threads, _ask, host)
        return list(dict.fromkeys(found))

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


def _ask(host: str) -> list[Address]:
    entries = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    # With its scope, where it has one: such an address is refused, not cut to fit.
    return [ipaddress.ip_address(str(entry[4][0])) for entry in entries]
