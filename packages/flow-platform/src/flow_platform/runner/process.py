"""One runner process from start to exit: composes the parts, takes the signals, closes everything.

Exit codes: 0 after a stop by signal, 1 when a part died.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import uuid
from collections.abc import Coroutine
from typing import Any, Final

from flow_platform.build.egress import BuildWayOut
from flow_platform.build.environment import Environments
from flow_platform.bus.connection import Bus
from flow_platform.bus.gateway import Gateway
from flow_platform.domain import errors
from flow_platform.domain.clock import SystemClock
from flow_platform.egress.resolver import SystemResolver
from flow_platform.egress.traffic import Limits
from flow_platform.runner.attempt import Workplace
from flow_platform.runner.builds import Builds
from flow_platform.runner.config import RunnerConfig
from flow_platform.runner.network import Egress
from flow_platform.runner.runner import Runner
from flow_platform.runner.sandboxes import Sandboxes
from flow_platform.runner.tokens import ExecutionTokens

logger = logging.getLogger(__name__)

RECONNECT_SECONDS: Final = 0.25
CLOSE_SECONDS: Final = 10.0  # For containers and templates to end; then the process leaves anyway.


class _Stop:
    """Counts the signals that ask this process to end."""

    def __init__(self) -> None:
        self.gracefully = asyncio.Event()
        self.at_once = asyncio.Event()

    def ask(self) -> None:
        (self.at_once if self.gracefully.is_set() else self.gracefully).set()


async def run_runner(config: RunnerConfig, sandboxes: Sandboxes) -> int:
    """Runs until SIGTERM or SIGINT (drain), a second one (at once), or a dead part; returns the exit code.

    Must run in the main thread: it takes the signals.

    Args:
        config: What `bootstrap` read from the settings.
        sandboxes: Opened and closed here.

    Raises:
        SandboxUnavailable: With what the kernel refused and how to allow it.
    """
    stop = _Stop()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.ask)
    await sandboxes.open()
    try:
        return await _until_stopped(_with_bus(config, sandboxes, stop), stop)
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await sandboxes.close()


async def _until_stopped(work: Coroutine[Any, Any, int], stop: _Stop) -> int:
    """Runs the work; a second signal cancels it wherever it is."""
    working = asyncio.create_task(work, name="runner")
    hurry = asyncio.create_task(stop.at_once.wait(), name="second-signal")
    try:
        await asyncio.wait([working, hurry], return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        logger.warning("stopping at once")
        return 0
    finally:
        for task in (working, hurry):
            task.cancel()
        await asyncio.gather(working, hurry, return_exceptions=True)


async def _with_bus(config: RunnerConfig, sandboxes: Sandboxes, stop: _Stop) -> int:
    bus = await _connect(config, stop)
    if bus is None:
        return 0
    resolver = SystemResolver()
    environments = Environments(
        config.cache_dir,
        sandboxes.builder,
        max_bytes=config.environment_bytes,
        way_out=BuildWayOut(resolver, config.build_hosts, config.egress_rules),
    )
    try:
        gateway = Gateway()
        tokens = ExecutionTokens(SystemClock())
        workplace = Workplace(
            runner_id=config.runner_id,
            channel=config.channel,
            api_address=(config.api_host, config.api_port),
            bus=bus,
            sandboxes=sandboxes,
            environments=environments,
            gateway=gateway,
            clock=SystemClock(),
            egress=Egress(resolver, config.egress_rules, Limits(bytes_each_way=config.egress_bytes)),
            tokens=tokens,
            suspend_after_seconds=config.suspend_after_seconds,
        )
        builds = Builds(environments, sandboxes, config.parallel_builds)
        runner = Runner(config, uuid.uuid4().hex, bus, workplace)
        return await _serve(config, runner, builds, bus, stop)
    finally:
        await environments.close()
        resolver.close()
        await bus.drain_and_close()


async def _serve(config: RunnerConfig, runner: Runner, builds: Builds, bus: Bus, stop: _Stop) -> int:
    """Works until told to stop; then drains. A part that dies ends the process."""
    try:
        if not await _before(runner.start(), stop):
            return 0
        await builds.serve(bus)
        if config.ready is not None:
            config.ready()
        running = asyncio.create_task(runner.run(), name="loops")
        asked = asyncio.create_task(stop.gracefully.wait(), name="first-signal")
        try:
            await asyncio.wait([running, asked], return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                logger.critical("a part of the runner died", exc_info=running.exception())
                return 1
            await asyncio.gather(runner.drain(config.drain_seconds), builds.drain(config.drain_seconds))
        finally:
            for task in (running, asked):
                task.cancel()
            await asyncio.gather(running, asked, return_exceptions=True)
        return 0
    finally:
        await runner.close()


async def _connect(config: RunnerConfig, stop: _Stop) -> Bus | None:
    """Connects, however long NATS is away; None when told to stop meanwhile."""
    failures = 0
    while not stop.gracefully.is_set():
        try:
            return await Bus.connect(config.nats_url, name=f"runner-{config.runner_id}")
        except errors.BusUnavailable as error:
            logger.log(logging.WARNING if failures % 20 == 0 else logging.INFO, "NATS is not there yet: %s", error)
            failures += 1
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.gracefully.wait(), RECONNECT_SECONDS)
    return None


async def _before(work: Coroutine[Any, Any, None], stop: _Stop) -> bool:
    """Whether the work was done before the first signal."""
    working = asyncio.create_task(work, name="start")
    asked = asyncio.create_task(stop.gracefully.wait(), name="first-signal")
    try:
        await asyncio.wait([working, asked], return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
            return True
        return False
    finally:
        for task in (working, asked):
            task.cancel()
        await asyncio.gather(working, asked, return_exceptions=True)
