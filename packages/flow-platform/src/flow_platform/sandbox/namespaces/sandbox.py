"""The port `Sandbox`, made of namespaces."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import secrets
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from flow_platform.domain.errors import SandboxUnavailable
from flow_platform.sandbox import base
from flow_platform.sandbox.namespaces import cgroups, checks, command, identity, jail_process, runtime_root
from flow_platform.sandbox.namespaces.container import NamespacesContainer, Surroundings
from flow_platform.sandbox.namespaces.pool import START_SECONDS, Pool, Template
from flow_sdk.wire.runner import Limits

_MODULE_NAMES: Final = """
asyncio encodings.idna inspect json linecache random ssl tempfile traceback uuid pydantic httpx nats
flow_sdk flow_sdk.calling flow_sdk.harness.main flow_sdk.harness.rehearsal
"""
MODULES: Final = _MODULE_NAMES.split()
"""What every container has imported before it gets its code."""

OPTIONAL_MODULES: Final = ("nats.js", "flow_sdk.platform_client", "flow_sdk.declare", "logfire_api")
_PROGRAM: Final = (
    "import sys; sys.path += ['/flow/sdk', '/flow/packages']; "
    "from flow_platform.sandbox.namespaces import template; template.main()"
)
ENVIRON: Final = {
    "LANG": "C.UTF-8",
    "HOME": "/tmp",  # noqa: S108
    "TMPDIR": "/tmp",  # noqa: S108
    "PATH": "/python/bin",
    "PYTHONDONTWRITEBYTECODE": "1",
    # One thread each: a container sees all cores of the machine but may use few, and few processes.
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}
_RLIMITS: Final = {"CORE": base.CORE_BYTES, "NOFILE": 512, "MEMLOCK": 64 << 10, "MSGQUEUE": 0, "STACK": 8 << 20}
_CGROUP_THREADS: Final = 4


class NamespacesSandbox:
    """See `flow_platform.sandbox.base.Sandbox`.

    Attributes:
        limits: How limits are enforced: `v2`, `v1` (cgroups) or `none` (rlimits only); known after `open`.
    """

    name = "namespaces"

    def __init__(
        self,
        cache_dir: Path,
        *,
        pool_size: int = 8,
        max_templates: int = 8,
        template_max_age_seconds: float = 3600.0,
        template_max_forks: int = 20_000,
    ) -> None:
        """Args:
        cache_dir: Holds the runtime roots. Containers can see its path: choose a neutral one.
        pool_size: Sealed containers that wait per template; 0 makes each when it is asked for.
        max_templates: Templates kept, each for one workspace and environment; the least recently used one goes.
        """
        self._cache_dir = cache_dir.absolute()
        self._pool_size = pool_size
        self._max_templates = max_templates
        self._max_age_seconds = template_max_age_seconds
        self._max_forks = template_max_forks
        self._pools: dict[base.ContainerSpec, Pool] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._root: runtime_root.RuntimeRoot | None = None
        self._identity: identity.Identity | None = None
        self._groups: cgroups.Groups | None = None
        self._around: Surroundings | None = None
        self._threads = ThreadPoolExecutor(_CGROUP_THREADS, thread_name_prefix="flow-cgroup")

    @property
    def limits(self) -> str:
        return self._groups.kind if self._groups else ""

    @property
    def mapper(self) -> str:
        """How containers get their user ids: `root`, `newuidmap` or `self`; known after `open`."""
        return self._identity.mapper if self._identity else ""

    async def check(self) -> list[base.Check]:
        return await checks.check(self)

    async def open(self) -> None:
        if self._around is not None:
            return
        loop = asyncio.get_running_loop()
        self._root = await loop.run_in_executor(self._threads, runtime_root.ensure_runtime_root, self._cache_dir)
        self._identity = identity.claim_identity()
        groups = await loop.run_in_executor(self._threads, cgroups.open_groups)
        self._groups = groups
        self._around = Surroundings(
            loop=loop,
            create_group=self._create_group if groups.kind != "none" else None,
            remove_group=lambda group: self._threads.submit(group.remove),
            own_users=self._identity.users > 0,
        )
        try:
            await self._probe()
        except BaseException:
            await self.close()
            raise

    async def warm(self, spec: base.ContainerSpec) -> None:
        await self._pool(spec).warm(proxy=spec.proxy)

    async def acquire(self, spec: base.ContainerSpec) -> NamespacesContainer:
        return await self._pool(spec).acquire(proxy=spec.proxy)

    async def run_command(self, command_: base.Command, proxy_handler: object | None = None) -> base.CommandEnded:
        _, root, who, groups = self._opened()
        runner = command.CommandRunner(root=root.path, identity=who, groups=groups, threads=self._threads)
        return await runner.run(command_, proxy_handler)

    async def close(self) -> None:
        pools, self._pools = list(self._pools.values()), {}
        await asyncio.gather(*(pool.close() for pool in pools))
        await asyncio.gather(*self._closing)
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, self._threads.shutdown)
        self._threads = ThreadPoolExecutor(_CGROUP_THREADS, thread_name_prefix="flow-cgroup")
        if self._groups is not None:
            with contextlib.suppress(OSError):
                await loop.run_in_executor(None, self._groups.close)
        if self._identity is not None:
            self._identity.release()
        if self._root is not None:
            self._root.release()
        self._groups = self._identity = self._root = self._around = None

    async def start_template(self, spec: base.ContainerSpec) -> Template:
        """A template for the spec, ready to fork."""
        around, root, who, groups = self._opened()
        binds: list[tuple[str, str, bool]] = [(str(root.path), "/", False)]
        if spec.environment_path is not None:
            binds.append((str(spec.environment_path.absolute()), "/env", False))
        jail = jail_process.JailProcess()
        try:
            program = [runtime_root.PYTHON, "-I", "-S", "-B", "-X", "utf8", "-c", _PROGRAM]
            jail.send(jail_process.jail_config(who, binds=binds, program=program, environ=ENVIRON))
            jail.send(
                {
                    "modules": MODULES,
                    "optional_modules": OPTIONAL_MODULES,
                    "environment": spec.environment_path is not None,
                    "environment_modules": spec.modules,
                    "tmp_bytes": Limits().tmp_bytes,
                    # Memory that only a cgroup counts.
                    "refuse": ["memfd_create"] if groups.kind == "none" else [],
                    "rlimits": _RLIMITS,
                }
            )
            await jail.receive(START_SECONDS)
        except BaseException:
            await jail.close()
            raise
        return Template(jail, around, who)

    async def _probe(self) -> None:
        """Makes one container for real, so that a refusal is known at start-up."""
        template = await self.start_template(base.ContainerSpec(tenant=""))
        try:
            await (await template.make()).end()
        finally:
            await template.close()

    def _opened(
        self,
    ) -> tuple[Surroundings, runtime_root.RuntimeRoot, identity.Identity, cgroups.Groups]:
        if self._around is None or self._root is None or self._identity is None or self._groups is None:
            raise SandboxUnavailable("the sandbox is not open")
        return self._around, self._root, self._identity, self._groups

    def _pool(self, spec: base.ContainerSpec) -> Pool:
        self._opened()
        if spec.proxy:
            spec = dataclasses.replace(spec, proxy=False)  # One template serves both kinds of containers.
        pool = self._pools.get(spec)
        if pool is None or len(self._pools) > self._max_templates:
            self._evict(spec)
        if pool is None:
            pool = self._pools[spec] = Pool(
                lambda: self.start_template(spec),
                size=self._pool_size,
                max_age_seconds=self._max_age_seconds,
                max_forks=self._max_forks,
            )
        return pool

    def _evict(self, keep: base.ContainerSpec) -> None:
        """Leaves room for the template of `keep`; those with containers in use stay."""
        idle = sorted(
            (spec for spec, pool in self._pools.items() if spec != keep and pool.is_idle),
            key=lambda spec: self._pools[spec].used_at,
        )
        wanted = len(self._pools | {keep: None}) - self._max_templates
        for spec in idle[: max(0, wanted)]:
            task = asyncio.ensure_future(self._pools.pop(spec).close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    def _create_group(self, process: int) -> asyncio.Future[cgroups.Group]:
        groups = self._opened()[3]

        def create() -> cgroups.Group:
            # No counter: containers see the name, and how many others there were in between is not theirs to know.
            group = groups.create(secrets.token_hex(8))
            with contextlib.suppress(ProcessLookupError):  # It has ended already; the group is removed with it.
                group.attach(process)
            return group

        return asyncio.get_running_loop().run_in_executor(self._threads, create)
