"""The NATS connection of a client: made at the first use, made anew when the token changed, drained at the end.

nats-py is imported here and nowhere else, at the first use: a container that never touches NATS pays nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from flow_sdk import telemetry
from flow_sdk.credentials import Credentials
from flow_sdk.errors import PlatformAuthError, PlatformConnectionError

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.js import JetStreamContext

CONNECT_SECONDS: Final = 5
DRAIN_SECONDS: Final = 10
REQUEST_SECONDS: Final = 5.0
"""What nats-py allows for one JetStream request."""

_AUTHORIZATION: Final = "authorization violation"
_PERMISSIONS: Final = "permissions violation"

Refresh = Callable[[str, PlatformAuthError], Awaitable[None]]
"""Replaces an expired token, or raises the given error."""


@dataclass
class Link:
    """One connection, used by any number of calls at the same time.

    Attributes:
        token: The platform's token when it was made.
        users: Calls that use it now; it is drained only after the last.
        refused: What the server refused, as it said it; permission errors come in no other way.
    """

    nats: Client
    jetstream: JetStreamContext
    token: str
    users: int = 0
    retired: bool = False
    refused: str = ""

    async def drain(self) -> None:
        from nats import errors as nats_errors

        try:
            async with asyncio.timeout(DRAIN_SECONDS + 1):
                if self.nats.is_connected:
                    await self.nats.drain()
                else:
                    await self.nats.close()
        except (nats_errors.Error, OSError, TimeoutError) as exc:
            telemetry.warn("NATS connection did not drain", reason=repr(exc))


class NatsLink:
    """Hands out the current connection.

    Args:
        url: Says where, and holds the credential; several servers with commas between.
        credentials: When the credential in the URL is the platform's token, a newer one takes its place.
        refresh: Asked once when the server refuses the token.
        name: Shown in the server's own list of connections.
    """

    def __init__(self, url: str, credentials: Credentials, refresh: Refresh, name: str) -> None:
        self._servers = [server.strip() for server in url.split(",")]
        self._credentials = credentials
        self._refresh = refresh
        self._name = name
        self._link: Link | None = None
        self._opening = asyncio.Lock()
        user, secret = _userinfo(self._servers[0])
        self._user = user
        self._follows_token = secret is not None and (secret == credentials.token or _is_jwt(secret))

    @contextlib.asynccontextmanager
    async def use(self) -> AsyncGenerator[Link]:
        """A connection with the current token, kept open while it is in use.

        Raises:
            PlatformConnectionError: The server cannot be reached.
            PlatformAuthError: It refuses the credential.
        """
        link = await self._current()
        link.users += 1
        try:
            yield link
        finally:
            link.users -= 1
            if link.retired and link.users == 0:
                await link.drain()

    async def close(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            await link.drain()

    async def _current(self) -> Link:
        async with self._opening:
            link = self._link
            if link is not None and self._is_good(link):
                return link
            self._link = await self._open_with_refresh()
            if link is not None:
                link.retired = True
                if link.users == 0:
                    await link.drain()
            return self._link

    def _is_good(self, link: Link) -> bool:
        if link.nats.is_closed or link.nats.is_draining or _AUTHORIZATION in link.refused:
            return False
        return not self._follows_token or link.token == self._credentials.token

    async def _open_with_refresh(self) -> Link:
        token = self._credentials.token
        try:
            return await self._open()
        except PlatformAuthError as exc:
            if not self._follows_token:
                raise
            await self._refresh(token, exc)
        return await self._open()

    async def _open(self) -> Link:
        """Connects once; from then on the connection restores itself for ever."""
        from nats import errors as nats_errors
        from nats.aio.client import Client
        from nats.js import JetStreamContext

        link: Link | None = None
        refusals: list[str] = []

        async def on_error(exc: Exception) -> None:
            refusals.append(str(exc).lower())
            if link is not None and ("violation" in refusals[-1]):
                link.refused = refusals[-1]
            telemetry.debug("NATS connection error", reason=repr(exc))

        options: dict[str, Any] = {
            "servers": self._servers,
            "name": self._name,
            "error_cb": on_error,
            "connect_timeout": CONNECT_SECONDS,
            "drain_timeout": DRAIN_SECONDS,
            "allow_reconnect": False,  # The first connect must say what is wrong, not try for ever.
            "max_reconnect_attempts": 1,
            "reconnect_time_wait": 0.2,
        } | self._token_options()
        token = self._credentials.token
        client = Client()
        try:
            try:
                await client.connect(**options)
            finally:
                if client.is_connecting:  # Refused or cancelled half-way: nats-py would keep the socket.
                    await client.close()
        except (nats_errors.Error, OSError, TimeoutError, ValueError) as exc:
            reason = refusals[-1] if refusals else str(exc)
            if _AUTHORIZATION in f"{exc} {reason}".lower():
                raise PlatformAuthError(f"NATS refused the credential: {exc}", status_code=401) from exc
            raise PlatformConnectionError(f"NATS at {self._where()} cannot be reached: {reason or exc!r}") from exc
        client.options["allow_reconnect"] = True
        client.options["max_reconnect_attempts"] = -1
        link = Link(client, JetStreamContext(client, timeout=REQUEST_SECONDS), token)
        return link

    def _token_options(self) -> dict[str, Any]:
        """Reconnects ask anew, so they use the token of that time."""
        if not self._follows_token:
            return {}
        if self._user is None:
            return {"token": lambda: self._credentials.token}
        return {"user": self._user, "password": lambda: self._credentials.token}

    def _where(self) -> str:
        """The servers without their credentials."""
        return ", ".join(repr(server.rpartition("@")[2].rpartition("://")[2]) for server in self._servers)


def _userinfo(server: str) -> tuple[str | None, str | None]:
    """User and secret of a NATS URL: `nats://USER:SECRET@HOST` or `nats://SECRET@HOST`."""
    parts = urlsplit(server if "://" in server else f"nats://{server}")
    if parts.password is None:
        return None, parts.username
    return parts.username, parts.password


def _is_jwt(secret: str) -> bool:
    """Source: RFC 7519: three parts; the first is a JSON object, so its base64 begins with `eyJ`."""
    return secret.startswith("eyJ") and secret.count(".") == 2


def is_permission_error(link: Link) -> bool:
    return _PERMISSIONS in link.refused
