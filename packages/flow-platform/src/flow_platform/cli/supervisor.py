"""The process behind `flow up`: starts the parts, keeps them running, and leaves nothing behind.

It holds the listening socket, so a server that is started again keeps its port and connections queue meanwhile. It
imports nothing heavy: the parts load in parallel while it waits for them. However it ends, its children notice (see
`bootstrap`), so also `kill -9` leaves no orphan.

    stop: runners drain, their results are recorded by the server, then the server ends, then NATS
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from flow_platform.bus.server import NatsServer
from flow_platform.cli.child import Child, ChildFailed, Program, tail_of
from flow_platform.cli.data_folder import DataFolder, write_atomically
from flow_platform.cli.master_key import ensure_master_key
from flow_platform.domain.errors import FlowError
from flow_platform.settings import PREFIX, TEST_PREFIX, Settings, as_environment

BACKLOG: Final = 2048  # Connections that wait while a server is started again.
START_TIMEOUT_SECONDS: Final = 120.0  # The first start on a slow disk makes the container runtime's files.
SERVER_STOP_SECONDS: Final = 10.0
HAND_BACK_SECONDS: Final = 12.0  # Beyond the drain: for runners to hand back what they could not finish.
LAST_WORDS_SECONDS: Final = 2.0  # From "at once" to SIGKILL: a runner frees mounts and cgroups meanwhile.
MAX_LOG_BYTES: Final = 20 << 20  # Per child; then the file moves aside as `.1` and begins anew.
LOG_CHECK_SECONDS: Final = 30.0

Document = dict[str, Any]


class Supervisor:
    """One run of the embedded platform.

    Args:
        settings: Completed ones.
        on_ready: Called with the document of the ready file.
        say: Shows one line to people.
    """

    def __init__(self, settings: Settings, on_ready: Callable[[Document], None], say: Callable[[str], None]) -> None:
        self._settings = settings
        self._on_ready = on_ready
        self._say = say
        self._folder = DataFolder(settings.data_dir)
        self._nats: NatsServer | None = None
        self._nats_url: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._runner_url: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._children: list[Child] = []  # The server, then the runners.
        self._stop = asyncio.Event()
        self._at_once = asyncio.Event()

    async def run(self) -> None:
        """Returns after an orderly stop.

        Raises:
            FlowError: The platform could not be started, or a part of it not be kept running.
        """
        self._folder.create()
        self._folder.lock()
        try:
            self._remove_ready_files()
            ensure_master_key(self._settings)
            listener = bind(self._settings)
            try:
                await self._run_parts(listener)
            finally:
                listener.close()
        finally:
            self._remove_ready_files()
            self._folder.unlock()

    def request_stop(self) -> None:
        """Called on SIGINT and SIGTERM: the first drains, the second stops at once."""
        if self._stop.is_set():
            self._at_once.set()
        self._stop.set()

    async def _run_parts(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self.request_stop)
        keepers: list[asyncio.Task[None]] = []
        stopping = asyncio.create_task(self._stop.wait())
        try:
            # Children load for a second or two; NATS starts meanwhile.
            self._start_children(listener, keepers)
            await self._start_nats(keepers)
            keepers.append(asyncio.create_task(self._limit_logs()))
            ready = asyncio.create_task(self._wait_ready())
            # Whichever comes first: all parts ready, one of them failed, or the user had enough.
            await _first({ready, stopping}, keepers, START_TIMEOUT_SECONDS)
            if ready.done():
                self._announce(listener, self._nats_url.result(), ready.result())
                await _first({stopping}, keepers, None)
            elif not stopping.done():
                self._give_up()
            ready.cancel()
            await self._drain()
        except BaseException:
            self._at_once.set()
            raise
        finally:
            stopping.cancel()
            await self._end_everything(keepers)

    async def _start_nats(self, keepers: list[asyncio.Task[None]]) -> None:
        """Also lets the children know where it is."""
        if self._settings.nats_url:
            self._nats_url.set_result(self._settings.nats_url)
            self._runner_url.set_result(self._settings.nats_url)
            return
        nats = self._nats = NatsServer(self._settings.data_dir / "nats")
        await nats.start()
        keepers.append(asyncio.create_task(nats.keep_running()))
        self._nats_url.set_result(nats.url)
        self._runner_url.set_result(nats.runner_url)

    def _start_children(self, listener: socket.socket, keepers: list[asyncio.Task[None]]) -> None:
        port = listener.getsockname()[1]
        settings = dataclasses.replace(self._settings, nats_url="", port=port, ready_file=None)
        descriptors = {"--listen-fd": listener.fileno(), "--lock-fd": self._folder.lock_descriptor}
        self._children.append(self._child("server", "server", settings, self._nats_url, descriptors))
        # Over a NATS of one's own there are no others; a shared one may have runners of other machines.
        prefix = self._settings.runner_id[:60] if self._settings.nats_url else "local"
        for number in range(1, self._settings.runners + 1):
            name = f"runner-{number}"
            # A runner machine holds no credential of the database, so this one gets none either.
            own = dataclasses.replace(
                settings,
                runner_id=f"{prefix}-{number}",
                database_url="",
                master_key="",
                previous_master_key="",
                master_key_command="",
            )
            self._children.append(self._child(name, "runner", own, self._runner_url, {}))
        keepers += [asyncio.create_task(child.keep_running(), name=child.program.name) for child in self._children]

    def _child(
        self, name: str, part: str, settings: Settings, nats_url: asyncio.Future[str], descriptors: dict[str, int]
    ) -> Child:
        environment = {
            key: value for key, value in os.environ.items() if not key.startswith(PREFIX) or key.startswith(TEST_PREFIX)
        }
        environment.update(as_environment(settings))
        arguments = ("-m", "flow_platform.bootstrap", part)
        log = self._folder.log(name)
        return Child(Program(name, arguments, environment, log, descriptors, nats_url), self._say)

    async def _wait_ready(self) -> Document:
        """The server's report, when all have reported."""
        reports = await asyncio.gather(*(child.ready for child in self._children))
        return reports[0]

    def _give_up(self) -> None:
        silent = [child.program for child in self._children if not child.ready.done()]
        names = ", ".join(program.name for program in silent)
        raise ChildFailed(f"{names}: not ready after {START_TIMEOUT_SECONDS:g} s", tail=tail_of(silent[0].log))

    def _announce(self, listener: socket.socket, nats_url: str, report: Document) -> None:
        base_url = address_of(self._settings, listener)
        document = {
            "base_url": base_url,
            "nats_url": nats_url,
            "console_url": base_url + "/",
            "org_id": report["org_id"],
            "workspace_id": report["workspace_id"],
            "rings": report["rings"],
            "token": report["token"],
            "pid": os.getpid(),
        }
        write_atomically(self._folder.ready_file, document)
        if self._settings.ready_file:
            write_atomically(self._settings.ready_file, document)
        self._on_ready(document)

    def _remove_ready_files(self) -> None:
        """A ready file of an earlier run would lie."""
        for path in (self._folder.ready_file, self._settings.ready_file):
            if path:
                path.unlink(missing_ok=True)

    async def _drain(self) -> None:
        """The server records what the runners finish, so it goes after them; NATS carries it, so it goes last."""
        self._say("draining; Ctrl-C again stops at once")
        await self._end_in_order(self._children[1:], self._settings.drain_seconds + HAND_BACK_SECONDS)
        await self._end_in_order(self._children[:1], SERVER_STOP_SECONDS)

    async def _end_in_order(self, children: list[Child], seconds: float) -> None:
        if self._at_once.is_set() or not children:
            return
        for child in children:
            child.terminate()
        await _first({asyncio.create_task(self._at_once.wait())}, [_gone(children)], seconds, cancel=True)

    async def _end_everything(self, keepers: list[asyncio.Task[None]]) -> None:
        """Whatever still runs gets a moment to free what it holds of the machine, then none."""
        running = [child for child in self._children if child.is_running]
        for child in running:
            child.terminate()
            child.terminate()
        if running:
            await asyncio.wait({_gone(running)}, timeout=LAST_WORDS_SECONDS)
        for child in running:
            child.kill()
        if running:
            await _gone(running)
        for keeper in keepers:
            keeper.cancel()
        if self._nats:
            await self._nats.stop()
        await asyncio.gather(*keepers, return_exceptions=True)

    async def _limit_logs(self) -> None:
        while True:
            await asyncio.sleep(LOG_CHECK_SECONDS)
            for child in self._children:
                _roll(child.program.log)


