"""Stage 1: the program inside the jail. Imports the SDK once, then forks a container per request.

Every fork can read all memory of this process. So it holds no secret and never sees one: code, input and token go to a
container on a socket of its own, after it is sealed.

Control messages (JSON, one per packet, on descriptor 3):

    host -> template   the configuration {modules, environment, environment_modules, tmp_bytes, refuse, rlimits}, once
    template -> host   {"up": true}, once
    host -> template   {"new": id, "user": id or null, "ports": [n]} with three descriptors: socket, stdout, stderr
    template -> host   {"exit": id, "status": n, "cpu_ms": x, "max_rss_bytes": n}
"""

from __future__ import annotations

import array
import gc
import importlib
import json
import os
import resource
import select
import socket
import sys
import threading
import traceback
from typing import Any, Final, NoReturn

from flow_platform.sandbox.namespaces import seal, seccomp, shared_memory, syscalls

_CONTROL: Final = 3
_LAST_DESCRIPTOR: Final = 1 << 16
_PACKAGES: Final = "/flow/packages"
_ENVIRONMENT: Final = "/env"


def main() -> NoReturn:
    control = socket.socket(fileno=_CONTROL)
    config: dict[str, Any] = json.loads(control.recv(1 << 18))
    try:
        _prepare(config)
    except (OSError, ImportError, RuntimeError) as exc:
        control.send(json.dumps({"error": f"the template could not start: {exc}"}).encode())
        os._exit(1)
    control.send(b'{"up": true}')
    _Forks(control, config).serve()
    os._exit(0)


def _prepare(config: dict[str, Any]) -> None:
    reserved = shared_memory.reserve()
    for name in config["modules"]:
        importlib.import_module(name)
    for name in config["optional_modules"]:
        try:
            importlib.import_module(name)
        except ImportError:
            continue
    if config["environment_modules"]:
        _enter_environment()
        for name in config["environment_modules"]:
            importlib.import_module(name)
        syscalls.bring_loopback_up()  # Of the jail, where nobody else is; containers have their own.
    sys.modules["flow_sdk.harness.rehearsal"].rehearse()
    for name, value in config["rlimits"].items():
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value))
    with open("/proc/self/oom_score_adj", "w") as file:  # noqa: PTH123 - containers die before anything of the host.
        file.write("500")
    # A thread does not survive fork, but a lock that it holds does.
    if threading.active_count() != 1 or len(os.listdir("/proc/self/task")) != 1:  # noqa: PTH208
        raise RuntimeError(f"a preloaded module started threads: {threading.enumerate()!r}")
    syscalls.forbid_new_privileges()
    syscalls.install_filter(seccomp.inherited_filter(config["refuse"]))
    del reserved
    gc.collect()
    shared_memory.fill_holes()
    gc.freeze()  # Forks then do not copy pages only because the collector touched them.
    gc.disable()
    shared_memory.collapse()


def _enter_environment() -> None:
    """After the standard library and the SDK, which it cannot shadow; before the SDK's own needs, of which it may have
    brought others.
    """
    sys.path.insert(sys.path.index(_PACKAGES), _ENVIRONMENT)


class _Forks:
    def __init__(self, control: socket.socket, config: dict[str, Any]) -> None:
        self._control = control
        self._config = config
        self._sealing_filter = seccomp.sealing_filter()
        self._myself = os.pidfd_open(os.getpid())
        self._nothing = os.open("/dev/null", os.O_RDONLY)
        self._poll = select.epoll()
        self._poll.register(_CONTROL, select.EPOLLIN)
        self._children: dict[int, tuple[int, int]] = {}  # pidfd -> process id, container id

    def serve(self) -> None:
        """Until the host closes the control socket."""
        while True:
            for descriptor, _ in self._poll.poll():
                if descriptor == _CONTROL:
                    if not self._take_request():
                        return
                else:
                    self._report_end(descriptor)

    def _take_request(self) -> bool:
        message, ancillary, _, _ = self._control.recvmsg(4096, socket.CMSG_SPACE(3 * 4))
        if not message:
            return False
        request: dict[str, Any] = json.loads(message)
        descriptors = array.array("i")
        descriptors.frombytes(ancillary[0][2])
        # A new pid namespace for the next child only. The kernel allows that once per target, so go home first.
        syscalls.enter_pid_namespace_of(self._myself)
        syscalls.unshare(syscalls.NEW_PID)
        child = os.fork()
        if child == 0:
            self._become_container(request, *descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        pidfd = os.pidfd_open(child)
        self._children[pidfd] = (child, request["new"])
        self._poll.register(pidfd, select.EPOLLIN)
        return True

    def _report_end(self, pidfd: int) -> None:
        process, container = self._children.pop(pidfd)
        self._poll.unregister(pidfd)
        os.close(pidfd)
        _, status, used = os.wait4(process, 0)
        report = {
            "exit": container,
            "status": status,
            "cpu_ms": (used.ru_utime + used.ru_stime) * 1000,
            "max_rss_bytes": used.ru_maxrss * 1024,
        }
        self._control.send(json.dumps(report).encode())

    def _become_container(self, request: dict[str, Any], channel: int, out: int, err: int) -> NoReturn:
        try:
            os.dup2(self._nothing, 0)
            os.dup2(out, 1)
            os.dup2(err, 2)
            os.dup2(channel, seal.HARNESS, inheritable=False)
            os.closerange(seal.HARNESS + 1, _LAST_DESCRIPTOR)
            # Their objects would close descriptors that now belong to others.
            self._control.detach()
            sealed = seal.seal(request["user"], request["ports"], self._config, self._sealing_filter)
            if self._config["environment"] and not self._config["environment_modules"]:
                _enter_environment()  # Only now, so that nothing of it was ever imported with rights.
            sys.modules["flow_sdk.harness.main"].run(sealed)
        except BaseException:  # noqa: BLE001 - the last frame of a process: whatever it was, say it and end.
            traceback.print_exc()
        os._exit(70)
