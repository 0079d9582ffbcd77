"""The port `Sandbox`, made of plain processes."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from pathlib import Path
from typing import Final

from flow_platform.domain.errors import SandboxUnavailable
from flow_platform.sandbox import base
from flow_platform.sandbox.namespaces import runtime_root
from flow_platform.sandbox.process import command
from flow_platform.sandbox.process.container import ProcessContainer

logger = logging.getLogger(__name__)

SWITCH: Final = "FLOW_UNSAFE_PROCESSES=1"
WHAT_IT_IS: Final = "executions are plain processes of this user: they can read, change and end all that it can"
ENVIRON: Final = {
    "LANG": "C.UTF-8",
    "PATH": "/usr/bin:/bin",
    "PYTHONDONTWRITEBYTECODE": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}


class ProcessSandbox:
    """See `flow_platform.sandbox.base.Sandbox`."""

    name = "process"

    def __init__(self, cache_dir: Path, *, allowed: bool = False) -> None:
        """Args:
        cache_dir: Holds the runtime roots, of which processes import the SDK and what it needs.
        allowed: Somebody said that it may: without that it does not open.
        """
        self._cache_dir = cache_dir.absolute()
        self._allowed = allowed
        self._root: runtime_root.RuntimeRoot | None = None
        self._containers: set[ProcessContainer] = set()

    async def check(self) -> list[base.Check]:
        if not self._allowed:
            return [base.Check("process", "off", f"not permitted: {WHAT_IT_IS}", f"for development only: {SWITCH}")]
        was_open = self._root is not None
        try:
            await self.open()
            await (await self.acquire(base.ContainerSpec(tenant="check"))).end()
        except SandboxUnavailable as error:
            return [base.Check("process", "missing", error.message, error.hint)]
        finally:
            if not was_open:
                await self.close()
        return [base.Check("process", "weak", f"no isolation: {WHAT_IT_IS}", f"leave {SWITCH} out in production")]

    async def open(self) -> None:
        if self._root is not None:
            return
        if not self._allowed:
            raise SandboxUnavailable(
                f"isolation 'process' is not permitted here: {WHAT_IT_IS}", hint=f"for development only: set {SWITCH}"
            )
        if sys.platform != "linux":
            raise SandboxUnavailable(f"plain processes need Linux, this is {sys.platform!r}")
        loop = asyncio.get_running_loop()
        self._root = await loop.run_in_executor(None, runtime_root.ensure_runtime_root, self._cache_dir)
        logger.warning(
            "NO ISOLATION: %s", WHAT_IT_IS, extra={"isolation": self.name, "user_id": os.geteuid(), "switch": SWITCH}
        )

    async def warm(self, spec: base.ContainerSpec) -> None:
        """Nothing waits: each process is started when it is asked for."""
        self._opened()

    async def acquire(self, spec: base.ContainerSpec) -> ProcessContainer:
        root = self._opened().path
        paths = [str(root / "flow" / "sdk"), str(root / "flow" / "packages")]
        if spec.environment_path is not None:
            paths.insert(1, str(spec.environment_path.absolute()))  # Before the SDK's own needs, as in every container.
        certificates = str(root / base.CERTIFICATES.lstrip("/"))
        container = ProcessContainer(paths, ENVIRON, certificates, self._containers.discard, proxy=spec.proxy)
        self._containers.add(container)
        try:
            await container.wait_ready()
        except BaseException:
            await container.end()
            raise
        return container

    async def run_command(self, command_: base.Command, proxy_handler: object | None = None) -> base.CommandEnded:
        self._opened()
        return await command.run(command_, proxy_handler)

    async def close(self) -> None:
        await asyncio.gather(*(container.end() for container in list(self._containers)))
        if self._root is not None:
            self._root.release()
            self._root = None

    def _opened(self) -> runtime_root.RuntimeRoot:
        if self._root is None:
            raise SandboxUnavailable("the sandbox is not open")
        return self._root
