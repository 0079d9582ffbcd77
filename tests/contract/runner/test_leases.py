"""Claims, heartbeats, lost and recorded leases, and the drain."""

from __future__ import annotations

import asyncio

import pytest

from flow_platform.bus.connection import Bus
from flow_platform.bus.server import NatsServer
from flow_platform.bus.streams import STREAMS
from flow_platform.domain import errors
from flow_platform.runner import runner as runner_module
from flow_sdk.wire import subjects
from tests.contract.runner.conftest import RUNNER_ID, StartRunner
from tests.contract.runner.fake_engine import FakeEngine, assignment, becomes

pytestmark = pytest.mark.asyncio(loop_scope="session")

SLEEPS = "import time\ndef main():\n    time.sleep(60)"
QUICK = "def main():\n    return 1"


async def test_a_runner_registers_when_an_engine_comes(nats_server: NatsServer, start_runner: StartRunner) -> None:
    starting = asyncio.create_task(start_runner(slots=3))
    bus = await Bus.connect(nats_server.url, name="late")
    try:
        engine = FakeEngine(bus)
        await engine.start()
        await asyncio.wait_for(starting, 60)
        assert engine.registers[0].runner_id == RUNNER_ID
        assert engine.registers[0].slots == 3
        assert engine.registers[0].capabilities == ["namespaces"]
        await engine.stop()
    finally:
        await bus.drain_and_close()


async def test_one_claim_is_outstanding_and_renewed(engine: FakeEngine, start_runner: StartRunner) -> None:
    engine.hold_seconds = 0.1
    await start_runner(max_containers=9)
    await becomes(lambda: len(engine.claims) >= 3, True)
    assert {claim.room for claim in engine.claims} == {9}
    assert {claim.hold_seconds for claim in engine.claims} == {0.1}


async def test_an_unknown_runner_registers_again_as_the_same_instance(
    engine: FakeEngine, start_runner: StartRunner
) -> None:
    await start_runner()
    engine.knows_runners = False
    await becomes(lambda: len(engine.registers) >= 2, True)
    engine.knows_runners = True
    assert len({register.instance for register in engine.registers}) == 1
    assert (await engine.run(assignment(QUICK))).content["output"] == 1


async def test_a_lost_lease_ends_the_container_and_reports_nothing(
    engine: FakeEngine, start_runner: StartRunner
) -> None:
    await start_runner()
    work = assignment(SLEEPS)
    await engine.work.put(work)
    await becomes(lambda: engine.statuses.get(work.execution_id), ["running"])
    await becomes(lambda: engine.last_heartbeat.containers, 1)
    engine.lost.add(work.execution_id)
    await becomes(lambda: (engine.last_heartbeat.leases, engine.last_heartbeat.containers), ([], 0))
    assert work.execution_id not in engine.outputs


async def test_a_newer_attempt_replaces_the_older_one(engine: FakeEngine, start_runner: StartRunner) -> None:
    await start_runner()
    work = assignment(SLEEPS)
    await engine.work.put(work)
    await becomes(lambda: engine.statuses.get(work.execution_id), ["running"])
    newer = work.model_copy(update={"lease_epoch": 2, "attempt": 2, "code": QUICK})
    output = await engine.run(newer)
    assert output.headers[subjects.HEADER_LEASE_EPOCH] == "2"
    assert len(engine.outputs[work.execution_id]) == 1


async def test_a_report_is_held_until_it_is_recorded(engine: FakeEngine, start_runner: StartRunner) -> None:
    engine.is_recording = False
    await start_runner()
    work = assignment(QUICK)
    await engine.run(work)
    await becomes(lambda: [lease.reported for lease in engine.last_heartbeat.leases], [True])
    await becomes(lambda: len(engine.outputs[work.execution_id]) >= 2, True)  # Said again after two heartbeats.
    engine.is_recording = True
    await becomes(lambda: engine.last_heartbeat.leases, [])
    first, second = engine.outputs[work.execution_id][:2]
    assert first == second or first.content == second.content


async def test_a_report_survives_the_loss_of_its_stream(engine: FakeEngine, start_runner: StartRunner) -> None:
    await start_runner()
    work = assignment("import time\ndef main():\n    time.sleep(0.3)\n    return 'kept'")
    await engine.work.put(work)
    await becomes(lambda: engine.statuses.get(work.execution_id), ["running"])
    for stream in STREAMS:
        await engine.bus.api(f"STREAM.DELETE.{stream}", {})
    assert (await engine.ended(work.execution_id)).content["output"] == "kept"


async def test_a_cancel_that_overtook_its_assignment_counts(engine: FakeEngine, start_runner: StartRunner) -> None:
    await start_runner()
    work = assignment(SLEEPS)
    await engine.notify_cancel(work.model_copy(update={"lease_epoch": 0}), RUNNER_ID)  # An older attempt's.
    await engine.notify_cancel(work, RUNNER_ID)
    output = await engine.run(work)
    assert output.error["code"] == "cancelled"
    assert work.execution_id not in engine.statuses, "its code was not started"


