"""What every sandbox must do, seen through the port alone."""

from __future__ import annotations

import asyncio
import json
import textwrap
from pathlib import Path

import pytest

from flow_platform.sandbox.base import (
    API_PORT,
    NATS_PORT,
    Command,
    ContainerSpec,
    Ending,
    LogChunk,
    Sandbox,
)
from flow_sdk.wire.harness import Frame
from flow_sdk.wire.runner import Limits
from tests.support.component_runs import SPEC, run_component

pytestmark = pytest.mark.asyncio(loop_scope="package")

SLEEP = "import time\ndef main():\n    time.sleep(60)\n"


async def test_runs_a_component_and_returns_its_output(sandbox: Sandbox) -> None:
    run = await run_component(sandbox, "def main(name):\n    return {'hello': name}\n", {"name": "Ada"})
    assert run.frames == [Frame.STARTED, Frame.RESULT]
    assert run.output == {"hello": "Ada"}


async def test_a_container_is_fresh_each_time(sandbox: Sandbox) -> None:
    code = """
        import builtins, os, sys
        def main():
            found = [os.path.exists('/tmp/left'), hasattr(builtins, 'left'), 'LEFT' in os.environ, os.getpid()]
            open('/tmp/left', 'w').close(); builtins.left = 1; os.environ['LEFT'] = '1'
            return found
    """
    for _ in range(5):
        assert (await run_component(sandbox, code)).output == [False, False, False, 1]


async def test_containers_draw_different_random_numbers(sandbox: Sandbox) -> None:
    """`hash(str)` is left out: forks of one template share the hash seed; renewing the template changes it."""
    code = """
        import os, random, secrets, ssl, tempfile, uuid
        def main():
            return [random.random(), os.urandom(8).hex(), ssl.RAND_bytes(8).hex(), str(uuid.uuid4()),
                    secrets.token_hex(8), next(tempfile._get_candidate_names())]
    """
    drawn = [(await run_component(sandbox, code)).output for _ in range(4)]
    for source in zip(*drawn, strict=True):
        assert len(set(source)) == len(drawn), source


async def test_logs_arrive_from_both_streams(sandbox: Sandbox) -> None:
    container = await sandbox.acquire(SPEC)
    code = "import sys\ndef main():\n    print('out')\n    print('err', file=sys.stderr)\n"
    await container.start(_start(code), Limits())
    chunks: dict[str, bytes] = {}
    async for chunk in container.logs():
        chunks[chunk.stream] = chunks.get(chunk.stream, b"") + chunk.data
    await container.end()
    assert chunks == {"stdout": b"out\n", "stderr": b"err\n"}


async def test_logs_are_drained_when_the_result_is_in(sandbox: Sandbox) -> None:
    container = await sandbox.acquire(SPEC)
    await container.start(_start("def main():\n    print('last words')\n"), Limits())
    assert [kind async for kind, _ in container.frames()] == [Frame.STARTED, Frame.RESULT]
    assert container.drain_logs() == [LogChunk("stdout", b"last words\n")]
    await container.end()


async def test_logs_over_the_limit_are_dropped_and_counted(sandbox: Sandbox) -> None:
    code = "def main():\n    print('x' * 3_000_000)\n    return 'done'\n"
    run = await run_component(sandbox, code, limits=Limits(log_bytes=10_000))
    assert run.output == "done"
    kept, _, marker = run.logs.partition(b"[flow]")
    assert kept == b"x" * 10_000
    assert b"log_bytes is 10000" in marker


async def test_events_over_the_limit_are_dropped_and_counted(sandbox: Sandbox) -> None:
    code = """
        from flow_sdk import emit_event
        def main():
            for n in range(10):
                emit_event('progress', {'n': n})
    """
    run = await run_component(sandbox, code, limits=Limits(events=4))
    assert [event["event_data"]["n"] for event in run.events] == [0, 1, 2, 3]
    assert b"6 more events were dropped" in run.logs


