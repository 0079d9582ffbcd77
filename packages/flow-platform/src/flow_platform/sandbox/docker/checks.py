"""What an engine can do for the sandbox, found out by having it make a container."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from flow_platform.domain.errors import SandboxUnavailable
from flow_platform.sandbox.base import Check, ContainerSpec

if TYPE_CHECKING:
    from flow_platform.sandbox.docker.container import DockerContainer
    from flow_platform.sandbox.docker.sandbox import DockerSandbox

_NAMESPACES: Final = ("net", "mnt", "pid", "ipc", "uts")
_USERS_HINT: Final = 'Docker: `"userns-remap": "default"` in /etc/docker/daemon.json; or run the engine rootless'
_LIMITS_HINT: Final = "run the runner as root on the engine's machine, so that it can read the groups of containers"
_CLOSED_HINT: Final = "run the runner as root; what the engine masks stays masked without"


def maps_users(info: Mapping[str, Any]) -> bool:
    """Whether the engine's containers have a user namespace: root of theirs is nobody out here."""
    options = {option.partition("name=")[2].partition(",")[0] for option in info.get("SecurityOptions") or ()}
    return bool(options & {"userns", "rootless"})


def is_podman(version: Mapping[str, Any]) -> bool:
    return any("podman" in component["Name"].lower() for component in version.get("Components") or ())


async def check(sandbox: DockerSandbox) -> list[Check]:
    """Opens the sandbox when it is not open, makes a container for real and reports what holds."""
    opened_here = not sandbox.is_open
    try:
        await sandbox.open()
        info, version = await sandbox.engine.info(), await sandbox.engine.version()
        container = await sandbox.acquire(ContainerSpec(tenant="check"))
        try:
            problems, groups = _examine(container), _cgroup_namespace(container)
        finally:
            await container.end()
        return [
            _sealed(problems, f"{'Podman' if is_podman(version) else 'Docker'} {version['Version']}"),
            _user_namespace(info),
            Check("own user ids", "ok", "each container has a user id of its own"),
            _limits(container),
            _closed(container),
            groups,
        ]
    except SandboxUnavailable as exc:
        return [Check("docker", "missing", exc.message, exc.hint)]
    finally:
        if opened_here:
            with contextlib.suppress(OSError, SandboxUnavailable):
                await sandbox.close()


def _examine(container: DockerContainer) -> list[str]:
    """What the container lacks, seen from outside."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{container.process}/status").read_text().splitlines())
    problems: list[str] = []
    if "0" in status["Uid"].split():
        problems.append("it runs as root")
    problems += [name for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb") if int(status[name], 16)]
    if status["NoNewPrivs"].strip() != "1":
        problems.append("no_new_privs is off")
    if status["Seccomp"].strip() != "2":
        problems.append("seccomp is off")
    problems += [f"it shares the machine's namespace {name!r}" for name in _NAMESPACES if _shares(container, name)]
    return problems


def _shares(container: DockerContainer, name: str) -> bool:
    with contextlib.suppress(PermissionError):  # Another user's processes: then the engine is believed.
        theirs = Path(f"/proc/{container.process}/ns/{name}").readlink()
        return theirs == Path(f"/proc/self/ns/{name}").readlink()
    return False


def _sealed(problems: list[str], engine: str) -> Check:
    if problems:
        hint = "use an engine that keeps to what it is asked: Docker 20.10 or later, Podman 4 or later"
        return Check("docker", "missing", f"containers of {engine} are not sealed: {', '.join(problems)}", hint)
    return Check("docker", "ok", f"{engine}: own namespaces, seccomp, no capabilities, no new privileges")


def _user_namespace(info: Mapping[str, Any]) -> Check:
    if maps_users(info):
        return Check("user namespaces", "ok", "the engine maps the users of containers to others")
    message = "containers share the machine's user namespace; their users have ids that nobody else has"
    return Check("user namespaces", "weak", message, _USERS_HINT)


def _limits(container: DockerContainer) -> Check:
    if container.is_counted:
        return Check("limits", "ok", "memory, processes and CPU by cgroups, set and read here")
    return Check("limits", "weak", "the engine sets the limits; what was used cannot be read", _LIMITS_HINT)


def _closed(container: DockerContainer) -> Check:
    if container.is_closed_up:
        return Check("kernel files", "ok", "/proc has only the container's processes, /sys nothing")
    return Check("kernel files", "weak", "/proc is the engine's, masked; /tmp has its default size", _CLOSED_HINT)


def _cgroup_namespace(container: DockerContainer) -> Check:
    if _shares(container, "cgroup"):
        message = "containers see the path of their own group; the groups themselves they do not see"
        return Check("cgroup namespace", "weak", message, "Podman has none with cgroups version 1: use version 2")
    return Check("cgroup namespace", "ok", "containers see nothing of the machine's groups")
