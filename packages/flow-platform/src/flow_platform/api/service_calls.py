"""Calling published services: their endpoints, at once or as jobs, and what there is to read of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive

from flow_platform.api.answers import MAX_QUERY_VALUE, json_answer, whole
from flow_platform.api.body import THREAD_FROM_BYTES, parse_json, read_body
from flow_platform.api.context import context_of, reference
from flow_platform.api.errors import method_not_allowed
from flow_platform.api.executions import handle_of
from flow_platform.api.routing import Endpoint as Answerer
from flow_platform.api.routing import Parameter, Route
from flow_platform.api.service_callers import caller_of
from flow_platform.api.submission import MAX_INPUT_BYTES, lifecycle_event_of, transaction_of
from flow_platform.domain import errors
from flow_platform.domain.service import METHODS, WITHOUT_BODY, Endpoint
from flow_platform.engine.service_calls import Call, Caller, Opened, check_may_call, endpoints_at
from flow_platform.engine.service_input import ABSENT, input_of, tool_input
from flow_platform.engine.service_openapi import openapi_of
from flow_platform.engine.service_output import response_problem
from flow_platform.engine.skill_files import skill_files, zipped
from flow_platform.engine.skills import base_path
from flow_platform.engine.validation import invalid, parse_model, shown
from flow_sdk.wire.execution import ErrorDocument, Handle, ReplayedHandle, StatusDocument
from flow_sdk.wire.service import JobDocument
from flow_sdk.wire.status import Status

if TYPE_CHECKING:
    from flow_platform.engine.service import Engine

SERVICE: Final = "/api/v1/orgs/{org_id}/services/{service_id}"
MAX_PUBLIC_BYTES: Final = 1 << 20  # Of a body that anybody may send.
MAX_QUERY_VALUES: Final = 100
MAX_NUMBER: Final = 10**9
TARGET_METHOD: Final = "X-HSL-Target-Method"
KEY_HEADERS: Final = ("x-idempotency-key", "idempotency-key")
_TAG: Final = "Service calls"
_IF_NONE_MATCH: Final = Parameter("If-None-Match", "304 when it is still that one.", {"type": "string"}, "header")
_KEY: Final = Parameter("X-Idempotency-Key", "The same key answers the first call.", {"type": "string"}, "header")
_TARGET: Final = Parameter(TARGET_METHOD, "Method of the endpoint (POST).", {"type": "string"}, "header")


class ToolCallBody(BaseModel):
    """The whole input of an endpoint, parameters of its path included, as an agent gives it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    arguments: dict[str, Any] = Field(default_factory=dict[str, Any])