async def test_limits_are_those_of_the_component(sandbox: Sandbox) -> None:
    code = """
        import os
        def main():
            tmp = os.statvfs('/tmp')
            return tmp.f_blocks * tmp.f_frsize
    """
    assert (await run_component(sandbox, code, limits=Limits(tmp_bytes=1 << 20))).output == 1 << 20
    assert (await run_component(sandbox, code, limits=Limits(tmp_bytes=100 << 20))).output == 100 << 20


async def test_memory_over_the_limit_ends_as_out_of_memory(sandbox: Sandbox) -> None:
    code = "def main():\n    held = []\n    while True:\n        held.append(bytearray(4 << 20))\n"
    run = await run_component(sandbox, code, limits=Limits(memory_bytes=64 << 20))
    if run.result is None:
        assert run.ended.ending is Ending.OUT_OF_MEMORY
        assert run.ended.usage.oom_kills >= 1
        assert run.ended.usage.max_rss_bytes <= 64 << 20
    else:  # Without cgroups, by the limit on the process.
        assert run.error["code"] == "out_of_memory"


@pytest.mark.parametrize(
    ("statement", "ending", "exit_code", "signal"),
    [
        ("os._exit(7)", Ending.EXITED, 7, None),
        ("ctypes.string_at(0)", Ending.CRASHED, None, 11),
        ("ctypes.CDLL(None).syscall(ctypes.c_long(0x40000000 | 39))", Ending.FORBIDDEN_SYSCALL, None, 31),
    ],
)
async def test_says_how_a_container_ended(
    sandbox: Sandbox, statement: str, ending: Ending, exit_code: int | None, signal: int | None
) -> None:
    run = await run_component(sandbox, f"import ctypes, os\ndef main():\n    {statement}\n")
    assert run.result is None
    assert (run.ended.ending, run.ended.exit_code, run.ended.signal) == (ending, exit_code, signal)


async def test_end_kills_what_does_not_listen(sandbox: Sandbox) -> None:
    run = await run_component(sandbox, SLEEP, deadline=0.2)
    assert run.timed_out
    assert run.ended.ending is Ending.KILLED


async def test_end_with_grace_lets_the_component_clean_up(sandbox: Sandbox) -> None:
    code = """
        import asyncio
        from flow_sdk import emit_event
        async def main():
            try:
                emit_event('progress')
                await asyncio.sleep(60)
            finally:
                print('cleaned up', flush=True)
    """
    container = await sandbox.acquire(SPEC)
    await container.start(_start(code), Limits())
    frames = container.frames()
    assert [(await anext(frames))[0], (await anext(frames))[0]] == [Frame.STARTED, Frame.EVENT]
    ended = asyncio.ensure_future(container.end(grace_seconds=10))
    logs = b"".join([chunk.data async for chunk in container.logs()])
    assert (await ended).ending is Ending.EXITED
    assert b"cleaned up" in logs


async def test_end_is_idempotent_and_works_before_start(sandbox: Sandbox) -> None:
    container = await sandbox.acquire(SPEC)
    first = await container.end()
    assert await container.end() == first == await container.wait()


async def test_usage_counts_processor_time(sandbox: Sandbox) -> None:
    """Work, not time: clocks of processors inside are not the host's in every sandbox."""
    code = "def main():\n    return sum(range(20_000_000))\n"
    run = await run_component(sandbox, code)
    assert run.ended.usage.cpu_ms >= 100
    assert run.ended.usage.max_rss_bytes > 0


async def test_listeners_are_the_only_way_out(sandbox: Sandbox) -> None:
    code = """
        import socket
        def main(ports):
            answers = []
            for port in ports:
                with socket.create_connection(('127.0.0.1', port)) as connection:
                    answers.append(connection.recv(100).decode())
            return answers
    """
    container = await sandbox.acquire(SPEC)
    assert sorted(container.listeners) == sorted([API_PORT, NATS_PORT])
    loop = asyncio.get_running_loop()
    await container.start(_start(code, {"ports": [API_PORT, NATS_PORT]}), Limits())
    for port in (API_PORT, NATS_PORT):
        connection, _ = await loop.sock_accept(container.listeners[port])
        with connection:
            await loop.sock_sendall(connection, b"from %d" % port)
    bodies = [body async for kind, body in container.frames() if kind is Frame.RESULT]
    assert json.loads(bodies[0])["output"] == [f"from {API_PORT}", f"from {NATS_PORT}"]
    await container.end()


