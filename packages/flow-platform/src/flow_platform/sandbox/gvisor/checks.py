"""What this machine can do for the gVisor sandbox, found out by doing it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from flow_platform.domain.errors import SandboxUnavailable
from flow_platform.sandbox.base import Check, ContainerSpec
from flow_platform.sandbox.gvisor.program import INSTALL_HINT
from flow_platform.sandbox.namespaces.checks import check_limits

if TYPE_CHECKING:
    from flow_platform.sandbox.gvisor.sandbox import GvisorSandbox

NAME = "gvisor"


async def check(sandbox: GvisorSandbox) -> list[Check]:
    """Opens the sandbox when it is not open, makes a container for real and reports what holds."""
    opened_here = not sandbox.limits
    try:
        await sandbox.open()
        container = await sandbox.acquire(ContainerSpec(tenant="check"))
        await container.end()
    except SandboxUnavailable as exc:
        return [Check(NAME, "missing", exc.message, exc.hint)]
    try:
        return [_check_program(sandbox), _check_users(sandbox), check_limits(sandbox)]
    finally:
        if opened_here:
            with contextlib.suppress(OSError):
                await sandbox.close()


def _check_program(sandbox: GvisorSandbox) -> Check:
    program = sandbox.program
    if program is None:
        return Check(NAME, "missing", "runsc was not found", INSTALL_HINT)
    said = f"runsc {program.version} ({str(program.path)!r}), platform {program.platform}: a kernel per container"
    if program.is_old:
        return Check(
            NAME, "weak", f"{said}; this release has no systrap: system calls take several times as long", INSTALL_HINT
        )
    return Check(NAME, "ok", said)


def _check_users(sandbox: GvisorSandbox) -> Check:
    """Inside, limits on processes count for one container in every case: there is no other in its kernel."""
    mine = "this user" if sandbox.mapper == "self" else f"a user that has nothing (by {sandbox.mapper})"
    return Check("own user ids", "ok", f"each component is the only user of its kernel, which runs as {mine}")
