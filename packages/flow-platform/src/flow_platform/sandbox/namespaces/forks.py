"""Forks a container for each request of the host, and tells it how each ended. Runs inside the jail.

A container's process is process 1 of its own process id namespace: when it ends, however it ends, the kernel ends
everything that it started.

Control messages (JSON, one per packet):

    host -> us   {"new": id, ...} with descriptors: the rest of it is for the fork
    us -> host   {"exit": id, "status": n, "cpu_ms": x, "max_rss_bytes": n}
"""

from __future__ import annotations

import array
import json
import os
import select
import socket
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from flow_platform.sandbox.namespaces import syscalls

Become = Callable[[dict[str, Any], Sequence[int]], NoReturn]
"""What a fork does with its request and its descriptors."""


class Forks:
    """Args:
    descriptors: How many come with each request.
    """

    def __init__(self, control: socket.socket, descriptors: int, become: Become) -> None:
        self._control = control
        self._ancillary_bytes = socket.CMSG_SPACE(descriptors * 4)
        self._become = become
        self._myself = os.pidfd_open(os.getpid())
        self._poll = select.epoll()
        self._poll.register(control, select.EPOLLIN)
        self._children: dict[int, tuple[int, int]] = {}  # pidfd -> process id, container id

    def serve(self) -> None:
        """Until the host closes the control socket."""
        control = self._control.fileno()
        while True:
            for descriptor, _ in self._poll.poll():
                if descriptor == control:
                    if not self._take_request():
                        return
                else:
                    self._report_end(descriptor)

    def _take_request(self) -> bool:
        message, ancillary, _, _ = self._control.recvmsg(4096, self._ancillary_bytes)
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
            self._become(request, descriptors)
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
