"""One attempt, from its assignment to its report.

The way: environment and input -> a sealed container -> START -> frames -> RESULT -> report; the container is ended in
the background. One task runs it, one more reads its log; a deadline and a cancel are callbacks that end the container,
whereupon its frames end. Whoever stops the attempt first decides its verdict.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final

from flow_platform.build.environment import Environments
from flow_platform.bus.connection import Bus
from flow_platform.bus.gateway import Gateway
from flow_platform.bus.sessions import DenialCode, Tried
from flow_platform.domain import errors
from flow_platform.domain.clock import Clock
from flow_platform.egress.injection import Injection
from flow_platform.egress.resolver import SystemResolver
from flow_platform.runner import ending, start_frame
from flow_platform.runner.config import Channel
from flow_platform.runner.intake import Intake, Refused
from flow_platform.runner.log_events import LogEvents
from flow_platform.runner.network import Egress, WayOut, injections_of
from flow_platform.runner.outbox import Report
from flow_platform.runner.publisher import Publisher
from flow_platform.runner.redaction import Redactor
from flow_platform.runner.refusals import GatewayRefusals
from flow_platform.runner.relay import Relay
from flow_platform.runner.result import Result, output_payload
from flow_platform.runner.sandboxes import Sandboxes
from flow_platform.runner.session import ExecutionSession
from flow_platform.runner.tokens import ExecutionTokens
from flow_platform.sandbox.base import (
    PROXY_PORT,
    Container,
    ContainerSpec,
    Ended,
    ProtocolError,
    Usage,
    whereabouts,
)
from flow_sdk.wire import agent, subjects
from flow_sdk.wire.execution import ErrorDocument
from flow_sdk.wire.harness import Frame
from flow_sdk.wire.runner import Assignment, AttemptMetrics
from flow_sdk.wire.status import Status

logger = logging.getLogger(__name__)

CANCEL_GRACE_SECONDS: Final = 1.0  # Between SIGTERM and SIGKILL; the platform promises 2 s for the whole.
EXIT_SECONDS: Final = 1.0  # For a container that closed its socket to also exit, so that its exit code is known.
PUSHED_OUTPUT_SECONDS: Final = 5.0  # For a container that pushed its output itself to also finish.

FetchSecrets = Callable[[Assignment], Awaitable[dict[str, str] | ErrorDocument]]
"""Given an assignment: the secrets of its component, or the error that the attempt ends with."""


@dataclass(frozen=True)
class Workplace:
    """What all attempts of a runner share.

    Attributes:
        tokens: Believes renewed tokens at the gateway; None: only the one that the attempt was given.
    """

    runner_id: str
    channel: Channel
    api_address: tuple[str, int]
    bus: Bus
    sandboxes: Sandboxes
    environments: Environments
    gateway: Gateway
    clock: Clock
    egress: Egress = field(default_factory=lambda: Egress(SystemResolver()))
    tokens: ExecutionTokens | None = None
    refusals: GatewayRefusals = field(default_factory=GatewayRefusals)
    suspend_after_seconds: float | None = None


@dataclass
class _Times:
    """Instants; 0 until reached. Not of the event loop's clock: uvloop's counts whole milliseconds."""

    received: float
    prepared: float = 0.0
    acquired: float = 0.0
    started: float = 0.0
    result: float = 0.0


class Attempt:
    """Runs once. `stop`, `cancel` and `abandon` may be called at any time, from the same event loop.

    Args:
        end_later: Ends a container in the background and counts it until it is gone.
    """

    def __init__(
        self,
        assignment: Assignment,
        workplace: Workplace,
        end_later: Callable[[Container], None],
        fetch_secrets: FetchSecrets,
    ) -> None:
        self.assignment = assignment
        self._end_later = end_later
        self._fetch_secrets = fetch_secrets
        self._secrets: dict[str, str] = {}
        self._injections: list[Injection] = []
        self._place = workplace
        self._loop = asyncio.get_running_loop()
        self._times = _Times(time.perf_counter())
        self._publisher = Publisher(workplace.bus, assignment, workplace.runner_id, workplace.clock)
        self._intake = Intake(self._publisher, assignment.limits)
        self._container: Container | None = None
        self._way_out: WayOut | None = None
        self._preparing: asyncio.Task[ContainerSpec] | None = None
        self._closing: asyncio.Task[Ended] | None = None
        self._pushed: asyncio.TimerHandle | None = None
        self._input: bytes | None = None
        self._started_at: datetime | None = None
        self._verdict: ErrorDocument | None = None
        self._is_abandoned = False
        self._usage: Usage | None = None

    def stop(self, verdict: ErrorDocument, grace_seconds: float = 0.0) -> None:
        """Ends the attempt with this error, unless it was stopped before. A result that is in stays the result."""
        if self._is_stopped:
            return
        if self._intake.result is None:
            self._verdict = verdict
        self._end_container(grace_seconds)

    def cancel(self, reason: str = ending.CANCELLED) -> None:
        """Ends it as the engine asked: the deadline was reached, or it was cancelled."""
        if reason == ending.TIMEOUT:
            self.stop(ending.timeout(self.assignment.timeout_seconds))
        else:
            self.stop(ending.cancelled(), CANCEL_GRACE_SECONDS)

    def abandon(self) -> None:
        """Ends the container and reports nothing: the lease is somebody else's."""
        self._is_abandoned = True
        self._publisher.close()
        self._end_container(0.0)

    async def run(self) -> Report | None:
        """Runs to the end, whatever that is. None: there is nothing to report."""
        deadline = self._loop.call_later(max(0.0, self.assignment.remaining_seconds), self.cancel, ending.TIMEOUT)
        try:
            outcome = await self._run()
        except Exception as error:
            logger.exception("an attempt failed in the runner", extra=self._fields())
            outcome = ending.lost(f"the runner failed with {type(error).__name__}")
        finally:
            deadline.cancel()
            if self._pushed is not None:
                self._pushed.cancel()
        self._publisher.close()
        return None if self._is_abandoned else self._report(outcome)

    async def _run(self) -> Result | ErrorDocument:
        try:
            spec = await self._prepare()
            self._times.prepared = time.perf_counter()
            if self._is_stopped or spec is None:
                return self._stopped()
            container = await self._place.sandboxes.get(self.assignment.isolation).acquire(spec)
        except errors.FlowError as error:
            logger.warning("an attempt got no container: %s", error, extra=self._fields())
            return self._verdict or ending.lost(f"{error.error_code}: {error.message}")
        self._times.acquired = time.perf_counter()
        self._container = container
        try:
            if self._is_stopped:
                return self._stopped()
            await self._serve(container)
            return await self._settle(container)
        finally:
            self._end_later(container)

    async def _prepare(self) -> ContainerSpec | None:
        """Gets what the container needs; None when stopped meanwhile. Only the rare slow cases cost a task."""
        assignment, path = self.assignment, self._place.environments.find(self.assignment.environment)
        is_built = path is not None or not assignment.environment.digest
        if is_built and assignment.input_object is None and not _needs_secrets(assignment):
            return self._spec(path)
        self._preparing = asyncio.create_task(self._fetch(), name=f"prepare-{assignment.execution_id}")
        try:
            return await self._preparing
        except asyncio.CancelledError:
            if self._is_stopped:
                return None
            raise
        finally:
            self._preparing = None

    async def _fetch(self) -> ContainerSpec:
        assignment = self.assignment
        if assignment.input_object is not None:
            self._input = await self._place.bus.get_object(assignment.input_object)
        if _needs_secrets(assignment):
            await self._get_secrets()
        return self._spec(await self._place.environments.ensure(assignment.environment))

    def _spec(self, environment_path: Path | None) -> ContainerSpec:
        assignment = self.assignment
        return ContainerSpec(
            assignment.workspace_id,
            assignment.environment.digest,
            environment_path,
            proxy=bool(assignment.network),
            modules=agent.MODULES if assignment.agent is not None else (),
        )

    async def _get_secrets(self) -> None:
        """From here on whatever the attempt says is redacted. Without its secrets it ends."""
        found = await self._fetch_secrets(self.assignment)
        if isinstance(found, ErrorDocument):
            self.stop(ending.lost(found.message) if found.retryable else found)
            return
        self._secrets = {name: found[name] for name in self.assignment.secrets}
        self._injections = injections_of(self.assignment, found)
        self._publisher.redactor = Redactor(found.values())

    def _is_ours(self, token: str, execution_id: str) -> bool:
        tokens = self._place.tokens
        return tokens is not None and tokens.is_of(token, execution_id, self.assignment.lease_epoch)

    async def _serve(self, container: Container) -> None:
        """Starts the code and takes what the container says, until its result or its end."""
        assignment, place = self.assignment, self._place
        session = ExecutionSession(
            assignment.execution_id,
            assignment.token,
            self._intake,
            self._input_body,
            self._output_pushed,
            self._refused,
            self._is_ours,
            self._denied,
        )
        relay = Relay(
            container.listeners,
            place.api_address,
            lambda sock: place.gateway.attach(sock, session),
            lambda: session.denied("CONNECT", "rate_limited"),
        )
        logs = LogEvents(container, self._publisher, assignment.limits.log_bytes)
        try:
            if assignment.network:
                listener = container.listeners[PROXY_PORT]
                self._way_out = WayOut(assignment, listener, place.egress, self._publisher, self._injections)
            frame = start_frame.encode(
                assignment,
                place.channel,
                self._input,
                self._secrets,
                place.suspend_after_seconds,
                whereabouts(container),
            )
            await container.start(frame, assignment.limits)
            async for kind, body in container.frames():
                if await self._take(kind, body):
                    break
        except ProtocolError as error:
            self.stop(ending.protocol_error(str(error)))
        except Refused as error:
            self.stop(error.error)
        except OSError as error:
            self.stop(ending.lost(f"it could not be spoken to: {error}"))
        finally:
            self._times.result = time.perf_counter()
            relay.close()
            if self._way_out is not None:
                await self._way_out.finish()
            if relay.used_nats:
                await place.gateway.end(session)  # What was sent before the end is published before the report.
            has_result = self._intake.result is not None and not self._is_stopped
            rest = container.drain_logs() if has_result else []
            await logs.finish(rest, at_end=not has_result)

    async def _take(self, frame: Frame, body: bytes) -> bool:
        """Handles one frame; True after the last one."""
        match frame:
            case Frame.STARTED if self._started_at is None:
                self._times.started = time.perf_counter()
                self._started_at = self._place.clock.now()
                await self._publisher.status(Status.RUNNING.value)
            case Frame.EVENT if self._started_at is not None:
                await self._intake.event(body)
            case Frame.RESULT if self._place.channel == "nats":
                # Only the end: the output was pushed through the gateway.
                if self._intake.result is None:
                    raise ProtocolError("it finished without having pushed its output")
                return True
            case Frame.RESULT:
                await self._intake.output(body)
                return True
            case _:
                raise ProtocolError(f"a {frame.name} frame out of place")
        return False

    async def _settle(self, container: Container) -> Result | ErrorDocument:
        """Decides how it ended: stopped by us, with a result, or by the container's own end."""
        if self._is_stopped:
            ended = await (self._closing or container.end())
            self._usage = ended.usage
            return self._stopped()
        if self._intake.result is not None:
            self._usage = container.usage()
            return self._intake.result
        try:
            async with asyncio.timeout(EXIT_SECONDS):
                ended = await container.wait()
        except TimeoutError:
            self._usage = (await container.end()).usage
            return ending.protocol_error("it closed its socket without a result and went on running")
        self._usage = ended.usage
        return self._stopped() if self._is_stopped else ending.error_for(ended, self.assignment.limits)

    @property
    def _is_stopped(self) -> bool:
        return self._verdict is not None or self._is_abandoned

    def _stopped(self) -> ErrorDocument:
        return self._verdict or ending.lost("its lease was given to another runner")

    def _end_container(self, grace_seconds: float) -> None:
        if self._way_out is not None:
            self._way_out.close()  # At once, though the container may have some time to say its last words.
        if self._preparing is not None:
            self._preparing.cancel()
        if self._container is not None and self._closing is None:
            self._closing = asyncio.create_task(self._container.end(grace_seconds), name="end-container")

    async def _input_body(self) -> bytes:
        if self._input is None:
            self._input = json.dumps(self.assignment.input or {}, separators=(",", ":")).encode()
        return self._input

    def _output_pushed(self) -> None:
        """The container gave its output by NATS: it may still finish in peace, but not for ever."""
        if self._pushed is None:
            self._pushed = self._loop.call_later(PUSHED_OUTPUT_SECONDS, self._end_container, 0.0)

    def _refused(self, error: ErrorDocument) -> None:
        self.stop(error)

    def _denied(self, tried: Tried, code: DenialCode, subject: str) -> None:
        def said() -> str:  # What a container names may be one of its secrets.
            redactor = self._publisher.redactor
            return subject if redactor is None else redactor.text(subject)

        self._place.refusals.note(self.assignment, tried, code, said)

    def _report(self, outcome: Result | ErrorDocument) -> Report:
        assignment = self.assignment
        if isinstance(outcome, ErrorDocument) and self._publisher.redactor is not None:
            outcome = self._publisher.redactor.error(outcome)
        body = output_payload(assignment, self._publisher.timestamp(), outcome)
        headers = {**self._publisher.headers, subjects.HEADER_METRICS: self._metrics().model_dump_json()}
        return Report(assignment.execution_id, assignment.lease_epoch, assignment.attempt, body, headers)

    def _metrics(self) -> AttemptMetrics:
        times, usage, now = self._times, self._usage or Usage(), time.perf_counter()
        result = times.result or now
        return AttemptMetrics(
            started_at=self._started_at,
            start_ms=_ms(times.received, times.started),
            run_ms=_ms(times.started, result),
            cpu_ms=round(usage.cpu_ms, 3) if self._usage else None,
            max_rss_bytes=usage.max_rss_bytes or None,
            stages={
                "prepare": _ms(times.received, times.prepared) or 0.0,
                "container": _ms(times.prepared, times.acquired) or 0.0,
                "hand_over": _ms(times.acquired, times.started) or 0.0,
                "user_code": _ms(times.started, result) or 0.0,
                "result": _ms(result, now) or 0.0,
            },
            events=self._publisher.published,
        )

    def _fields(self) -> dict[str, object]:
        assignment = self.assignment
        return {
            "execution_id": assignment.execution_id,
            "attempt": assignment.attempt,
            "lease_epoch": assignment.lease_epoch,
        }


def _needs_secrets(assignment: Assignment) -> bool:
    return bool(assignment.secrets or assignment.injected)


def _ms(since: float, until: float) -> float | None:
    return round((until - since) * 1000, 3) if since and until else None
