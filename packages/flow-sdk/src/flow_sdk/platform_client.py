"""The client of the platform, for code that runs inside workflow containers.

HTTP for control, NATS JetStream for the execution's own input, output, events and status. Every component execution
runs in an isolated container. Source: the client contract.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, cast
from uuid import UUID

import httpx

from flow_sdk import bodies, environment
from flow_sdk.encoding import NOT_JSON
from flow_sdk.errors import (
    PlatformAuthError,
    PlatformClientError,
    PlatformConflictError,
    PlatformConnectionError,
    PlatformExecutionError,
    PlatformNotFoundError,
    PlatformPermissionError,
    PlatformRateLimitError,
    PlatformServerError,
    PlatformStepError,
    PlatformValidationError,
)
from flow_sdk.exec_io import ExecIo
from flow_sdk.executions import Executions, segment
from flow_sdk.http import Http
from flow_sdk.retry import Deadline

if TYPE_CHECKING:
    from flow_sdk.checkpoints import Checkpoints

__all__ = [
    "PlatformAuthError",
    "PlatformClient",
    "PlatformClientError",
    "PlatformConflictError",
    "PlatformConnectionError",
    "PlatformExecutionError",
    "PlatformNotFoundError",
    "PlatformPermissionError",
    "PlatformRateLimitError",
    "PlatformServerError",
    "PlatformStepError",
    "PlatformValidationError",
]

DEFAULT_EXECUTION_SECONDS: Final = 300


class PlatformClient:
    """Calls other components, and moves the execution's own input, output, events and status.

    One client serves any number of concurrent calls on one event loop. Use it as an async context manager, or call
    `close`.

    Attributes:
        base_url: Where the platform's API is.
        org_id: The organization of all requests.
        workspace_id: The workspace of all requests.
        execution_id: The execution that this code runs in, from `EXECUTION_ID`.
        client: The async HTTP client, with base URL and headers set.
    """

    def __init__(
        self,
        base_url: str | None = None,
        auth_token: str | None = None,
        org_id: str | UUID | None = None,
        workspace_id: str | UUID | None = None,
        timeout: float | None = None,
        on_auth_token_refresh: Callable[[str], Awaitable[None]] | None = None,
    ) -> None:
        """Opens no connection yet.

        Args:
            base_url: Default: `PLATFORM_API_URL`.
            auth_token: A JWT. Default: `AUTH_TOKEN`.
            org_id: Default: `ORG_ID`. An explicit value wins, also an empty one.
            workspace_id: Default: `WORKSPACE_ID`. An explicit value wins, also an empty one.
            timeout: Seconds for one attempt of a request. Default: `PLATFORM_API_TIMEOUT`, else 300.
            on_auth_token_refresh: Awaited with each new token that the platform hands out; its errors are logged.

        Raises:
            ValueError: The URL or the token is missing, or a value has no meaning.
        """
        url = base_url or os.environ.get("PLATFORM_API_URL")
        if not url:
            raise ValueError(
                "Platform API URL not provided. Pass base_url parameter or set PLATFORM_API_URL environment variable."
            )
        token = auth_token or os.environ.get("AUTH_TOKEN")
        if not token:
            raise ValueError(
                "Authentication token not provided. Pass auth_token parameter or set AUTH_TOKEN environment variable."
            )
        self.base_url: str = url
        self.org_id: str | None = environment.identifier(org_id, "ORG_ID")
        self.workspace_id: str | None = environment.identifier(workspace_id, "WORKSPACE_ID")
        self.execution_id: str | None = os.environ.get("EXECUTION_ID") or None
        self._http = Http(
            url, token, environment.timeout(timeout), on_auth_token_refresh, environment.billing_headers()
        )
        self._exec_io = ExecIo(os.environ.get("NATS_URL") or None, self._http, self.execution_id)
        self._executions = Executions(self._http, self._workspace_path)

    @property
    def executions(self) -> Executions:
        return self._executions

    @functools.cached_property
    def checkpoints(self) -> Checkpoints:
        """Of the execution that this code runs in; used through `flow_sdk.step`, `sleep` and `wait_for_event`."""
        from flow_sdk.checkpoints import Checkpoints  # With its documents, which not every program needs.

        return Checkpoints(self._http, self._workspace_path, self.execution_id)

    @property
    def client(self) -> httpx.AsyncClient:
        return self._http.client

    @client.setter
    def client(self, client: httpx.AsyncClient) -> None:
        self._http.use_client(client)

    @property
    def auth_token(self) -> str:
        """The token in use; a newer one that the platform handed out takes the place of the first."""
        return self._http.credentials.token

    @auth_token.setter
    def auth_token(self, token: str) -> None:
        self._http.credentials.replace(token)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the HTTP client and drains the NATS connection if there is an open one. Idempotent."""
        try:
            await self._exec_io.close()
        finally:
            await self._http.aclose()

    # Submitting: returns as soon as the platform has recorded the execution.

    async def submit_code_block_execution(
        self,
        code_block_id: str | UUID,
        input_parameters: Mapping[str, Any],
        config: Mapping[str, Any] | None = None,
        lifecycle_event: str = "workflow",
        ring_id: str | UUID | None = None,
        timeout_seconds: float = 300,
    ) -> dict[str, Any]:
        """Submits a code block.

        Args:
            code_block_id: Its id or slug.
            input_parameters: The keyword arguments of its entry point, as JSON. Values that JSON does not know
                (dates, UUIDs, Decimals) travel as their `str`.
            config: For the platform.
            lifecycle_event: What the execution is billed as.
            ring_id: Where it runs.
            timeout_seconds: From acceptance to result, queue time included.

        Returns:
            The handle: `execution_id`, `status`, `status_url`, `events_url` and more.

        Raises:
            PlatformClientError: No ring was given (nothing was sent), or the platform refused or did not answer: the
                class says which, see `flow_sdk.errors`.
        """
        body = bodies.code_block(input_parameters, config, lifecycle_event, ring_id, timeout_seconds)
        return await self._executions.submit("code-blocks", code_block_id, body)

    async def submit_workflow_execution(
        self,
        workflow_id: str | UUID,
        input_data: Any,
        config: Mapping[str, Any] | None = None,
        lifecycle_event: str = "workflow",
        ring_id: str | UUID | None = None,
        timeout_seconds: float = 300,
    ) -> dict[str, Any]:
        """Submits a workflow; otherwise as `submit_code_block_execution`."""
        body = bodies.workflow(input_data, config, lifecycle_event, ring_id, timeout_seconds)
        return await self._executions.submit("workflows", workflow_id, body)

    async def submit_agent_execution(
        self,
        agent_id: str | UUID,
        input_data: Any,
        config: Mapping[str, Any] | None = None,
        lifecycle_event: str = "agent_run",
        ring_id: str | UUID | None = None,
        timeout_seconds: float = 300,
    ) -> dict[str, Any]:
        """Submits an agent; otherwise as `submit_code_block_execution`."""
        body = bodies.agent(input_data, config, lifecycle_event, ring_id, timeout_seconds)
        return await self._executions.submit("agents", agent_id, body)

    # Watching and ending.

    async def get_execution_status(self, execution_id: str | UUID) -> dict[str, Any]:
        """The status document as it is now.

        Raises:
            PlatformNotFoundError: There is no such execution in this workspace.
            PlatformClientError: The platform refused or did not answer.
        """
        return await self._executions.read_status(execution_id)

    async def cancel_execution(self, execution_id: str | UUID) -> dict[str, Any]:
        """Asks for the end of an execution and of all its children. One that has ended stays as it is.

        Returns:
            The status document; `{}` when the platform sent none.

        Raises:
            PlatformNotFoundError: There is no such execution in this workspace.
            PlatformClientError: The platform refused or did not answer.
        """
        return await self._executions.cancel(execution_id)

    async def await_execution_result(
        self,
        execution_id: str | UUID,
        *,
        timeout_seconds: float = 300,
        poll_interval_seconds: float = 0.5,
        not_found_retry_seconds: float = 30.0,
    ) -> dict[str, Any]:
        """Waits until an execution is `completed`, `failed`, `timeout`, `dead_letter` or `cancelled`.

        The platform is asked to hold each answer until there is something to say, so a result arrives at once.

        Args:
            execution_id: Which one.
            timeout_seconds: The caller's deadline. At least one read happens.
            poll_interval_seconds: The pause between reads where the server does not hold its answer.
            not_found_retry_seconds: For how long "not found" is taken for "not there yet".

        Returns:
            The terminal status document, also of a failed execution.

        Raises:
            TimeoutError: The deadline came first. The execution goes on.
            PlatformNotFoundError: There was no such execution for longer than that.
            PlatformClientError: A read failed, after its retries.
        """
        return await self._executions.await_result(
            execution_id,
            Deadline.after(timeout_seconds),
            timeout_seconds,
            poll_interval_seconds,
            not_found_retry_seconds,
        )

    # Submitting and waiting.

    async def execute_code_block(
        self,
        code_block_id: str | UUID,
        input_parameters: Mapping[str, Any],
        context: Mapping[str, Any] | None,
        scope: str = "workspace",
        lifecycle_event: str = "workflow",
        timeout_seconds: float = 300,
        caller_deployment_id: str | UUID | None = None,
        ring_id: str | UUID | None = None,
    ) -> dict[str, Any]:
        """Submits a code block and waits for its end.

        Args:
            code_block_id: Its id or slug.
            input_parameters: As in `submit_code_block_execution`.
            context: Becomes the execution's `config`.
            scope: Where the id or slug is looked up.
            lifecycle_event: What the execution is billed as.
            timeout_seconds: The execution's, and how long this call waits at most.
            caller_deployment_id: Whose ring is inherited when `ring_id` is missing.
            ring_id: Where it runs.

        Returns:
            The terminal status document, also of a failed execution.

        Raises:
            PlatformExecutionError: It did not end in time, and was cancelled.
            PlatformClientError: Neither ring nor caller was given, it could not be submitted, or a read failed.
        """
        body = bodies.code_block(
            input_parameters,
            context,
            lifecycle_event,
            ring_id,
            timeout_seconds,
            scope=scope,
            caller_deployment_id=caller_deployment_id,
        )
        return await self._executions.execute("code-blocks", code_block_id, body, timeout_seconds)

    async def execute_workflow(
        self,
        workflow_id: str | UUID,
        input_data: Any,
        context: Mapping[str, Any] | None = None,
        config: Mapping[str, Any] | None = None,
        auto_deploy: bool = True,
        lifecycle_event: str = "workflow",
        caller_deployment_id: str | UUID | None = None,
        ring_id: str | UUID | None = None,
        timeout_seconds: float | None = None,
    ) -> dict[str, Any]:
        """Submits a workflow and waits for its end; otherwise as `execute_code_block`.

        Args:
            workflow_id: Its id or slug.
            input_data: JSON.
            context: Becomes the execution's `config` when there is no `config`.
            config: For the platform.
            auto_deploy: False: refused when the workflow is not deployed in the ring.
            lifecycle_event: What the execution is billed as.
            caller_deployment_id: Whose ring is inherited when `ring_id` is missing.
            ring_id: Where it runs.
            timeout_seconds: The execution's, and how long this call waits at most; None means 300.
        """
        budget = DEFAULT_EXECUTION_SECONDS if timeout_seconds is None else timeout_seconds
        body = bodies.workflow(
            input_data,
            config,
            lifecycle_event,
            ring_id,
            budget,
            context=context,
            auto_deploy=auto_deploy,
            caller_deployment_id=caller_deployment_id,
        )
        return await self._executions.execute("workflows", workflow_id, body, budget)

    async def execute_agent(
        self,
        agent_id: str | UUID,
        input_data: Any,
        context: Mapping[str, Any] | None,
        execution_mode: str = "inline",
        caller_deployment_id: str | UUID | None = None,
        ring_id: str | UUID | None = None,
        timeout_seconds: float = 300,
    ) -> dict[str, Any]:
        """Runs an agent and waits for its end; otherwise as `execute_code_block`.

        Args:
            agent_id: Its id or slug.
            input_data: JSON.
            context: Becomes the execution's `config`.
            execution_mode: `isolated`: submit and await. `inline`: one request, answered with the result.
            caller_deployment_id: Whose ring is inherited when `ring_id` is missing.
            ring_id: Where it runs.
            timeout_seconds: The execution's, and how long this call waits at most.
        """
        if execution_mode == "isolated":
            body = bodies.agent(
                input_data, context, "agent_run", ring_id, timeout_seconds, caller_deployment_id=caller_deployment_id
            )
            return await self._executions.execute("agents", agent_id, body, timeout_seconds)
        body = bodies.inline_agent(
            input_data,
            execution_mode,
            caller_deployment_id,
            context=context,
            ring_id=ring_id,
            timeout_seconds=timeout_seconds,
        )
        return await self._executions.execute_inline("agents", "agent_id", agent_id, body)

    async def execute_transform(
        self,
        transform_id: str | UUID,
        input_data: Any,
        context: Mapping[str, Any] | None,
        caller_deployment_id: str | UUID | None = None,
    ) -> dict[str, Any]:
        """Runs a transform in one request and returns its answer.

        Args:
            transform_id: Its id or slug.
            input_data: JSON.
            context: Handed to a transform that requires it.
            caller_deployment_id: Whose ring is inherited.

        Raises:
            PlatformClientError: The platform refused or did not answer.
        """
        body = bodies.inline_transform(input_data, caller_deployment_id, context=context)
        return await self._executions.execute_inline("transforms", "transform_id", transform_id, body)

    async def get_service_skills(self, service_id: str | UUID, *, version: int | str | None = None) -> dict[str, Any]:
        """The skills artifact of a published service.

        Args:
            service_id: Which service.
            version: None: the newest published one.

        Raises:
            PlatformClientError: No organization is known, or the answer is not a JSON object.
            PlatformNotFoundError: There is no such service, or that version is not published.
        """
        if not self.org_id:
            raise PlatformClientError("ORG_ID is required to fetch service skills")
        service = segment("service_id", service_id)
        at = "" if version is None else f"/v{segment('version', version)}"
        path = f"/api/v1/orgs/{segment('org_id', self.org_id)}/services/{service}{at}/skills.json"
        try:
            skills = await self._http.request("GET", path)
        except PlatformClientError as exc:
            if exc.code != NOT_JSON:
                raise
            raise PlatformClientError("Unexpected non-JSON skills response") from exc
        if not isinstance(skills, dict):
            raise PlatformClientError("Unexpected non-JSON skills response")
        return cast("dict[str, Any]", skills)

    # The execution's own input, output, events and status, over NATS.

    async def fetch_execution_input(self, deployment_id: str | UUID | None, execution_id: str | UUID) -> dict[str, Any]:
        """Takes the input of an execution, once, and reports it as running.

        Returns:
            `input_data`, `session_id`, `messages` and `state`.

        Raises:
            PlatformConnectionError: No input came within 60 s.
            PlatformClientError: `NATS_URL` is not set, or what came is not an input.
        """
        return await self._exec_io.fetch_input(str(execution_id))

    async def push_execution_output(
        self,
        deployment_id: str | UUID | None,
        execution_id: str | UUID,
        output: Any,
        usage: Any = None,
        messages: Any = None,
        state: Any = None,
        error: Any = None,
    ) -> None:
        """Hands over what an execution returned, or why it did not. Returns when JetStream has it.

        Raises:
            PlatformValidationError: It is not JSON, or larger than a NATS message may be.
            PlatformConnectionError: It was not acknowledged.
            PlatformClientError: `NATS_URL` is not set.
        """
        await self._exec_io.push_output(
            None if deployment_id is None else str(deployment_id),
            str(execution_id),
            {"output": output, "usage": usage, "messages": messages, "state": state, "error": error},
        )

    async def push_execution_event(
        self, deployment_id: str | UUID | None, execution_id: str | UUID, event_type: str, event_data: Any
    ) -> None:
        """Publishes an event: `message`, `chunk`, `tool_call`, `done`, `error` or a type of the program's own.

        Raises:
            PlatformClientError: As `push_execution_output`.
        """
        await self._exec_io.push_event(str(execution_id), event_type, event_data)

    async def publish_execution_status(self, execution_id: str | UUID, status: str) -> None:
        """Publishes a status.

        Raises:
            PlatformClientError: As `push_execution_output`.
        """
        await self._exec_io.publish_status(str(execution_id), status)

    def _workspace_path(self) -> str:
        if not self.org_id:
            raise PlatformClientError("ORG_ID is required for requests to a workspace")
        if not self.workspace_id:
            raise PlatformClientError("WORKSPACE_ID is required for requests to a workspace")
        org, workspace = segment("org_id", self.org_id), segment("workspace_id", self.workspace_id)
        return f"/api/v1/orgs/{org}/workspaces/{workspace}"
