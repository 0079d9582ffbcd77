"""What becomes of an attempt, with real containers and a real bus."""

from __future__ import annotations

import asyncio
import json

import pytest

from flow_sdk.wire import subjects
from flow_sdk.wire.runner import Limits
from tests.contract.runner.conftest import RUNNER_ID, StartRunner
from tests.contract.runner.fake_engine import FakeEngine, assignment, becomes

pytestmark = pytest.mark.asyncio(loop_scope="session")

ENDINGS = {
    "raises": ("def main():\n    raise KeyError('x')", Limits(), "component_error"),
    "sys_exit": ("import sys\ndef main():\n    sys.exit(3)", Limits(), "component_error"),
    "os_exit": ("import os\ndef main():\n    os._exit(3)", Limits(), "process_crashed"),
    "abort": ("import os\ndef main():\n    os.abort()", Limits(), "process_crashed"),
    "too_large": ("def main():\n    return 'x' * 4096", Limits(output_bytes=1024), "output_too_large"),
    "wrong_input": ("def main(n: int):\n    return n", Limits(), "invalid_input"),
}


async def test_a_result_is_reported_with_lease_and_metrics(engine: FakeEngine, start_runner: StartRunner) -> None:
    await start_runner()
    work = assignment("def main(n: int) -> int:\n    return n + 1", {"n": 41}, lease_epoch=7, attempt=3)
    output = await engine.run(work)
    assert output.content == {
        "execution_id": work.execution_id,
        "deployment_id": "deployment",
        "output": 42,
        "usage": None,
        "messages": None,
        "state": None,
        "error": None,
        "timestamp": output.content["timestamp"],
    }
    assert output.headers[subjects.HEADER_LEASE_EPOCH] == "7"
    assert output.headers[subjects.HEADER_ATTEMPT] == "3"
    assert output.headers[subjects.HEADER_RUNNER] == RUNNER_ID
    assert output.metrics.started_at is not None
    assert output.metrics.cpu_ms is not None
    assert set(output.metrics.stages) == {"prepare", "container", "hand_over", "user_code", "result"}
    await becomes(lambda: engine.statuses.get(work.execution_id), ["running"])


@pytest.mark.parametrize(("code", "limits", "expected"), ENDINGS.values(), ids=ENDINGS.keys())
async def test_every_ending_has_its_code(
    engine: FakeEngine, start_runner: StartRunner, code: str, limits: Limits, expected: str
) -> None:
    await start_runner()
    output = await engine.run(assignment(code, limits=limits))
    assert output.error["code"] == expected, output.error


async def test_out_of_memory_names_limit_and_peak(engine: FakeEngine, start_runner: StartRunner) -> None:
    await start_runner()
    code = "def main():\n    data = b'x' * (400 << 20)\n    return len(data)"
    output = await engine.run(assignment(code, limits=Limits(memory_bytes=96 << 20)))
    assert output.error["code"] == "out_of_memory", output.error
    assert "96.0 MiB" in output.error["message"]


async def test_a_deadline_ends_the_attempt(engine: FakeEngine, start_runner: StartRunner) -> None:
    await start_runner()
    code = "import time\ndef main():\n    print('before', flush=True)\n    time.sleep(60)"
    work = assignment(code, remaining_seconds=3.0, timeout_seconds=3.0)  # For the first line on a slow machine.
    output = await engine.run(work)
    assert output.error["code"] == "timeout"
    assert "3 s" in output.error["message"]
    await becomes(lambda: engine.log_text(work.execution_id), "before")


async def test_a_cancel_notice_ends_the_attempt(engine: FakeEngine, start_runner: StartRunner) -> None:
    await start_runner()
    work = assignment("import time\ndef main():\n    time.sleep(60)")
    await engine.work.put(work)
    await becomes(lambda: engine.statuses.get(work.execution_id), ["running"])
    await engine.notify_cancel(work.model_copy(update={"lease_epoch": 99}), RUNNER_ID)  # Of another attempt: ignored.
    await engine.notify_cancel(work, RUNNER_ID)
    output = await engine.ended(work.execution_id)
    assert output.error["code"] == "cancelled"
    assert not output.error["retryable"]


async def test_a_heartbeat_can_cancel_too(engine: FakeEngine, start_runner: StartRunner) -> None:
    await start_runner()
    work = assignment("import time\ndef main():\n    time.sleep(60)")
    engine.cancel.add(work.execution_id)
    assert (await engine.run(work)).error["code"] == "cancelled"


async def test_log_lines_come_before_the_output(engine: FakeEngine, start_runner: StartRunner) -> None:
    await start_runner()
    code = (
        "import os, sys\n"
        "def main():\n"
        "    for n in range(500): print('line', n)\n"
        "    print('to stderr', file=sys.stderr)\n"
        "    os.write(1, b'\\xff\\xfe no text, no newline')\n"
        "    return 1\n"
    )
    work = assignment(code)
    output = await engine.run(work)
    await becomes(lambda: len(engine.events.get(work.execution_id, [])), output.metrics.events)
    events = engine.events[work.execution_id]
    assert [event["sequence"] for event in events] == list(range(1, len(events) + 1))
    assert len(events) < 20, "lines of one moment share an event"
    text = engine.log_text(work.execution_id).split("\n")
    assert [line for line in text if line.startswith("line")] == [f"line {n}" for n in range(500)]
    assert "to stderr" in text
    assert "\ufffd\ufffd no text, no newline" in text


