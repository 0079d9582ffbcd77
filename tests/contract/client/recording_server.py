"""A real HTTP server that keeps every request as the bytes that came in, and answers as it is told."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Recorded:
    """One request, as it came in."""

    head: bytes
    body: bytes
    connection: int
    at: float = field(default_factory=time.monotonic)

    @property
    def line(self) -> str:
        return self.head.split(b"\r\n", 1)[0].decode()

    @property
    def path(self) -> str:
        return self.line.split(" ")[1]

    @property
    def headers(self) -> list[tuple[str, str]]:
        lines = self.head.decode().split("\r\n")[1:]
        return [(name, value) for name, _, value in (line.partition(": ") for line in lines)]

    def header(self, name: str) -> str | None:
        found = [value for key, value in self.headers if key.lower() == name.lower()]
        assert len(found) <= 1, f"{name} came {len(found)} times"
        return found[0] if found else None


@dataclass(frozen=True)
class Reply:
    """`body` is sent as it is when it is bytes, else as JSON. `raw` replaces everything; then the connection closes."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    raw: bytes | None = None

    def encode(self) -> bytes:
        if self.raw is not None:
            return self.raw
        content = self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()
        content = b"" if self.body is None else content
        head = [f"HTTP/1.1 {self.status} Whatever", f"Content-Length: {len(content)}"]
        head += [f"{name}: {value}" for name, value in self.headers.items()]
        return "\r\n".join(head).encode() + b"\r\n\r\n" + content


HANG_UP = Reply(raw=b"")

Handler = Callable[[Recorded], Awaitable[Reply]]


class RecordingServer:
    """Answers with the replies given, one after the other, or through `handler`; an unexpected request gets a 599."""

    def __init__(self) -> None:
        self.requests: list[Recorded] = []
        self.replies: list[Reply] = []
        self.handler: Handler = self._next_reply
        self.connections = 0
        self.url = ""
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, context: ssl.SSLContext | None = None) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=context)
        host, port = self._server.sockets[0].getsockname()
        self.url = f"{'https' if context else 'http'}://{host}:{port}"

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        self.drop_connections()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def drop_connections(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    def answer(self, *replies: Reply) -> None:
        self.replies += replies

    async def _next_reply(self, _: Recorded) -> Reply:
        return self.replies.pop(0) if self.replies else Reply(599, {"code": "unexpected", "message": "no reply left"})

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        number = self.connections
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n"))[:-4]
                length = next((int(v) for k, v in Recorded(head, b"", 0).headers if k.lower() == "content-length"), 0)
                request = Recorded(head, await reader.readexactly(length), number)
                self.requests.append(request)
                reply = await self.handler(request)
                writer.write(reply.encode())
                await writer.drain()
                if reply.raw is not None:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()
