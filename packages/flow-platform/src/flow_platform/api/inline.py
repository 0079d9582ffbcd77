"""Calls that answer with the result: an execution like every other, submitted and awaited within one request.

The paths name no workspace (the client contract, section 2): it is the token's.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from flow_platform.api.answers import json_answer
from flow_platform.api.context import principal_of, reference
from flow_platform.api.executions import MAX_HOLD_SECONDS, budget_headers
from flow_platform.api.replay import REPLAY, told_by, with_ahead
from flow_platform.api.routing import Endpoint, Route
from flow_platform.api.submission import read_submission
from flow_platform.domain import errors
from flow_platform.domain.principal import Action, Principal
from flow_sdk.wire.execution import StatusDocument
from flow_sdk.wire.status import Kind

if TYPE_CHECKING:
    from flow_platform.engine.service import Engine

INLINE_KINDS: Final = (Kind.TRANSFORM, Kind.AGENT)


class ExecuteBody(BaseModel):
    """Body of an inline call. Without a ring it runs in that of the caller, else in the first ring."""

    input_data: Any
    caller_deployment_id: str | None = None
    execution_mode: str | None = None
    context: dict[str, Any] | None = None
    ring_id: str | None = None
    timeout_seconds: float | None = None


class InlineRoutes:
    """The endpoints of one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def routes(self) -> list[Route]:
        return [
            Route(
                "POST",
                f"/api/v1/component-execution/{kind.path}/{{component_id}}/execute",
                self._execute(kind),
                f"Executes a {kind.value} and answers when it has ended.",
                tag="Executions",
                answers={200: StatusDocument},
                body=ExecuteBody,
                parameters=[REPLAY],
            )
            for kind in INLINE_KINDS
        ]

    def _execute(self, kind: Kind) -> Endpoint:
        async def execute(request: Request) -> Response:
            principal = principal_of(request)
            org_id, workspace_id = self._workspace(principal)
            principal.require(Action.SUBMIT, org_id, workspace_id)
            component = reference(request, "component_id", kind.value)
            submission, idempotency = await read_submission(request, kind, component, self._engine.clock.now())
            if submission.start_at is not None:
                raise errors.InvalidInput(
                    "start_at and delay_seconds are not for calls that wait for the result",
                    code="delay_not_possible",
                    hint=f"submit it: POST .../{kind.path}/{component}/executions",
                )
            told = await told_by(request, self._engine)
            if told.occurrence is not None:
                submission = replace(submission, occurrence=told.occurrence)
            execution = await self._engine.submitter.submit(principal, org_id, workspace_id, submission, idempotency)
            # Ends: every execution has a deadline, and the sweeper keeps it.
            while True:
                document = await self._engine.executions.wait(
                    principal, org_id, workspace_id, execution.id, MAX_HOLD_SECONDS
                )
                if document.status.is_terminal:
                    answer = await with_ahead(request, self._engine, told, document)
                    return json_answer(answer, 200, budget_headers(self._engine, org_id, workspace_id))

        return execute

    def _workspace(self, principal: Principal) -> tuple[str, str]:
        if principal.workspace_id is not None:
            return principal.org_id, principal.workspace_id
        first = self._engine.workspace
        if principal.org_id == first.org_id:
            return first.org_id, first.workspace_id
        raise errors.InvalidInput("the token names no workspace: expected a token of one workspace")
