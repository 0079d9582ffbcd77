"""One process per runner id: a second one is refused while the first lives, and welcome as soon as it is gone."""

from __future__ import annotations

import asyncio

import pytest

from flow_platform.bus.connection import Bus
from flow_platform.domain.clock import ManualClock
from flow_platform.engine import heartbeats
from flow_platform.engine.service import Engine
from flow_platform.store import open_store
from flow_sdk.wire.runner import Claim, Claimed, Register
from flow_sdk.wire.status import Status
from tests.support.eventually import eventually
from tests.support.scripted_runner import ScriptedRunner, held
from tests.support.stage import Stage, keep_leases

pytestmark = pytest.mark.timeout(120)

TAKEN = "runner_id_taken"


async def connected(stage: Stage, runner_id: str = "twin") -> ScriptedRunner:
    """A runner over a connection of its own, as a process has it."""
    return ScriptedRunner(await Bus.connect(stage.nats.runner_url, name=runner_id), runner_id)


async def test_a_second_process_is_refused_while_the_first_lives(stage: Stage) -> None:
    first, second = await connected(stage), await connected(stage)
    await first.live()
    assert (await first.register()).error == ""
    execution = await stage.submit()
    [assignment] = await first.claim()
    for _ in range(2):
        assert (await second.register()).error == TAKEN
    reply = await first.heartbeat([held(assignment)])
    assert (reply.error, reply.lost) == ("", [])
    assert (await second.heartbeat([])).error == "unknown_runner"
    await first.report(assignment, "done")
    assert (await stage.wait(execution.id)).status is Status.COMPLETED
    assert (await first.register()).error == "", "the same process may say it again"
    await first.bus.drain_and_close()
    assert (await second.register()).error == ""
    await second.bus.drain_and_close()


async def test_a_restart_after_a_crash_waits_for_nothing(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeats, "ALIVE_SECONDS", 600.0)  # Whoever waited for an answer would wait for ever.
    first = await connected(stage)
    await first.live()
    await first.register()
    execution = await stage.submit()
    [assignment] = await first.claim()
    assert first.bus._client is not None
    first.bus._closing = True
    await first.bus._client.close()  # As the kernel does for a process that was killed.
    second = await connected(stage)
    assert (await eventually(second.register, lambda it: not it.error)).error == ""
    [again] = await eventually(second.claim, bool)
    assert (again.execution_id, again.attempt) == (execution.id, assignment.attempt + 1)
    await second.bus.drain_and_close()


async def test_one_that_hangs_gives_way(stage: Stage) -> None:
    first, second = await connected(stage), await connected(stage)

    async def hang(_: bytes) -> bytes:
        await asyncio.sleep(60)
        return b""

    first._alive = hang  # type: ignore[method-assign]
    await first.live()
    await first.register()
    assert (await second.register()).error == ""
    assert (await first.heartbeat([])).error == "unknown_runner"
    await first.bus.drain_and_close()
    await second.bus.drain_and_close()


async def test_a_dead_process_whose_claim_another_engine_holds_is_granted_nothing(
    stage: Stage, postgresql_url: str
) -> None:
    """Two engines on one database; only one of them hears that the runner started anew."""
    engines = [Engine(open_store(postgresql_url), stage.nats.url, clock=ManualClock()) for _ in range(2)]
    for engine in engines:
        await engine.start()
        keep_leases(engine)
    one, two = engines
    there = Stage(two, stage.clock, stage.nats, stage.runner)
    await eventually(lambda: _ready(two), bool)
    await there.publish()
    await one._heartbeats.register(Register(runner_id="phoenix", instance="dead", slots=4))
    held_claim = asyncio.create_task(two._claims.claim(_claim("dead", 5.0)))
    await eventually(lambda: _holds(two, "dead"), bool)
    await one._heartbeats.register(Register(runner_id="phoenix", instance="risen", slots=4))
    execution = await there.submit()
    assert (await there.get(execution.id)).status is Status.QUEUED, "nobody reads that answer"
    [assignment] = Claimed.model_validate_json(await one._claims.claim(_claim("risen", 0.0))).assignments
    assert assignment.execution_id == execution.id
    held_claim.cancel()
    await asyncio.gather(held_claim, return_exceptions=True)
    for engine in engines:
        await engine.stop()


def _claim(instance: str, hold_seconds: float) -> Claim:
    return Claim(runner_id="phoenix", instance=instance, slots=4, room=4, hold_seconds=hold_seconds)


async def _ready(engine: Engine) -> bool:
    return engine.is_ready


async def _holds(engine: Engine, instance: str) -> bool:
    return engine._claims._grants.find(instance) is not None
