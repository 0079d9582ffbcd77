"""Payloads larger than a NATS message, in the layout of JetStream's object store.

An object is a run of chunk messages on `$O.<bucket>.C.<nuid>` and one information message on `$O.<bucket>.M.<name>`, so
any client with an object store can read ours. Two things are our own: chunks are sent without waiting for each other,
and they are read by batched direct get, which needs no consumer (nats-py's own `get` takes half a second for 8 MiB).

Source: ADR-20 (object store), ADR-31 (batched direct get).
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import hashlib
import json
import secrets
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any, Final, Protocol, TypeVar

from nats.aio.client import Client
from nats.aio.msg import Msg

from flow_platform.bus.nats_client import subscribe
from flow_platform.bus.publisher import NO_RESPONDERS, Publisher, Retry
from flow_platform.bus.streams import STREAM_PAYLOADS, Api
from flow_platform.domain.errors import BusUnavailable, NotFound
from flow_sdk.wire import subjects

CHUNK_BYTES: Final = 512 << 10  # Measured: larger ones gain nothing, smaller ones cost a sync each.
CHUNKS_IN_FLIGHT: Final = 16
BATCH_BYTES: Final = 8 << 20  # Asked for at a time, so that other messages of the connection get through in between.
BATCH_TIMEOUT: Final = 4.0  # seconds for the next chunk to come.
HASH_IN_THREAD_BYTES: Final = 1 << 20  # Hashing more than that would hold up the event loop.

DAMAGED_READS: Final = 3  # A replaced object is whole again at the second read.
RETRY_DELAY: Final = 0.05  # seconds

Result = TypeVar("Result")

_NO_MESSAGE: Final = 10037
_STREAM_NOT_FOUND: Final = 10059
_END_OF_BATCH: Final = "204"


class _Damaged(Exception):
    """What was read is not what the information message promises: replaced or removed meanwhile."""


class ObjectBus(Protocol):
    """What the object store needs of the bus."""

    @property
    def publisher(self) -> Publisher: ...
    @property
    def api(self) -> Api: ...
    async def wait_connected(self) -> Client: ...
    async def ensure_streams(self) -> None: ...


class ObjectStore:
    def __init__(self, bus: ObjectBus) -> None:
        self._bus = bus

    async def put(self, name: str, body: bytes, timeout: float) -> None:  # noqa: ASYNC109 - bounds the retries.
        async def once(until: float) -> None:
            await self._put_once(name, body, until)

        await self._retried(f"object {name!r} was not stored", timeout, once)

    async def get(self, name: str, timeout: float) -> bytes:  # noqa: ASYNC109 - bounds the retries.
        async def once(until: float) -> bytes:
            return await self._get_once(name, until)

        return await self._retried(f"object {name!r} was not read", timeout, once)

    async def delete(self, name: str) -> None:
        information = await self._find(name)
        if information is None:
            return
        await self._purge(_information_subject(name))
        await self._purge(_chunk_subject(information["nuid"]))

    async def _put_once(self, name: str, body: bytes, until: float) -> None:
        earlier = await self._find(name)
        nuid = secrets.token_hex(11)  # As long as a NUID; a new one each time, so that readers never see a mixture.
        subject = _chunk_subject(nuid)
        digest = asyncio.ensure_future(_digest(body))
        try:
            count = await self._send_chunks(subject, body, until)
            information = {
                "name": name,
                "bucket": subjects.PAYLOAD_BUCKET,
                "nuid": nuid,
                "size": len(body),
                "chunks": count,
                "digest": await digest,
                "mtime": datetime.fromtimestamp(0, UTC).isoformat(),  # Readers take the message's own time.
                "options": {"max_chunk_size": CHUNK_BYTES},
            }
            await self._bus.publisher.attempt(
                _information_subject(name), json.dumps(information).encode(), {"Nats-Rollup": "sub"}, until
            )
        except Retry:
            await self._purge(subject)
            raise
        finally:
            digest.cancel()
        if earlier is not None:
            await self._purge(_chunk_subject(earlier["nuid"]))

    async def _send_chunks(self, subject: str, body: bytes, until: float) -> int:
        """Sends all chunks in order. One that fails makes the whole object start again: order would be lost."""
        view = memoryview(body)
        offsets = range(0, len(body), CHUNK_BYTES)
        for start in range(0, len(offsets), CHUNKS_IN_FLIGHT):
            chunks = [bytes(view[at : at + CHUNK_BYTES]) for at in offsets[start : start + CHUNKS_IN_FLIGHT]]
            # Each task sends before it waits for the first time, so the chunks leave in this order.
            sending = [self._bus.publisher.attempt(subject, chunk, {}, until) for chunk in chunks]
            for outcome in await asyncio.gather(*sending, return_exceptions=True):
                if isinstance(outcome, BaseException):
                    raise outcome
        return len(offsets)

    async def _get_once(self, name: str, until: float) -> bytes:
        information = await self._find(name)
        if information is None:
            raise NotFound(f"there is no object {name!r} in the bucket {subjects.PAYLOAD_BUCKET!r}")
        chunks: list[bytes] = []
        if information["size"]:
            await self._read_chunks(_chunk_subject(information["nuid"]), int(information["chunks"]), chunks, until)
        body = b"".join(chunks)
        if len(body) != information["size"] or await _digest(body) != information["digest"]:
            raise _Damaged(f"{len(body)} bytes of {information['size']} are there, or their digest differs")
        return body

    async def _read_chunks(self, subject: str, count: int, chunks: list[bytes], until: float) -> None:
        client = await self._bus.wait_connected()
        inbox = client.new_inbox()
        arrived: asyncio.Queue[Msg] = asyncio.Queue()
        subscription = await subscribe(client, inbox, arrived.put)
        try:
            sequence = 1
            while len(chunks) < count:
                request = {"seq": sequence, "next_by_subj": subject, "batch": count, "max_bytes": BATCH_BYTES}
                await client.publish(f"$JS.API.DIRECT.GET.{STREAM_PAYLOADS}", json.dumps(request).encode(), reply=inbox)
                read = await _read_batch(arrived, chunks, until)
                if read is None:
                    return
                sequence = read + 1
        finally:
            if not client.is_closed:
                await subscription.unsubscribe()

    async def _find(self, name: str) -> dict[str, Any] | None:
        """Reads the information message; None when there is no such object or it was deleted."""
        answer = await self._bus.api(f"STREAM.MSG.GET.{STREAM_PAYLOADS}", {"last_by_subj": _information_subject(name)})
        if error := answer.get("error"):
            if error.get("err_code") in {_NO_MESSAGE, _STREAM_NOT_FOUND}:
                return None
            raise BusUnavailable(f"JetStream cannot read the object {name!r}: {error!r}")
        try:
            information: dict[str, Any] = json.loads(base64.b64decode(answer["message"]["data"]))
        except (KeyError, ValueError, binascii.Error) as error:
            raise BusUnavailable(f"the object {name!r} has unreadable information: {error!r}") from error
        return None if information.get("deleted") else information

    async def _purge(self, subject: str) -> None:
        answer = await self._bus.api(f"STREAM.PURGE.{STREAM_PAYLOADS}", {"filter": subject})
        error = answer.get("error")
        if error and error.get("err_code") != _STREAM_NOT_FOUND:
            raise BusUnavailable(f"JetStream cannot remove {subject!r}: {error!r}")

    async def _retried(
        self,
        failure: str,
        timeout: float,  # noqa: ASYNC109
        once: Callable[[float], Coroutine[Any, Any, Result]],
    ) -> Result:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        damaged = 0
        while True:
            try:
                async with asyncio.timeout_at(deadline):
                    await self._bus.wait_connected()
                    return await once(deadline)
            except TimeoutError:
                raise BusUnavailable(f"{failure} within {timeout!r} s") from None
            except _Damaged as error:
                damaged += 1
                if damaged >= DAMAGED_READS:
                    raise NotFound(f"{failure}: {error}") from error
                delay = RETRY_DELAY
            except Retry as retry:
                if loop.time() + RETRY_DELAY >= deadline:
                    raise BusUnavailable(f"{failure} within {timeout!r} s: {retry}") from retry
                delay = RETRY_DELAY
                if retry.stream_missing:
                    with contextlib.suppress(BusUnavailable):
                        await self._bus.ensure_streams()
            await asyncio.sleep(delay)


async def _read_batch(arrived: asyncio.Queue[Msg], chunks: list[bytes], until: float) -> int | None:
    """Collects the chunks of one request. Returns the last one's sequence number; None when there are no more."""
    loop = asyncio.get_running_loop()
    sequence = 0
    while True:
        try:
            async with asyncio.timeout_at(min(until, loop.time() + BATCH_TIMEOUT)):
                message = await arrived.get()
        except TimeoutError:
            raise Retry("the next chunk did not come") from None
        headers: dict[str, str] = message.headers or {}
        status = headers.get("Status") if not message.data else None
        if status == _END_OF_BATCH:
            return sequence or None
        if status == NO_RESPONDERS:
            raise Retry("the stream of the objects is gone", stream_missing=True)
        if status is not None:
            return None
        chunks.append(message.data)
        sequence = int(headers["Nats-Sequence"])


async def _digest(body: bytes) -> str:
    def compute() -> str:
        return "SHA-256=" + base64.urlsafe_b64encode(hashlib.sha256(body).digest()).decode()

    return await asyncio.to_thread(compute) if len(body) > HASH_IN_THREAD_BYTES else compute()


def _chunk_subject(nuid: str) -> str:
    return f"$O.{subjects.PAYLOAD_BUCKET}.C.{nuid}"


def _information_subject(name: str) -> str:
    return f"$O.{subjects.PAYLOAD_BUCKET}.M.{base64.urlsafe_b64encode(name.encode()).decode()}"
