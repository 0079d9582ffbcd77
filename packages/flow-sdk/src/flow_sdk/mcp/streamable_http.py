"""A server on the network: each message is a POST, each answer JSON or a stream of events."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import ssl
import time
from collections.abc import Generator, Iterator, Mapping
from typing import Any, Final

import httpx

from flow_sdk.mcp.messages import (
    MAX_MESSAGE_BYTES,
    Deadline,
    Message,
    is_answer,
    protocol_error,
    reply_to,
    too_large,
    unreachable,
)

MAX_RESUMES: Final = 100  # Of one answer: servers may end a stream and be asked for the rest.
DEFAULT_RETRY_MS: Final = 1_000
END_SECONDS: Final = 2.0  # For a session to be ended; servers end them by themselves, too.
SHOWN_BODY: Final = 300
_SESSION: Final = "mcp-session-id"
_EVENTS: Final = "text/event-stream"


class HttpTransport:
    """One session, over the container's way out.

    Args:
        headers: Of every request.
    """

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        self._url = url
        self._session: str | None = None
        self._protocol: str | None = None
        # Always through the proxy: NO_PROXY names the container's own loopback, and a server there is not in here.
        self._client = httpx.Client(
            headers={"Accept": f"application/json, {_EVENTS}", **headers},
            proxy=os.environ.get("HTTPS_PROXY"),
            trust_env=False,
            verify=_trust(url),
        )

    def exchange(self, request: Message, deadline: Deadline) -> Message:
        with self._post(request, deadline) as response:
            self._session = response.headers.get(_SESSION, self._session)
            if _media_type(response) == _EVENTS:
                return self._streamed(response, request, deadline)
            body = self._body(response, deadline)
        answer = _object(body)
        if answer is None or not (is_answer(answer, request) or (response.is_error and "error" in answer)):
            raise self._refusal(response, body)
        return answer

    def notify(self, message: Message, deadline: Deadline) -> None:
        with self._post(message, deadline) as response:
            if response.is_error:
                raise self._refusal(response, self._body(response, deadline))

    def speak(self, protocol: str) -> None:
        self._protocol = protocol

    def close(self) -> None:
        if self._session is not None:
            with contextlib.suppress(httpx.HTTPError):
                self._client.delete(self._url, headers=self._headers(), timeout=END_SECONDS)
        self._client.close()

    def _headers(self, message: Message | None = None) -> dict[str, str]:
        found: dict[str, str] = {}
        if self._session is not None:
            found[_SESSION] = self._session
        if self._protocol is not None:
            found["MCP-Protocol-Version"] = self._protocol
        if message is not None and "method" in message:
            found["Mcp-Method"] = message["method"]
            if message["method"] == "tools/call":
                found["Mcp-Name"] = _header_value(message["params"]["name"])
        return found

    @contextlib.contextmanager
    def _post(self, message: Message, deadline: Deadline) -> Generator[httpx.Response]:
        with self._asked("POST", deadline, self._headers(message), message) as response:
            yield response

    @contextlib.contextmanager
    def _asked(
        self, method: str, deadline: Deadline, headers: Mapping[str, str], message: Message | None = None
    ) -> Generator[httpx.Response]:
        try:
            with self._client.stream(
                method, self._url, json=message, headers=headers, timeout=deadline.remaining()
            ) as response:
                yield response
        except httpx.TimeoutException:
            raise deadline.passed() from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            said = str(error) or type(error).__name__
            raise unreachable(f"the MCP server cannot be reached at {_shown(self._url)}: {said}") from error

    def _body(self, response: httpx.Response, deadline: Deadline) -> bytes:
        body = bytearray()
        for chunk in response.iter_bytes():
            body += chunk
            if len(body) > MAX_MESSAGE_BYTES:
                raise too_large()
            deadline.remaining()
        return bytes(body)

    def _streamed(self, response: httpx.Response, request: Message, deadline: Deadline) -> Message:
        """The answer among the events. A stream that ends without it is asked for again, where that is possible."""
        stream = _Events()
        answer = self._answer_in(stream, response, request, deadline)
        for _ in range(MAX_RESUMES):
            if answer is not None:
                return answer
            if not stream.last_id:
                break
            time.sleep(min(stream.retry_ms / 1000, deadline.remaining()))
            headers = {**self._headers(), "Last-Event-ID": stream.last_id}
            with self._asked("GET", deadline, headers) as resumed:
                if resumed.is_error or _media_type(resumed) != _EVENTS:
                    raise self._refusal(resumed, self._body(resumed, deadline))
                answer = self._answer_in(stream, resumed, request, deadline)
        raise protocol_error(f"ended its stream without an answer to {request['method']!r}")

    def _answer_in(
        self, stream: _Events, response: httpx.Response, request: Message, deadline: Deadline
    ) -> Message | None:
        for data in stream.of(response, deadline):
            message = _object(data)
            if message is None:
                raise protocol_error(f"sent an event that is no message: {data[:SHOWN_BODY]!r}")
            if is_answer(message, request):
                return message
            reply = reply_to(message)
            if reply is not None:
                self.notify(reply, deadline)
        return None

    def _refusal(self, response: httpx.Response, body: bytes) -> Exception:
        text = body.decode(errors="replace").strip()
        said = f": {text[:SHOWN_BODY]}" if text else ""
        status = f"{response.status_code} {response.reason_phrase}".strip()
        match response.status_code:
            case 401 | 403 | 407:
                hint = "; are its headers and their secrets right?"
            case 404 | 405:
                hint = "; is it the address of an MCP server (streamable HTTP)?"
            case code if 300 <= code < 400:
                hint = f"; it moved to {response.headers.get('location', '')!r}: register that address"
            case _:
                hint = ""
        what = f"at {_shown(self._url)} answered {status}{hint}{said}"
        return unreachable(f"the MCP server {what}") if response.status_code >= 300 else protocol_error(what)


def _trust(url: str) -> ssl.SSLContext:
    """What is believed. To read the authorities takes 30 ms, which a server without TLS need not cost."""
    if not url.startswith("https:"):
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # Nobody.
    return ssl.create_default_context(cafile=os.environ.get("SSL_CERT_FILE"))


class _Events:
    """A stream of events. Source: HTML, "server-sent events"."""

    def __init__(self) -> None:
        self.last_id = ""
        self.retry_ms = DEFAULT_RETRY_MS

    def of(self, response: httpx.Response, deadline: Deadline) -> Iterator[bytes]:
        """The data of each event that has some."""
        data: list[str] = []
        size = 0
        with contextlib.suppress(httpx.RemoteProtocolError):  # Broken off: what came is as if it had ended there.
            for line in response.iter_lines():
                deadline.remaining()
                name, _, value = line.partition(":")
                value = value.removeprefix(" ")
                match name:
                    case "" if not line:
                        if any(data):  # One without is only there for its id.
                            yield "\n".join(data).encode()
                        data, size = [], 0
                    case "data":
                        data.append(value)
                        size += len(value)
                        if size > MAX_MESSAGE_BYTES:
                            raise too_large()
                    case "id" if "\0" not in value:
                        self.last_id = value
                    case "retry" if value.isascii() and value.isdecimal():
                        self.retry_ms = int(value[:9])
                    case _:
                        continue


def _media_type(response: httpx.Response) -> str:
    return response.headers.get("content-type", "").partition(";")[0].strip().lower()


def _object(body: bytes) -> Message | None:
    try:
        found: Any = json.loads(body)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None  # pyright: ignore[reportUnknownVariableType] - JSON.


def _header_value(text: str) -> str:
    """As the protocol writes what headers cannot carry as it is."""
    if text.isascii() and text.isprintable() and text == text.strip() and not text.startswith("=?base64?"):
        return text
    return f"=?base64?{base64.b64encode(text.encode()).decode()}?="


def _shown(url: str) -> str:
    """Without what may be secret."""
    return repr(url.partition("?")[0])
