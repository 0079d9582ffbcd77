"""What the gVisor sandbox promises beyond the port: nothing is left behind, and who dies takes the right ones along."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import signal
import socket
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from flow_platform.domain.errors import SandboxUnavailable
from flow_platform.sandbox.base import API_PORT, Container, Ending
from flow_platform.sandbox.gvisor.container import GvisorContainer
from flow_platform.sandbox.gvisor.program import find_program
from flow_platform.sandbox.gvisor.sandbox import GvisorSandbox
from flow_sdk.wire.runner import Limits
from tests.support.belongings import belongings
from tests.support.component_runs import SPEC, run_component
from tests.support.eventually import eventually
from tests.support.runsc import needs_runsc
from tests.support.sandbox_cache import sandbox_cache

pytestmark = needs_runsc

ROOT = Path(__file__).resolve().parents[3]
SLEEP = b'{"mode": "run", "code": "import time\\ntime.sleep(60)", "entry_point": "main"}'
LEAVE = b'{"mode": "run", "code": "import os\\nos._exit(7)", "entry_point": "main"}'
EMPTY = "def main():\n    return 'done'\n"


@contextlib.asynccontextmanager
async def opened(**options: Any) -> AsyncGenerator[GvisorSandbox]:
    sandbox = GvisorSandbox(sandbox_cache(), **options)
    await sandbox.open()
    try:
        yield sandbox
    finally:
        await sandbox.close()


def groups_of(process: int) -> list[Path]:
    """Not by a glob: others' groups come and go while it looks."""
    return [
        Path(folder, name)
        for folder, names, _ in os.walk("/sys/fs/cgroup")
        for name in names
        if name.startswith(f"flow-{process}-")
    ]


def processes() -> set[int]:
    return {int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()}


def children_of(process: int) -> set[int]:
    found: set[int] = set()
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{process}/task").iterdir():
            found |= {int(child) for child in (task / "children").read_text().split()}
    return found


def descendants(process: int) -> set[int]:
    children = children_of(process)
    return children.union(*(descendants(child) for child in children))


def kernels(process: int) -> list[int]:
    """Processes of gVisor's kernels below a process."""
    found: list[int] = []
    for child in descendants(process):
        with contextlib.suppress(OSError):
            if b"\0boot\0" in Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(child)
    return found


async def gone(below: set[int]) -> None:
    async def left() -> set[int]:
        return below & processes()

    await eventually(left, lambda value: not value)


async def test_leaves_nothing_behind() -> None:
    groups_before = set(groups_of(os.getpid()))

    async def left() -> set[str]:
        return belongings() - before

    await asyncio.get_running_loop().run_in_executor(None, int)  # The loop's own threads and descriptors.
    before = belongings()
    async with opened(pool_size=1) as sandbox:
        await asyncio.gather(*(run_component(sandbox, EMPTY) for _ in range(2)))
    await eventually(left, lambda found: not found)
    assert set(groups_of(os.getpid())) <= groups_before


async def test_everything_dies_with_the_runner() -> None:
    runner = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.support.doomed_runner", "gvisor"), cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert runner.stdout is not None
    try:
        assert await runner.stdout.readline() == b"begun\n"
        below = descendants(runner.pid)
        assert kernels(runner.pid)
    finally:
        runner.send_signal(signal.SIGKILL)
        await runner.wait()
    await gone(below)
    async with opened(pool_size=0):  # Whoever opens next clears what the dead cannot.
        assert not groups_of(runner.pid)


@pytest.mark.asyncio(loop_scope="package")
async def test_a_kernel_that_is_killed_ends_its_container_alone(gvisor: GvisorSandbox) -> None:
    other, container = await gvisor.acquire(SPEC), await gvisor.acquire(SPEC)
    await container.start(SLEEP, Limits())
    assert isinstance(container, GvisorContainer)
    (kernel,) = kernels(container.process)
    os.kill(kernel, signal.SIGKILL)
    ended = await container.wait()
    assert (ended.ending, ended.signal) == (Ending.CRASHED, signal.SIGKILL)
    assert other.is_alive
    await other.end()


async def test_an_end_that_is_seen_before_the_keepers_word_is_told_by_that_word() -> None:
    async with opened(pool_size=0) as sandbox:
        container = await sandbox.acquire(SPEC)
        assert isinstance(container, GvisorContainer)
        await container.start(LEAVE, Limits())
        asyncio.get_running_loop().remove_reader(container._control.fileno())  # As a runner that comes to it too late.
        ended = await container.wait()
    assert (ended.ending, ended.exit_code, ended.signal) == (Ending.EXITED, 7, None)


async def test_a_launcher_that_dies_is_replaced() -> None:
    before = children_of(os.getpid())
    async with opened(pool_size=0) as sandbox:
        container = await sandbox.acquire(SPEC)
        (jail,) = children_of(os.getpid()) - before
        below = descendants(jail)
        os.kill(jail, signal.SIGKILL)
        assert (await container.wait()).ending is Ending.START_FAILED
        await gone(below)
        assert (await run_component(sandbox, EMPTY)).output == "done"


@pytest.mark.asyncio(loop_scope="package")
async def test_connections_carry_much_both_ways_and_close_one_way_at_a_time(gvisor: GvisorSandbox) -> None:
    code = f"""
        import hashlib, socket, threading
        def main(size):
            with socket.create_connection(("127.0.0.1", {API_PORT})) as connection:
                def send():
                    connection.sendall(b"x" * size)
                    connection.shutdown(socket.SHUT_WR)
                threading.Thread(target=send).start()
                digest, count = hashlib.sha256(), 0
                while data := connection.recv(1 << 16):
                    digest.update(data)
                    count += len(data)
            return [count, digest.hexdigest()]
    """
    size = 3 << 20
    serving: list[asyncio.Task[None]] = []

    async def echo(listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        connection, _ = await loop.sock_accept(listener)
        with connection:
            received = bytearray()
            while data := await loop.sock_recv(connection, 1 << 16):
                received += data
            await loop.sock_sendall(connection, received + b"end")

    def serve(container: Container) -> None:
        serving.append(asyncio.ensure_future(echo(container.listeners[API_PORT])))

    run = await run_component(gvisor, code, {"size": size}, on_container=serve)
    assert run.output == [size + 3, hashlib.sha256(b"x" * size + b"end").hexdigest()]
    await asyncio.gather(*serving)


@pytest.mark.parametrize("named", ["/nowhere/runsc", "/bin/true"])
def test_what_is_not_runsc_is_said_with_what_to_do(named: str) -> None:
    with pytest.raises(SandboxUnavailable, match=named) as raised:
        find_program(named)
    assert "FLOW_RUNSC" in raised.value.hint
