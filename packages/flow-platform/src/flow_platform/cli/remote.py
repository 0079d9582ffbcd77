"""The management API as the commands use it. Executions themselves go through `flow_sdk.PlatformClient`."""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Iterator
from typing import Any, Final, cast

import httpx

from flow_platform.cli.connection import Connection
from flow_platform.domain.errors import FlowError
from flow_sdk.retry import RETRYABLE_STATUSES, SUBMIT, may_improve, parse_retry_after
from flow_sdk.wire.execution import EventDocument, StatusDocument

TIMEOUT_SECONDS: Final = 30.0
PUBLISH_TIMEOUT_SECONDS: Final = 900.0  # A publish answers when the environment is built.
PAGE: Final = 100
END: Final = "end"  # The last event of a stream; one that stops without it was cut.
STREAM_SECONDS: Final = 60.0  # A live stream says at least that it lives four times in this time.
SILENCE_SECONDS: Final = 0.5  # No event that is stored already comes later than this after the one before.

HINTS: Final = {
    "token_expired": "the token is too old; flow token makes a new one",
    "token_invalid": "the token is not one of this platform; flow token makes one",
    "unauthenticated": "give --token or FLOW_TOKEN; flow token makes one",
}


def split_hint(message: str) -> tuple[str, str]:
    """A message of the platform without the hint at its end, and that hint."""
    found = re.fullmatch(r"(.*) \(hint: (.*)\)", message, re.DOTALL)
    return (found[1], found[2]) if found else (message, "")


class Refused(FlowError):
    """The platform's answer to a request that it did not fulfil."""

    def __init__(self, status: int, body: dict[str, Any]) -> None:
        code = str(body.get("code") or f"http_{status}")
        message = str(body.get("message") or f"the platform answered {status}")
        message, hint = split_hint(message)
        super().__init__(message, code=code, details=body.get("details") or [], hint=HINTS.get(code, hint))
        self.status = status


