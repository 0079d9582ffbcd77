"""The runner's end of one keeper and the process that it keeps."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import flow_platform
from flow_platform.domain.errors import SandboxUnavailable
from flow_platform.sandbox.base import Usage

SOURCE: Final = str(Path(str(flow_platform.__file__)).resolve().parent.parent)
_START: Final = (
    "import json, sys; sys.path.insert(0, {source!r}); "
    "from flow_platform.sandbox.process import keeper; keeper.main(json.loads(sys.argv[1]))"
)
_KEEPER_SECONDS: Final = 10.0  # Between the order to end everything and the end of the keeper.


class KeptProcess:
    """One process with all that it starts.

    Attributes:
        exited: Its wait status and what it used; the status of SIGKILL when its keeper was killed.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        *,
        environ: Mapping[str, str],
        out: int,
        err: int,
        pass_fds: Sequence[int] = (),
    ) -> None:
        """Starts it.

        Raises:
            SandboxUnavailable: The operating system refused.
        """
        self._loop = asyncio.get_running_loop()
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        document = {**config, "control": theirs.fileno(), "source": SOURCE}
        python = [sys.executable, "-I", "-S", "-B", "-X", "utf8", "-c", _START.format(source=SOURCE)]
        try:
            self._keeper = subprocess.Popen(
                [*python, json.dumps(document)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=dict(environ),
                pass_fds=(theirs.fileno(), *pass_fds),
                start_new_session=True,
            )
        except OSError as error:
            self._control.close()
            raise SandboxUnavailable(f"{sys.executable!r} could not be started: {error}") from error
        finally:
            theirs.close()
        self._control.setblocking(False)
        self.exited: asyncio.Future[tuple[int, Usage]] = self._loop.create_future()
        self._loop.add_reader(self._control.fileno(), self._on_report)

    @property
    def pid(self) -> int:
        """Of the keeper, whose only child the process is."""
        return self._keeper.pid

    def terminate(self) -> None:
        self._say(b"T")

    def kill(self) -> None:
        self._say(b"K")

    def _say(self, word: bytes) -> None:
        with contextlib.suppress(OSError):  # It has ended, and has said so.
            self._control.send(word)

    def _on_report(self) -> None:
        try:
            message = self._received()
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            message = b""
        self._loop.remove_reader(self._control.fileno())
        if message:
            report = json.loads(message)
            used = Usage(cpu_ms=report["cpu_ms"], max_rss_bytes=report["max_rss_bytes"])
            self.exited.set_result((report["exit"], used))
        else:
            self.exited.set_result((signal.SIGKILL, Usage()))

    def _received(self) -> bytes:
        try:
            return self._control.recv(4096)
        except ConnectionResetError:
            # It ended with a word of ours unread. The kernel tells that once, and first; its report is behind it.
            return self._control.recv(4096)

    async def free(self) -> None:
        """Once it has exited: waits for the keeper, too."""
        self._control.close()
        if self._keeper.poll() is not None:
            return
        pidfd = os.pidfd_open(self._keeper.pid)
        gone: asyncio.Future[None] = self._loop.create_future()
        self._loop.add_reader(pidfd, lambda: gone.done() or gone.set_result(None))
        try:
            await asyncio.wait_for(gone, _KEEPER_SECONDS)
        except TimeoutError:
            self._keeper.kill()
        finally:
            self._loop.remove_reader(pidfd)
            os.close(pidfd)
        self._keeper.wait()
