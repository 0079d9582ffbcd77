"""The port `Sandbox`, made of gVisor inside the jail of the namespaces sandbox."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from functools import partial
from pathlib import Path
from typing import Any, Final

from flow_platform.domain.errors import SandboxUnavailable
from flow_platform.sandbox import base
from flow_platform.sandbox.gvisor import bundle, checks
from flow_platform.sandbox.gvisor.container import STARTING_BYTES, GvisorContainer, host_limits
from flow_platform.sandbox.gvisor.program import Program, ensure_copy, find_program
from flow_platform.sandbox.namespaces import cgroups, jail_process, runtime_root
from flow_platform.sandbox.namespaces.pool import START_SECONDS, Template
from flow_platform.sandbox.namespaces.sandbox import ENVIRON, MODULES, OPTIONAL_MODULES, NamespacesSandbox
from flow_sdk.wire.runner import Limits

_PROGRAM: Final = (
    "import sys; sys.path += ['/flow/sdk', '/flow/packages']; "
    "from flow_platform.sandbox.gvisor import launcher; launcher.main()"
)
_JAIL_ENVIRON: Final = {"PATH": "/python/bin", "LANG": "C.UTF-8"}


class GvisorSandbox(NamespacesSandbox):
    """See `flow_platform.sandbox.base.Sandbox`.

    It is the namespaces sandbox with another thing in its jails: a launcher of runsc in the place of a template. Pools,
    users, cgroups and the running of commands are the same: commands, which are builds, run in namespaces alone, and
    docs/gvisor.md says so.
    """

    name = "gvisor"

    def __init__(
        self,
        cache_dir: Path,
        *,
        runsc: str | Path | None = None,
        pool_size: int = 2,
        max_templates: int = 8,
        template_max_age_seconds: float = 3600.0,
        template_max_forks: int = 20_000,
    ) -> None:
        """Args:
        runsc: Path of gVisor's program; by default the one on PATH.
        pool_size: Sealed containers that wait per workspace and environment: each takes about 60 MB.
        """
        super().__init__(
            cache_dir,
            pool_size=pool_size,
            max_templates=max_templates,
            template_max_age_seconds=template_max_age_seconds,
            template_max_forks=template_max_forks,
        )
        self._runsc = runsc
        self._program: Program | None = None
        self._copy: Path | None = None

    @property
    def program(self) -> Program | None:
        """Known after `open`."""
        return self._program

    async def check(self) -> list[base.Check]:
        return await checks.check(self)

    async def open(self) -> None:
        if self._copy is None:
            self._program, self._copy = await asyncio.to_thread(self._find)
        await super().open()

    async def start_template(self, spec: base.ContainerSpec) -> Template:
        """A launcher for the spec."""
        around, root, who, groups = self._opened()
        if self._program is None or self._copy is None:
            raise SandboxUnavailable("the sandbox is not open")
        has_environment = spec.environment_path is not None
        binds = [
            (str(root.path), "/", False),
            (str(self._copy), bundle.FOLDER, False),
            (str(root.path), bundle.ROOT, False),
        ]
        if spec.environment_path is not None:
            binds.append((str(spec.environment_path.absolute()), bundle.ENVIRONMENT, False))
        jail = jail_process.JailProcess()
        try:
            program = [runtime_root.PYTHON, "-I", "-S", "-B", "-X", "utf8", "-c", _PROGRAM]
            jail.send(jail_process.jail_config(who, binds=binds, program=program, environ=_JAIL_ENVIRON))
            jail.send(
                {
                    "argv": bundle.arguments(self._program),
                    "environ": _JAIL_ENVIRON,
                    "bundle": bundle.document(ENVIRON, with_environment=has_environment),
                }
            )
            await jail.receive(START_SECONDS)
        except BaseException:
            await jail.close()
            raise
        keeper: dict[str, Any] = {
            "modules": MODULES,
            "optional_modules": OPTIONAL_MODULES,
            "environment": has_environment,
            "environment_modules": spec.modules,
            "tmp_bytes": Limits().tmp_bytes,
            # Memory that only a cgroup counts.
            "refuse": ["memfd_create"] if groups.kind == "none" else [],
            "rlimits": {**bundle.COMPONENT_RLIMITS, "NPROC": Limits().pids},
        }
        return Template(jail, around, who, partial(GvisorContainer, config=keeper))

    def _find(self) -> tuple[Program, Path]:
        program = find_program(self._runsc)
        return program, ensure_copy(program, self._cache_dir)

    def _create_group(self, process: int) -> asyncio.Future[cgroups.Group]:
        groups = self._opened()[3]

        def create() -> cgroups.Group:
            group = groups.create(secrets.token_hex(8))
            group.limit(host_limits(Limits(), STARTING_BYTES))
            with contextlib.suppress(ProcessLookupError):  # It has ended already; the group is removed with it.
                group.attach(process)
            return group

        return asyncio.get_running_loop().run_in_executor(self._threads, create)