class ServiceCallRoutes:
    """The endpoints of one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def routes(self) -> list[Route]:
        return [
            *self._readable("skills.json", self.skills, "The skills artifact of {}.", "application/json"),
            *self._readable("openapi.json", self.openapi, "The OpenAPI document of {}.", "application/json"),
            *self._readable("skills.zip", self.archive, "The skills of {}, as folders.", "application/zip"),
            *self._readable("skills/{name}/SKILL.md", self.skill, "One skill of {}, for agents.", "text/markdown"),
            Route(
                "GET",
                f"{SERVICE}/jobs/{{job_id}}",
                self.job,
                "Where an asynchronous call is.",
                tag=_TAG,
                answers={200: JobDocument},
            ),
            *(
                Route(
                    "POST",
                    f"{at}/async/{{path:path}}",
                    self.start,
                    f"Calls an endpoint of {which}, without waiting for it.",
                    tag=_TAG,
                    answers={202: JobDocument},
                    parameters=[_TARGET, _KEY],
                )
                for at, which in _VERSIONS
            ),
            *(
                Route(
                    "POST",
                    f"{at}/tools/{{name}}",
                    self.start_tool,
                    f"Calls an endpoint of {which} by its name, without waiting for it.",
                    tag=_TAG,
                    answers={202: Handle},
                    body=ToolCallBody,
                    parameters=[_KEY],
                )
                for at, which in _VERSIONS
            ),
            *(
                Route(
                    method,
                    f"{at}/{{path:path}}",
                    self.call,
                    f"Calls an endpoint of {which}.",
                    tag=_TAG,
                    answers={200: "The output of the component"},
                    parameters=[_KEY],
                )
                for at, which in _VERSIONS
                for method in METHODS
            ),
        ]

    def _readable(self, path: str, answerer: Answerer, summary: str, media_type: str) -> list[Route]:
        return [
            Route(
                "GET",
                f"{at}/{path}",
                answerer,
                summary.format(which),
                tag=_TAG,
                answers={200: f"`{media_type}`", 304: "It is still the one of `If-None-Match`"},
                parameters=[_IF_NONE_MATCH],
                media_type=media_type,
            )
            for at, which in _VERSIONS
        ]

    async def skills(self, request: Request) -> Response:
        opened = await self._artifact(request)
        return _cacheable(request, opened.version.skills, opened.version.checksum, "application/json")

    async def openapi(self, request: Request) -> Response:
        opened = await self._artifact(request)
        document = json.dumps(openapi_of(opened.service, opened.version)).encode()
        return _cacheable(request, document, f"openapi:{opened.version.checksum}", "application/json")

    async def archive(self, request: Request) -> Response:
        opened = await self._artifact(request)
        tag = f"zip:{opened.version.checksum}"
        headers = {"Content-Disposition": f'attachment; filename="{opened.service.slug}-skills.zip"'}
        return _cacheable(request, zipped(opened.version), tag, "application/zip", headers)

    async def skill(self, request: Request) -> Response:
        opened = await self._artifact(request)
        name: str = request.path_params["name"]
        text = skill_files(opened.version).get(name)
        if text is None:
            raise errors.NotFound(f"skill {name[:80]!r} not found")
        tag = f"{name}:{opened.version.checksum}"
        return _cacheable(request, text.encode("utf-8", "replace"), tag, "text/markdown; charset=utf-8")

    async def call(self, request: Request) -> Response:
        made = await self._call(request, request.method)
        if isinstance(made, Response):
            return made
        calls = self._engine.service_calls
        execution = await calls.start(made, "call")
        document = await calls.result(made, execution.id)
        output = _output(made, document)
        if (problem := await _mismatch(made.endpoint, made.caller, document)) is not None:
            raise problem
        return json_answer(output, 200, {"X-Execution-ID": execution.id})

    async def start(self, request: Request) -> Response:
        method = request.headers.get(TARGET_METHOD, "POST").upper()
        if method not in METHODS:
            raise invalid(TARGET_METHOD, method, "one of " + ", ".join(METHODS))
        made = await self._call(request, method)
        if isinstance(made, Response):
            return made
        if not made.endpoint.async_eligible:
            raise errors.Conflict(
                f"endpoint {made.endpoint.name!r} is not called asynchronously: expected one that is async_eligible",
                code="not_async",
            )
        return await self._started(made)

    async def start_tool(self, request: Request) -> Response:
        org_id, service_id = _service(request)
        caller = await caller_of(self._engine, request)
        opened = await self._engine.service_calls.open(caller, org_id, service_id, _number(request))
        name = reference(request, "name", "endpoint")
        endpoint = next((each for each in opened.version.endpoints if each.name == name), None)
        if endpoint is None:
            raise errors.NotFound(f"service {opened.service.slug!r} has no endpoint {name!r}")
        check_may_call(caller, opened.service, endpoint)
        body = await _body(request, endpoint, caller)
        given = parse_model(ToolCallBody, {} if body is ABSENT else body)
        made = self._made(request, opened, endpoint, caller, tool_input(endpoint, given.arguments))
        execution = await self._engine.service_calls.start(made, "tool")
        handle = handle_of(execution)
        if execution.status.is_terminal:  # A call that is replayed; its caller would read this next.
            document = await self._engine.executions.ended(execution)
            handle = ReplayedHandle(**handle.model_dump(), execution=document)
        return json_answer(handle, 202)

    async def _started(self, made: Call) -> Response:
        execution = await self._engine.service_calls.start(made, "async")
        poll_url = _poll_url(made.opened, execution.id)
        document = JobDocument(
            job_id=execution.id, status=execution.status, poll_url=poll_url, created_at=execution.created_at
        )
        return json_answer(document, 202, {"Location": poll_url, "X-Execution-ID": execution.id})

    async def job(self, request: Request) -> Response:
        org_id, service_id = _service(request)
        caller = await caller_of(self._engine, request)
        job_id = reference(request, "job_id", "job")
        opened, endpoint, document = await self._engine.service_calls.job(caller, org_id, service_id, job_id)
        error, status, result = document.error, document.status, document.output
        problem = await _mismatch(endpoint, caller, document) if status is Status.COMPLETED else None
        if problem is not None:
            status, result = Status.FAILED, None
            error = ErrorDocument(
                code=problem.error_code, message=problem.message, details=problem.details, retryable=False
            )
        elif error is not None:
            hidden = {"message": ""} if caller.is_anonymous and error.code != errors.InvalidInput.code else {}
            error = error.model_copy(update={"traceback": None, **hidden})
        answer = JobDocument(
            job_id=job_id,
            status=status,
            poll_url=_poll_url(opened, job_id),
            created_at=document.created_at,
            finished_at=document.finished_at,
            result=result,
            error=error,
        )
        return json_answer(answer)

    async def _artifact(self, request: Request) -> Opened:
        org_id, service_id = _service(request)
        caller = await caller_of(self._engine, request)
        return await self._engine.service_calls.artifact(caller, org_id, service_id, _number(request))

    async def _call(self, request: Request, method: str) -> Call | Response:
        """What is called, once it is sure that the caller may and that the input fits."""
        org_id, service_id = _service(request)
        caller = await caller_of(self._engine, request)
        opened = await self._engine.service_calls.open(caller, org_id, service_id, _number(request))
        path = "/" + request.path_params["path"]
        possible = endpoints_at(opened.version, path)
        if not possible:
            raise errors.NotFound(f"service {opened.service.slug!r} has no endpoint at {path[:200]!r}")
        if method not in possible:
            return method_not_allowed(method, possible, context_of(request.scope).request_id)
        endpoint, parameters = possible[method]
        check_may_call(caller, opened.service, endpoint)
        query, body = _query(request), await _body(request, endpoint, caller)
        return self._made(request, opened, endpoint, caller, input_of(endpoint, parameters, query, body))

    def _made(self, request: Request, opened: Opened, endpoint: Endpoint, caller: Caller, input_data: Any) -> Call:
        return Call(
            opened,
            endpoint,
            caller,
            input_data,
            lifecycle_event=lifecycle_event_of(request, endpoint.kind),
            parent_billing_transaction_id=transaction_of(request) if caller.principal else None,
            idempotency_key=next((request.headers[name] for name in KEY_HEADERS if name in request.headers), None),
        )


_VERSIONS: Final = ((f"{SERVICE}/v{{version}}", "one version"), (SERVICE, "the newest version"))


def _service(request: Request) -> tuple[str, str]:
    return request.path_params["org_id"], reference(request, "service_id", "service")


def _number(request: Request) -> int | None:
    """Raises NotFound for what is no number of a version."""
    text: str | None = request.path_params.get("version")
    if text is None:
        return None
    try:
        return whole("version", text, 1, MAX_NUMBER)
    except errors.InvalidInput:
        raise errors.NotFound(f"version {text[:80]!r} not found") from None


def _query(request: Request) -> Sequence[tuple[str, str]]:
    query = request.query_params.multi_items()
    if len(query) > MAX_QUERY_VALUES:
        raise invalid("query", len(query), f"at most {MAX_QUERY_VALUES} values")
    for name, value in query:
        if len(name) > MAX_QUERY_VALUE or len(value) > MAX_QUERY_VALUE:
            raise invalid(shown(name), value, f"at most {MAX_QUERY_VALUE} characters")
    return query


async def _body(request: Request, endpoint: Endpoint, caller: Caller) -> Any:
    """The body as JSON; `ABSENT` when there is none."""
    if endpoint.method in WITHOUT_BODY and request.method in WITHOUT_BODY:
        return ABSENT
    most = MAX_PUBLIC_BYTES if caller.is_anonymous else MAX_INPUT_BYTES
    announced = request.headers.get("content-length", "0")
    if announced.isdecimal() and len(announced) < 20:
        _check_size(int(announced), most)
    body = await read_body(Request(request.scope, _limited(request.receive, most)))
    if not body:
        return ABSENT
    if len(body) < THREAD_FROM_BYTES:
        return parse_json(body)
    return await asyncio.to_thread(parse_json, body)


def _limited(receive: Receive, most: int) -> Receive:
    size = 0

    async def limited() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        _check_size(size, most)
        return message

    return limited


def _check_size(size: int, most: int) -> None:
    if size > most:
        raise errors.PayloadTooLarge(
            f"the body has {size} bytes: expected at most {most}",
            details=[{"field": "body", "message": f"{size} bytes, at most {most}"}],
        )


def _output(call: Call, document: StatusDocument) -> Any:
    """What the component put out.

    Raises:
        InvalidInput: It refused its input.
        EndpointFailed, EndpointTimeout: It did not complete. What it said is not for everybody.
    """
    if document.status is Status.COMPLETED:
        return document.output
    error, name = document.error, call.endpoint.name
    if error is not None and error.code == errors.InvalidInput.code:
        raise errors.InvalidInput(error.message, details=error.details)
    if document.status is Status.TIMEOUT:
        message = f"endpoint {name!r} did not end within {document.timeout_seconds:g} seconds"
        raise errors.EndpointTimeout(message, execution_id=document.execution_id)
    said = f": {error.code}: {error.message}" if error and not call.caller.is_anonymous else ""
    message = f"endpoint {name!r} ended as {document.status.value!r}{said}"
    raise errors.EndpointFailed(message, execution_id=document.execution_id)


async def _mismatch(endpoint: Endpoint, caller: Caller, document: StatusDocument) -> errors.ResponseMismatch | None:
    """In a thread, as an output may be large."""
    if not endpoint.response_schema:
        return None
    return await asyncio.to_thread(response_problem, endpoint, caller, document)


def _poll_url(opened: Opened, job_id: str) -> str:
    return f"{base_path(opened.service)}/jobs/{job_id}"


def _cacheable(
    request: Request, content: bytes, tag: str, media_type: str, headers: dict[str, str] | None = None
) -> Response:
    """The content, or 304 when the client has it. It may keep it, but asks whether there is a newer one."""
    own = {"ETag": f'"{tag}"', "Cache-Control": "private, no-cache", **(headers or {})}
    known = request.headers.get("if-none-match", "")
    if known.strip() == "*" or f'"{tag}"' in {each.strip().removeprefix("W/") for each in known.split(",")}:
        return Response(status_code=304, headers=own)
    return Response(content, 200, own, media_type)
