"""A real nats-server per test (it starts in 40 ms, over an empty store), and buses connected to it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from flow_platform.bus.connection import Bus
from flow_platform.bus.server import NatsServer

Eventually = Callable[..., Awaitable[Any]]


@pytest.fixture
def eventually() -> Eventually:
    """Repeats an assertion until it holds, or fails with its last failure."""

    async def wait(assertion: Callable[[], Any], within: float = 60.0) -> Any:
        deadline = asyncio.get_running_loop().time() + within
        while True:
            try:
                outcome = assertion()
                return await outcome if asyncio.iscoroutine(outcome) else outcome
            except AssertionError:
                if asyncio.get_running_loop().time() > deadline:
                    raise
                await asyncio.sleep(0.01)

    return wait


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[NatsServer]:
    server = NatsServer(tmp_path / "nats")
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def bus(server: NatsServer) -> AsyncIterator[Bus]:
    """The engine's connection."""
    bus = await Bus.connect(server.url, name="engine")
    await bus.ensure_streams()
    yield bus
    await bus.drain_and_close()


@pytest.fixture
async def runner_bus(server: NatsServer, bus: Bus) -> AsyncIterator[Bus]:
    """A runner's connection, with a runner's permissions."""
    runner = await Bus.connect(server.runner_url, name="runner")
    yield runner
    await runner.drain_and_close()


@pytest.fixture
async def background() -> AsyncIterator[Callable[[Any], asyncio.Task[Any]]]:
    """Starts coroutines that are cancelled at the end of the test."""
    tasks: list[asyncio.Task[Any]] = []

    def start(work: Any) -> asyncio.Task[Any]:
        tasks.append(asyncio.create_task(work))
        return tasks[-1]

    yield start
    for task in tasks:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
