"""A sandbox with canaries around it, and a way to run a component in one of its containers."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

from flow_platform.hostile import own_kernel
from flow_platform.hostile.answer import Answer
from flow_platform.hostile.canaries import Canaries
from flow_platform.hostile.source import source_of
from flow_platform.sandbox.base import Container, ContainerSpec, Ended, ProtocolError, Sandbox
from flow_sdk.wire.harness import Frame
from flow_sdk.wire.isolation import Isolation
from flow_sdk.wire.runner import Limits

SPEC: Final = ContainerSpec(tenant="hostile")
OTHER_TENANT: Final = ContainerSpec(tenant="neighbour")
DEADLINE_SECONDS: Final = 30.0


@dataclass
class Run:
    """What came out of one container."""

    ended: Ended
    frames: list[Frame] = field(default_factory=list[Frame])
    events: list[bytes] = field(default_factory=list[bytes])
    result: dict[str, Any] | None = None
    logs: bytes = b""
    protocol_error: str = ""
    timed_out: bool = False

    @property
    def output(self) -> Any:
        """What the component returned.

        Raises:
            RuntimeError: It did not: then the attempt has shown nothing.
        """
        if self.result is None or self.result["error"] is not None:
            told = self.protocol_error or (self.result or {}).get("error") or self.ended
            raise RuntimeError(f"the component did not return: {told!r:.300} {self.logs[-300:]!r}")
        return self.result["output"]

    @property
    def error_code(self) -> str:
        error = (self.result or {}).get("error")
        return error["code"] if error else ""


@dataclass
class Box:
    """Attributes:
    folder: For environments: kept until the sandbox is closed, which makes waiting containers of them until then.
    weak: Names of what `Sandbox.check` says that this machine does not hold.
    """

    sandbox: Sandbox
    canaries: Canaries
    folder: Path
    weak: frozenset[str] = frozenset()

    def judge(self, found: list[Answer]) -> list[Answer]:
        """What an answer means in this sandbox."""
        return own_kernel.judge(found) if self.sandbox.name == Isolation.GVISOR else found

    async def try_inside(self, name: str, given: Any = None, **options: Any) -> Run:
        """Runs `inside/{name}.py`."""
        return await self.run(source_of(name), given, **options)

    async def run(
        self,
        code: str,
        given: Any = None,
        *,
        limits: Limits = Limits(),
        deadline: float = DEADLINE_SECONDS,
        spec: ContainerSpec = SPEC,
        on_container: Callable[[Container], None] | None = None,
        on_event: Callable[[bytes], None] | None = None,
        **start: Any,
    ) -> Run:
        """Takes a container, starts the code, reads to its result or the deadline, ends it.

        Args:
            on_container: Called before the start, e.g. to serve its listeners.
            on_event: Called with each event of the component, as it comes.
            start: More of the START frame.
        """
        container = await self.sandbox.acquire(spec)
        if on_container is not None:
            on_container(container)
        run = Run(ended=None)  # type: ignore[arg-type] - known at the end.
        logs = asyncio.ensure_future(_read_logs(container, run))
        body: dict[str, Any] = {
            "mode": "run",
            "kind": "code_block",
            "code": code,
            "entry_point": "main",
            "input": {"input_data": {} if given is None else given},
            **start,
        }
        try:
            with contextlib.suppress(TimeoutError):
                run.timed_out = True
                async with asyncio.timeout(deadline):
                    await container.start(json.dumps(body).encode(), limits)
                    await _read_frames(container, run, on_event)
                run.timed_out = False
        finally:
            run.logs += b"".join(chunk.data for chunk in container.drain_logs())
            run.ended = await container.end()
            await logs
        return run


async def _read_frames(container: Container, run: Run, on_event: Callable[[bytes], None] | None) -> None:
    try:
        async for kind, content in container.frames():
            run.frames.append(kind)
            if kind is Frame.EVENT:
                run.events.append(content)
                if on_event is not None:
                    on_event(content)
            elif kind is Frame.RESULT:
                run.result = _object(content)
        if run.result is None:
            await container.wait()
    except (ProtocolError, ValueError, RecursionError) as error:
        run.protocol_error = str(error) or type(error).__name__


def _object(content: bytes) -> dict[str, Any]:
    value = json.loads(content)
    if not isinstance(value, dict) or not value.keys() >= {"output", "error"}:
        raise ValueError(f"a result is an object with output and error, not {content[:80]!r}")
    return cast("dict[str, Any]", value)


async def _read_logs(container: Container, run: Run) -> None:
    async for chunk in container.logs():
        run.logs += chunk.data
