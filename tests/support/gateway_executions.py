"""Two executions, each behind its own listener, as a runner has them: whoever connects there is that execution."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import socket
from collections.abc import Callable
from typing import Any

from nats.aio.client import Client

from flow_platform.bus.gateway import Gateway
from flow_platform.bus.sessions import DenialCode, Tried
from flow_platform.domain.errors import FlowError


class RecordingSession:
    """A session that keeps what is published."""

    def __init__(self, execution_id: str, token: str) -> None:
        self.execution_id = execution_id
        self.token = token
        self.body = json.dumps({"input_data": {"of": execution_id}}).encode()
        self.published: list[tuple[str, bytes]] = []
        self.refuse: FlowError | None = None
        self.going = asyncio.Event()
        self.going.set()
        self.denials: list[tuple[str, str, str]] = []
        self.inputs = 0
        self.most_waiting = 0
        self._waiting = 0

    def check(self, token: str) -> bool:
        return hmac.compare_digest(token.encode(), self.token.encode())

    async def input(self) -> bytes:
        self.inputs += 1
        return self.body

    async def publish(self, kind: str, body: bytes) -> int:
        self._waiting += 1
        self.most_waiting = max(self.most_waiting, self._waiting)
        try:
            await self.going.wait()
        finally:
            self._waiting -= 1
        if self.refuse:
            raise self.refuse
        self.published.append((kind, body))
        return len(self.published)

    def denied(self, tried: Tried, code: DenialCode, subject: str = "") -> None:
        self.denials.append((tried, code, subject))


class Execution:
    """A session and the port at which its container would find NATS."""

    def __init__(self, gateway: Gateway, execution_id: str, token: str) -> None:
        self.session = RecordingSession(execution_id, token)
        self.refusals: list[str] = []
        self._gateway = gateway
        self._listener = socket.socket()
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen()
        self._listener.setblocking(False)
        self.port = self._listener.getsockname()[1]
        self._accepting = asyncio.create_task(self._accept())
        self._clients: list[Client] = []
        self._sockets: list[socket.socket] = []

    @property
    def id(self) -> str:
        return self.session.execution_id

    def url(self, token: str | None = None) -> str:
        return f"nats://x:{self.session.token if token is None else token}@127.0.0.1:{self.port}"

    async def connect(self, url: str | None = None, **options: Any) -> Client:
        async def note(error: Exception) -> None:
            self.refusals.append(str(error))

        client = Client()
        self._clients.append(client)
        await client.connect(url or self.url(), error_cb=note, allow_reconnect=False, **options)
        return client

    async def dial(self) -> socket.socket:
        """A bare connection, for what no client would send."""
        connection = socket.socket()
        connection.setblocking(False)
        self._sockets.append(connection)
        await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", self.port))
        return connection

    async def dial_authorized(self) -> socket.socket:
        connection = await self.dial()
        await send(connection, b'CONNECT {"verbose":false,"pass":"%b"}\r\nPING\r\n' % self.session.token.encode())
        assert b"PONG\r\n" in await receive_until(connection, b"PONG\r\n")
        return connection

    async def close(self) -> None:
        self._accepting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._accepting
        for client in self._clients:
            if not client.is_closed:
                await client.close()
        for connection in self._sockets:
            connection.close()
        self._listener.close()

    async def _accept(self) -> None:
        while True:
            accepted, _ = await asyncio.get_running_loop().sock_accept(self._listener)
            self._gateway.attach(accepted, self.session)


async def eventually(assertion: Callable[[], None], within: float = 60.0) -> None:
    """Repeats an assertion until it holds, or fails with its last failure."""
    ends = asyncio.get_running_loop().time() + within
    while True:
        try:
            return assertion()
        except AssertionError:
            if asyncio.get_running_loop().time() > ends:
                raise
        await asyncio.sleep(0.01)


async def send(connection: socket.socket, data: bytes) -> None:
    await asyncio.get_running_loop().sock_sendall(connection, data)


async def receive_until(connection: socket.socket, end: bytes, within: float = 10.0) -> bytes:
    """Reads until the bytes end so, or until the gateway closes."""
    received = b""
    async with asyncio.timeout(within):
        while not received.endswith(end):
            try:
                part = await asyncio.get_running_loop().sock_recv(connection, 1 << 20)
            except ConnectionResetError:
                return received
            if not part:
                return received
            received += part
    return received


async def receive_all(connection: socket.socket) -> bytes:
    """Reads until the gateway closes."""
    return await receive_until(connection, b"\0\0never")
