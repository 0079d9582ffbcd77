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

import gc
import json
import os
import resource
import socket
import sys
import threading
import traceback
from collections.abc import Sequence
from functools import partial
from typing import Any, Final, NoReturn

from flow_platform.sandbox.namespaces import forks, preload, seal, seccomp, shared_memory, syscalls

_CONTROL: Final = 3
_LAST_DESCRIPTOR: Final = 1 << 16


def main() -> NoReturn:
    control = socket.socket(fileno=_CONTROL)
    config: dict[str, Any] = json.loads(control.recv(1 << 18))
    try:
        _prepare(config)
    except (OSError, ImportError, RuntimeError) as exc:
        control.send(json.dumps({"error": f"the template could not start: {exc}"}).encode())
        os._exit(1)
    control.send(b'{"up": true}')
    nothing = os.open("/dev/null", os.O_RDONLY)
    become = partial(_become_container, control, config, seccomp.sealing_filter(), nothing)
    forks.Forks(control, descriptors=3, become=become).serve()
    os._exit(0)


def _prepare(config: dict[str, Any]) -> None:
    reserved = shared_memory.reserve()
    preload.import_modules(config)
    if config["environment_modules"]:
        syscalls.bring_loopback_up()  # Of the jail, where nobody else is; containers have their own.
    preload.rehearse()
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


def _become_container(
    control: socket.socket,
    config: dict[str, Any],
    sealing_filter: bytes,
    nothing: int,
    request: dict[str, Any],
    descriptors: Sequence[int],
) -> NoReturn:
    try:
        channel, out, err = descriptors
        os.dup2(nothing, 0)
        os.dup2(out, 1)
        os.dup2(err, 2)
        os.dup2(channel, seal.HARNESS, inheritable=False)
        os.closerange(seal.HARNESS + 1, _LAST_DESCRIPTOR)
        # Its object would close a descriptor that now belongs to another.
        control.detach()
        sealed = seal.seal(request["user"], request["ports"], config, sealing_filter)
        preload.enter_unused_environment(config)
        sys.modules["flow_sdk.harness.main"].run(sealed)
    except BaseException:  # noqa: BLE001 - the last frame of a process: whatever it was, say it and end.
        traceback.print_exc()
    os._exit(70)
