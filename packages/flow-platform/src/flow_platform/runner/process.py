"""One runner process from start to exit."""

from __future__ import annotations

from flow_platform.domain import errors
from flow_platform.runner.config import RunnerConfig
from flow_platform.sandbox.base import Sandbox


async def run_runner(config: RunnerConfig, sandbox: Sandbox | None = None) -> int:
    """Runs until SIGTERM or SIGINT (drain), a second one (at once), or a dead part; returns the exit code.

    Must run in the main thread: it takes the signals.

    Args:
        config: What `bootstrap` read from the settings.
        sandbox: Opened and closed here; by default the namespaces sandbox.

    Raises:
        SandboxUnavailable: With what the kernel refused and how to allow it.
    """
    raise errors.SandboxUnavailable(f"the runner {config.runner_id!r} has no sandbox to start: {sandbox!r}")
