"""The host's end of a jail: starts stage 0 and speaks to whatever is inside over its control socket."""

from __future__ import annotations

import array
import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import flow_platform
from flow_platform.domain.errors import SandboxUnavailable
from flow_platform.sandbox.namespaces.identity import Identity

_START: Final = (
    "import sys; sys.path.insert(0, {source!r}); from flow_platform.sandbox.namespaces import jail; jail.main()"
)
_HINTS: Final = (
    (
        "unshare(CLONE_NEWUSER)",
        "allow unprivileged user namespaces: on Ubuntu 23.10 and later `sudo sysctl -w "
        "kernel.apparmor_restrict_unprivileged_userns=0` or an AppArmor profile with `userns,` for this Python; on old "
        "Debian `sudo sysctl -w kernel.unprivileged_userns_clone=1`; in Docker `--security-opt seccomp=unconfined "
        "--security-opt apparmor=unconfined`",
    ),
    (
        "writing the user and group maps",
        "check that newuidmap and newgidmap are setuid root and that /etc/subuid and /etc/subgid name this user, or "
        "that AppArmor does not confine this Python",
    ),
    (
        "fsconfig(proc",
        "a container engine hides parts of /proc from us: start it with `--security-opt systempaths=unconfined`",
    ),
    (
        "unshare(",
        "in Docker: `--security-opt seccomp=unconfined --security-opt apparmor=unconfined`, or run as root on the host",
    ),
    ("mount", "in Docker: `--security-opt seccomp=unconfined --security-opt apparmor=unconfined`"),
)


_CLOSE_SECONDS: Final = 2.0


class JailProcess:
    """One jail. Its control socket carries one JSON document per packet."""

    def __init__(self, stdin: int = subprocess.DEVNULL, output: int | None = None) -> None:
        """Starts stage 0. Must be called on a thread that lives as long as the sandbox: the jail dies with it.

        Args:
            output: Where stdout and stderr of what runs inside go; by default they are kept for `last_words`.
        """
        if sys.platform != "linux":
            raise SandboxUnavailable(
                f"the namespaces sandbox needs Linux, this is {sys.platform!r}",
                hint="run Flow in a Linux virtual machine, or choose the Docker sandbox",
            )
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._words, words_in = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        source = str(Path(str(flow_platform.__file__)).resolve().parent.parent)
        try:
            with theirs:
                # The shell-less way to put a descriptor on a fixed number: dup2 in the child, before the exec.
                self._process = subprocess.Popen(
                    [
                        sys.executable,
                        "-I",
                        "-S",
                        "-B",
                        "-c",
                        _RENUMBER.format(descriptor=theirs.fileno()) + _START.format(source=source),
                    ],
                    stdin=stdin,
                    stdout=words_in if output is None else output,
                    stderr=words_in if output is None else output,
                    env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"},
                    pass_fds=(theirs.fileno(),),
                    close_fds=True,
                )
        except OSError as exc:
            os.close(self._words)
            self.control.close()
            raise SandboxUnavailable(f"{sys.executable!r} could not be started: {exc}") from exc
        finally:
            os.close(words_in)
        self.control.setblocking(False)

    def send(self, document: dict[str, Any], descriptors: Sequence[int] = ()) -> None:
        """Raises `SandboxUnavailable` when the jail is gone."""
        rights = array.array("i", descriptors)
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if descriptors else []
        try:
            self.control.sendmsg([json.dumps(document).encode()], ancillary)
        except OSError as exc:
            raise SandboxUnavailable(f"the jail does not answer: {exc}: {self.last_words()}") from exc

    async def receive(self, within_seconds: float) -> dict[str, Any]:
        """The next document; an `error` in it, or the jail's end, is raised as `SandboxUnavailable`."""
        loop = asyncio.get_running_loop()
        try:
            message = await asyncio.wait_for(loop.sock_recv(self.control, 65536), within_seconds)
        except TimeoutError:
            raise SandboxUnavailable(f"the jail did not answer within {within_seconds} s") from None
        except OSError as exc:
            raise SandboxUnavailable(f"the jail does not answer: {exc}") from exc
        if not message:
            raise SandboxUnavailable(f"the jail ended while it was being made: {self.last_words()}")
        document: dict[str, Any] = json.loads(message)
        if "error" in document:
            raise refusal(document["error"])
        return document

    def last_words(self) -> str:
        try:
            return os.read(self._words, 65536).decode(errors="replace").strip()[-2000:]
        except BlockingIOError:
            return ""

    async def close(self, *, at_once: bool = False) -> int:
        """Ends everything in the jail and waits until it is gone."""
        self.control.close()  # The program ends by that, then process 1, and with it everything else.
        try:
            code = await asyncio.wait_for(wait_for_exit(self._process), 0.0 if at_once else _CLOSE_SECONDS)
        except TimeoutError:
            self._process.kill()  # The outer process; the rest follows by PDEATHSIG.
            code = await wait_for_exit(self._process)
        if self._words >= 0:
            os.close(self._words)
            self._words = -1
        return code

    async def wait(self) -> int:
        return await wait_for_exit(self._process)


_RENUMBER: Final = "import os; os.dup2({descriptor}, 3) if {descriptor} != 3 else None; os.closerange(4, 65536); "


async def wait_for_exit(process: subprocess.Popen[bytes]) -> int:
    """Waits for a child by its pidfd: no thread, no signal handler."""
    if process.poll() is not None:
        return process.returncode
    loop = asyncio.get_running_loop()
    pidfd = os.pidfd_open(process.pid)
    exited: asyncio.Future[None] = loop.create_future()
    loop.add_reader(pidfd, lambda: exited.done() or exited.set_result(None))
    try:
        await exited
    finally:
        loop.remove_reader(pidfd)
        os.close(pidfd)
    with contextlib.suppress(subprocess.TimeoutExpired):
        return process.wait(1)
    return -9


def refusal(message: str) -> SandboxUnavailable:
    """What the kernel refused, with what allows it."""
    hint = next((hint for call, hint in _HINTS if call in message), "run `flow doctor`")
    return SandboxUnavailable(f"this machine refuses a sandbox: {message}", hint=hint)


def jail_config(
    identity: Identity,
    *,
    binds: list[tuple[str, str, bool]],
    maps: dict[str, list[list[int]]] | None = None,
    user: int = 0,
    command: dict[str, Any] | None = None,
    program: list[str] | None = None,
    environ: dict[str, str] | None = None,
) -> dict[str, Any]:
    """The message that stage 0 waits for."""
    mapper = identity.mapper
    if maps is not None and mapper == "newuidmap":
        mapper = "self"
    return {
        "privileged": identity.privileged,
        "mapper": mapper,
        "maps": maps or identity.maps,
        "user": user,
        "binds": binds,
        "proc": {"subset": "pid"} if command is not None else {},
        "command": command,
        "program": program or [],
        "environ": environ or {},
    }