def bind(settings: Settings) -> socket.socket:
    """Makes the listening socket.

    Raises:
        FlowError: The address is taken or not ours.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise FlowError(f"host {settings.host!r} is no address of this machine: {error.strerror}") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise FlowError(
            f"cannot listen on {settings.host!r} port {settings.port}: {error.strerror}",
            hint="--port 0 takes any free port",
        ) from error
    return listener


def address_of(settings: Settings, listener: socket.socket) -> str:
    host = settings.loopback_host
    return f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"


def _gone(children: list[Child]) -> asyncio.Task[None]:
    async def wait() -> None:
        await asyncio.gather(*(child.wait_gone() for child in children))

    return asyncio.create_task(wait())


async def _first(
    awaited: set[asyncio.Task[Any]], others: list[asyncio.Task[None]], seconds: float | None, *, cancel: bool = False
) -> None:
    """Waits for one of `awaited`; a failure of one of the others is raised here."""
    done, _ = await asyncio.wait({*awaited, *others}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    if cancel:
        for task in (*awaited, *others):
            task.cancel()
    for task in done:
        task.result()


def _roll(log: Path) -> None:
    """Children append, so the file can be emptied under them; what they write in between is in neither."""
    if log.exists() and log.stat().st_size > MAX_LOG_BYTES:
        log.with_suffix(".log.1").write_bytes(log.read_bytes())
        os.truncate(log, 0)
