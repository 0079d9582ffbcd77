"""The host's end of one gVisor container.

It is a container as those of the namespaces sandbox, seen from here: a socket to the component, two pipes, listeners, a
cgroup, a pidfd over all of it. What differs: the cgroup holds the container's kernel as well, so what an empty
container took is not counted as the component's; and a keeper inside takes limits and signals, and tells how it ended.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import dataclasses
import json
import logging
import os
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from flow_platform.domain.errors import SandboxUnavailable
from flow_platform.sandbox.base import Usage
from flow_platform.sandbox.namespaces.container import NamespacesContainer, Surroundings
from flow_sdk.wire.runner import Limits

logger = logging.getLogger(__name__)

START_SECONDS: Final = 60.0
"""From runsc's start to a sealed component: about one on an idle machine, and as many as share its processors."""

STARTING_BYTES: Final = 512 << 20
KERNEL_THREADS: Final = 192
THREADS_PER_PROCESS: Final = 4
"""Of the host, for each of the component's: it has none there by itself, but the kernel works for it in some."""

_ANSWER_SECONDS: Final = 10.0
_LOG_BYTES: Final = 2000
_DEFAULT_LIMITS: Final = Limits()


def host_limits(limits: Limits, empty_bytes: int) -> Limits:
    """Of the cgroup around the container: the component's, and what the container takes before it has any code.

    What its kernel needs more for the component (page tables, descriptors, buffers) counts as the component's, as with
    every other kernel.
    """
    return limits.model_copy(
        update={
            "memory_bytes": limits.memory_bytes + empty_bytes,
            "pids": KERNEL_THREADS + THREADS_PER_PROCESS * limits.pids,
        }
    )


