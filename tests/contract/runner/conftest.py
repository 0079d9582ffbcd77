"""A real nats-server and a real sandbox, one of each for the run; a runner and an engine's stand-in for each test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from flow_platform.build.environment import Environments
from flow_platform.build.index import Index
from flow_platform.bus.connection import Bus
from flow_platform.bus.gateway import Gateway
from flow_platform.bus.server import NatsServer
from flow_platform.domain.clock import SystemClock
from flow_platform.egress.resolver import SystemResolver
from flow_platform.runner.attempt import Workplace
from flow_platform.runner.config import RunnerConfig
from flow_platform.runner.network import Egress
from flow_platform.runner.runner import Runner
from flow_platform.runner.sandboxes import Sandboxes
from flow_platform.sandbox.base import ContainerSpec
from flow_platform.sandbox.namespaces.sandbox import NamespacesSandbox
from tests.contract.runner.fake_engine import FakeEngine
from tests.support.sandbox_cache import sandbox_cache

RUNNER_ID = "runner-1"

StartRunner = Callable[..., Awaitable[Runner]]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def nats_server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[NatsServer]:
    server = NatsServer(tmp_path_factory.mktemp("nats"))
    await server.start()
    yield server
    await server.stop()


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def sandbox() -> AsyncIterator[NamespacesSandbox]:
    opened = NamespacesSandbox(sandbox_cache(), pool_size=2)
    await opened.open()
    await opened.warm(ContainerSpec("workspace"))
    yield opened
    await opened.close()


@pytest_asyncio.fixture(loop_scope="session")
async def engine(nats_server: NatsServer) -> AsyncIterator[FakeEngine]:
    bus = await Bus.connect(nats_server.url, name="engine")
    fake = FakeEngine(bus)
    await fake.start()
    yield fake
    await fake.stop()
    await bus.drain_and_close()


@pytest_asyncio.fixture(loop_scope="session")
async def start_runner(
    nats_server: NatsServer, sandbox: NamespacesSandbox, cache_dir: Path
) -> AsyncIterator[StartRunner]:
    running: list[tuple[Runner, asyncio.Task[None], Bus, Environments]] = []

    async def start(**changes: object) -> Runner:
        values: dict[str, object] = {
            "nats_url": nats_server.runner_url,
            "api_host": "127.0.0.1",
            "api_port": 1,
            "runner_id": RUNNER_ID,
            "slots": 4,
            "cache_dir": cache_dir,
        }
        egress = changes.pop("egress", Egress(SystemResolver()))
        config = RunnerConfig(**(values | changes))  # pyright: ignore[reportArgumentType]
        bus = await Bus.connect(config.nats_url, name="runner")
        environments = Environments(cache_dir, sandbox, index=Index())
        workplace = Workplace(
            runner_id=config.runner_id,
            channel=config.channel,
            api_address=(config.api_host, config.api_port),
            bus=bus,
            sandboxes=Sandboxes([sandbox]),
            environments=environments,
            gateway=Gateway(),
            clock=SystemClock(),
            egress=egress,  # pyright: ignore[reportArgumentType]
        )
        runner = Runner(config, f"instance-{len(running)}", bus, workplace)
        try:
            await runner.start()
        except BaseException:
            await runner.close()
            await environments.close()
            await bus.drain_and_close()
            raise
        running.append((runner, asyncio.create_task(runner.run()), bus, environments))
        return runner

    yield start
    for runner, task, bus, environments in running:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await runner.close()
        await environments.close()
        await bus.drain_and_close()


@asynccontextmanager
async def http_api(answer: bytes) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A small HTTP server that stands for the API: its port, and the request heads it saw."""
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                seen.append(head)
                writer.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(answer)
                )
                writer.write(answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], seen
    finally:
        server.close()
        await server.wait_closed()