async def test_the_environment_of_the_component_is_importable_and_read_only(sandbox: Sandbox, tmp_path: Path) -> None:
    packages = tmp_path / "packages"
    packages.mkdir()
    (packages / "slugs.py").write_text("def slug(text):\n    return text.lower().replace(' ', '-')\n")
    (packages / "flow_sdk.py").write_text("raise RuntimeError('shadowed')\n")
    (packages / "json.py").write_text("raise RuntimeError('shadowed')\n")
    code = """
        import flow_sdk, json, slugs
        def main():
            try:
                open('/env/slugs.py', 'a')
            except OSError as exc:
                return [slugs.slug('Ada L'), exc.errno in (13, 30), json.dumps(1)]
    """
    spec = ContainerSpec(tenant="tests", environment_digest="d1", environment_path=packages)
    assert (await run_component(sandbox, code, spec=spec)).output == ["ada-l", True, "1"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("struct.pack('>BI', 9, 0)", "frame kind 9"),
        ("struct.pack('>BI', 3, 1 << 30)", "EVENT frame of 1073741824 bytes"),
        ("struct.pack('>BI', 4, (1 << 32) - 1)", "RESULT frame of 4294967295 bytes"),
        ("struct.pack('>BI', 2, 0)", "second STARTED"),
        ("struct.pack('>BI', 3, 10) + b'half'", "bytes of a frame"),
    ],
)
async def test_a_broken_protocol_is_an_error_not_a_hang(sandbox: Sandbox, data: str, message: str) -> None:
    run = await run_component(sandbox, f"import os, struct\ndef main():\n    os.write(3, {data})\n    os._exit(0)\n")
    assert message in run.protocol_error


async def test_a_command_runs_with_its_folders_and_a_proxy_only(sandbox: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/name.txt").write_text("Ada")
    (tmp_path / "out").mkdir()
    program = """
import os, socket
with socket.create_connection(("127.0.0.1", 3128)) as proxy:
    greeting = proxy.recv(100).decode()
open("/out/result", "w").write(greeting + open("/in/name.txt").read())
try:
    open("/in/other", "w")
except OSError as exc:
    print("read-only:", exc.errno)
print(sorted(os.environ), os.getuid(), [p for p in os.listdir("/proc") if p.isdigit()])
"""
    command = Command(
        argv=["/python/bin/python3", "-I", "-c", program],
        env={"KEY": "value"},
        writable={tmp_path / "out": "/out"},
        readable={tmp_path / "in": "/in"},
        proxy=True,
    )

    async def greet(connection: object) -> None:
        with connection:  # type: ignore[attr-defined]
            connection.setblocking(False)  # type: ignore[attr-defined]
            await asyncio.get_running_loop().sock_sendall(connection, b"hello ")  # type: ignore[arg-type]

    done = await sandbox.run_command(command, greet)
    assert (done.ended.ending, done.ended.exit_code) == (Ending.EXITED, 0), done.output
    assert done.output.splitlines() == ["read-only: 30", "['KEY'] 1000 ['1']"]
    assert (tmp_path / "out/result").read_text() == "hello Ada"


async def test_a_command_over_its_time_is_killed(sandbox: Sandbox) -> None:
    command = Command(
        argv=["/python/bin/python3", "-c", "print('begun', flush=True)\nwhile True: pass"], env={}, timeout_seconds=3.0
    )
    done = await sandbox.run_command(command)
    assert done.ended.ending is Ending.KILLED
    assert done.output == "begun\n"


async def test_check_reports_what_holds(sandbox: Sandbox) -> None:
    checks = {check.name: check.level for check in await sandbox.check()}
    assert checks[sandbox.name] == "ok"
    assert {"own user ids", "limits"} <= checks.keys()


def _start(code: str, input_data: object = None) -> bytes:
    given = {"input_data": input_data or {}}
    start = {"mode": "run", "kind": "code_block", "code": textwrap.dedent(code), "entry_point": "main", "input": given}
    return json.dumps(start).encode()
