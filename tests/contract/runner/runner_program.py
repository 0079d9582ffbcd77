"""A runner as a process of its own: `runner_program.py NATS_URL CACHE_DIR`. Prints `ready` and its exit code."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from flow_platform.runner import RunnerConfig, run_runner
from flow_platform.runner.sandboxes import Sandboxes
from flow_platform.sandbox.namespaces.sandbox import NamespacesSandbox


def main() -> int:
    config = RunnerConfig(
        nats_url=sys.argv[1],
        api_host="127.0.0.1",
        api_port=1,
        runner_id="process-1",
        slots=2,
        cache_dir=Path(sys.argv[2]),
        pool_size=1,
        drain_seconds=float(sys.argv[3]),
        ready=lambda: sys.stdout.write("ready\n") and sys.stdout.flush(),
    )
    sandboxes = Sandboxes([NamespacesSandbox(config.cache_dir, pool_size=config.pool_size)])
    if "uvloop" in sys.argv:
        import uvloop

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(run_runner(config, sandboxes))
    return asyncio.run(run_runner(config, sandboxes))


if __name__ == "__main__":
    sys.exit(main())
