"""One plain HTTP request to its host, and the answer back.

Both sides are read and written by h11, so that exactly one request leaves and nothing can be hidden behind it (request
smuggling, a second host on the same connection). Connections are not kept: the next request is checked anew. Redirects
are handed to the client as they are, who may ask for what they point at as for anything else.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Sequence
from typing import Final

import h11

from flow_platform.egress.handshake import MAX_HEAD_BYTES, Forward
from flow_platform.egress.refusal import malformed, unreachable
from flow_platform.egress.traffic import IdleTimer, Meter, Record
from flow_platform.egress.tunnel import Streams

READ_BYTES: Final = 16 << 10  # At once: bodies in tiny chunks cost some 10 us each, and the loop is everybody's.
_HOP_BY_HOP: Final = frozenset({b"connection", b"keep-alive", b"te", b"trailer", b"upgrade", b"http2-settings"})
_CLOSE: Final = (b"Connection", b"close")


class Exchange:
    """Carries one request and its answer.

    Args:
        added: Headers that the broker sets; the client's own of those names are left out.
    """

    def __init__(
        self,
        request: Forward,
        inner: Streams,
        outer: Streams,
        meter: Meter,
        record: Record,
        idle: IdleTimer,
        added: Sequence[tuple[str, str]],
    ) -> None:
        self._request = request
        self._inner = request.inner
        self._outer = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
        self._reader, self._writer = inner
        self._outer_reader, self._outer_writer = outer
        self._meter = meter
        self._record = record
        self._idle = idle
        self._added = [(name.encode(), value.encode()) for name, value in added]

    @property
    def has_answered(self) -> bool:
        """Whether anything of an answer went to the client."""
        return self._inner.our_state is not h11.SEND_RESPONSE

    async def run(self) -> None:
        """Returns when the answer is complete; what is left of the request then is not sent.

        Raises:
            Refusal: A limit was reached, or one side does not speak HTTP.
            OSError: A side broke off.
        """
        asking = asyncio.create_task(self._ask())
        answering = asyncio.create_task(self._answer())
        try:
            await asyncio.wait([asking, answering], return_when=asyncio.FIRST_COMPLETED)
            if not answering.done():
                # A host may answer without taking the whole request: what it says counts, not that it stopped reading.
                with contextlib.suppress(OSError):
                    asking.result()
            await answering
        except h11.LocalProtocolError:
            # Not with h11's words: they would show the value of a header that we added.
            raise unreachable(f"the request to {self._request.authority!r} or its answer cannot be passed on") from None
        finally:
            asking.cancel()
            answering.cancel()
            await asyncio.gather(asking, answering, return_exceptions=True)

    async def _ask(self) -> None:
        request = self._request
        headers = [(b"Host", request.authority.encode()), *self._end_to_end(request.request.headers.raw_items(), True)]
        head = h11.Request(method=request.request.method, target=request.path, headers=[*headers, *self._added, _CLOSE])
        await self._send(self._outer.send(head))
        while True:
            try:
                event = self._inner.next_event()
            except h11.RemoteProtocolError as error:
                raise malformed(f"the body of the request is not HTTP: {error}") from error
            if event is h11.NEED_DATA:
                data = await self._reader.read(READ_BYTES)
                self._idle.touch()
                self._inner.receive_data(data)
            elif isinstance(event, h11.Data):
                await self._send(self._outer.send(event))
            else:
                await self._send(self._outer.send(h11.EndOfMessage()))
                return

    async def _answer(self) -> None:
        while True:
            try:
                event = self._outer.next_event()
            except h11.RemoteProtocolError as error:
                raise unreachable(
                    f"{self._request.authority!r} answered something that is not HTTP: {error}"
                ) from error
            if event is h11.NEED_DATA:
                data = await self._outer_reader.read(READ_BYTES)
                self._idle.touch()
                self._meter.received(self._record, len(data))
                self._outer.receive_data(data)
            elif isinstance(event, h11.InformationalResponse):
                if event.status_code == 100 and self._inner.they_are_waiting_for_100_continue:
                    await self._tell(self._inner.send(h11.InformationalResponse(status_code=100, headers=[])))
            elif isinstance(event, h11.Response):
                headers = [*self._end_to_end(event.headers.raw_items(), False), _CLOSE]
                response = h11.Response(status_code=event.status_code, headers=headers, reason=event.reason)
                await self._tell(self._inner.send(response))
            elif isinstance(event, h11.Data):
                await self._tell(self._inner.send(event))
            else:
                await self._tell(self._inner.send(h11.EndOfMessage()))
                return

    def _end_to_end(self, headers: Iterable[tuple[bytes, bytes]], is_request: bool) -> list[tuple[bytes, bytes]]:
        """Without what is meant for this connection alone."""
        found = [(name, name.lower(), value) for name, value in headers]
        named = {
            word.strip().lower() for _, lower, value in found if lower == b"connection" for word in value.split(b",")
        }
        left_out = _HOP_BY_HOP | named - {b"transfer-encoding", b"content-length"}
        if is_request:
            left_out |= {b"host"} | {name.lower() for name, _ in self._added}
        if any(lower == b"transfer-encoding" for _, lower, _ in found):
            left_out |= {b"content-length"}  # Two lengths would be two readings. Source: RFC 9112, section 6.3.
        return [
            (name, value) for name, lower, value in found if lower not in left_out and not lower.startswith(b"proxy-")
        ]

    async def _send(self, data: bytes | None) -> None:
        if data:
            self._idle.touch()
            self._meter.sent(self._record, len(data))
            self._outer_writer.write(data)
            await self._outer_writer.drain()

    async def _tell(self, data: bytes | None) -> None:
        if data:
            self._writer.write(data)
            await self._writer.drain()
