"""Retrying executions: one by its id, or all that a filter matches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, field_validator
from starlette.requests import Request
from starlette.responses import Response

from flow_platform.api.answers import json_answer
from flow_platform.api.body import parse_json, read_body, read_model
from flow_platform.api.bulk_cancel import ComponentName, Id, RingName
from flow_platform.api.context import principal_of, reference, workspace_of
from flow_platform.api.executions import handle_of
from flow_platform.api.routing import WORKSPACE, Parameter, Route
from flow_platform.api.submission import check_input, read_key
from flow_platform.engine.retry import require_retry
from flow_platform.engine.retry_rules import Changed, NewInput
from flow_platform.engine.validation import invalid, parse_model
from flow_platform.store.base import ExecutionFilter
from flow_sdk.wire.execution import Handle
from flow_sdk.wire.status import Kind, Status

if TYPE_CHECKING:
    from flow_platform.engine.service import Engine

MAX_VERSION: Final = 2**31
_TAG: Final = "Executions"
Version = Annotated[StrictInt, Field(ge=1, le=MAX_VERSION)] | Literal["active"]
_VERSION: Final = Field(None, description="A number; `active`: of its ring now; absent: the one that ran.")


class RetryBody(BaseModel):
    """Strict: a misspelt field would repeat what was meant to be changed."""

    model_config = ConfigDict(extra="forbid")

    version: Version | None = _VERSION
    input_data: Any = Field(None, description="Instead of the old input; of a code block its keyword arguments.")

    def changed(self) -> Changed:
        is_new = "input_data" in self.model_fields_set
        return Changed(self.version, NewInput(self.input_data) if is_new else None)


class RetryFilter(BaseModel):
    """All that is named must fit. Strict, because what is not understood here would retry too much."""

    model_config = ConfigDict(extra="forbid")

    status: Literal["dead_letter", "failed", "timeout", "cancelled"] | None = Field(
        None, description="Absent: the first three. What was cancelled has to be named."
    )
    component_id: ComponentName | None = None
    ring_id: RingName | None = None
    kind: Kind | None = None
    parent_id: Id | None = Field(None, description="Only those that this execution started itself.")

    @field_validator("*", mode="before")
    @classmethod
    def _says_something(cls, value: Any) -> Any:
        if value is None:  # A variable that a script left empty must not widen the filter.
            raise ValueError("must not be null: leave the field out to retry whatever its value is")
        return value

    def where(self) -> ExecutionFilter:
        status = Status(self.status) if self.status else None
        return ExecutionFilter(status, self.component_id, self.ring_id, self.parent_id, self.kind)


class BulkRetryBody(BaseModel):
    model_config = ConfigDict(extra="forbid")

    filter: RetryFilter = Field(description="An empty one means all of the workspace that were not cancelled.")
    version: Version | None = _VERSION
    dry_run: StrictBool = Field(False, description="Only say which they are.")


class RetriedDocument(BaseModel):
    execution_id: str
    retried_as_execution_id: str | None = Field(description="None when it was only asked which they are.")


class RefusalDocument(BaseModel):
    execution_id: str
    code: str
    message: str


class BulkRetryDocument(BaseModel):
    matched: int
    items: list[RetriedDocument]
    refused: list[RefusalDocument] = Field(description="Those that cannot be retried so; the others were.")
    dry_run: bool
    truncated: bool = Field(description="There are more than one call retries: ask again.")


class RetryRoutes:
    """The endpoints of one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def routes(self) -> list[Route]:
        return [
            Route(
                "POST",
                f"{WORKSPACE}/executions/{{execution_id}}/retry",
                self.retry,
                "Repeats an execution that ended without a result.",
                tag=_TAG,
                answers={202: Handle},
                body=RetryBody,
                parameters=[
                    Parameter(
                        "Idempotency-Key",
                        "The same key and request answer the first execution.",
                        {"type": "string"},
                        "header",
                    )
                ],
            ),
            Route(
                "POST",
                f"{WORKSPACE}/executions/retry",
                self.retry_matching,
                "Repeats all that a filter matches and that were not repeated yet.",
                tag=_TAG,
                answers={200: BulkRetryDocument},
                body=BulkRetryBody,
            ),
        ]

    async def retry(self, request: Request) -> Response:
        principal = principal_of(request)
        org_id, workspace_id = workspace_of(request)
        require_retry(principal, org_id, workspace_id)  # Before the body is read.
        execution_id = reference(request, "execution_id", "execution")
        raw = await read_body(request)
        content: Any = parse_json(raw) if raw else {}  # Nothing to say is no error: the same again.
        if not isinstance(content, dict):
            raise invalid("body", content, "a JSON object")
        body = cast("dict[str, Any]", content)
        changed = parse_model(RetryBody, body).changed()
        if changed.input is not None:
            await check_input(raw, "input_data", changed.input.input_data)
        key = await read_key(request, raw, body)
        execution = await self._engine.retries.retry(principal, org_id, workspace_id, execution_id, changed, key)
        return json_answer(handle_of(execution), 202)

    async def retry_matching(self, request: Request) -> Response:
        principal = principal_of(request)
        org_id, workspace_id = workspace_of(request)
        require_retry(principal, org_id, workspace_id)  # Before the body is read.
        body = await read_model(request, BulkRetryBody)
        done = await self._engine.retries.retry_matching(
            principal, org_id, workspace_id, body.filter.where(), body.version, dry_run=body.dry_run
        )
        items = [RetriedDocument(execution_id=old, retried_as_execution_id=new) for old, new in done.retried.items()]
        refused = [
            RefusalDocument(execution_id=one.execution_id, code=one.error.error_code, message=one.error.message)
            for one in done.refused
        ]
        return json_answer(
            BulkRetryDocument(
                matched=len(items) + len(refused),
                items=items,
                refused=refused,
                dry_run=body.dry_run,
                truncated=done.truncated,
            )
        )