async def test_room_is_bounded_by_containers(engine: FakeEngine, start_runner: StartRunner) -> None:
    await start_runner(max_containers=2)
    works = [assignment(SLEEPS) for _ in range(2)]
    for work in works:
        await engine.work.put(work)
    await becomes(lambda: all(work.execution_id in engine.statuses for work in works), True)
    claims = len(engine.claims)
    engine.cancel.add(works[0].execution_id)
    await becomes(lambda: len(engine.claims) > claims, True)
    assert engine.claims[-1].room == 1


async def test_a_drain_hands_back_what_still_runs(engine: FakeEngine, start_runner: StartRunner) -> None:
    runner = await start_runner()
    long, short = assignment(SLEEPS), assignment("import time\ndef main():\n    time.sleep(0.3)\n    return 'done'")
    for work in (long, short):
        await engine.work.put(work)
    await becomes(lambda: {long.execution_id, short.execution_id} <= engine.statuses.keys(), True)
    await runner.drain(3.0)  # Enough for the short one on a slow machine.
    assert (await engine.ended(short.execution_id)).content["output"] == "done"
    error = (await engine.ended(long.execution_id)).error
    assert error["code"] == "runner_drained"
    claims = len(engine.claims)
    late = assignment(QUICK)
    await engine.work.put(late)
    assert len(engine.claims) == claims
    engine.work.get_nowait()


async def test_a_drain_hands_back_what_was_granted_at_that_moment(
    engine: FakeEngine, start_runner: StartRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner_module, "LAST_CLAIM_SECONDS", 30.0)  # An answer that comes late is another case.
    runner = await start_runner()
    await becomes(lambda: bool(engine.claims), True)
    late = assignment(SLEEPS)
    engine.undelivered.append(late)
    await runner.drain(5)
    assert (await engine.ended(late.execution_id)).error["code"] == "runner_drained"


async def test_leases_are_kept_while_a_report_cannot_be_published(
    engine: FakeEngine, start_runner: StartRunner
) -> None:
    await start_runner()
    stream = subjects.STREAM_OUTPUT
    await engine.bus.api(f"STREAM.UPDATE.{stream}", {**STREAMS[stream], "sealed": True})  # Refuses every message.
    try:
        await engine.work.put(assignment(QUICK))
        await becomes(lambda: sum(any(lease.reported for lease in beat.leases) for beat in engine.heartbeats) > 5, True)
    finally:
        await engine.bus.api(f"STREAM.DELETE.{stream}", {})


async def test_a_drain_waits_for_the_record(engine: FakeEngine, start_runner: StartRunner) -> None:
    engine.is_recording = False
    runner = await start_runner()
    await engine.run(assignment(QUICK))
    draining = asyncio.create_task(runner.drain(1))
    heartbeats = len(engine.heartbeats)
    await becomes(lambda: len(engine.heartbeats) > heartbeats + 1, True)
    assert not draining.done()
    engine.is_recording = True
    await asyncio.wait_for(draining, 60)


async def test_a_runner_whose_id_is_taken_waits_a_moment_and_gives_up(
    engine: FakeEngine, start_runner: StartRunner
) -> None:
    engine.is_id_taken = True
    with pytest.raises(errors.Conflict) as caught:
        await start_runner(patience_seconds=0.2)
    assert caught.value.error_code == "runner_id_taken"
    assert (f"{RUNNER_ID!r} is at work" in caught.value.message, "--runner-id" in caught.value.hint) == (True, True)
    starting = asyncio.create_task(start_runner(patience_seconds=30))
    registers = len(engine.registers)
    await becomes(lambda: len(engine.registers) > registers, True)
    engine.is_id_taken = False
    await starting
    await engine.run(assignment(QUICK))


async def test_a_runner_says_that_it_lives(engine: FakeEngine, start_runner: StartRunner) -> None:
    await start_runner()
    [register] = engine.registers
    alive = subjects.runner_alive(RUNNER_ID, register.instance)
    assert await engine.bus.request(alive, b"", timeout=5) == b""
    with pytest.raises(errors.BusUnavailable):
        await engine.bus.request(subjects.runner_alive(RUNNER_ID, "another"), b"", timeout=5)


async def test_a_runner_that_was_replaced_ends(engine: FakeEngine, start_runner: StartRunner) -> None:
    runner = await start_runner()
    running = asyncio.create_task(runner.run())
    engine.is_id_taken, engine.knows_runners = True, False
    with pytest.raises(errors.Conflict, match="is at work already"):
        await asyncio.wait_for(running, 60)
