"""A runner that a test kills: opens a sandbox, runs a component that prints its network namespace and sleeps.

With the argument `gvisor` it is that sandbox, and the component prints "begun": its namespaces are its own kernel's.
"""

from __future__ import annotations

import asyncio
import json
import sys

from flow_platform.sandbox.gvisor.sandbox import GvisorSandbox
from flow_platform.sandbox.namespaces.sandbox import NamespacesSandbox
from flow_sdk.wire.runner import Limits
from tests.support.component_runs import SPEC
from tests.support.sandbox_cache import sandbox_cache

CODE = """
import os, time
def main():
    print(os.readlink('/proc/self/ns/net'), flush=True)
    time.sleep(60)
"""
BEGIN = CODE.replace("os.readlink('/proc/self/ns/net')", "'begun'")


async def main(kind: str) -> None:
    is_gvisor = kind == "gvisor"
    made = GvisorSandbox if is_gvisor else NamespacesSandbox
    sandbox = made(sandbox_cache(), pool_size=2)
    await sandbox.open()
    container = await sandbox.acquire(SPEC)
    start: dict[str, object] = {
        "mode": "run",
        "kind": "code_block",
        "code": BEGIN if is_gvisor else CODE,
        "entry_point": "main",
        "input": {"input_data": {}},
    }
    await container.start(json.dumps(start).encode(), Limits())
    async for chunk in container.logs():
        sys.stdout.buffer.write(chunk.data)
        sys.stdout.flush()


asyncio.run(main(*sys.argv[1:] or ["namespaces"]))
