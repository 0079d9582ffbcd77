"""What the keeper's fork does until it is a sealed component that waits for its code. Runs inside gVisor.

Everything that needs rights comes first; then they go, and only without them the SDK is imported, once per container:
nothing is shared with another one, not even the layout of memory.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import socket
import sys
import traceback
from typing import Any, Final, NoReturn

from flow_platform.sandbox.gvisor import calls
from flow_platform.sandbox.namespaces import preload, seal, seccomp, syscalls

_TOLD: Final = seal.HARNESS + 1
_LAST_DESCRIPTOR: Final = 1 << 12
_MASKED: Final = ("/proc/sysrq-trigger",)
_TMP: Final = "/tmp"  # noqa: S108
_READ_ONLY_PROC: Final = syscalls.READ_ONLY | syscalls.NO_SETUID | syscalls.NO_DEVICES | syscalls.NO_EXEC


def become(config: dict[str, Any], channel: int, told: int) -> NoReturn:
    """Never returns: ends with the component.

    Args:
        config: `modules`, `optional_modules`, `environment`, `environment_modules`, `refuse`, `rlimits`.
        channel: The component's socket.
        told: Where to say how many bytes of addresses it has when it is sealed.
    """
    try:
        os.setsid()
        nothing = os.open("/dev/null", os.O_RDONLY)
        os.dup2(nothing, 0)
        channel, told = os.dup(channel), os.dup(told)  # To where neither is in the place of the other.
        os.dup2(channel, seal.HARNESS, inheritable=False)
        told = os.dup2(told, _TOLD, inheritable=False)
        os.closerange(_TOLD + 1, _LAST_DESCRIPTOR)
        sealed = _seal(config)
        os.write(told, str(_address_bytes()).encode())
        os.close(told)
        sealed.sendall(b"R")
        select.select([sealed], [], [])
        os.chdir(_TMP)  # Its limit may have made it anew.
        preload.enter_unused_environment(config)
        sys.modules["flow_sdk.harness.main"].run(sealed)
    except BaseException:  # noqa: BLE001 - the last frame of a process: whatever it was, say it and end.
        traceback.print_exc()
    os._exit(70)


def _seal(config: dict[str, Any]) -> socket.socket:
    syscalls.detach_mount("/proc")
    calls.mount("proc", "/proc", _READ_ONLY_PROC)
    for path in _MASKED:
        with contextlib.suppress(FileNotFoundError):  # Not in every release.
            calls.bind("/dev/null", path)
    _drop_rights()
    os.chdir(_TMP)
    preload.import_modules(config)
    preload.rehearse()
    for name, value in config["rlimits"].items():
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value))
    syscalls.install_filter(seccomp.inherited_filter(config["refuse"]))
    calls.install_ping_filter()
    syscalls.install_filter(seccomp.sealing_filter())  # Which takes the installing away.
    return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, seal.HARNESS)


def _drop_rights() -> None:
    calls.empty_bounding_set()
    os.setgroups([])
    os.setresgid(seal.USER, seal.USER, seal.USER)
    os.setresuid(seal.USER, seal.USER, seal.USER)
    syscalls.set_dumpable(True)
    calls.drop_capabilities()
    syscalls.forbid_new_privileges()


def _address_bytes() -> int:
    with open("/proc/self/statm") as file:  # noqa: PTH123 - pathlib is not imported in here.
        return int(file.read().split()[0]) * resource.getpagesize()
