"""What this machine can do for the sandbox, found out by doing it."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from flow_platform.domain.errors import SandboxUnavailable
from flow_platform.sandbox.base import Check, ContainerSpec

if TYPE_CHECKING:
    from flow_platform.sandbox.namespaces.sandbox import NamespacesSandbox

_OWN_USERS_HINT = (
    "install the package uidmap and give this user a range: "
    "`sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 $USER`"
)
_LIMITS_HINT = (
    "let systemd delegate cgroups: `Delegate=yes` in the unit, or start with "
    "`systemd-run --user --scope -p Delegate=yes`"
)


async def check(sandbox: NamespacesSandbox) -> list[Check]:
    """Opens the sandbox when it is not open, makes a container for real and reports what holds."""
    opened_here = not sandbox.limits
    try:
        await sandbox.open()
        container = await sandbox.acquire(ContainerSpec(tenant="check"))
        await container.end()
    except SandboxUnavailable as exc:
        return [Check("namespaces", "missing", exc.message, exc.hint)]
    try:
        return [
            Check(
                "namespaces",
                "ok",
                "user, mount, pid, network, ipc, uts and cgroup namespaces, seccomp, no capabilities",
            ),
            _check_users(sandbox),
            check_limits(sandbox),
        ]
    finally:
        if opened_here:
            with contextlib.suppress(OSError):
                await sandbox.close()


def _check_users(sandbox: NamespacesSandbox) -> Check:
    mapper = sandbox.mapper
    if mapper == "self":
        message = f"all containers share the user id {os.geteuid()}: the limit on processes counts them together"
        return Check("own user ids", "weak", message, _OWN_USERS_HINT)
    return Check("own user ids", "ok", f"each container has a user id of its own (by {mapper})")


def check_limits(sandbox: NamespacesSandbox) -> Check:
    if sandbox.limits == "none":
        message = "no cgroups: memory is limited per process, not per container; CPU shares are not limited"
        return Check("limits", "weak", message, _LIMITS_HINT)
    return Check("limits", "ok", f"memory, processes and CPU by cgroups {sandbox.limits}")
