"""The way out of a command: what connects to its loopback listener goes to the caller's handler."""

from __future__ import annotations

import asyncio
import inspect
import socket
from collections.abc import Awaitable, Callable
from typing import cast

ProxyHandler = Callable[[socket.socket], object]


async def serve_proxy(listener: socket.socket, handler: object | None) -> None:
    """Hands each accepted connection to the handler, in a task of its own; closes them when there is none.

    Until it is cancelled: that ends what it serves, and closes the listener.
    """
    loop = asyncio.get_running_loop()
    handle = cast("ProxyHandler | None", handler)
    connections: set[asyncio.Future[object]] = set()
    listener.setblocking(False)
    try:
        with listener:
            while True:
                connection, _ = await loop.sock_accept(listener)
                if handle is None:
                    connection.close()
                    continue
                served = handle(connection)
                if inspect.isawaitable(served):
                    task = asyncio.ensure_future(cast("Awaitable[object]", served))
                    connections.add(task)
                    task.add_done_callback(connections.discard)
    finally:
        for task in list(connections):
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
