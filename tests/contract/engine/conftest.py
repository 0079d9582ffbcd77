"""A real engine over SQLite and a real nats-server, with a clock that the test moves and a runner that it scripts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from flow_platform.bus.connection import Bus
from flow_platform.bus.server import NatsServer
from flow_platform.domain.clock import ManualClock
from flow_platform.engine.service import Engine
from flow_platform.store import open_store
from tests.support.eventually import eventually
from tests.support.scripted_runner import ScriptedRunner
from tests.support.stage import Stage, keep_leases


@pytest.fixture
async def nats(tmp_path: Path) -> AsyncIterator[NatsServer]:
    server = NatsServer(tmp_path / "nats")
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    """A module that asks for each kind of database overrides it."""
    return f"sqlite:///{tmp_path / 'flow.db'}"


@pytest.fixture
async def stage(database_url: str, nats: NatsServer) -> AsyncIterator[Stage]:
    clock = ManualClock()
    engine = Engine(open_store(database_url), nats.url, clock=clock)
    await engine.start()
    keep_leases(engine)
    bus = await Bus.connect(nats.runner_url, name="scripted")
    runner = ScriptedRunner(bus)
    await eventually(lambda: _ready(engine), bool)
    await runner.start()
    made = Stage(engine, clock, nats, runner)
    await made.publish()
    yield made
    await bus.drain_and_close()
    await engine.stop()


async def _ready(engine: Engine) -> bool:
    return engine.is_ready
