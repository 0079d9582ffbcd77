"""The token of a client: used by HTTP and NATS, replaced whenever the platform hands out a newer one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from flow_sdk import telemetry

TokenCallback = Callable[[str], Awaitable[None]]


class Credentials:
    """Holds the current token and tells who wants to know of a new one.

    Args:
        token: The first one.
        on_change: Called with each new token before anything else happens.
        on_refresh: The program's own callback; awaited, its errors are logged.

    Attributes:
        was_replaced: The program itself set another one.
    """

    def __init__(self, token: str, on_change: Callable[[str], None], on_refresh: TokenCallback | None) -> None:
        self._token = token
        self._on_change = on_change
        self._on_refresh = on_refresh
        self._refreshing = asyncio.Lock()
        self.was_replaced = False

    @property
    def token(self) -> str:
        return self._token

    def replace(self, token: str) -> None:
        """Uses another token from now on, without telling the program: it is the program that says so."""
        self.was_replaced = True
        self._use(token)

    async def adopt(self, token: str) -> None:
        """Uses a newer token from now on, and tells the program."""
        if token == self._token:
            return
        self._use(token)
        telemetry.info("platform token refreshed")
        if self._on_refresh is None:
            return
        try:
            await self._on_refresh(token)
        except Exception as exc:  # noqa: BLE001 - the program's own code; its failure is not the call's.
            telemetry.error("on_auth_token_refresh raised", exc)

    async def renew(self, expired: str, fetch: Callable[[], Awaitable[str]]) -> None:
        """Replaces an expired token; calls at the same time share one refresh.

        Args:
            expired: The token that was refused.
            fetch: Asks the platform for a new one.
        """
        async with self._refreshing:
            if self._token == expired:
                await self.adopt(await fetch())

    def _use(self, token: str) -> None:
        self._token = token
        self._on_change(token)
