"""Runs a program of ours, e.g. uv, as a plain process: paths inside of a container are put back to the host's."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from flow_platform.sandbox.base import (
    CORE_BYTES,
    PROXY_PORT,
    Command,
    CommandEnded,
    Ended,
    Ending,
)
from flow_platform.sandbox.command_proxy import serve_proxy
from flow_platform.sandbox.process.container import listen
from flow_platform.sandbox.process.kept_process import KeptProcess

OUTPUT_BYTES: Final = 256 << 10
_CHUNK_BYTES: Final = 64 << 10
_INSIDE_PYTHON: Final = "/python/bin/"


async def run(command: Command, proxy_handler: object | None) -> CommandEnded:
    """Runs the command to its end, its timeout, or the cancellation of the caller."""
    listener = listen() if command.proxy else None
    proxy = asyncio.create_task(serve_proxy(listener, proxy_handler)) if listener else None
    folder = Path(tempfile.mkdtemp(prefix="flow-command-"))
    try:
        here = _Here(command, folder, listener.getsockname()[1] if listener else 0)
        return await _run(command, here, folder)
    finally:
        if proxy is not None:
            proxy.cancel()
            await asyncio.gather(proxy, return_exceptions=True)
        await asyncio.get_running_loop().run_in_executor(None, lambda: shutil.rmtree(folder, ignore_errors=True))


class _Here:
    """Says things as they are called on this machine."""

    def __init__(self, command: Command, folder: Path, proxy_port: int) -> None:
        places = {
            inside: str(path.absolute()) for path, inside in [*command.readable.items(), *command.writable.items()]
        }
        places["/tmp"] = str(folder)  # noqa: S108 - what it is called inside.
        python = Path(sys.executable)
        self._places = {**places, _INSIDE_PYTHON.rstrip("/"): str(python.parent)}
        names = "|".join(re.escape(name) for name in sorted(self._places, key=len, reverse=True))
        self._path = re.compile(rf"(?<![\w./-])(?:{names})(?![\w.-])")
        self._proxy = (f"127.0.0.1:{PROXY_PORT}", f"127.0.0.1:{proxy_port}")

    def said(self, text: str) -> str:
        """With the paths and the port of this machine."""
        return self._path.sub(lambda found: self._places[found[0]], text.replace(*self._proxy))

    def environment(self, env: Mapping[str, str]) -> dict[str, str]:
        return {name: self.said(value) for name, value in env.items()}


async def _run(command: Command, here: _Here, folder: Path) -> CommandEnded:
    output, output_in = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    os.set_blocking(output_in, True)
    config = {
        "argv": [here.said(word) for word in command.argv],
        "folder": str(folder),
        "rlimits": {"CORE": CORE_BYTES, "NOFILE": 4096, "DATA": command.memory_bytes},
    }
    try:
        process = KeptProcess(config, environ=here.environment(command.env), out=output_in, err=output_in)
    except BaseException:
        os.close(output)
        raise
    finally:
        os.close(output_in)
    reading = asyncio.create_task(_tail(output), name="command-output")
    killed = False
    try:
        await asyncio.wait_for(asyncio.shield(process.exited), command.timeout_seconds)
    except TimeoutError:
        killed = True
    finally:
        process.kill()
        status, used = await asyncio.shield(process.exited)
        await process.free()
    text = await reading
    code = os.waitstatus_to_exitcode(status)
    if killed:
        return CommandEnded(Ended(Ending.KILLED, None, signal.SIGKILL, used), text)
    if code < 0:
        return CommandEnded(Ended(Ending.CRASHED, None, -code, used), text)
    return CommandEnded(Ended(Ending.EXITED, code, None, used), text)


async def _tail(descriptor: int) -> str:
    """The end of what is written, until nobody can write any more."""
    loop = asyncio.get_running_loop()
    kept = bytearray()
    closed: asyncio.Future[None] = loop.create_future()

    def read() -> None:
        try:
            data = os.read(descriptor, _CHUNK_BYTES)
        except BlockingIOError:
            return
        kept.extend(data)
        del kept[: max(0, len(kept) - OUTPUT_BYTES)]
        if not data and not closed.done():
            closed.set_result(None)

    loop.add_reader(descriptor, read)
    try:
        await closed
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
    return kept.decode(errors="replace")
