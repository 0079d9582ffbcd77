"""One execution as the NATS gateway sees it: its input, its credential, and where its publications go.

The gateway serves only connections that were accepted inside this execution's own network namespace, so the execution
is known before any token is read; the token is the second lock. It accepts the token that the attempt was given, and a
newer one for the same execution when the runner was composed with a `verify` callback that checks its signature.
Nothing is ever believed from an unverified token.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable

from flow_platform.bus.sessions import DenialCode, MessageKind, Tried
from flow_platform.runner.intake import Intake, Refused
from flow_sdk.wire.execution import ErrorDocument

VerifyToken = Callable[[str, str], bool]
"""Given a token and an execution id: whether the token is genuine, in force, and for that execution."""

OnDenied = Callable[[Tried, DenialCode, str], None]


class ExecutionSession:
    """Implements the gateway's session.

    Args:
        token: The credential of the attempt.
        on_output: Told when the container pushed its result.
        on_refused: Told the error with which the attempt ends, when its output cannot be taken. A refused event is
            only the caller's error.
        on_denied: Told what the gateway did not allow: what was tried, why not, and the subject.
    """

    def __init__(
        self,
        execution_id: str,
        token: str,
        intake: Intake,
        input_body: Callable[[], Awaitable[bytes]],
        on_output: Callable[[], None],
        on_refused: Callable[[ErrorDocument], None],
        verify: VerifyToken | None,
        on_denied: OnDenied,
    ) -> None:
        self.execution_id = execution_id
        self._token = token
        self._intake = intake
        self._input_body = input_body
        self._on_output = on_output
        self._on_refused = on_refused
        self._verify = verify
        self._on_denied = on_denied
        self._sequence = 0

    def check(self, token: str) -> bool:
        if hmac.compare_digest(token.encode(), self._token.encode()):
            return True
        return self._verify is not None and self._verify(token, self.execution_id)

    async def input(self) -> bytes:
        return await self._input_body()

    async def publish(self, kind: MessageKind, body: bytes) -> int:
        """Takes one publication under the attempt's limits and lease.

        The number returned counts this attempt's publications: the stream's own is nothing that a container may know.

        Raises:
            Refused: It broke a limit, or is not what its subject says.
        """
        match kind:
            case "events":
                await self._intake.event(body)
            case "status":
                await self._intake.status(body)
            case "output":
                await self._take_output(body)
        self._sequence += 1
        return self._sequence

    def denied(self, tried: Tried, code: DenialCode, subject: str = "") -> None:
        self._on_denied(tried, code, subject)

    async def _take_output(self, body: bytes) -> None:
        try:
            await self._intake.output(body)
        except Refused as error:
            # Whatever the container makes of the refusal: without an output the attempt can only end with this.
            self._on_refused(error.error)
            raise
        self._on_output()