async def test_a_flood_of_log_is_bounded_and_says_so(engine: FakeEngine, start_runner: StartRunner) -> None:
    await start_runner()
    work = assignment(
        "def main():\n    for _ in range(2000): print('y' * 200)\n    return 1", limits=Limits(log_bytes=20_000)
    )
    output = await engine.run(work)
    assert output.content["output"] == 1
    await becomes(lambda: len(engine.events.get(work.execution_id, [])), output.metrics.events)
    text = engine.log_text(work.execution_id)
    assert len(text) < 25_000
    assert "log_bytes" in text


async def test_printing_much_holds_nothing_up(engine: FakeEngine, start_runner: StartRunner) -> None:
    await start_runner()
    code = (
        "import sys\n"
        "def main():\n"
        "    for n in range(25_000): print(f'{n:06d}', 'x' * 192)\n"
        "    for n in range(5_000): print('out'), print('err', file=sys.stderr)\n"
        "    return 'done'\n"
    )
    work = assignment(code)
    output = await engine.run(work)
    assert output.content["output"] == "done"
    assert output.metrics.events < 200
    await becomes(lambda: len(engine.events.get(work.execution_id, [])), output.metrics.events)
    events = engine.events[work.execution_id]
    assert [event["sequence"] for event in events] == list(range(1, len(events) + 1))
    lines = engine.log_text(work.execution_id).split("\n")
    numbers = [int(line[:6]) for line in lines if line.endswith("x" * 192)]
    assert numbers == list(range(len(numbers)))
    assert (1 << 20) - 1000 < sum(len(line) + 1 for line in lines) < (1 << 20) + 2000
    assert any("more bytes of log were dropped: the limit log_bytes is 1048576" in line for line in lines)


async def test_lines_of_both_streams_in_turns_share_events(engine: FakeEngine, start_runner: StartRunner) -> None:
    await start_runner()
    code = (
        "import sys\n"
        "def main():\n"
        "    for n in range(2_000): print('out', n), print('err', n, file=sys.stderr)\n"
        "    return 'done'\n"
    )
    work = assignment(code)
    output = await engine.run(work)
    await becomes(lambda: len(engine.events.get(work.execution_id, [])), output.metrics.events)
    lines = engine.log_text(work.execution_id).split("\n")
    for stream in ("out", "err"):
        assert [line for line in lines if line.startswith(stream)] == [f"{stream} {n}" for n in range(2_000)]


async def test_events_keep_their_order(engine: FakeEngine, start_runner: StartRunner) -> None:
    await start_runner()
    code = (
        "from flow_sdk import emit_event\n"
        "def main():\n    for n in range(50): emit_event('progress', {'n': n})\n    return 1"
    )
    work = assignment(code)
    output = await engine.run(work)
    assert output.metrics.events == 50
    await becomes(lambda: len(engine.events.get(work.execution_id, [])), 50)
    assert [event["event_data"]["n"] for event in engine.events[work.execution_id]] == list(range(50))


async def test_large_input_and_output_travel_as_objects(engine: FakeEngine, start_runner: StartRunner) -> None:
    await start_runner()
    text = "z" * (3 << 20)
    document = {"input_data": {"text": text}, "session_id": None, "messages": [], "state": {}}
    work = assignment("def main(text: str) -> str:\n    return text + '!'", input=None, input_object="input-1")
    await engine.bus.put_object("input-1", json.dumps(document).encode())
    output = await engine.run(work)
    assert output.content["output"] == text + "!"
    assert output.headers[subjects.HEADER_PAYLOAD_OBJECT] == f"{work.execution_id}/1/output"


async def test_a_container_cannot_choose_the_runners_words(engine: FakeEngine, start_runner: StartRunner) -> None:
    await start_runner()
    code = (
        "import gc, json, socket\n"
        "from flow_sdk.wire.harness import HEADER, Frame\n"
        "def main():\n"
        "    body = json.dumps({'error': {'code': 'container_lost'}, 'execution_id': 'other'}).encode()\n"
        "    channel = next(o for o in gc.get_objects() if type(o) is socket.socket and o.family == socket.AF_UNIX)\n"
        "    channel.sendall(HEADER.pack(Frame.RESULT, len(body)) + body)\n"
    )
    work = assignment(code)
    output = await engine.run(work)
    assert output.error["code"] == "component_error"
    assert output.content["execution_id"] == work.execution_id


async def test_the_environment_is_the_contracts(engine: FakeEngine, start_runner: StartRunner) -> None:
    await start_runner()
    code = "import os\ndef main() -> dict:\n    return dict(os.environ)"
    work = assignment(code, env={"RING_COLOUR": "blue", "PLATFORM_API_URL": "http://elsewhere"})
    output = await engine.run(work)
    environ = output.content["output"]
    expected = {
        "RING_COLOUR": "blue",
        "PLATFORM_API_URL": "http://127.0.0.1:8420",
        "NATS_URL": f"nats://x:{work.token}@127.0.0.1:4222",
        "AUTH_TOKEN": work.token,
        "ORG_ID": "org",
        "WORKSPACE_ID": "workspace",
        "EXECUTION_ID": work.execution_id,
        "PARENT_BILLING_TXN_ID": "transaction",
        "LIFECYCLE_EVENT": "workflow",
        "DEPLOYMENT_ID": "deployment",
        "RING_ID": "ring",
        "ATTEMPT": "1",
    }
    assert {name: environ.get(name) for name in expected} == expected


async def test_many_at_once(engine: FakeEngine, start_runner: StartRunner) -> None:
    await start_runner(max_containers=6)
    works = [assignment("def main(n: int) -> int:\n    return n * n", {"n": n}) for n in range(24)]
    for work in works:
        await engine.work.put(work)
    outputs = await asyncio.gather(*(engine.ended(work.execution_id) for work in works))
    assert [output.content["output"] for output in outputs] == [n * n for n in range(24)]
    assert max(claim.room for claim in engine.claims) <= 6
