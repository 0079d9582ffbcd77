"""The sandboxes of one runner: one for each isolation that it offers."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable

from flow_platform.domain.errors import SandboxUnavailable
from flow_platform.sandbox.base import Sandbox
from flow_sdk.wire.isolation import DEFAULT, Isolation

logger = logging.getLogger(__name__)


class Sandboxes:
    """Opened and closed together. A rung that nobody asks for holds no templates and no waiting containers."""

    def __init__(self, sandboxes: Iterable[Sandbox]) -> None:
        found = {Isolation(sandbox.name): sandbox for sandbox in sandboxes}
        self._sandboxes = dict(sorted(found.items()))
        if not self._sandboxes:
            raise ValueError("expected at least one sandbox")

    @property
    def offered(self) -> tuple[Isolation, ...]:
        """The weakest first."""
        return tuple(self._sandboxes)

    @property
    def builder(self) -> Sandbox:
        """Where environments are built: in the default one, or the weakest of those that are stronger."""
        stronger = [sandbox for isolation, sandbox in self._sandboxes.items() if isolation >= DEFAULT]
        return stronger[0] if stronger else self._sandboxes[Isolation.PROCESS]

    def get(self, isolation: Isolation) -> Sandbox:
        """Exactly that one: a stronger one may lack what the component needs, a weaker one is not what was promised.

        Raises:
            SandboxUnavailable: It is not offered here.
        """
        sandbox = self._sandboxes.get(isolation)
        if sandbox is None:
            offered = ", ".join(self._sandboxes)
            raise SandboxUnavailable(f"this runner does not offer isolation {isolation.value!r}, only {offered}")
        return sandbox

    async def open(self) -> None:
        """Opens all, or none.

        Raises:
            SandboxUnavailable: One of them does not work on this machine; the message names it.
        """
        try:
            for isolation, sandbox in self._sandboxes.items():
                await _open(isolation, sandbox)
        except BaseException:
            await self.close()
            raise
        logger.info("sandboxes are open", extra={"isolations": ",".join(self._sandboxes)})

    async def close(self) -> None:
        ends = await asyncio.gather(*(one.close() for one in self._sandboxes.values()), return_exceptions=True)
        for error in ends:
            if isinstance(error, asyncio.CancelledError):
                raise error
            if isinstance(error, BaseException):
                logger.error("a sandbox could not be closed", exc_info=error)


async def _open(isolation: Isolation, sandbox: Sandbox) -> None:
    try:
        await sandbox.open()
    except SandboxUnavailable as error:
        with contextlib.suppress(OSError):
            await sandbox.close()
        raise SandboxUnavailable(
            f"isolation {isolation.value!r} is not available: {error.message}", hint=error.hint
        ) from error
