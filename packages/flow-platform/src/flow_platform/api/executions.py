"""Submitting, reading and cancelling executions. The two hottest routes of the platform are here."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Final, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from flow_platform.api.answers import json_answer, page_answer, paging, query_text
from flow_platform.api.body import read_model
from flow_platform.api.bulk_cancel import BulkCancelBody, BulkCancelDocument
from flow_platform.api.context import principal_of, reference, workspace_of
from flow_platform.api.replay import REPLAY, told_by, with_ahead
from flow_platform.api.routing import PAGING, WORKSPACE, Endpoint, Parameter, Route
from flow_platform.api.submission import SubmitBody, read_submission
from flow_platform.domain.execution import Execution
from flow_platform.domain.principal import Action
from flow_platform.engine.executions import require_cancel_matching
from flow_platform.engine.validation import invalid
from flow_platform.store.base import ExecutionFilter
from flow_sdk.wire.execution import Handle, ReplayedHandle, StatusDocument
from flow_sdk.wire.management import PageDocument
from flow_sdk.wire.status import Kind, Status

if TYPE_CHECKING:
    from flow_platform.engine.service import Engine

Word = TypeVar("Word", Status, Kind)

MAX_HOLD_SECONDS: Final = 60.0  # Shorter than proxies' usual patience.
_WAIT: Final = re.compile(r"""(?:^|[,;\s])wait\s*=\s*"?(\d{1,9}(?:\.\d{1,6})?)"?\s*(?:$|[,;])""", re.IGNORECASE)

PREFER: Final = Parameter("Prefer", "`wait=N` holds the answer up to N (60) seconds.", {"type": "string"}, "header")
_TAG: Final = "Executions"
_SUBMIT_HEADERS: Final = (
    Parameter("Idempotency-Key", "The same key and request answer the first execution.", {"type": "string"}, "header"),
    Parameter("X-Parent-Billing-Txn-Id", "The transaction it is billed to.", {"type": "string"}, "header"),
    Parameter("X-Lifecycle-Event", "When the body names none.", {"type": "string"}, "header"),
    REPLAY,
)


class ExecutionRoutes:
    """The endpoints of one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def routes(self) -> list[Route]:
        one = f"{WORKSPACE}/executions/{{execution_id}}"
        filters = tuple(
            Parameter(name, said, {"type": "string"})
            for name, said in (
                ("status", "Only those."),
                ("component_id", "Only those of the component: its id, slug, or `kind/slug`."),
                ("ring_id", "Only those in the ring: its id or name."),
                ("parent_id", "Only those that this execution started itself."),
                ("kind", "Only those."),
            )
        )
        retried = Parameter("retried", "`true`: those retried by hand; `false`: those not.", {"type": "boolean"})
        submits = [
            Route(
                "POST",
                f"{WORKSPACE}/{kind.path}/{{component_id}}/executions",
                self._submit(kind),
                f"Submits an execution of a {kind.value}.",
                tag=_TAG,
                answers={202: Handle},
                body=SubmitBody,
                parameters=_SUBMIT_HEADERS,
            )
            for kind in Kind
        ]
        return [
            Route(
                "GET",
                one,
                self.status,
                "The status document, held until the end on request.",
                tag=_TAG,
                answers={200: StatusDocument},
                parameters=[PREFER],
            ),
            *submits,
            Route(
                "POST",
                f"{one}/cancel",
                self.cancel,
                "Cancels it and all that it started.",
                tag=_TAG,
                answers={200: StatusDocument},
            ),
            Route(
                "POST",
                f"{WORKSPACE}/executions/cancel",
                self.cancel_matching,
                "Cancels all unfinished ones that a filter matches.",
                tag=_TAG,
                answers={200: BulkCancelDocument},
                body=BulkCancelBody,
            ),
            Route("GET", f"{one}/tree", self.tree, "It and all that it started.", tag=_TAG, answers={200: "A tree"}),
            Route(
                "GET",
                f"{WORKSPACE}/executions",
                self.page,
                "A page of executions without payloads.",
                tag=_TAG,
                answers={200: PageDocument},
                parameters=[*filters, retried, *PAGING],
            ),
        ]

    def _submit(self, kind: Kind) -> Endpoint:
        async def submit(request: Request) -> Response:
            principal = principal_of(request)
            org_id, workspace_id = workspace_of(request)
            principal.require(Action.SUBMIT, org_id, workspace_id)  # Before the body is read.
            component = reference(request, "component_id", kind.value)
            submission, idempotency = await read_submission(request, kind, component, self._engine.clock.now())
            told = await told_by(request, self._engine)
            if told.occurrence is not None:
                submission = replace(submission, occurrence=told.occurrence)
            execution = await self._engine.submitter.submit(principal, org_id, workspace_id, submission, idempotency)
            handle = handle_of(execution)
            if execution.status.is_terminal:  # A call that is replayed; its caller would read this next.
                document = await self._engine.executions.ended(execution)
                handle = ReplayedHandle(**handle.model_dump(), execution=document)
            answer = await with_ahead(request, self._engine, told, handle)
            return json_answer(answer, 202, budget_headers(self._engine, org_id, workspace_id))

        return submit

    async def status(self, request: Request) -> Response:
        org_id, workspace_id = workspace_of(request)
        execution_id = reference(request, "execution_id", "execution")
        hold = hold_seconds(request.headers.get("prefer"))
        executions = self._engine.executions
        if hold is None:
            return json_answer(await executions.get(principal_of(request), org_id, workspace_id, execution_id))
        document = await executions.wait(principal_of(request), org_id, workspace_id, execution_id, hold)
        return json_answer(document, 200, {"Preference-Applied": f"wait={hold:g}"})

    async def cancel(self, request: Request) -> Response:
        org_id, workspace_id = workspace_of(request)
        execution_id = reference(request, "execution_id", "execution")
        document = await self._engine.executions.cancel(principal_of(request), org_id, workspace_id, execution_id)
        return json_answer(document)

    async def cancel_matching(self, request: Request) -> Response:
        principal = principal_of(request)
        org_id, workspace_id = workspace_of(request)
        require_cancel_matching(principal, org_id, workspace_id)  # Before the body is read.
        body = await read_model(request, BulkCancelBody)
        ids, truncated = await self._engine.executions.cancel_matching(
            principal, org_id, workspace_id, body.filter.where(), dry_run=body.dry_run
        )
        return json_answer(
            BulkCancelDocument(matched=len(ids), execution_ids=ids, dry_run=body.dry_run, truncated=truncated)
        )

    async def tree(self, request: Request) -> Response:
        org_id, workspace_id = workspace_of(request)
        execution_id = reference(request, "execution_id", "execution")
        tree = await self._engine.executions.tree(principal_of(request), org_id, workspace_id, execution_id)
        return json_answer(tree)

    async def page(self, request: Request) -> Response:
        org_id, workspace_id = workspace_of(request)
        where = ExecutionFilter(
            status=_word(Status, "status", query_text(request, "status")),
            component_id=query_text(request, "component_id"),
            ring_id=query_text(request, "ring_id"),
            parent_id=query_text(request, "parent_id"),
            kind=_word(Kind, "kind", query_text(request, "kind")),
            retried=_flag("retried", query_text(request, "retried")),
        )
        cursor, limit = paging(request)
        page = await self._engine.executions.list(principal_of(request), org_id, workspace_id, where, cursor, limit)
        return page_answer(page, page.items)