class GvisorContainer(NamespacesContainer):
    """See `flow_platform.sandbox.base.Container`. Made by a launcher, which reports its exit.

    Args:
        config: What the keeper is told; see `keeper`.
    """

    def __init__(
        self,
        number: int,
        ports: Sequence[int],
        surroundings: Surroundings,
        forget: Callable[[NamespacesContainer], None],
        config: Mapping[str, Any],
    ) -> None:
        super().__init__(number, ports, surroundings, forget)
        self._config = {**config, "ports": list(ports)}
        self._control, self._their_control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.setblocking(False)
        self._kept = self._theirs.dup()
        self._log = os.memfd_create("runsc", os.MFD_CLOEXEC)
        self._letting_go: asyncio.Task[None] | None = None
        self._limited: asyncio.Future[None] = self._loop.create_future()
        self._component_status: int | None = None
        self._empty = Usage()
        self._loop.add_reader(self._control.fileno(), self._on_keeper)

    @property
    def process(self) -> int:
        """Its outermost process, on the host: everything of the container is below it."""
        return self._process

    # --- being made ---

    def take_their_ends(self) -> list[int]:
        return [*super().take_their_ends(), self._their_control.fileno(), self._log]

    def close_their_ends(self) -> None:
        super().close_their_ends()
        self._their_control.close()

    async def wait_sealed(self) -> None:
        try:
            async with asyncio.timeout(START_SECONDS):
                await super().wait_sealed()
        except TimeoutError:
            raise SandboxUnavailable(
                f"a container could not be made within {START_SECONDS:g} s: {self._log_tail()}"
            ) from None
        if self._group is not None:
            group = self._group.result()
            self._empty = dataclasses.replace(group.usage(), max_rss_bytes=group.memory_bytes())

    def _take_descriptors(self, content: bytes) -> None:
        received = array.array("i")
        received.frombytes(content[: len(content) - len(content) % received.itemsize])
        self._pidfd, *doors = received
        for port, descriptor in zip(self._ports, doors, strict=True):
            door = socket.socket(fileno=descriptor)
            door.setblocking(False)
            self._listeners[port] = door

    def _on_setting_up(self) -> None:
        super()._on_setting_up()
        if self._pidfd >= 0 and self._letting_go is None:
            self._letting_go = asyncio.ensure_future(self._let_go())

    async def _let_go(self) -> None:
        """Lets runsc start, once its process is in its cgroup; the keeper finds its orders in the same socket."""
        try:
            if self._group is not None:
                await self._group
            self._control.send(b"go")
            rights = array.array("i", [self._kept.fileno()])
            self._control.sendmsg([json.dumps(self._config).encode()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        except OSError as exc:
            self._fail(f"its limits could not be set: {exc}")
            self._signal(signal.SIGKILL)
        finally:
            self._kept.close()  # Else its socket would not be seen to close.

    def _fail(self, reason: str) -> None:
        if not self._sealed.done():
            super()._fail(f"{reason}: {self._log_tail()}")

    def _log_tail(self) -> str:
        size = os.fstat(self._log).st_size
        return os.pread(self._log, _LOG_BYTES, max(0, size - _LOG_BYTES)).decode(errors="replace").strip()

    # --- the port ---

    async def _limit(self, limits: Limits) -> bool:
        without_groups = self._group is None
        if self._group is not None:
            group = await self._group
            group.limit(host_limits(limits, self._empty.max_rss_bytes))
        if not without_groups and (limits.pids, limits.tmp_bytes) == (_DEFAULT_LIMITS.pids, _DEFAULT_LIMITS.tmp_bytes):
            return True
        inside = {
            "pids": limits.pids,
            "memory_bytes": limits.memory_bytes if without_groups else None,
            "tmp_bytes": None if limits.tmp_bytes == _DEFAULT_LIMITS.tmp_bytes else limits.tmp_bytes,
        }
        self._tell({"limits": inside})
        with contextlib.suppress(TimeoutError):  # Then it is not let live, and `frames` ends.
            async with asyncio.timeout(_ANSWER_SECONDS):
                await asyncio.shield(self._limited)
                return True
        self._kill()
        return True  # Its frames are read all the same: they say that it ended.

    def usage(self) -> Usage:
        """Of the component: without what the container took before it had any code."""
        used = super().usage()
        return dataclasses.replace(
            used,
            cpu_ms=max(0.0, used.cpu_ms - self._empty.cpu_ms),
            max_rss_bytes=max(0, used.max_rss_bytes - self._empty.max_rss_bytes),
        )

    # --- ends ---

    @property
    def _was_sealed(self) -> bool:
        return self._sealed.done() and self._sealed.exception() is None

    def _tell(self, document: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):  # It has ended.
            self._control.send(json.dumps(document).encode())

    def _on_keeper(self) -> bool:
        """Takes one message, and tells whether there was one."""
        try:
            message = self._control.recv(4096)
        except (BlockingIOError, InterruptedError):
            return False
        except ConnectionResetError:  # It ended with a word of ours unread; its own last word is behind that.
            return True
        except OSError:
            message = b""
        if not message:
            if not self._closed:
                self._loop.remove_reader(self._control.fileno())
            return False
        document: dict[str, Any] = json.loads(message)
        if "limited" in document and not self._limited.done():
            self._limited.set_result(None)
        if "ended" in document:
            self._component_status = int(document["ended"])
            super()._signal(signal.SIGKILL)  # Nothing is left in there but kernel: no need to wait for its good-bye.
        return True

    def _signal(self, number: int) -> None:
        if number == signal.SIGKILL or self._pidfd < 0:
            super()._signal(number)
        else:
            self._tell({"signal": int(number)})

    def on_exit(self, report: dict[str, Any]) -> None:
        """How the component ended is the keeper's to say; without its word, the container's kernel died under both.

        So it is when memory ran out: what the host's kernel then killed is a part of the container's, whatever became
        of that inside. On a busy machine the end is heard of before that word is.
        """
        while self._component_status is None and self._on_keeper():
            pass
        status, out_of_memory = self._component_status, self._oom_kills() > 0
        if status is None and self._was_sealed and not (self._killed or out_of_memory):
            logger.warning("a container's kernel ended", extra={"status": report["status"], "log": self._log_tail()})
        if status is None or (out_of_memory and not self._killed):
            status = int(signal.SIGKILL)
        super().on_exit({**report, "status": status})

    def _settle(self, exit_code: int | None, signal_number: int | None) -> None:
        super()._settle(exit_code, signal_number)
        if not self._limited.done():
            self._limited.set_result(None)

    async def _free(self) -> None:
        if self._closed:
            return
        self._loop.remove_reader(self._control.fileno())
        await super()._free()
        if self._letting_go is not None:
            await asyncio.gather(self._letting_go, return_exceptions=True)
        self._kept.close()
        self._control.close()
        os.close(self._log)
