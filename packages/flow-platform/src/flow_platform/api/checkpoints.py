"""What workflows ask for once, and what is sent to them from outside. See `flow_sdk.wire.durable`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from starlette.requests import Request
from starlette.responses import Response

from flow_platform.api.answers import json_answer
from flow_platform.api.body import read_json, read_model
from flow_platform.api.context import principal_of, reference, workspace_of
from flow_platform.api.executions import hold_seconds
from flow_platform.api.replay import REPLAY, told_by, with_ahead
from flow_platform.api.routing import WORKSPACE, Parameter, Route
from flow_platform.domain.errors import Forbidden
from flow_platform.domain.principal import Action
from flow_platform.engine.checkpoints import check_value
from flow_platform.engine.validation import invalid
from flow_sdk.wire.durable import (
    CheckpointDocument,
    CheckpointRequest,
    SentDocument,
    StepResult,
    SuspensionDocument,
    SuspensionRequest,
)
from flow_sdk.wire.management import PageDocument

if TYPE_CHECKING:
    from flow_platform.engine.service import Engine

MAX_KEY: Final = 255
_TAG: Final = "Workflows"


class CheckpointRoutes:
    """The endpoints of one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def routes(self) -> list[Route]:
        one = f"{WORKSPACE}/executions/{{execution_id}}"
        return [*self._of_others(one), *self._of_itself(one)]

    def _of_others(self, one: str) -> list[Route]:
        """Read and sent to by users, and by executions above it."""
        prefer = Parameter("Prefer", "`wait=N` holds the answer up to N (60) seconds.", {"type": "string"}, "header")
        key = Parameter("Idempotency-Key", "The same key sends the event once.", {"type": "string"}, "header")
        return [
            Route(
                "GET",
                f"{one}/checkpoints",
                self.page,
                "The checkpoints of an execution, oldest first.",
                tag=_TAG,
                answers={200: PageDocument},
            ),
            Route(
                "GET",
                f"{one}/checkpoints/{{checkpoint_id}}",
                self.wait,
                "One checkpoint, held on request until its value is there.",
                tag=_TAG,
                answers={200: CheckpointDocument},
                parameters=[prefer],
            ),
            Route(
                "POST",
                f"{one}/events/{{name}}",
                self.send,
                "Sends an event, or the answer to an approval; the body is its payload, any JSON.",
                tag=_TAG,
                answers={202: SentDocument},
                parameters=[key],
            ),
        ]

    def _of_itself(self, one: str) -> list[Route]:
        """For the container of the execution alone."""
        return [
            Route(
                "POST",
                f"{one}/checkpoints",
                self.ask,
                "Asks for a step, timer, event or approval of the asking execution.",
                tag=_TAG,
                answers={200: CheckpointDocument},
                body=CheckpointRequest,
                parameters=[REPLAY],
            ),
            Route(
                "POST",
                f"{one}/checkpoints/{{checkpoint_id}}/result",
                self.finish,
                "Keeps the result of a step; the first one counts.",
                tag=_TAG,
                answers={200: CheckpointDocument},
                body=StepResult,
            ),
            Route(
                "POST",
                f"{one}/checkpoints/{{checkpoint_id}}/withdrawal",
                self.withdraw,
                "Closes a wait that the code of the asking execution gave up.",
                tag=_TAG,
                answers={200: CheckpointDocument},
            ),
            Route(
                "POST",
                f"{one}/suspension",
                self.suspension,
                "Whether the asking execution may give its container back.",
                tag=_TAG,
                answers={200: SuspensionDocument},
                body=SuspensionRequest,
            ),
            Route(
                "POST",
                f"{one}/replayed",
                self.replayed,
                "Notes which calls the code of the asking execution made of those that it was given ahead.",
                tag=_TAG,
                answers={200: "An empty object"},
                parameters=[REPLAY],
            ),
        ]

    async def ask(self, request: Request) -> Response:
        org_id, workspace_id, execution_id = _asking(request)
        body = await read_model(request, CheckpointRequest)
        told = await told_by(request, self._engine)
        checkpoints = self._engine.checkpoints
        document = await checkpoints.ask(principal_of(request), org_id, workspace_id, execution_id, body)
        return json_answer(await with_ahead(request, self._engine, told, document))

    async def page(self, request: Request) -> Response:
        org_id, workspace_id, execution_id = _execution_of(request, Action.READ)
        found = await self._engine.checkpoints.list(principal_of(request), org_id, workspace_id, execution_id)
        return json_answer({"items": found, "next_cursor": None})

    async def wait(self, request: Request) -> Response:
        org_id, workspace_id, execution_id = _execution_of(request, Action.READ)
        checkpoint_id = reference(request, "checkpoint_id", "checkpoint")
        hold = hold_seconds(request.headers.get("prefer"))
        document = await self._engine.checkpoints.wait(
            principal_of(request), org_id, workspace_id, execution_id, checkpoint_id, hold or 0.0
        )
        return json_answer(document, 200, {"Preference-Applied": f"wait={hold:g}"} if hold is not None else None)

    async def finish(self, request: Request) -> Response:
        org_id, workspace_id, execution_id = _asking(request)
        checkpoint_id = reference(request, "checkpoint_id", "checkpoint")
        result = await read_model(request, StepResult)
        document = await self._engine.checkpoints.finish(
            principal_of(request), org_id, workspace_id, execution_id, checkpoint_id, result
        )
        return json_answer(document)

    async def withdraw(self, request: Request) -> Response:
        org_id, workspace_id, execution_id = _asking(request)
        checkpoint_id = reference(request, "checkpoint_id", "checkpoint")
        checkpoints = self._engine.checkpoints
        return json_answer(
            await checkpoints.withdraw(principal_of(request), org_id, workspace_id, execution_id, checkpoint_id)
        )

    async def suspension(self, request: Request) -> Response:
        org_id, workspace_id, execution_id = _asking(request)
        body = await read_model(request, SuspensionRequest)
        checkpoints = self._engine.checkpoints
        return json_answer(
            await checkpoints.may_suspend(principal_of(request), org_id, workspace_id, execution_id, body)
        )

    async def replayed(self, request: Request) -> Response:
        _asking(request)
        await told_by(request, self._engine)
        return json_answer({})

    async def send(self, request: Request) -> Response:
        org_id, workspace_id, execution_id = _execution_of(request, Action.SUBMIT)
        _, payload = await read_json(request)
        check_value("payload", payload)
        key = request.headers.get("idempotency-key", "")
        if len(key) > MAX_KEY:
            raise invalid("Idempotency-Key", key, f"at most {MAX_KEY} characters")
        sent = await self._engine.sent_events.send(
            principal_of(request), org_id, workspace_id, execution_id, request.path_params["name"], payload, key
        )
        return json_answer(sent, 202)


def _asking(request: Request) -> tuple[str, str, str]:
    """Organization, workspace and execution, which asks for itself; refused before a body is read.

    Raises:
        Forbidden: Somebody else asks, whether there is such an execution or not.
    """
    org_id, workspace_id, execution_id = _execution_of(request, Action.SUBMIT)
    if principal_of(request).execution_id != execution_id:
        raise Forbidden(f"only execution {execution_id!r} itself asks for its checkpoints, with its own token")
    return org_id, workspace_id, execution_id


def _execution_of(request: Request, action: Action) -> tuple[str, str, str]:
    """Organization, workspace and execution of the path; refused before a body is read."""
    org_id, workspace_id = workspace_of(request)
    principal_of(request).require(action, org_id, workspace_id)
    return org_id, workspace_id, reference(request, "execution_id", "execution")
