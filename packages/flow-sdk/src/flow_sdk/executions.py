"""Executions over HTTP: submitted, read, awaited, cancelled. `PlatformClient` gives these their public shape."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, cast
from urllib.parse import quote
from uuid import UUID

from flow_sdk import activity, environment
from flow_sdk.encoding import encode_body
from flow_sdk.errors import PlatformClientError, PlatformExecutionError, PlatformValidationError
from flow_sdk.http import Http
from flow_sdk.retry import STATUS, SUBMIT, Deadline
from flow_sdk.waiting import Waiting
from flow_sdk.wire.replay import content_of

POLL_INTERVAL_SECONDS: Final = 0.5
NOT_FOUND_RETRY_SECONDS: Final = 30.0

FIRST_HOLD_SECONDS: Final = 3
"""Of a workflow's first read of an execution whose deadline it does not know: it may give its container back then."""

CANCEL_SECONDS: Final = 10.0
"""How long a caller whose own wait is over is kept waiting for the cancel."""

MAX_KNOWN_BYTES: Final = 64 << 10
"""Of a call that the harness numbers: larger ones would be written and read once more, only to be told apart."""

_ACCEPTED: Final = 202


class Executions:
    """The executions of one workspace.

    Args:
        http: Sends.
        workspace_path: Where the workspace is; raises when it is not known.
    """

    def __init__(self, http: Http, workspace_path: Callable[[], str]) -> None:
        self._http = http
        self._workspace_path = workspace_path
        self._waiting = Waiting()

    async def submit(
        self, collection: str, component_id: str | UUID, body: Mapping[str, Any], deadline: Deadline | None = None
    ) -> dict[str, Any]:
        workspace = self._workspace_path()
        path = f"{workspace}/{collection}/{segment('component id', component_id)}/executions"

        def given(document: dict[str, Any]) -> dict[str, Any]:
            return _replayed(document, workspace)

        with activity.CURRENT.ask():
            return await self._call(
                collection, component_id, body, lambda told: self._submit(path, body, deadline, told), given
            )

    async def _submit(
        self, path: str, body: Mapping[str, Any], deadline: Deadline | None, told: str = ""
    ) -> dict[str, Any]:
        with activity.CURRENT.ask():
            answer = await self._http.request(
                "POST", path, expect=_ACCEPTED, body=body, retry=SUBMIT, deadline=deadline, told=told
            )
        return _object(answer, path)

    async def _call(
        self,
        collection: str,
        component_id: str | UUID,
        body: Mapping[str, Any],
        send: Callable[[str], Awaitable[dict[str, Any]]],
        given: Callable[[dict[str, Any]], dict[str, Any]],
    ) -> dict[str, Any]:
        """Sends a call, or takes what this execution was given ahead; see `ahead`.

        Args:
            send: With what the header says of it; empty: nothing.
            given: Makes the answer of the document of an execution that ended.
        """
        ahead = activity.CURRENT.ahead
        if ahead is None or not ahead.is_here or not self._is_own(body):
            return await send("")
        encoded = encode_body(body)
        if len(encoded) > MAX_KNOWN_BYTES:
            return await send("")
        said = json.loads(encoded)
        called = said["input_parameters"] if collection == "code-blocks" else said["input_data"]
        content = content_of(called, said.get("config") or said.get("context") or {}, [], {})
        kind = collection[:-1].replace("-", "_")
        return await ahead.answer(kind, str(component_id), content, send, given, is_quick=collection != "transforms")

    def _is_own(self, body: Mapping[str, Any]) -> bool:
        """Whether the platform takes it for a call of this execution: as it, in its workspace and its ring."""
        ring_id = body.get("ring_id")
        if not self._http.is_own or (ring_id is not None and str(ring_id) != os.environ.get("RING_ID")):
            return False
        try:
            return self._workspace_path() == environment.workspace_path()
        except PlatformClientError:
            return False

    async def execute_inline(
        self, collection: str, name: str, component_id: str | UUID, body: Mapping[str, Any]
    ) -> dict[str, Any]:
        path = f"/api/v1/component-execution/{collection}/{segment(name, component_id)}/execute"

        async def send(told: str) -> dict[str, Any]:
            return _object(await self._http.request("POST", path, body=body, retry=SUBMIT, told=told), path)

        if collection != "transforms":
            return await send("")
        return await self._call(collection, component_id, body, send, lambda document: document)

    async def execute(
        self, collection: str, component_id: str | UUID, body: Mapping[str, Any], timeout_seconds: float
    ) -> dict[str, Any]:
        deadline = Deadline.after(timeout_seconds)
        handle = await self.submit(collection, component_id, body, deadline)
        return await self._end_of(handle, body, deadline, timeout_seconds)

    async def execute_service_tool(
        self, org_id: str, ref: str, arguments: Mapping[str, Any], timeout_seconds: float
    ) -> dict[str, Any]:
        """Calls an endpoint of a service by name.

        Args:
            org_id: Whose service it is.
            ref: `service/vN/endpoint`.
            arguments: Its whole input.
            timeout_seconds: How long this call waits at most.
        """
        service, version, endpoint = (segment("reference", part) for part in ref.split("/"))
        path = f"/api/v1/orgs/{segment('org_id', org_id)}/services/{service}/{version}/tools/{endpoint}"
        deadline = Deadline.after(timeout_seconds)
        body = {"arguments": arguments}
        return await self._end_of(await self._submit(path, body, deadline), body, deadline, timeout_seconds)

    async def execute_mcp_tool(self, ref: str, arguments: Mapping[str, Any], timeout_seconds: float) -> dict[str, Any]:
        """Calls a tool of a registered MCP server, in the ring of the caller.

        Args:
            ref: `server/tool`.
            arguments: Of the tool.
            timeout_seconds: How long this call waits at most.
        """
        server, _, tool = ref.partition("/")
        path = f"{self._workspace_path()}/mcp-servers/{segment('server', server)}/calls"
        deadline = Deadline.after(timeout_seconds)
        body = {"tool": tool, "arguments": arguments}
        return await self._end_of(await self._submit(path, body, deadline), body, deadline, timeout_seconds)

    async def _end_of(
        self, handle: dict[str, Any], body: Mapping[str, Any], deadline: Deadline, timeout_seconds: float
    ) -> dict[str, Any]:
        execution_id = handle.get("execution_id")
        if not isinstance(execution_id, str):
            raise PlatformClientError(f"The platform accepted an execution, but named none: {handle!r:.200}")
        if isinstance(ended := handle.get("execution"), dict):  # A call that is replayed.
            document = cast("dict[str, Any]", ended)
            await activity.CURRENT.turn(document.get("finished_at"))
            return document
        try:
            is_bounded = body.get("timeout_seconds", float("inf")) <= timeout_seconds
            return await self.await_result(execution_id, deadline, timeout_seconds, is_bounded=is_bounded)
        except TimeoutError as exc:
            with contextlib.suppress(PlatformClientError):
                await self.cancel(execution_id, Deadline.after(CANCEL_SECONDS))
            raise PlatformExecutionError(
                f"Execution {execution_id} did not complete before the caller wait budget expired"
            ) from exc

    async def await_result(
        self,
        execution_id: str | UUID,
        deadline: Deadline,
        timeout_seconds: float,
        poll_interval_seconds: float = POLL_INTERVAL_SECONDS,
        not_found_retry_seconds: float = NOT_FOUND_RETRY_SECONDS,
        *,
        is_bounded: bool = False,
    ) -> dict[str, Any]:
        # If the execution ends before this wait gives up, the wait needs no clock of this process.
        is_known = is_bounded

        async def read(until: Deadline, hold_seconds: int) -> dict[str, Any]:
            nonlocal is_known
            if not is_known and activity.CURRENT.on_wait is not None:
                hold_seconds = min(hold_seconds, FIRST_HOLD_SECONDS)
            document = await self.read_status(execution_id, until, hold_seconds)
            wait.may_suspend = timeout_seconds >= document.get("timeout_seconds", float("inf"))
            is_known = True
            return document

        try:
            with activity.CURRENT.wait("execution_id", str(execution_id), may_suspend=is_bounded) as wait:
                return await self._waiting.until_terminal(
                    read, deadline, poll_interval_seconds, min(timeout_seconds, max(0.0, not_found_retry_seconds))
                )
        except TimeoutError as exc:
            raise TimeoutError(f"Execution {execution_id} timed out after {timeout_seconds}s") from exc

    async def read_status(
        self, execution_id: str | UUID, deadline: Deadline | None = None, hold_seconds: int = 0
    ) -> dict[str, Any]:
        path = f"{self._workspace_path()}/executions/{segment('execution_id', execution_id)}"
        answer = await self._http.request("GET", path, retry=STATUS, deadline=deadline, hold_seconds=hold_seconds)
        return _object(answer, path)

    async def cancel(self, execution_id: str | UUID, deadline: Deadline | None = None) -> dict[str, Any]:
        path = f"{self._workspace_path()}/executions/{segment('execution_id', execution_id)}/cancel"
        answer = await self._http.request("POST", path, retry=STATUS, deadline=deadline)
        return {} if answer is None else _object(answer, path)


def segment(name: str, value: object) -> str:
    """A value as one segment of a path: it can name nothing but itself.

    Raises:
        PlatformValidationError: It is empty, not text, or one of the segments that mean another place.
    """
    text = str(value)
    try:
        quoted = quote(text, safe="")
    except UnicodeEncodeError:  # A lone surrogate.
        quoted = ""
    if quoted in {"", ".", ".."}:
        raise PlatformValidationError(f"{name} {text!r} is not valid: expected an id or a slug")
    return quoted


def _replayed(document: dict[str, Any], workspace: str) -> dict[str, Any]:
    """The answer to a submit whose execution has ended."""
    path = f"{workspace}/executions/{document['execution_id']}"
    said = {name: document[name] for name in ("execution_id", "status", "deployment_id", "ring_id", "created_at")}
    return {**said, "status_url": path, "events_url": f"{path}/events", "execution": document}


def _object(answer: Any, path: str) -> dict[str, Any]:
    if not isinstance(answer, dict):
        raise PlatformClientError(f"The answer to {path} is not a JSON object: {answer!r:.200}")
    return cast("dict[str, Any]", answer)
