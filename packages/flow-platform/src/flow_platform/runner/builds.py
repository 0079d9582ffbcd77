"""Serves build requests: locks and installs the environment, then inspects the component in a container of it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Final

import pydantic

from flow_platform.build import inspect
from flow_platform.build.environment import Environments
from flow_platform.bus.connection import Bus
from flow_platform.domain import errors
from flow_platform.runner import ending
from flow_platform.runner.logs import LogLines
from flow_platform.runner.sandboxes import Sandboxes
from flow_platform.sandbox.base import Container, ContainerSpec, ProtocolError
from flow_sdk.wire import agent, subjects
from flow_sdk.wire.harness import Frame
from flow_sdk.wire.runner import BuildReply, BuildRequest, EnvironmentRef
from flow_sdk.wire.status import Kind

logger = logging.getLogger(__name__)

BUILD_TENANT: Final = "build"  # Its templates are never shared with a workspace's.
MAX_WAITING: Final = 64  # More requests than that are refused, not queued for an hour.
SHOWN_LOG_CHARACTERS: Final = 2_000


class Builds:
    """Answers requests for builds that are inspected in an isolation of this runner.

    At most `parallel` at a time, so that builds leave room for executions.
    """

    def __init__(self, environments: Environments, sandboxes: Sandboxes, parallel: int) -> None:
        self._environments = environments
        self._sandboxes = sandboxes
        self._turns = asyncio.Semaphore(parallel)
        self._waiting = 0
        self._is_draining = False
        self._idle = asyncio.Event()
        self._idle.set()

    async def serve(self, bus: Bus) -> None:
        """Attaches the handler; returns at once."""
        for isolation in self._sandboxes.offered:
            await bus.serve(subjects.build_request(isolation), subjects.RUNNER_QUEUE, self.handle)

    async def handle(self, body: bytes) -> bytes:
        """One request, whatever becomes of it, has one answer."""
        try:
            request = BuildRequest.model_validate_json(body)
        except pydantic.ValidationError as error:
            reply = inspect.refused("invalid_request", f"the build request was not understood: {error}")
        else:
            reply = await self.build(request)
        return reply.model_dump_json().encode()

    async def build(self, request: BuildRequest) -> BuildReply:
        if self._waiting >= MAX_WAITING:
            return inspect.failed(errors.SandboxUnavailable(f"{self._waiting} builds wait already; try again later"))
        if self._is_draining:
            return inspect.failed(errors.SandboxUnavailable("this runner is stopping; try again"))
        self._waiting += 1
        self._idle.clear()
        try:
            async with self._turns:
                return await self._build(request)
        except errors.FlowError as error:
            logger.info("a build was refused: %s", error, extra={"slug": request.slug})
            return inspect.failed(error)
        except Exception as error:
            logger.exception("a build failed in the runner", extra={"slug": request.slug})
            return inspect.failed(errors.FlowError(f"the build failed in the runner with {type(error).__name__}"))
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._idle.set()

    async def drain(self, seconds: float) -> None:
        """Takes no more requests and waits for the running ones."""
        self._is_draining = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._idle.wait()

    async def _build(self, request: BuildRequest) -> BuildReply:
        environment = await self._environments.resolve(request.dependencies)
        path = await self._environments.ensure(environment)
        # An agent without code has nothing to look at but what all agents run with.
        modules = agent.MODULES if request.kind is Kind.AGENT and not request.code else ()
        spec = ContainerSpec(BUILD_TENANT, environment.digest, path, modules=modules)
        container = await self._sandboxes.get(request.isolation).acquire(spec)
        try:
            async with asyncio.timeout(min(inspect.MAX_SECONDS, request.timeout_seconds)):
                return await self._inspect(container, request, environment)
        except TimeoutError:
            seconds = min(inspect.MAX_SECONDS, request.timeout_seconds)
            return inspect.refused(
                "inspection_timeout", f"loading the code and running its examples took longer than {seconds:g} s"
            )
        finally:
            await container.end()

    async def _inspect(self, container: Container, request: BuildRequest, environment: EnvironmentRef) -> BuildReply:
        try:
            await container.start(inspect.start_frame(request), inspect.LIMITS)
            async for frame, body in container.frames():
                if frame is Frame.RESULT:
                    return inspect.reply(environment, body)
        except ProtocolError as error:
            return inspect.refused(ending.PROTOCOL_ERROR, f"the container broke its protocol: {error}")
        document = ending.error_for(await container.wait(), inspect.LIMITS)
        return inspect.refused(document.code, document.message + _written(container))


def _written(container: Container) -> str:
    """What the code wrote before it took its container down."""
    lines = LogLines(inspect.LIMITS.log_bytes)
    for chunk in container.drain_logs():
        lines.feed(chunk)
    lines.finish()
    text = "\n".join(text for _, text in lines.take())
    return f"; it wrote: {text[-SHOWN_LOG_CHARACTERS:]}" if text else ""
