"""What a component tries to use up: its own limits end it, the runner and its neighbours do not notice."""

from __future__ import annotations

from pathlib import Path

import pytest

from flow_platform.sandbox.base import Ending
from flow_platform.sandbox.namespaces.sandbox import NamespacesSandbox
from flow_sdk.wire.runner import Limits
from tests.support.component_runs import SPEC, run_component
from tests.support.eventually import eventually

pytestmark = pytest.mark.asyncio(loop_scope="package")


def network_namespaces() -> set[str]:
    """Of all processes that exist: a process that outlives its container keeps its namespace in this set."""
    found: set[str] = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                found.add(str((entry / "ns/net").readlink()))
            except OSError:
                continue
    return found


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def assert_gone(namespace: str) -> None:
    async def present() -> bool:
        return namespace in network_namespaces()

    assert not await eventually(present, lambda value: not value)


OWN_NAMESPACE = "os.readlink('/proc/self/ns/net')"

SURVIVORS = {
    "fork bomb": "while True:\n        try: os.fork()\n        except OSError: pass",
    "daemons that ignore all signals": """
    for _ in range(5):
        if os.fork() == 0:
            os.setsid()
            if os.fork():
                os._exit(0)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            while True: time.sleep(0.05)
    for number in range(1, 65):
        try: signal.signal(number, signal.SIG_IGN)
        except (OSError, ValueError): pass
    while True: time.sleep(1)""",
    "processor spin": "[os.fork() for _ in range(3)]\n    while True: pass",
    "threads": """
    threading.stack_size(65536)
    for _ in range(40):
        threading.Thread(target=time.sleep, args=(60,)).start()
    time.sleep(60)""",
}


@pytest.mark.parametrize("name", SURVIVORS)
async def test_nothing_survives_the_deadline(sandbox: NamespacesSandbox, name: str) -> None:
    code = (
        "import os, signal, threading, time\nfrom flow_sdk.harness.channel import emit_event\n"
        f"def main():\n    emit_event('namespace', {OWN_NAMESPACE})\n    {SURVIVORS[name].strip()}\n"
    )
    run = await run_component(sandbox, code, seconds_after_event=0.3, grace=0.1)
    assert run.timed_out
    assert run.ended.ending in (Ending.KILLED, Ending.EXITED)  # Some listen to SIGTERM in the grace time.
    await assert_gone(run.events[0]["event_data"])


async def test_daemons_end_with_a_normal_return(sandbox: NamespacesSandbox) -> None:
    code = f"""
        import os, time
        def main():
            if os.fork() == 0:
                os.setsid()
                if os.fork():
                    os._exit(0)
                while True: time.sleep(0.05)
            return {OWN_NAMESPACE}
    """
    run = await run_component(sandbox, code)
    await assert_gone(run.output)


async def test_forks_stop_at_the_limit(sandbox: NamespacesSandbox) -> None:
    code = """
        import os, time
        def main():
            made = 0
            while True:
                try:
                    if os.fork() == 0:
                        time.sleep(60)
                except BlockingIOError:
                    return made
                made += 1
    """
    run = await run_component(sandbox, code, limits=Limits(pids=20))
    assert run.output <= 20
    if sandbox.limits != "none":
        assert run.output == 19
        assert run.ended.usage.pids_limit_hits >= 1


async def test_memory_of_all_children_counts_together(sandbox: NamespacesSandbox) -> None:
    if sandbox.limits == "none":
        pytest.skip("without cgroups memory is limited per process only; `check` reports that as weak")
    code = """
        import os, time
        def main():
            for _ in range(8):
                if os.fork() == 0:
                    held = [bytearray(4 << 20) for _ in range(10)]
                    time.sleep(60)
            os.wait()  # The kernel ends one of them: that is all there is to wait for.
    """
    run = await run_component(sandbox, code, limits=Limits(memory_bytes=64 << 20))
    assert run.ended.usage.oom_kills >= 1
    assert run.ended.usage.max_rss_bytes <= 64 << 20


async def test_disk_stops_at_its_limit(sandbox: NamespacesSandbox) -> None:
    code = """
        import errno, os
        def fill(path):
            written = 0
            try:
                with open(path, 'wb', buffering=0) as file:
                    while True:
                        written += file.write(bytes(1 << 20))
            except OSError as exc:
                os.unlink(path)
                return [written, errno.errorcode[exc.errno]]
        def main():
            found = [fill('/tmp/a'), fill('/dev/shm/b')]
            try:
                for number in range(100_000):
                    open(f'/tmp/{number}', 'w').close()
            except OSError as exc:
                return [*found, [number, errno.errorcode[exc.errno]]]
    """
    limits = Limits(tmp_bytes=8 << 20)
    tmp, shared, inodes = (await run_component(sandbox, code, limits=limits)).output
    assert tmp[0] <= 8 << 20
    assert shared[0] <= 8 << 20
    assert inodes[0] <= 5000
    assert {tmp[1], shared[1], inodes[1]} == {"ENOSPC"}


async def test_descriptors_sent_to_the_runner_are_not_taken(sandbox: NamespacesSandbox) -> None:
    code = """
        import array, os, socket
        def main():
            channel = socket.socket(fileno=os.dup(3))
            rights = array.array('i', os.pipe())
            event = b'\\x03\\x00\\x00\\x00\\x02{}'
            for _ in range(100):
                try:
                    channel.sendmsg([event], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
                except OSError:
                    channel.sendall(event)
    """
    container = await sandbox.acquire(SPEC)
    await container.end()
    before = open_descriptors()
    run = await run_component(sandbox, code)
    assert len(run.events) == 100

    async def descriptors() -> int:
        return open_descriptors()

    # The pool refills meanwhile: a waiting container holds seven.
    await eventually(descriptors, lambda count: count <= before + 2 * 10)


async def test_an_endless_line_is_cut(sandbox: NamespacesSandbox) -> None:
    code = "import os\ndef main():\n    for _ in range(200):\n        os.write(1, b'x' * 65536)\n"
    run = await run_component(sandbox, code, limits=Limits(log_bytes=100_000))
    kept, _, marker = run.logs.partition(b"[flow]")
    assert len(kept) == 100_000
    assert b"dropped" in marker


@pytest.mark.parametrize(
    ("expression", "code"),
    [
        ("'x' * (40 << 20)", "output_too_large"),
        ("deep(100_000)", "invalid_output"),
        ("float('nan')", "invalid_output"),
        ("b'bytes'", "invalid_output"),
        ("'\\ud800'", "invalid_output"),
        ("{object(): 1}", "invalid_output"),
        ("object()", "invalid_output"),
    ],
)
async def test_hostile_results_are_refused(sandbox: NamespacesSandbox, expression: str, code: str) -> None:
    source = f"""
def deep(levels):
    value = []
    for _ in range(levels):
        value = [value]
    return value
def main():
    return {expression}
"""
    run = await run_component(sandbox, source, limits=Limits(memory_bytes=512 << 20))
    assert run.error["code"] == code
    assert run.error["retryable"] is False
