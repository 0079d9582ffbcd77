"""The host's end of what a container's harness speaks and writes: its socket, its stdout and stderr, its listeners.

They are the same on every rung; what differs is how a container is made, limited and ended.
"""

from __future__ import annotations

import abc
import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Mapping

from flow_platform.sandbox.base import LogChunk
from flow_platform.sandbox.frames import FrameReader
from flow_platform.sandbox.logs import LogReader
from flow_sdk.wire.harness import HEADER, Frame
from flow_sdk.wire.runner import Limits


class ConnectedContainer(abc.ABC):
    """Base of containers: the part of `flow_platform.sandbox.base.Container` that needs the channel alone.

    Args:
        channel: Our end of the harness's socket; `out`, `err`: of its streams' pipes. All are closed by `_disconnect`.
        listeners: By port. They may also come later.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        channel: socket.socket,
        out: int,
        err: int,
        listeners: Mapping[int, socket.socket],
    ) -> None:
        self._loop = loop
        self._channel = channel
        self._channel.setblocking(False)
        self._logs = LogReader(loop, out, err)
        self._frames = FrameReader(loop, channel)
        self._listeners = dict(listeners)
        self._started = False

    @property
    def listeners(self) -> Mapping[int, socket.socket]:
        return self._listeners

    async def start(self, frame: bytes, limits: Limits) -> None:
        if self._started:
            raise RuntimeError("a container is started once")
        self._started = True
        if not await self._limit(limits):
            return  # It has ended: `wait` says how.
        self._frames.start(limits.events, limits.output_bytes)
        self._logs.start(limits.log_bytes)
        with contextlib.suppress(ConnectionError):  # It died meanwhile: `frames` ends, `wait` says how.
            await self._loop.sock_sendall(self._channel, HEADER.pack(Frame.START, len(frame)) + frame)

    @abc.abstractmethod
    async def _limit(self, limits: Limits) -> bool:
        """Sets those that are not as the container was made; false when it cannot live with them and was ended."""

    def frames(self) -> AsyncIterator[tuple[Frame, bytes]]:
        return self._frames.frames()

    def logs(self) -> AsyncIterator[LogChunk]:
        return self._logs.chunks(self._dropped_events_line)

    def drain_logs(self) -> list[LogChunk]:
        chunks = self._logs.drain()
        words = self._logs.dropped_line() + self._dropped_events_line()
        return [*chunks, LogChunk("stderr", words.encode())] if words else chunks

    def _dropped_events_line(self) -> str:
        if not self._frames.dropped_events:
            return ""
        return f"[flow] {self._frames.dropped_events} more events were dropped: the limit on events was reached\n"

    def _disconnect(self) -> None:
        """Once it has ended: what it wrote can still be read."""
        self._frames.close()
        self._logs.close()
        self._channel.close()
        for listener in self._listeners.values():
            listener.close()
