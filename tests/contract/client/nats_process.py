"""A real nats-server with JetStream, and a wire tap between a client and it."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

BINARY = Path(sysconfig.get_path("scripts")) / "nats-server"


class NatsProcess:
    """Runs until `stop`. Listens on a free loopback port."""

    def __init__(self, folder: Path, config: str = "") -> None:
        path = folder / "nats.conf"
        path.write_text(f"listen: 127.0.0.1:-1\njetstream {{ store_dir: {json.dumps(str(folder))} }}\n{config}\n")
        self._process = subprocess.Popen([BINARY, "-c", path], stderr=subprocess.PIPE, text=True)
        self.port = 0
        assert self._process.stderr is not None
        output: list[str] = []
        for line in self._process.stderr:
            output.append(line)
            if found := re.search(r"Listening for client connections on 127\.0\.0\.1:(\d+)", line):
                self.port = int(found[1])
            if "Server is ready" in line:
                return
        raise RuntimeError("nats-server did not start:\n" + "".join(output))

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def stop(self) -> None:
        self._process.kill()
        self._process.communicate()


class WireTap:
    """Forwards connections, and keeps what the client sent on each."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self.sent: list[bytearray] = []
        self.port = 0

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """Breaks all connections; new ones are taken."""
        for writer in self._writers:
            writer.transport.abort()

    def connects(self) -> list[dict[str, Any]]:
        """The CONNECT message of each connection."""
        found = (re.search(rb"CONNECT (\{.*?\})\r\n", bytes(sent)) for sent in self.sent)
        return [json.loads(match[1]) for match in found if match]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sent = bytearray()
        self.sent.append(sent)
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._target)
        self._writers |= {writer, server_writer}
        back = asyncio.create_task(_pump(server_reader, writer, None))
        self._tasks.add(back)
        await _pump(reader, server_writer, sent)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, keep: bytearray | None) -> None:
    try:
        while data := await reader.read(65536):
            if keep is not None:
                keep += data
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()
