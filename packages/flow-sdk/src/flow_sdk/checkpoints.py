"""The checkpoints of this execution, over HTTP. `durable` gives them their public shape."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Callable
from typing import Any, Final, cast

from flow_sdk import activity, environment, telemetry
from flow_sdk.ahead import CHECKPOINT
from flow_sdk.errors import PlatformClientError
from flow_sdk.executions import segment
from flow_sdk.http import Http
from flow_sdk.retry import STATUS, SUBMIT, Deadline
from flow_sdk.wire.durable import CheckpointDocument, CheckpointRequest, CheckpointStatus, StepResult
from flow_sdk.wire.execution import ErrorDocument
from flow_sdk.wire.replay import checkpoint_key

HOLD_SECONDS: Final = 20
TELL_SECONDS: Final = 5.0
"""How long an attempt that ends tries to say what it made of calls that it was given ahead."""
WITHDRAW_SECONDS: Final = 5.0
"""How long a coroutine that was cancelled tries to say so; its caller waits for it."""
_POST_OK: Final = 200

_asked: Counter[str] = Counter()
"""How often this process asked for equal checkpoints: one process is one attempt, whichever client asks."""


class Checkpoints:
    """Args:
    http: Sends.
    workspace_path: Where the workspace is; raises when it is not known.
    execution_id: Whose checkpoints they are.
    """

    def __init__(self, http: Http, workspace_path: Callable[[], str], execution_id: str | None) -> None:
        self._http = http
        self._workspace_path = workspace_path
        self._execution_id = execution_id

    async def ask(self, request: CheckpointRequest) -> CheckpointDocument:
        """Asks for a value, or finds the one that an earlier attempt asked for.

        Raises:
            PlatformClientError: The platform refused or did not answer.
        """
        equal = f"{request.kind}:{request.name}:{request.seconds}"
        occurrence = _asked[equal]
        _asked[equal] += 1
        body = request.model_dump(mode="json") | {"occurrence": occurrence}

        async def send(told: str) -> dict[str, Any]:
            answer = await self._http.request("POST", self._path(), body=body, retry=SUBMIT, told=told)
            return cast("dict[str, Any]", answer) if isinstance(answer, dict) else {}

        ahead = activity.CURRENT.ahead
        with activity.CURRENT.ask():
            if ahead is None or not ahead.is_here or not self._is_own:
                document = _document(await send(""))
            else:
                key = checkpoint_key(request.kind.value, request.name, request.seconds)
                answer = await ahead.answer(CHECKPOINT, "", key, send, lambda given: given, occurrence=occurrence)
                document = _document(answer)
        if document.status is not CheckpointStatus.OPEN:
            await activity.CURRENT.turn(document.finished_at)
        return document

    async def finish(self, checkpoint_id: str, *, value: Any = None, error: ErrorDocument | None = None) -> Any:
        """Says how a step ended; the first word counts, also if it came twice."""
        body = StepResult(value=value, error=error).model_dump(mode="json")
        return _document(await self._http.request("POST", self._path(checkpoint_id, "result"), body=body, retry=SUBMIT))

    async def wait(self, checkpoint: CheckpointDocument) -> CheckpointDocument:
        """Waits until it is not open any more."""
        with activity.CURRENT.wait("checkpoint_id", checkpoint.checkpoint_id, may_suspend=True):
            while checkpoint.status is CheckpointStatus.OPEN:
                path = self._path(checkpoint.checkpoint_id)
                deadline = Deadline.after(2 * HOLD_SECONDS)
                answer = await self._http.request(
                    "GET", path, retry=STATUS, deadline=deadline, hold_seconds=HOLD_SECONDS
                )
                checkpoint = _document(answer)
        return checkpoint

    async def awaited(self, request: CheckpointRequest) -> CheckpointDocument:
        """Asks for what others send, and waits for it. When it is cancelled meanwhile, it gets nothing any more."""
        # Shielded: a request on its way may make a wait, which could not be withdrawn without its id.
        asking = asyncio.ensure_future(self.ask(request))
        try:
            return await self.wait(await asyncio.shield(asking))
        except asyncio.CancelledError:
            await self._withdraw(request, asking)
            raise

    async def _withdraw(self, request: CheckpointRequest, asking: asyncio.Future[CheckpointDocument]) -> None:
        try:
            async with asyncio.timeout(WITHDRAW_SECONDS):
                asked = await asking
                await self._http.request("POST", self._path(asked.checkpoint_id, "withdrawal"), retry=STATUS)
        except (PlatformClientError, TimeoutError) as error:
            telemetry.warn("wait not withdrawn", kind=request.kind.value, name=request.name, reason=repr(error))

    async def tell(self, told: str) -> None:
        """Says which calls the code made of those that it was given ahead; see `ahead`."""
        deadline = Deadline.after(TELL_SECONDS)
        await self._http.request("POST", self._path(last="replayed"), retry=SUBMIT, deadline=deadline, told=told)

    async def may_suspend(self, waits: list[activity.Wait]) -> bool:
        """Whether the platform would have this execution wait without its container."""
        details = [{"field": wait.field, "message": wait.id} for wait in waits]
        answer = await self._http.request("POST", self._path(last="suspension"), body={"details": details})
        return bool(cast("dict[str, Any]", answer).get("suspend"))

    @property
    def _is_own(self) -> bool:
        """Whether the platform takes it for this execution."""
        return (
            self._http.is_own
            and self._execution_id == os.environ.get("EXECUTION_ID")
            and self._workspace_path() == environment.workspace_path()
        )

    def _path(self, *segments: str, last: str = "checkpoints") -> str:
        if self._execution_id is None:
            raise PlatformClientError("EXECUTION_ID is not set: only an execution of the platform has checkpoints")
        parts = [self._workspace_path(), "executions", segment("execution_id", self._execution_id), last, *segments]
        return "/".join(parts)


def _document(answer: Any) -> CheckpointDocument:
    try:
        return CheckpointDocument.model_validate(answer)
    except ValueError as exc:
        raise PlatformClientError(f"the platform answered no checkpoint, but {answer!r:.200}") from exc