def budget_headers(engine: Engine, org_id: str, workspace_id: str) -> dict[str, str] | None:
    """`X-Budget-Warning`, where a budget is nearly used up."""
    warning = engine.budgets.warning(org_id, workspace_id)
    return {"X-Budget-Warning": warning} if warning else None


def handle_of(execution: Execution) -> Handle:
    """The answer to a submit. Its addresses are paths: how the client reached us is the client's knowledge."""
    path = f"/api/v1/orgs/{execution.org_id}/workspaces/{execution.workspace_id}/executions/{execution.id}"
    return Handle(
        execution_id=execution.id,
        status=execution.status,
        status_url=path,
        events_url=f"{path}/events",
        deployment_id=execution.deployment_id,
        ring_id=execution.ring_id,
        created_at=execution.created_at,
    )


def hold_seconds(prefer: str | None) -> float | None:
    """How long to hold the answer: `wait=N` of the header `Prefer`, at most a minute. Source: RFC 7240.

    What is not understood is no error there, but as if it was not said.
    """
    found = _WAIT.search(prefer) if prefer else None
    return min(float(found[1]), MAX_HOLD_SECONDS) if found else None


def _flag(name: str, value: str | None) -> bool | None:
    if value is None:
        return None
    if value.lower() not in ("true", "false"):
        raise invalid(name, value, "true or false")
    return value.lower() == "true"


def _word(words: type[Word], name: str, value: str | None) -> Word | None:
    if value is None:
        return None
    try:
        return words(value.lower())
    except ValueError:
        raise invalid(name, value, "one of " + ", ".join(repr(word.value) for word in words)) from None
