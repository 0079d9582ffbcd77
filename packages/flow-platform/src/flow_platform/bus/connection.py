"""The bus as engine and runner see it: publish, request, serve, consume, and objects, over one NATS connection.

A lost connection is never the caller's problem for longer than its own time-out: publishes and requests wait for the
reconnect, consumers and services come back by themselves, deleted streams are made again. Even when nats-py gives a
connection up for good (it does on some errors of the server) a new one takes its place.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from flow_platform.bus.consumer import Handler, Message, PullConsumer, decode_answer, message_of
from flow_platform.bus.group_commit import GroupCommit
from flow_platform.bus.nats_client import close, settle, subscribe
from flow_platform.bus.objects import ObjectStore
from flow_platform.bus.publisher import Publisher, Retry
from flow_platform.bus.server_config import ENGINE_USER, RUNNER_USER
from flow_platform.bus.streams import STREAMS, ensure_stream
from flow_platform.domain.errors import BusUnavailable, PayloadTooLarge

__all__ = ["Bus", "Message"]

_log = logging.getLogger(__name__)

CONNECT_TIMEOUT: Final = 5.0  # seconds for the first connection.
# After a reconnect, answers wait this many seconds: the requester was cut off, too, and may not be back yet.
ANSWER_WAIT: Final = 0.3
RECONNECT_WAIT: Final = 0.1  # seconds between two attempts; loopback or a rack, so trying is cheap.
API_TIMEOUT: Final = 5.0  # seconds for one request to the JetStream API.
DRAIN_TIMEOUT: Final = 5  # seconds to finish what is in flight when the process ends.
PING_INTERVAL: Final = 10  # seconds; two unanswered ones mean a dead peer.
# Requests that one process holds unanswered at a time: every runner's claim, and room to spare.
MAX_HELD_REQUESTS: Final = 10_000

_HEADER_ERROR: Final = "Flow-Error"


class Bus:
    """One connection. Made by `connect`, ended by `drain_and_close`."""

    def __init__(self, url: str, *, name: str, publish_timeout: float, replicas: int) -> None:
        user = urlsplit(url).username
        self._url = url
        self._name = name
        self._publish_timeout = publish_timeout
        self._replicas = replicas
        # Our own users have an inbox each, so that a runner's permissions can exclude the engine's replies.
        self._inbox_prefix = f"_INBOX.{user}" if user in {ENGINE_USER, RUNNER_USER} else "_INBOX"
        self._may_change = user != RUNNER_USER
        self._client: Client | None = None
        self._up = asyncio.Event()
        self._closing = False
        self._last_error = ""
        self._tasks: set[asyncio.Task[Any]] = set()
        self._consumers: set[PullConsumer] = set()
        self._subscribers: list[Callable[[Client], Awaitable[Any]]] = []
        self._reconnected: list[Callable[[], None]] = []
        self._held = 0
        self._answers_from = 0.0
        self._ensuring: asyncio.Task[None] | None = None
        self.publisher = Publisher(self.ensure_streams)
        self._groups = GroupCommit(self.publisher)
        self._objects = ObjectStore(self)

    @classmethod
    async def connect(cls, url: str, *, name: str, publish_timeout: float = 12.0, replicas: int = 1) -> Bus:
        """Connects, and from then on reconnects for ever.

        Args:
            publish_timeout: The default of `publish`. A cluster without a leader needs up to 9 seconds to elect one.
            replicas: Of each stream; 1 or 3.

        Raises:
            BusUnavailable: The first connection failed.
        """
        bus = cls(url, name=name, publish_timeout=publish_timeout, replicas=replicas)
        try:
            await bus._open()
        except BusUnavailable:
            bus._closing = True
            raise
        return bus

    @property
    def is_connected(self) -> bool:
        return self._up.is_set()

    def on_reconnected(self, callback: Callable[[], None]) -> None:
        """Has the callback run after each loss of the connection, once it stands again.

        Requests that were on their way when it broke are answered by nobody: whoever can ask again should.
        """
        self._reconnected.append(callback)

    async def ensure_streams(self) -> None:
        """Makes all streams exist with our configuration; cheap when they do. Calls at the same time share the work.

        Raises:
            BusUnavailable: JetStream does not answer.
        """
        if self._ensuring is None or self._ensuring.done():
            self._ensuring = self._start(self._ensure_all())
        await asyncio.shield(self._ensuring)

    async def publish(
        self,
        subject: str,
        body: bytes,
        headers: Mapping[str, str] | None = None,
        *,
        message_id: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - also bounds the retries.
    ) -> int:
        """Publishes to JetStream and returns the sequence number once the message is stored.

        Retried with the same id until the time-out; a deleted stream is made again. Two publishes with the same
        `message_id` within two minutes are stored once.

        Raises:
            PayloadTooLarge: Larger than a NATS message may be; use `put_object`.
            BusUnavailable: Not acknowledged in time. It may have been stored nevertheless.
        """
        return await self._groups.publish(subject, body, headers, message_id, timeout or self._publish_timeout)

    async def publish_core(self, subject: str, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        """Sends without waiting for anybody; a stream that has the subject stores it, too.

        Raises:
            BusUnavailable: Disconnected, and the buffer for the time after the reconnect is full.
        """
        try:
            await self._connected().publish(subject, body, headers=dict(headers) if headers else None)
        except nats.errors.Error as error:
            raise _translated(error, subject, body) from error

    async def request(self, subject: str, body: bytes, *, timeout: float) -> bytes:  # noqa: ASYNC109 - of the request.
        """Sends a request and returns the answer of one responder.

        Raises:
            BusUnavailable: No answer in time, nobody serves the subject, or the handler failed.
        """
        task = asyncio.current_task()
        cancels = task.cancelling() if task is not None else 0
        try:
            return await self._request(subject, body, timeout)
        finally:
            # Python 3.11's `wait_for`, by which nats-py waits, drops a cancel that comes with the answer.
            if task is not None and task.cancelling() > cancels:
                raise asyncio.CancelledError

    async def _request(self, subject: str, body: bytes, timeout: float) -> bytes:  # noqa: ASYNC109
        try:
            async with asyncio.timeout(timeout):
                await self._up.wait()
                answer = await self._connected().request(subject, body, timeout=timeout)
        except (TimeoutError, nats.errors.TimeoutError):
            raise BusUnavailable(f"no answer to {subject!r} within {timeout!r} s") from None
        except nats.errors.Error as error:
            raise _translated(error, subject, body) from error
        if answer.headers and (reason := answer.headers.get(_HEADER_ERROR)):
            raise BusUnavailable(f"the request {subject!r} failed: {reason}")
        return answer.data

    async def serve(self, subject: str, queue: str, handler: Callable[[bytes], Awaitable[bytes]]) -> None:
        """Answers requests, each in a task of its own, shared with the others of the queue group. Returns at once.

        A handler that raises is logged, and its requester gets `BusUnavailable` at once instead of a time-out.
        """

        async def accept(message: Msg) -> None:
            if self._held >= MAX_HELD_REQUESTS:
                await self._answer(message, b"", f"{MAX_HELD_REQUESTS} requests are held already")
                return
            self._held += 1
            task = self._start(self._handle_request(subject, handler, message))
            task.add_done_callback(self._released)

        await self._add_subscriber(lambda client: subscribe(client, subject, accept, queue))

    async def subscribe(self, subject: str, handler: Callable[[Message], Awaitable[None]]) -> None:
        """Hands every message of the subject to the handler, in order, one after the other. Returns at once.

        Only what is sent while we are connected arrives. A handler that has much to do starts a task of its own.
        """

        async def deliver(message: Msg) -> None:
            try:
                await handler(message_of(message))
            except Exception:  # noqa: BLE001 - the loop of the subscription: one bad message must not end it.
                _log.exception("subscriber failed", extra={"subject": subject})

        await self._add_subscriber(lambda client: subscribe(client, subject, deliver))

    async def consume(self, stream: str, durable: str, handler: Handler, *, batch: int = 256) -> None:
        """Hands the stream's messages to the handler, in batches as they come, until cancelled.

        Acknowledges after the handler has returned. If it raises, the messages come again after a delay, first one by
        one. Delivery is at least once, and after a failure not in order: the handler must bear a repeated message.
        """
        consumer = PullConsumer(self.api, self._ensure_one, stream, durable, handler, batch)
        self._consumers.add(consumer)
        try:
            await consumer.run(self.wait_connected)
        finally:
            self._consumers.discard(consumer)

    async def put_object(self, name: str, body: bytes) -> None:
        """Stores a payload of any size under the name, replacing what was there. It is kept for a day.

        Raises:
            BusUnavailable: Not stored within the publish time-out.
        """
        await self._objects.put(name, body, self._publish_timeout)

    async def get_object(self, name: str) -> bytes:
        """Reads a payload.

        Raises:
            NotFound: There is none of that name, or its stream was deleted.
            BusUnavailable: Not read in time.
        """
        return await self._objects.get(name, self._publish_timeout)

    async def delete_object(self, name: str) -> None:
        """Removes a payload; no error when there is none."""
        await self._objects.delete(name)

    async def api(self, subject: str, request: dict[str, Any]) -> dict[str, Any]:
        """One request to the JetStream API, `$JS.API.{subject}`. An error answer is returned, not raised.

        Raises:
            BusUnavailable: There is no answer, or no connection.
        """
        payload = json.dumps(request).encode() if request else b""
        until = asyncio.get_running_loop().time() + API_TIMEOUT
        try:
            async with asyncio.timeout_at(until):
                await self._up.wait()
            return decode_answer((await self.publisher.ask(f"$JS.API.{subject}", payload, None, until)).data)
        except (TimeoutError, Retry) as error:
            raise BusUnavailable(f"JetStream does not answer {subject!r}: {error}") from error

    async def drain_and_close(self) -> None:
        """Finishes what is in flight, as far as the server is there, and ends the connection and all its tasks."""
        self._closing = True
        client, self._client = self._client, None
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._up.clear()
        self.publisher.connection_lost()
        if client is None or client.is_closed:
            return
        try:
            if client.is_connected:
                async with asyncio.timeout(DRAIN_TIMEOUT):
                    await client.drain()
        except (TimeoutError, OSError, nats.errors.Error) as error:
            _log.info("connection closed without draining", extra={"reason": repr(error)})
        finally:
            await close(client)

    # The connection.

    async def _open(self) -> None:
        client = Client()
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                await client.connect(
                    self._url,
                    name=self._name,
                    error_cb=self._on_error,
                    disconnected_cb=self._on_disconnected,
                    reconnected_cb=self._on_reconnected,
                    closed_cb=self._on_closed,
                    allow_reconnect=False,  # For the first connection: its failure is the caller's to know.
                    max_reconnect_attempts=1,
                    reconnect_time_wait=RECONNECT_WAIT,  # pyright: ignore[reportArgumentType] - any number is.
                    connect_timeout=2,
                    ping_interval=PING_INTERVAL,
                    drain_timeout=DRAIN_TIMEOUT,
                    inbox_prefix=self._inbox_prefix,
                )
        except (TimeoutError, OSError, nats.errors.Error) as error:
            await close(client)
            reason = self._last_error or repr(error)
            raise BusUnavailable(f"no connection to NATS at {_address(self._url)!r}: {reason}") from error
        client.options.update(allow_reconnect=True, max_reconnect_attempts=-1)
        self._client = client
        await self.publisher.open(client)
        for subscribe_again in self._subscribers:
            await subscribe_again(client)
        self._up.set()

    async def _on_error(self, error: Exception) -> None:
        reason = repr(error)
        if reason != self._last_error:
            self._last_error = reason
            _log.info("NATS connection reports", extra={"bus": self._name, "reason": reason})

    async def _on_disconnected(self) -> None:
        self._up.clear()
        self.publisher.connection_lost()
        for consumer in self._consumers:
            consumer.connection_lost()

    async def _on_reconnected(self) -> None:
        self._last_error = ""
        self._answers_from = asyncio.get_running_loop().time() + ANSWER_WAIT
        self.publisher.connected()
        self._up.set()
        self._tell_reconnected()

    def _tell_reconnected(self) -> None:
        for callback in self._reconnected:
            callback()

    async def _on_closed(self) -> None:
        # `None` until the first connection stands and after `drain_and_close`.
        if not self._closing and self._client is not None:
            self._client = None
            await self._on_disconnected()
            self._start(self._open_again())

    async def _open_again(self) -> None:
        while not self._closing:
            try:
                await self._open()
            except BusUnavailable as error:
                _log.warning("no new NATS connection yet", extra={"bus": self._name, "reason": error.message})
                await asyncio.sleep(1.0)
            else:
                self._tell_reconnected()
                return

    def _connected(self) -> Client:
        if self._client is None:
            raise BusUnavailable(f"the connection to NATS at {_address(self._url)!r} is closed")
        return self._client

    async def wait_connected(self) -> Client:
        while True:
            await self._up.wait()
            if self._client is not None:
                return self._client
            await asyncio.sleep(RECONNECT_WAIT)

    async def _add_subscriber(self, subscribe_on: Callable[[Client], Awaitable[Any]]) -> None:
        client = self._connected()
        self._subscribers.append(subscribe_on)
        try:
            await subscribe_on(client)
            # The server knows the subscription when this returns: what is sent from now on arrives.
            await settle(client)
        except nats.errors.Error as error:
            _log.info("subscription will stand after the reconnect", extra={"reason": repr(error)})

    # Requests and streams.

    async def _handle_request(self, subject: str, handler: Callable[[bytes], Awaitable[bytes]], message: Msg) -> None:
        reason = ""
        answer = b""
        try:
            answer = await handler(message.data)
        except Exception as error:  # noqa: BLE001 - the loop of the service: one bad request must not end it.
            _log.exception("request failed", extra={"subject": subject})
            reason = repr(error)
        await self._answer(message, answer, reason)

    async def _answer(self, message: Msg, answer: bytes, reason: str) -> None:
        if not message.reply:
            return
        if (wait := self._answers_from - asyncio.get_running_loop().time()) > 0:
            await asyncio.sleep(wait)
        try:
            await self._up.wait()
            headers = {_HEADER_ERROR: reason[:500]} if reason else None
            await self._connected().publish(message.reply, answer, headers=headers)
        except (nats.errors.Error, BusUnavailable) as error:
            _log.warning("answer not sent", extra={"subject": message.subject, "reason": repr(error)})

    def _released(self, _task: asyncio.Task[None]) -> None:
        self._held -= 1

    async def _ensure_all(self) -> None:
        await asyncio.gather(*(self._ensure_one(name) for name in STREAMS))

    async def _ensure_one(self, name: str) -> None:
        await ensure_stream(self.api, name, replicas=self._replicas, may_change=self._may_change)

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _address(url: str) -> str:
    """The URL without its credentials."""
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port}"


def _translated(error: nats.errors.Error, subject: str, body: bytes) -> BusUnavailable | PayloadTooLarge:
    match error:
        case nats.errors.MaxPayloadError():
            return PayloadTooLarge(f"a message of {len(body)!r} bytes to {subject!r} is larger than NATS allows")
        case nats.errors.NoRespondersError():
            return BusUnavailable(f"nobody serves {subject!r}")
        case _:
            return BusUnavailable(f"NATS cannot take a message to {subject!r}: {error!r}")
