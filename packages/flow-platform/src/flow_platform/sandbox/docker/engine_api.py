"""The engine's HTTP interface, over its unix socket: only the calls that we make."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import AsyncIterable, Mapping
from http import HTTPStatus
from typing import Any, Final

import httpx

from flow_platform.domain.errors import SandboxUnavailable

SCHEME: Final = "unix://"
DEFAULT_HOST: Final = "unix:///var/run/docker.sock"
HINT: Final = "start it (`systemctl start docker`), or name its socket in FLOW_DOCKER_HOST"

_ANSWER_SECONDS: Final = 30.0
_LOAD_SECONDS: Final = 300.0
_KILL_SECONDS: Final = 10.0
_SAID_BYTES: Final = 2000
_REASON_CHARACTERS: Final = 500


class EngineRefused(SandboxUnavailable):
    """The engine answered, and said no.

    Attributes:
        status: Of the HTTP answer.
    """

    def __init__(self, message: str, status: int, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status


class EngineApi:
    """One engine. Calls may run at the same time.

    Args:
        host: `unix://` and the path of its socket.

    Raises:
        SandboxUnavailable: The engine is on another machine: containers of it could not be reached.
    """

    def __init__(self, host: str) -> None:
        if not host.startswith(SCHEME):
            raise SandboxUnavailable(
                f"FLOW_DOCKER_HOST={host!r}: expected {SCHEME} and the path of a socket of this machine",
                hint="an engine on another machine cannot be used: run a runner there instead",
            )
        self.path = host.removeprefix(SCHEME)
        self._client = httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(uds=self.path, limits=httpx.Limits(max_keepalive_connections=4)),
            base_url="http://engine",
            timeout=_ANSWER_SECONDS,
            trust_env=False,
        )

    async def close(self) -> None:
        await self._client.aclose()

    async def version(self) -> dict[str, Any]:
        return (await self._ask("GET", "/version")).json()

    async def info(self) -> dict[str, Any]:
        return (await self._ask("GET", "/info")).json()

    async def image(self, name: str) -> dict[str, Any] | None:
        """None: the engine has none of that name."""
        try:
            return (await self._ask("GET", f"/images/{name}/json")).json()
        except EngineRefused as refused:
            if refused.status == HTTPStatus.NOT_FOUND:
                return None
            raise

    async def load_image(self, archive: AsyncIterable[bytes]) -> None:
        headers = {"Content-Type": "application/x-tar"}
        await self._ask("POST", "/images/load", {"quiet": "1"}, archive, headers, seconds=_LOAD_SECONDS)

    async def create(self, name: str, body: Mapping[str, Any]) -> str:
        """Makes a container; returns its id."""
        headers = {"Content-Type": "application/json"}
        answer = await self._ask("POST", "/containers/create", {"name": name}, json.dumps(body).encode(), headers)
        return answer.json()["Id"]

    async def start(self, container: str) -> None:
        await self._ask("POST", f"/containers/{container}/start")

    async def inspect(self, container: str) -> dict[str, Any]:
        return (await self._ask("GET", f"/containers/{container}/json")).json()

    async def update(self, container: str, resources: Mapping[str, Any]) -> None:
        headers = {"Content-Type": "application/json"}
        body = json.dumps(resources).encode()
        await self._ask("POST", f"/containers/{container}/update", None, body, headers)

    async def kill(self, container: str, signal: str) -> None:
        """Does nothing to a container that runs no more."""
        try:
            await self._ask("POST", f"/containers/{container}/kill", {"signal": signal}, seconds=_KILL_SECONDS)
        except EngineRefused as refused:
            if refused.status not in (HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT):
                raise

    async def wait(self, container: str, within_seconds: float) -> int:
        """Its exit code, once it has ended."""
        answer = await self._ask("POST", f"/containers/{container}/wait", seconds=within_seconds)
        return int(answer.json()["StatusCode"])

    async def remove(self, container: str) -> None:
        """With whatever still runs in it. Does nothing when it is gone, or is being removed."""
        try:
            await self._ask("DELETE", f"/containers/{container}", {"force": "1", "v": "1"})
        except EngineRefused as refused:
            if refused.status not in (HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT):
                raise

    async def list(self, label: str) -> list[dict[str, Any]]:
        """All containers with that label, whatever their state."""
        filters = json.dumps({"label": [label]})
        return (await self._ask("GET", "/containers/json", {"all": "1", "filters": filters})).json()

    async def said(self, container: str) -> str:
        """The end of what its first program wrote before the runner gave it other streams."""
        options = {"stdout": "1", "stderr": "1", "tail": "40"}
        answer = await self._ask("GET", f"/containers/{container}/logs", options)
        return _plain(answer.content)[-_SAID_BYTES:].strip()

    async def _ask(
        self,
        method: str,
        path: str,
        options: Mapping[str, str] | None = None,
        content: bytes | AsyncIterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        seconds: float = _ANSWER_SECONDS,
    ) -> httpx.Response:
        try:
            # The client's own limits are for each read; this one is for the whole.
            async with asyncio.timeout(seconds):
                answer = await self._client.request(
                    method, path, params=options, content=content, headers=headers, timeout=seconds
                )
        except (httpx.HTTPError, OSError, TimeoutError) as exc:
            what = str(exc) or type(exc).__name__
            message = f"the container engine at {SCHEME}{self.path} does not answer {method} {path}: {what}"
            raise SandboxUnavailable(message, hint=HINT) from exc
        if answer.is_success or answer.status_code == HTTPStatus.NOT_MODIFIED:
            return answer
        said = _message(answer)
        raise EngineRefused(
            f"the container engine refused {method} {path}: {answer.status_code} {said}", answer.status_code
        )


def _message(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["message"])[-_REASON_CHARACTERS:]
    except (ValueError, KeyError, TypeError):
        return answer.text[:_SAID_BYTES]


def _plain(stream: bytes) -> str:
    """Without the header of 8 bytes that stands before each piece of the two streams."""
    text = bytearray()
    position = 0
    while position + 8 <= len(stream):
        (length,) = struct.unpack_from(">I", stream, position + 4)
        text += stream[position + 8 : position + 8 + length]
        position += 8 + length
    return text.decode(errors="replace")
