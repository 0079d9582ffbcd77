"""A whole runner process: start, signals, and what is left of it."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from flow_platform.bus.connection import Bus
from flow_platform.bus.server import NatsServer
from tests.contract.runner import runner_program
from tests.contract.runner.fake_engine import FakeEngine, assignment, becomes
from tests.support.sandbox_cache import sandbox_cache

pytestmark = pytest.mark.asyncio(loop_scope="session")

SLEEPS = "import time\ndef main():\n    time.sleep(60)"


@asynccontextmanager
async def _process(url: str, drain_seconds: float, *more: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(Path(runner_program.__file__)),
        url,
        str(sandbox_cache()),
        str(drain_seconds),
        *more,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _ready(process: asyncio.subprocess.Process) -> None:
    assert process.stdout is not None
    assert await asyncio.wait_for(process.stdout.readline(), 60) == b"ready\n"


def _descendants(pid: int) -> set[int]:
    found: set[int] = set()
    pending = [pid]
    while pending:
        for task in Path(f"/proc/{pending.pop()}/task").glob("*/children"):
            children = {int(child) for child in task.read_text().split()}
            found |= children
            pending += children
    return found


def _alive(processes: set[int]) -> list[int]:
    return [pid for pid in processes if Path(f"/proc/{pid}").exists()]


@pytest.mark.slow
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_a_signal_drains(engine: FakeEngine, nats_server: NatsServer, loop: str) -> None:
    async with _process(nats_server.runner_url, 40, loop) as process:
        await _ready(process)
        work = assignment("import time\ndef main():\n    print('at work')\n    time.sleep(0.5)\n    return 'finished'")
        await engine.work.put(work)
        await becomes(lambda: engine.statuses.get(work.execution_id), ["running"])
        descendants = _descendants(process.pid)
        assert descendants
        process.send_signal(signal.SIGTERM)
        assert (await engine.ended(work.execution_id)).content["output"] == "finished"
        assert await asyncio.wait_for(process.wait(), 50) == 0
    await becomes(lambda: _alive(descendants), [])
    assert engine.log_text(work.execution_id) == "at work"


@pytest.mark.slow
async def test_a_second_signal_stops_at_once(engine: FakeEngine, nats_server: NatsServer) -> None:
    async with _process(nats_server.runner_url, 60) as process:
        await _ready(process)
        work = assignment(SLEEPS)
        await engine.work.put(work)
        await becomes(lambda: engine.statuses.get(work.execution_id), ["running"])
        descendants = _descendants(process.pid)
        process.send_signal(signal.SIGINT)
        await becomes(lambda: any(claim.room == 0 for claim in engine.claims), True)
        process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(process.wait(), 50) == 0
    await becomes(lambda: _alive(descendants), [])


@pytest.mark.slow
async def test_a_runner_waits_for_nats(tmp_path: Path) -> None:
    server = NatsServer(tmp_path / "nats")
    await server.start()
    url = server.runner_url
    await server.stop()
    async with _process(url, 1) as process:
        await server.start()  # On the same port; the runner was told of it while nobody was there.
        bus = await Bus.connect(server.url, name="engine")
        try:
            fake = FakeEngine(bus)
            await fake.start()
            await _ready(process)
            process.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(process.wait(), 50) == 0
            await fake.stop()
        finally:
            await bus.drain_and_close()
            await server.stop()


@pytest.mark.slow
async def test_a_signal_hands_back_what_takes_longer_than_the_drain(
    engine: FakeEngine, nats_server: NatsServer
) -> None:
    async with _process(nats_server.runner_url, 0.3) as process:
        await _ready(process)
        work = assignment(SLEEPS)
        await engine.work.put(work)
        await becomes(lambda: engine.statuses.get(work.execution_id), ["running"])
        descendants = _descendants(process.pid)
        process.send_signal(signal.SIGTERM)
        error = (await engine.ended(work.execution_id)).error
        assert error["code"] == "runner_drained"
        assert "'process-1'" in error["message"]
        assert await asyncio.wait_for(process.wait(), 50) == 0
    await becomes(lambda: _alive(descendants), [])
