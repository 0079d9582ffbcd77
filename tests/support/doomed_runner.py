"""A runner that a test kills: opens a sandbox, runs a component that prints its network namespace and sleeps."""

from __future__ import annotations

import asyncio
import json
import sys

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


async def main() -> None:
    sandbox = NamespacesSandbox(sandbox_cache(), pool_size=2)
    await sandbox.open()
    container = await sandbox.acquire(SPEC)
    start = {"mode": "run", "kind": "code_block", "code": CODE, "entry_point": "main", "input": {"input_data": {}}}
    await container.start(json.dumps(start).encode(), Limits())
    async for chunk in container.logs():
        sys.stdout.buffer.write(chunk.data)
        sys.stdout.flush()


asyncio.run(main())
