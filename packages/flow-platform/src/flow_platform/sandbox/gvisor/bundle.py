"""What runsc is told: its arguments, and the OCI bundle of a container. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from flow_platform.sandbox.base import CORE_BYTES
from flow_platform.sandbox.gvisor import keeper, launcher
from flow_platform.sandbox.gvisor.program import NAME, Program
from flow_platform.sandbox.namespaces.runtime_root import PYTHON

FOLDER: Final = "/build"
"""Of `program.ensure_copy`, in the jail."""

ROOT: Final = f"{FOLDER}/root"
ENVIRONMENT: Final = f"{FOLDER}/env"

_PROGRAM: Final = (
    "import sys; sys.path += ['/flow/sdk', '/flow/packages']; "
    "from flow_platform.sandbox.gvisor import keeper; keeper.main()"
)
_KEEPER_RIGHTS: Final = (
    *("CAP_SYS_ADMIN", "CAP_MKNOD", "CAP_KILL", "CAP_SYS_RESOURCE"),  # Mounts, devices, signals, limits.
    *("CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP"),  # To become the component, without any.
)
"""Rights in the container's own kernel: none of them is a right on the host's."""

_RLIMITS: Final = {"CORE": CORE_BYTES, "NOFILE": 2048, "MEMLOCK": 64 << 10, "MSGQUEUE": 0, "STACK": 8 << 20}
COMPONENT_RLIMITS: Final = {"NOFILE": 512}
"""Those that the component has lower than the keeper."""


def arguments(program: Program) -> list[str]:
    """The command line that runs a container.

    `--network=none`: the container's own network stack, with loopback alone. Not `host` in a network namespace of ours,
    which would be faster and need no ferry, but lets the component drive the host kernel's TCP/IP.
    `--host-uds=open`: it may connect to the unix sockets that are mounted into it, and create none. There is one per
    port, in a folder that only this container's mounts lead to.
    `--overlay2=none`: all of it is read-only, so there is nothing to keep in a file of the host.
    """
    wanted = {
        "root": launcher.STATE,
        "log-fd": str(launcher.LOG),
        "platform": program.platform,
        "network": "none",
        "ignore-cgroups": "true",  # The whole tree is in a group of ours before runsc starts.
        "file-access": "exclusive",
        "file-access-mounts": "exclusive",
        "overlay2": "none",
        "oci-seccomp": "false",  # The component installs its filters itself, inside.
        "net-raw": "false",
        **({"host-uds": "open"} if "host-uds" in program.flags else {"fsgofer-host-uds": "true"}),
    }
    flags = [f"--{name}={value}" for name, value in wanted.items() if name in program.flags]
    return [f"{FOLDER}/{NAME}", *flags, "run", "--bundle", launcher.BUNDLE, "c"]


def document(environ: Mapping[str, str], *, with_environment: bool) -> dict[str, Any]:
    """`config.json` of all containers of a launcher."""
    mounts = [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        _bind(launcher.DOORS, keeper.DOORS),
    ]
    if with_environment:
        mounts.append(_bind(ENVIRONMENT, "/env"))
    kinds = ("pid", "mount", "ipc", "uts", "network")
    return {
        "ociVersion": "1.0.2",
        "hostname": "flow",
        "root": {"path": ROOT, "readonly": True},
        "process": {
            "terminal": False,
            "user": {"uid": 0, "gid": 0},
            "args": [PYTHON, "-I", "-S", "-B", "-X", "utf8", "-c", _PROGRAM],
            "cwd": "/",
            "env": [f"{name}={value}" for name, value in environ.items()],
            "capabilities": {kind: list(_KEEPER_RIGHTS) for kind in ("bounding", "effective", "permitted")},
            "noNewPrivileges": True,
            "rlimits": [{"type": f"RLIMIT_{name}", "hard": value, "soft": value} for name, value in _RLIMITS.items()],
        },
        "mounts": mounts,
        "linux": {"namespaces": [{"type": kind} for kind in kinds]},
    }


def _bind(source: str, destination: str) -> dict[str, Any]:
    return {"destination": destination, "type": "bind", "source": source, "options": ["rbind", "ro", "nosuid", "nodev"]}
