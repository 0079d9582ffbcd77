"""What the namespaces sandbox promises beyond the port: nothing is left behind, templates are renewed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from flow_platform.sandbox.base import ContainerSpec
from flow_platform.sandbox.namespaces import runtime_root
from flow_platform.sandbox.namespaces.sandbox import NamespacesSandbox
from tests.support.belongings import belongings
from tests.support.component_runs import run_component
from tests.support.eventually import eventually
from tests.support.sandbox_cache import sandbox_cache

ROOT = Path(__file__).resolve().parents[3]
EMPTY = "def main():\n    pass\n"
HASH = "def main():\n    return hash('a')\n"


def network_namespace(process: int) -> str:
    return str(Path(f"/proc/{process}/ns/net").readlink())


def network_namespaces() -> set[str]:
    """Of all processes."""
    found: set[str] = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                found.add(network_namespace(int(entry.name)))
    return found


@contextlib.asynccontextmanager
async def opened(**options: Any) -> AsyncIterator[NamespacesSandbox]:
    sandbox = NamespacesSandbox(sandbox_cache(), **options)
    await sandbox.open()
    try:
        yield sandbox
    finally:
        await sandbox.close()


def own_groups() -> list[Path]:
    return [path for path in Path("/sys/fs/cgroup").rglob(f"flow-{os.getpid()}-*") if path.is_dir()]


def children_of(process: int) -> list[str]:
    return Path(f"/proc/{process}/task/{process}/children").read_text().split()


def descendants() -> list[str]:
    return children_of(os.getpid())


async def test_leaves_nothing_behind() -> None:
    groups_before = set(own_groups())

    async def left() -> set[str]:
        return belongings() - before

    await asyncio.get_running_loop().run_in_executor(None, int)  # The loop's own threads and descriptors.
    before = belongings()
    async with opened(pool_size=3) as sandbox:
        for _ in range(20):
            await asyncio.gather(*(run_component(sandbox, EMPTY) for _ in range(5)))
    await eventually(left, lambda found: not found)
    assert set(own_groups()) <= groups_before


async def test_everything_dies_with_the_runner() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.doomed_runner", cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        namespace = (await process.stdout.readline()).decode().strip()
        jails = {network_namespace(int(child)) for child in children_of(process.pid)}
        assert {namespace, *jails} <= network_namespaces()
        assert jails
    finally:
        process.send_signal(signal.SIGKILL)
        await process.wait()

    async def left() -> set[str]:
        return {namespace, *jails} & network_namespaces()

    await eventually(left, lambda value: not value)


async def test_a_template_is_renewed_while_work_goes_on() -> None:
    async with opened(pool_size=1, template_max_forks=4) as sandbox:
        hashes: set[int] = set()

        async def run() -> set[int]:
            hashes.add((await run_component(sandbox, HASH)).output)
            return hashes

        await eventually(run, lambda value: len(value) >= 3)


async def test_the_least_recently_used_template_goes() -> None:
    others = set(descendants())
    async with opened(pool_size=1, max_templates=1) as sandbox:
        for tenant in ("a", "b", "c"):
            assert (await run_component(sandbox, HASH, spec=ContainerSpec(tenant=tenant))).result

        async def jails() -> int:
            await run_component(sandbox, EMPTY, spec=ContainerSpec(tenant="c"))
            return len(set(descendants()) - others)

        await eventually(jails, lambda count: count == 1)


async def test_a_template_that_dies_is_replaced() -> None:
    others = set(descendants())
    async with opened(pool_size=1) as sandbox:
        first = (await run_component(sandbox, HASH)).output
        (jail,) = set(descendants()) - others
        os.kill(int(jail), signal.SIGKILL)

        async def run() -> int:
            try:
                return (await run_component(sandbox, HASH)).output
            except AssertionError:  # A container of the dying template.
                return first

        assert await eventually(run, lambda value: value != first) != first


async def test_what_the_kernel_refuses_is_said() -> None:
    program = """
import asyncio, errno, struct
from flow_platform.domain.errors import SandboxUnavailable
from flow_platform.sandbox.namespaces import syscalls
from flow_platform.sandbox.namespaces.sandbox import NamespacesSandbox
from flow_platform.sandbox.namespaces.syscall_numbers import NUMBERS
from tests.support.sandbox_cache import sandbox_cache

rules = [(0x20, 0, 0, 0), (0x15, 0, 1, NUMBERS["unshare"]), (6, 0, 0, 0x50000 | errno.EPERM), (6, 0, 0, 0x7FFF0000)]
syscalls.forbid_new_privileges()
syscalls.install_filter(b"".join(struct.pack("=HBBI", *rule) for rule in rules))
sandbox = NamespacesSandbox(sandbox_cache())
try:
    asyncio.run(sandbox.open())
except SandboxUnavailable as exc:
    print(exc.message, "|", exc.hint)
"""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    output = (await process.communicate())[0].decode()
    assert "unshare(CLONE_NEWUSER): EPERM" in output
    assert "AppArmor" in output


async def test_runtime_roots_are_made_once_and_unused_ones_removed(tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    made = [loop.run_in_executor(None, runtime_root.ensure_runtime_root, tmp_path) for _ in range(2)]
    first, second = await asyncio.gather(*made)
    assert first.path == second.path
    assert not list(first.path.glob("python/lib/python3*/test"))
    old = tmp_path / "runtime/old"
    old.mkdir()
    lock = tmp_path / "runtime/old.lock"
    lock.touch()
    os.utime(lock, (0, 0))
    first.release()
    runtime_root.ensure_runtime_root(tmp_path).release()
    assert not old.exists()
    assert second.path.exists()
    second.release()
