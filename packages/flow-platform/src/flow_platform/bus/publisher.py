"""Acknowledged publishing to JetStream that survives a lost connection, a restarted server and a deleted stream.

Publishes do not wait for each other: each sends at once and waits for its own acknowledgement. When the connection
breaks, all that wait are told so immediately and send again after the reconnect, with the same message id, so that
JetStream drops what had already arrived. (nats-py's own `publish_async` never resolves such a future.)
"""

from __future__ import annotations

import asyncio
import itertools
import json
import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from flow_platform.bus.nats_client import subscribe
from flow_platform.domain.errors import BusUnavailable, PayloadTooLarge

MESSAGE_ID: Final = "Nats-Msg-Id"

# Seconds for one acknowledgement, by attempt; the last one is repeated. A stream that is deleted under a message never
# answers, a busy disk or a cluster that elects a leader does so late: then the repetition is recognized by its id.
ATTEMPT_TIMEOUTS: Final = (2.0, 4.0)
RETRY_DELAYS: Final = (0.02, 0.05, 0.1, 0.2, 0.5)  # seconds; the last one is repeated.

NO_RESPONDERS: Final = "503"
_NO_BATCHES: Final = 10174  # Atomic publish is disabled.
_PAYLOAD_ERRORS: Final = (10054,)  # Message size exceeds what the stream allows.


class Retry(Exception):
    """This attempt failed; the next may not.

    Attributes:
        stream_missing: Nobody listens to the subject.
        no_batches: The stream does not take atomic batches.
    """

    def __init__(self, reason: str, *, stream_missing: bool = False, no_batches: bool = False) -> None:
        super().__init__(reason)
        self.stream_missing = stream_missing
        self.no_batches = no_batches


class Publisher:
    """Publishes through one client; `connected` and `connection_lost` come from the owner of the connection."""

    def __init__(self, ensure_streams: Callable[[], Awaitable[None]]) -> None:
        self._ensure_streams = ensure_streams
        self._client: Client | None = None
        self._up = asyncio.Event()
        self._inbox = ""
        self._tokens = itertools.count()
        self._waiting: dict[str, asyncio.Future[Msg]] = {}
        self._id_prefix = secrets.token_hex(8)
        self._ids = itertools.count()

    async def open(self, client: Client) -> None:
        """Starts on a new client. Its inbox subscription is restored by nats-py at reconnects."""
        self._client = client
        self._inbox = f"{client.new_inbox()}."
        await subscribe(client, f"{self._inbox}*", self._acknowledged)
        self._up.set()

    def connected(self) -> None:
        self._up.set()

    def connection_lost(self) -> None:
        self._up.clear()
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(Retry("the connection was lost"))

    def identified(self, headers: Mapping[str, str] | None, message_id: str | None) -> dict[str, str]:
        """The headers with a message id; a new one if none is given."""
        return {**(headers or {}), MESSAGE_ID: message_id or f"{self._id_prefix}{next(self._ids)}"}

    async def publish(self, subject: str, body: bytes, headers: dict[str, str], timeout: float) -> int:  # noqa: ASYNC109
        """Publishes until it is acknowledged. Returns the stream's sequence number of the stored message.

        Args:
            headers: With a message id.

        Raises:
            PayloadTooLarge: The server's limit is smaller than this message.
            BusUnavailable: Not acknowledged in time.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        delays = itertools.chain(RETRY_DELAYS, itertools.repeat(RETRY_DELAYS[-1]))
        patience = itertools.chain(ATTEMPT_TIMEOUTS, itertools.repeat(ATTEMPT_TIMEOUTS[-1]))
        while True:
            try:
                async with asyncio.timeout_at(deadline):
                    await self._up.wait()
                return await self.attempt(subject, body, headers, min(deadline, loop.time() + next(patience)))
            except TimeoutError:
                raise BusUnavailable(f"no connection to publish {subject!r} within {timeout:g} s") from None
            except Retry as retry:
                delay = next(delays)
                if loop.time() + delay >= deadline:
                    raise BusUnavailable(f"{subject!r} was not acknowledged within {timeout:g} s: {retry}") from retry
                await asyncio.sleep(delay)
                if retry.stream_missing:
                    await self._restore_streams()

    async def attempt(self, subject: str, body: bytes, headers: dict[str, str], until: float) -> int:
        """Publishes once and returns the sequence number.

        Raises:
            Retry: Not known to be stored.
            PayloadTooLarge: The server's limit is smaller than this message.
        """
        return _sequence(subject, body, await self.ask(subject, body, headers, until))

    async def send(self, subject: str, body: bytes, headers: dict[str, str]) -> None:
        """Sends without an answer.

        Raises:
            Retry: It could not be sent.
        """
        client = self._client
        if client is None or not self._up.is_set():
            raise Retry("there is no connection")
        try:
            await client.publish(subject, body, headers=headers)
        except nats.errors.Error as error:
            raise Retry(repr(error)) from error

    async def ask(self, subject: str, body: bytes, headers: dict[str, str] | None, until: float) -> Msg:
        """Sends a request to the server itself and returns its answer.

        Unlike a request to another client, it is over when the connection is: the server has forgotten it.

        Raises:
            Retry: There is no answer.
            PayloadTooLarge: The server's limit is smaller than this message.
        """
        client = self._client
        if client is None or not self._up.is_set():
            raise Retry("there is no connection")
        token = str(next(self._tokens))
        future: asyncio.Future[Msg] = asyncio.get_running_loop().create_future()
        self._waiting[token] = future
        try:
            await client.publish(subject, body, reply=self._inbox + token, headers=headers)
            async with asyncio.timeout_at(until):
                answer = await future
        except TimeoutError:
            raise Retry("no answer came") from None
        except nats.errors.MaxPayloadError as error:
            raise PayloadTooLarge(
                f"a message of {len(body)!r} bytes to {subject!r}, at most {client.max_payload!r} are allowed"
            ) from error
        except nats.errors.Error as error:
            raise Retry(repr(error)) from error
        finally:
            self._waiting.pop(token, None)
        if not answer.data and answer.headers and answer.headers.get("Status") == NO_RESPONDERS:
            raise Retry(f"nobody listens to {subject!r}", stream_missing=True)
        return answer

    async def _restore_streams(self) -> None:
        try:
            await self._ensure_streams()
        except BusUnavailable:
            return  # The caller's own deadline decides how often to try again.

    async def _acknowledged(self, message: Msg) -> None:
        future = self._waiting.get(message.subject[len(self._inbox) :])
        if future is not None and not future.done():
            future.set_result(message)


def _sequence(subject: str, body: bytes, answer: Msg) -> int:
    try:
        document: dict[str, Any] = json.loads(answer.data)
    except ValueError:
        raise Retry(f"an unreadable acknowledgement {answer.data[:100]!r}") from None
    if error := document.get("error"):
        if error.get("err_code") in _PAYLOAD_ERRORS:
            raise PayloadTooLarge(f"a message of {len(body)!r} bytes to {subject!r}: {error.get('description')!r}")
        raise Retry(f"JetStream answers {error!r}", no_batches=error.get("err_code") == _NO_BATCHES)
    return int(document["seq"])
