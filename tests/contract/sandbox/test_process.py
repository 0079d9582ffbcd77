"""The lowest rung: plain processes. They are fresh, bounded and ended; that is all, and it has to be asked for."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from flow_platform.domain.errors import SandboxUnavailable
from flow_platform.sandbox.base import (
    API_PORT,
    NATS_PORT,
    PROXY_PORT,
    Command,
    ContainerSpec,
    Ending,
    LogChunk,
    whereabouts,
)
from flow_platform.sandbox.process.sandbox import ProcessSandbox
from flow_sdk.wire.harness import Frame
from flow_sdk.wire.runner import Limits
from tests.support.component_runs import SPEC, run_component
from tests.support.eventually import eventually
from tests.support.sandbox_cache import sandbox_cache

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sandbox() -> AsyncIterator[ProcessSandbox]:
    opened = ProcessSandbox(sandbox_cache(), allowed=True)
    await opened.open()
    yield opened
    await opened.close()


async def test_it_does_not_open_unless_somebody_said_that_it_may() -> None:
    closed = ProcessSandbox(sandbox_cache())
    with pytest.raises(SandboxUnavailable, match="'process' is not permitted here") as refused:
        await closed.open()
    assert "FLOW_UNSAFE_PROCESSES=1" in refused.value.hint
    assert [check.level for check in await closed.check()] == ["off"]
    with pytest.raises(SandboxUnavailable, match="not open"):
        await closed.acquire(SPEC)


async def test_it_says_loudly_what_it_is(caplog: pytest.LogCaptureFixture) -> None:
    opened = ProcessSandbox(sandbox_cache(), allowed=True)
    with caplog.at_level(logging.WARNING):
        await opened.open()
    await opened.close()
    assert "NO ISOLATION: executions are plain processes of this user" in caplog.text
    assert [check.level for check in await opened.check()] == ["weak"]


async def test_a_component_runs_in_a_fresh_process_and_folder(sandbox: ProcessSandbox) -> None:
    code = """
        import os, sys
        def main(name):
            open('left', 'w').close()
            return {'hello': name, 'pid': os.getpid(), 'in': os.getcwd(), 'found': sorted(os.listdir()),
                    'env': sorted(os.environ), 'platform': 'flow_platform.sandbox.namespaces' in sys.modules}
    """
    runs = [(await run_component(sandbox, code, {"name": "Ada"})).output for _ in range(2)]
    assert [run["hello"] for run in runs] == ["Ada", "Ada"]
    assert len({run["pid"] for run in runs}) == len({run["in"] for run in runs}) == 2
    assert runs[0]["found"] == ["left"]
    assert not {name for run in runs for name in run["env"] if name.startswith(("FLOW_", "PYTEST"))}
    assert not any(is_there(run["in"]) for run in runs)
    assert not runs[0]["platform"]


async def test_logs_and_errors_arrive(sandbox: ProcessSandbox) -> None:
    container = await sandbox.acquire(SPEC)
    await container.start(_start("def main():\n    print('last words')\n"), Limits())
    assert [kind async for kind, _ in container.frames()] == [Frame.STARTED, Frame.RESULT]
    assert container.drain_logs() == [LogChunk("stdout", b"last words\n")]
    ended = await container.end()
    assert ended.ending in (Ending.EXITED, Ending.KILLED)  # We may be faster than its own end.
    assert ended.usage.cpu_ms > 0
    assert ended.usage.max_rss_bytes > 0


async def test_memory_and_files_are_bounded(sandbox: ProcessSandbox) -> None:
    hungry = "def main():\n    held = []\n    while True:\n        held.append(bytearray(4 << 20))\n"
    run = await run_component(sandbox, hungry, limits=Limits(memory_bytes=128 << 20))
    assert run.error["code"] == "out_of_memory"
    wide = "def main():\n    with open('wide', 'wb') as file:\n        file.write(bytes(2 << 20))\n"
    run = await run_component(sandbox, wide, limits=Limits(tmp_bytes=1 << 20))
    assert run.error["type"] == "OSError"


async def test_nothing_that_it_started_goes_on(sandbox: ProcessSandbox) -> None:
    """Also what went into a session of its own, and lost its parent."""
    code = """
        import os, time
        def main():
            reading, writing = os.pipe()
            if os.fork() == 0:
                os.setsid()
                if os.fork() == 0:
                    os.write(writing, str(os.getpid()).encode())
                    time.sleep(600)
                os._exit(0)
            return int(os.read(reading, 20))
    """
    left = (await run_component(sandbox, code)).output
    assert await eventually(lambda: _async(Path(f"/proc/{left}").exists()), lambda found: not found) is False


async def test_a_process_that_runs_is_ended_with_what_it_started(sandbox: ProcessSandbox) -> None:
    code = """
        import os, time
        def main():
            if os.fork() == 0:
                os.setsid()
                time.sleep(600)
            print(os.getpid(), flush=True)
            time.sleep(600)
    """
    container = await sandbox.acquire(SPEC)
    await container.start(_start(code), Limits())
    chunk = await anext(container.logs())
    ended = await container.end()
    assert ended.ending is Ending.KILLED
    assert not is_there(f"/proc/{int(chunk.data)}")


async def test_its_listeners_are_on_free_ports_of_loopback(sandbox: ProcessSandbox) -> None:
    container = await sandbox.acquire(ContainerSpec(SPEC.tenant, proxy=True))
    ports = whereabouts(container).ports
    assert sorted(container.listeners) == sorted(ports) == sorted([API_PORT, NATS_PORT, PROXY_PORT])
    code = """
        import socket
        def main(port):
            return socket.create_connection(('127.0.0.1', port)).recv(20).decode()
    """
    await container.start(_start(code, {"port": ports[API_PORT]}), Limits())
    loop = asyncio.get_running_loop()
    connection, _ = await loop.sock_accept(container.listeners[API_PORT])
    with connection:
        await loop.sock_sendall(connection, b"hello")
    bodies = [body async for kind, body in container.frames() if kind is Frame.RESULT]
    assert json.loads(bodies[0])["output"] == "hello"
    await container.end()


async def test_a_command_sees_its_folders_by_their_names_inside(sandbox: ProcessSandbox, tmp_path: Path) -> None:
    program = "import os, sys; open(sys.argv[1] + '/made', 'w').write(os.environ['CACHE'])"
    command = Command(
        argv=[f"/python/bin/{Path(sys.executable).name}", "-c", program, "/work"],
        env={"CACHE": "/cache/x"},
        writable={tmp_path: "/work", tmp_path / "cache": "/cache"},
    )
    ended = await sandbox.run_command(command)
    assert (ended.ended.exit_code, ended.output) == (0, "")
    assert (tmp_path / "made").read_text() == f"{tmp_path}/cache/x"


async def test_a_command_that_takes_too_long_is_ended(sandbox: ProcessSandbox, tmp_path: Path) -> None:
    python = f"/python/bin/{Path(sys.executable).name}"
    command = Command(argv=[python, "-c", "import time; time.sleep(60)"], env={}, timeout_seconds=0.2)
    assert (await sandbox.run_command(command)).ended.ending is Ending.KILLED


def is_there(path: str) -> bool:
    return Path(path).exists()


async def _async(value: bool) -> bool:
    return value


def _start(code: str, data: dict[str, object] | None = None) -> bytes:
    start = {
        "mode": "run",
        "kind": "code_block",
        "code": textwrap.dedent(code),
        "entry_point": "main",
        "input": {"input_data": data or {}},
    }
    return json.dumps(start).encode()
