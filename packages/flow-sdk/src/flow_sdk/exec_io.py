"""The execution's own input, output, events and status over JetStream. Source: the client contract, section 3."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from flow_sdk import activity
from flow_sdk.encoding import decode, encode_message
from flow_sdk.errors import (
    PlatformClientError,
    PlatformConnectionError,
    PlatformPermissionError,
    PlatformValidationError,
    error_class,
)
from flow_sdk.http import Http
from flow_sdk.nats_link import REQUEST_SECONDS, Link, NatsLink, is_permission_error
from flow_sdk.retry import SUBMIT, Deadline, Retry
from flow_sdk.wire import subjects

INPUT_SECONDS: Final = 60.0
MESSAGE_ID_HEADER: Final = "Nats-Msg-Id"


class ExecIo:
    """The NATS side of a client.

    Attributes:
        input_seconds: How long a fetch waits for the input.
    """

    def __init__(self, nats_url: str | None, http: Http, execution_id: str | None) -> None:
        self._nats_url = nats_url
        self._http = http
        self._name = f"flow-sdk {execution_id or ''}".strip()
        self._sequence = itertools.count(1)
        self._link: NatsLink | None = None
        self.input_seconds = INPUT_SECONDS
        self.retry: Retry = SUBMIT

    async def fetch_input(self, execution_id: str) -> dict[str, Any]:
        link = self._connected()
        subject = f"{subjects.EXEC_INPUT}.{execution_id}"
        deadline = Deadline.after(self.input_seconds)
        attempt = 0
        while True:
            try:
                with activity.CURRENT.request():
                    content = await _take_one(link, subject, deadline)
                break
            except PlatformConnectionError as exc:
                pause = self.retry.pause(min(attempt, 3), None)
                if pause >= deadline.remaining():
                    raise PlatformConnectionError(
                        f"no input for execution {execution_id!r} came within {self.input_seconds:g} s: {exc}"
                    ) from exc
            attempt += 1
            await asyncio.sleep(pause)
        message = decode(content, f"The input of execution {execution_id!r}")
        if not isinstance(message, dict):
            raise PlatformClientError(f"The input of execution {execution_id!r} is not a JSON object: {message!r:.200}")
        await self.publish_status(execution_id, "running")
        defaults: dict[str, Any] = {"input_data": {}, "session_id": None, "messages": [], "state": {}}
        return {key: message.get(key, default) for key, default in defaults.items()}  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]

    async def push_output(self, deployment_id: str | None, execution_id: str, result: Mapping[str, Any]) -> None:
        payload = {"execution_id": execution_id, "deployment_id": deployment_id, **result, "timestamp": _timestamp()}
        await self._publish(subjects.EXEC_OUTPUT, execution_id, payload)

    async def push_event(self, execution_id: str, event_type: str, event_data: Any) -> None:
        payload = {
            "execution_id": execution_id,
            "sequence": next(self._sequence),
            "event_type": event_type,
            "event_data": event_data,
            "timestamp": _timestamp(),
        }
        await self._publish(subjects.EXEC_EVENTS, execution_id, payload)

    async def publish_status(self, execution_id: str, status: str) -> None:
        payload = {"execution_id": execution_id, "status": status, "timestamp": _timestamp()}
        await self._publish(subjects.EXEC_STATUS, execution_id, payload)

    async def close(self) -> None:
        """Drains the connection if there is one. A later use opens another."""
        link, self._link = self._link, None
        if link is not None:
            await link.close()

    def _connected(self) -> NatsLink:
        if self._nats_url is None:
            raise PlatformClientError("NATS_URL not configured. Set NATS_URL environment variable for execution I/O.")
        if self._link is None:
            self._link = NatsLink(self._nats_url, self._http.credentials, self._http.refresh, self._name)
        return self._link

    async def _publish(self, subject: str, execution_id: str, payload: Mapping[str, Any]) -> None:
        """Publishes and waits for JetStream's acknowledgement; repeated under one message id, stored once."""
        link = self._connected()
        content = encode_message(payload)
        headers = {MESSAGE_ID_HEADER: uuid.uuid4().hex}
        attempt = 0
        while True:
            try:
                with activity.CURRENT.request():
                    return await _publish_once(link, f"{subject}.{execution_id}", content, headers)
            except PlatformConnectionError:
                if attempt >= self.retry.retries:
                    raise
            await asyncio.sleep(self.retry.pause(attempt, None))
            attempt += 1


async def _take_one(nats_link: NatsLink, subject: str, deadline: Deadline) -> bytes:
    """Takes one message, acknowledges it, and gives the subscription back in any case."""
    from nats import errors as nats_errors
    from nats.js.api import ConsumerConfig, DeliverPolicy

    cancels = _cancels()
    async with nats_link.use() as link:
        try:
            config = ConsumerConfig(deliver_policy=DeliverPolicy.ALL)
            subscription = await link.jetstream.subscribe(subject, config=config)
            try:
                # Until Python 3.12, `wait_for` inside nats-py loses a cancellation that comes together with an answer
                # (https://github.com/python/cpython/issues/86296). The wait that follows is long: look again.
                if _cancels() > cancels:
                    raise asyncio.CancelledError
                message = await subscription.next_msg(timeout=deadline.remaining())
                await message.ack()
            finally:
                with contextlib.suppress(nats_errors.Error):
                    await subscription.unsubscribe()
        except (nats_errors.Error, OSError, TimeoutError) as exc:
            raise _translated(link, f"reading {subject}", exc) from exc
    return message.data


async def _publish_once(nats_link: NatsLink, subject: str, content: bytes, headers: dict[str, str]) -> None:
    from nats import errors as nats_errors

    async with nats_link.use() as link:
        if len(content) > link.nats.max_payload:
            raise PlatformValidationError(
                f"a message of {len(content)} bytes to {subject} is too large: expected at most "
                f"{link.nats.max_payload} bytes",
                code="payload_too_large",
            )
        try:
            await link.jetstream.publish(subject, content, timeout=REQUEST_SECONDS, headers=headers)
        except (nats_errors.Error, OSError, TimeoutError, ValueError) as exc:
            raise _translated(link, f"publishing {subject}", exc) from exc


def _translated(link: Link, doing: str, exc: Exception) -> PlatformClientError:
    """An error of NATS as one of ours: a connection error where the same may go better next time."""
    from nats.js.errors import APIError

    if is_permission_error(link):
        return PlatformPermissionError(f"{doing} was refused: {link.refused}", status_code=403)
    if isinstance(exc, APIError) and exc.code is not None and exc.code < 500:
        return error_class(exc.code)(
            f"{doing} was refused by JetStream: {exc.description}", status_code=exc.code, code=str(exc.err_code)
        )
    return PlatformConnectionError(f"{doing} had no answer: {type(exc).__name__}: {exc}")


def _cancels() -> int:
    task = asyncio.current_task()
    return task.cancelling() if task is not None else 0


def _timestamp() -> str:
    return datetime.fromtimestamp(time.time(), UTC).isoformat()  # noqa: TID251 - the contract's field is wall time.