class Remote:
    """One connection to one workspace. A context manager."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._client = httpx.Client(
            base_url=connection.base_url,
            headers={"Authorization": f"Bearer {connection.token}"},
            timeout=TIMEOUT_SECONDS,
            trust_env=False,  # A proxy meant for the internet is no way to one's own platform.
        )

    def __enter__(self) -> Remote:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def get(self, path: str, *, hold_seconds: float = 0, **params: Any) -> Any:
        """GET below the workspace; parameters that are None are left out.

        Args:
            path: Below the workspace, or absolute.
            hold_seconds: The answer may wait that long for something new (`Prefer: wait`, RFC 7240).
        """
        given = {key: str(value) for key, value in params.items() if value is not None}
        headers = {"Prefer": f"wait={hold_seconds:g}"} if hold_seconds else None
        return self._send(self._client.build_request("GET", self._url(path), params=given, headers=headers))[1]

    def post(self, path: str, body: Any, timeout_seconds: float = TIMEOUT_SECONDS) -> tuple[int, Any]:
        """POST below the workspace, or to an absolute path. Returns status and answer."""
        return self._send(self._client.build_request("POST", self._url(path), json=body, timeout=timeout_seconds))

    def put(self, path: str, body: Any, timeout_seconds: float = TIMEOUT_SECONDS) -> Any:
        return self._send(self._client.build_request("PUT", self._url(path), json=body, timeout=timeout_seconds))[1]

    def delete(self, path: str, **params: Any) -> None:
        given = {key: str(value) for key, value in params.items() if value is not None}
        self._answered(self._client.build_request("DELETE", self._url(path), params=given))

    def patch(self, path: str, body: Any) -> dict[str, Any]:
        """PATCH below the workspace."""
        return self._send(self._client.build_request("PATCH", self._url(path), json=body))[1]

    def submit(self, path: str, body: Any) -> dict[str, Any]:
        """POST below the workspace, repeated where that helps: under one key, so that it is done once."""
        content = json.dumps(body, allow_nan=False).encode()  # ASCII: whatever text is in the input can be sent.
        headers = {"Idempotency-Key": uuid.uuid4().hex, "Content-Type": "application/json"}
        attempt = 0
        while True:
            pause = 0.0
            try:
                response = self._client.post(self._url(path), content=content, headers=headers)
            except httpx.HTTPError as error:
                problem: FlowError = self._unreachable(error)
                again = may_improve(error)
            else:
                if response.is_success:
                    return _object(response)
                problem, again = _refusal(response), response.status_code in RETRYABLE_STATUSES
                pause = parse_retry_after(response.headers.get("Retry-After")) or 0.0
            if not again or attempt >= SUBMIT.retries:
                raise problem
            time.sleep(SUBMIT.pause(attempt, pause))
            attempt += 1

    def pages(self, path: str, limit: int | None = None, **params: Any) -> Iterator[dict[str, Any]]:
        """All items of a list, up to `limit`."""
        cursor: str | None = None
        count = 0
        while True:
            size = PAGE if limit is None else min(PAGE, limit - count)
            page = self.get(path, cursor=cursor, limit=size, **params)
            for item in page["items"]:
                yield item
                count += 1
            cursor = page.get("next_cursor")
            if not cursor or (limit is not None and count >= limit):
                return

    def status(self, execution_id: str, hold_seconds: float = 0) -> StatusDocument:
        return StatusDocument.model_validate(self.get(f"/executions/{execution_id}", hold_seconds=hold_seconds))

    def executions(self, limit: int | None = None, **params: Any) -> Iterator[StatusDocument]:
        """Newest first, without payloads."""
        return (StatusDocument.model_validate(item) for item in self.pages("/executions", limit, **params))

    def cancel(self, execution_id: str) -> StatusDocument:
        return StatusDocument.model_validate(self.post(f"/executions/{execution_id}/cancel", {})[1])

    def rings(self) -> dict[str, str]:
        """Name -> id."""
        answer = self.get("/rings")
        return {ring["name"]: ring["id"] for ring in answer["items"]}

    def ring_id(self, name_or_id: str) -> str:
        rings = self.rings()
        if name_or_id in rings.values():
            return name_or_id
        if name_or_id not in rings:
            raise FlowError(f"no ring {name_or_id!r}: expected one of {', '.join(sorted(rings))}")
        return rings[name_or_id]

    def events(self, execution_id: str, after: int = 0, *, follow: bool = True) -> Iterator[EventDocument]:
        """The events of an execution from a position on, as they come, until its last one.

        A cut connection is taken up again where it was. Not followed, it ends at the first silence.
        """
        path = self._url(f"/executions/{execution_id}/events")
        timeout = httpx.Timeout(TIMEOUT_SECONDS, read=STREAM_SECONDS if follow else SILENCE_SECONDS)
        more = True
        while more:
            headers = {"Accept": "text/event-stream", "Last-Event-ID": str(after)}
            try:
                with self._client.stream("GET", path, headers=headers, timeout=timeout) as response:
                    _check(response)
                    for name, data in _server_sent(response.iter_lines()):
                        if name == END:
                            return
                        event = EventDocument.model_validate_json(data)
                        after = max(after, event.position)
                        yield event
            except (httpx.ReadError, httpx.ReadTimeout, httpx.RemoteProtocolError):
                more = follow
            except httpx.HTTPError as error:
                raise self._unreachable(error) from error

    def _url(self, path: str) -> str:
        return path if path.startswith("/api/") else self.connection.workspace_path + path

    def _send(self, request: httpx.Request) -> tuple[int, Any]:
        response = self._answered(request)
        return response.status_code, _object(response)

    def _answered(self, request: httpx.Request) -> httpx.Response:
        try:
            response = self._client.send(request)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error
        _check(response)
        return response

    def _unreachable(self, error: httpx.HTTPError) -> FlowError:
        return unreachable(self.connection.base_url, error)


def unreachable(base_url: str, error: Exception) -> FlowError:
    if isinstance(error, httpx.TimeoutException):
        return FlowError(f"{base_url} did not answer in time", hint="is it overloaded? its log is in DATA/logs")
    if isinstance(error, httpx.UnsupportedProtocol | httpx.InvalidURL):
        return FlowError(f"{base_url!r} is no address: expected one such as http://127.0.0.1:8420")
    return FlowError(f"{base_url} cannot be reached: {error}", hint="start the platform with: flow up")


def _check(response: httpx.Response) -> None:
    if not response.is_success:
        response.read()
        raise _refusal(response)


def _refusal(response: httpx.Response) -> Refused:
    try:
        body = response.json()
    except ValueError:
        body = {}
    return Refused(response.status_code, cast("dict[str, Any]", body) if isinstance(body, dict) else {})


def _object(response: httpx.Response) -> dict[str, Any]:
    try:
        body = response.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise FlowError(f"{response.url} answered something that is no JSON object", hint="is it the address of Flow?")
    return cast("dict[str, Any]", body)


def _server_sent(lines: Iterator[str]) -> Iterator[tuple[str, str]]:
    """Name and data of server-sent events; comments (keep-alives) are skipped. Source: HTML standard, 9.2."""
    name, data = "message", list[str]()
    for line in lines:
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            name = value
        elif field == "data":
            data.append(value)
        elif line == "":
            if data:
                yield name, "\n".join(data)
            name, data = "message", []
