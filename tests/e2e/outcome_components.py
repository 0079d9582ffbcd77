"""One component for each way in which an execution can end."""

import asyncio
import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from flow_sdk import code_block, workflow
from flow_sdk.harness.channel import emit_event


def own_namespace() -> str:
    return str(Path("/proc/self/ns/net").readlink())


@code_block
def double(number: int) -> int:
    return 2 * number


@code_block
def raises(reason: str) -> None:
    raise LookupError(f"nothing here: {reason}")


@code_block(slug="flaky-by-policy", retry={"max_attempts": 2, "initial_interval_seconds": 0.05})
def flaky_by_policy(fails: int) -> str:
    if int(os.environ["ATTEMPT"]) <= fails:
        raise ConnectionError(f"attempt {os.environ['ATTEMPT']} found nobody")
    return f"attempt {os.environ['ATTEMPT']}"


@code_block(slug="exits-at-once")
def exits_at_once() -> None:
    os._exit(7)


@code_block(slug="breaks-memory")
def breaks_memory() -> None:
    ctypes.string_at(0)


@code_block(slug="kills-itself")
def kills_itself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


@code_block(slug="killed-first")
def killed_first() -> str:
    if os.environ["ATTEMPT"] == "1":
        emit_event("namespace", {"net": own_namespace()})
        time.sleep(600)
    return "survived"


@code_block(slug="crashes-first")
def crashes_first() -> str:
    if os.environ["ATTEMPT"] == "1":
        os._exit(1)
    return "survived"


@code_block(memory_mb=64)
def hungry() -> None:
    held = []
    while True:
        held.append(bytearray(4 << 20))


@code_block
def stubborn() -> None:
    """Has a family, and none of them listens to SIGTERM."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    ignoring = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    subprocess.Popen([sys.executable, "-c", ignoring], start_new_session=True)
    emit_event("namespace", {"net": own_namespace()})
    while True:
        time.sleep(1)


@workflow(slug="stubborn-family")
def stubborn_family(members: int) -> None:
    """No coroutine, so that it keeps its container however long it waits."""

    async def call_all() -> None:
        await asyncio.gather(*(stubborn.call() for _ in range(members)))

    emit_event("namespace", {"net": own_namespace()})
    asyncio.run(call_all())
