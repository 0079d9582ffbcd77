"""A runner that a test kills: opens a sandbox of an engine, runs a component that says it runs and sleeps.

python -m tests.support.doomed_docker_runner HOST
"""

from __future__ import annotations

import asyncio
import json
import sys

from flow_platform.sandbox.docker.sandbox import DockerSandbox
from flow_sdk.wire.runner import Limits
from tests.support.component_runs import SPEC
from tests.support.sandbox_cache import sandbox_cache

CODE = "import time\ndef main():\n    print('it runs', flush=True)\n    time.sleep(60)\n"


async def main() -> None:
    sandbox = DockerSandbox(sandbox_cache(), host=sys.argv[1], runner_id="doomed", pool_size=0)
    await sandbox.open()
    container = await sandbox.acquire(SPEC)
    start = {"mode": "run", "kind": "code_block", "code": CODE, "entry_point": "main", "input": {"input_data": {}}}
    await container.start(json.dumps(start).encode(), Limits())
    async for chunk in container.logs():
        sys.stdout.buffer.write(chunk.data)
        sys.stdout.flush()


asyncio.run(main())
