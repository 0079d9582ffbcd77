"""Requests that stay open: held reads, streams of events and of models. They end when their credential does.

A credential is verified when a request comes. One that is answered at once needs no more; for one that is still open a
moment later it is looked at again whenever it may have ended: an execution's when its attempt ends, everybody's when
something is revoked, and every few seconds besides. That a token expires ends no request: it was good when it came.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any, Final

from flow_platform.api.context import RequestContext
from flow_platform.domain import errors
from flow_platform.engine.credentials import CREDENTIALS
from flow_platform.engine.executions import check_token_is_live
from flow_platform.telemetry import REQUEST_ID

if TYPE_CHECKING:
    from flow_platform.domain.credential import Credential
    from flow_platform.engine.service import Engine

logger = logging.getLogger(__name__)

OPEN_AFTER_SECONDS: Final = 0.25  # Nearly all requests are answered before: they cost a timer, and nothing else.
LOOK_AGAIN_SECONDS: Final = 5.0


class OpenRequest:
    """Watches one request. A context manager: what happens within is cancelled when the credential has ended.

    Attributes:
        ended: Why; whoever is cancelled looks here.
    """

    def __init__(self, engine: Engine, context: RequestContext) -> None:
        self._engine = engine
        self._context = context
        self._task: asyncio.Task[Any] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._watching: asyncio.Task[None] | None = None
        self.ended: errors.Unauthenticated | None = None

    def __enter__(self) -> OpenRequest:
        self._task = asyncio.current_task()
        self._timer = asyncio.get_running_loop().call_later(OPEN_AFTER_SECONDS, self._start)
        return self

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._watching is not None:
            self._watching.cancel()

    def _start(self) -> None:
        if self._context.credential is not None:
            self._watching = asyncio.create_task(self._watch(self._context.credential), name="open-request")

    async def _watch(self, credential: Credential) -> None:
        keys = [CREDENTIALS] + ([credential.principal.execution_id] if credential.principal.execution_id else [])
        with self._engine.wakeups.subscribe(*keys) as waiter:
            while True:
                try:
                    await check_is_believed(self._engine, credential)
                except errors.Unauthenticated as error:
                    self._end(error)
                    return
                except errors.FlowError as error:  # The database is away: nothing is known, and soon asked again.
                    logger.info("an open request was not looked at: %s", error)
                await waiter.wait(LOOK_AGAIN_SECONDS)

    def _end(self, error: errors.Unauthenticated) -> None:
        self.ended = error
        logger.info("an open request ends with its credential", extra={REQUEST_ID: self._context.request_id})
        if self._task is not None:
            self._task.cancel()


@contextlib.contextmanager
def as_refusal(request: OpenRequest) -> Any:
    """Raises what a request was ended with, in the place of its cancellation."""
    try:
        yield
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if request.ended is None or task is None or task.uncancel() > 0:
            raise
        raise request.ended from None


async def check_is_believed(engine: Engine, credential: Credential) -> None:
    """Whether a credential that was good when its request came still is.

    Raises:
        Unauthenticated: Its attempt has ended, it was revoked, or its key was.
    """
    principal = credential.principal
    if credential.api_key_id is not None:
        await engine.api_keys.check_exists(credential)
        return
    engine.tokens.check(credential, engine.clock.now())
    if principal.execution_id is not None:
        await engine.store.read(lambda tx: check_token_is_live(tx, principal))
