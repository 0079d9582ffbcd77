"""Runs one component in a fresh container of a sandbox and gathers everything that came out of it."""

from __future__ import annotations

import asyncio
import json
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from flow_platform.sandbox.base import Container, ContainerSpec, Ended, ProtocolError, Sandbox
from flow_sdk.wire.harness import Frame
from flow_sdk.wire.runner import Limits

SPEC = ContainerSpec(tenant="tests")


@dataclass
class ComponentRun:
    ended: Ended
    frames: list[Frame] = field(default_factory=list[Frame])
    events: list[Any] = field(default_factory=list[Any])
    result: dict[str, Any] | None = None
    logs: bytes = b""
    protocol_error: str = ""
    timed_out: bool = False

    @property
    def output(self) -> Any:
        assert self.result is not None, self
        assert self.result["error"] is None, self.result["error"]
        return self.result["output"]

    @property
    def error(self) -> dict[str, Any]:
        assert self.result is not None, self
        assert self.result["error"] is not None, self.result
        return self.result["error"]


async def run_component(
    sandbox: Sandbox,
    code: str,
    input_data: Any = None,
    *,
    limits: Limits = Limits(),
    deadline: float = 60.0,
    seconds_after_event: float | None = None,
    grace: float = 0.0,
    spec: ContainerSpec = SPEC,
    on_container: Callable[[Container], None] | None = None,
    **start: Any,
) -> ComponentRun:
    """Acquires, starts, reads to the result or the deadline, ends.

    Args:
        seconds_after_event: The deadline from the first event on: what is ended has begun by then.
        on_container: Called before the start, e.g. to serve its listeners.
    """
    body = {
        "mode": "run",
        "kind": "code_block",
        "code": textwrap.dedent(code),
        "entry_point": "main",
        "input": {"input_data": {} if input_data is None else input_data},
        **start,
    }
    container = await sandbox.acquire(spec)
    if on_container is not None:
        on_container(container)
    gathered = ComponentRun(ended=None)  # type: ignore[arg-type]

    async def read_logs() -> None:
        async for chunk in container.logs():
            gathered.logs += chunk.data

    logs = asyncio.ensure_future(read_logs())
    try:
        await container.start(json.dumps(body).encode(), limits)
        async with asyncio.timeout(deadline) as limit:
            async for kind, content in container.frames():
                gathered.frames.append(kind)
                if kind is Frame.EVENT:
                    gathered.events.append(json.loads(content))
                    if seconds_after_event is not None and len(gathered.events) == 1:
                        limit.reschedule(asyncio.get_running_loop().time() + seconds_after_event)
                elif kind is Frame.RESULT:
                    gathered.result = json.loads(content)
            if gathered.result is None:
                await container.wait()
    except TimeoutError:
        gathered.timed_out = True
    except ProtocolError as exc:
        gathered.protocol_error = str(exc)
    for chunk in container.drain_logs():
        gathered.logs += chunk.data
    gathered.ended = await container.end(grace)
    await logs
    return gathered
