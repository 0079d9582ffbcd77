"""Outlives its runner by a moment, and removes the containers that it left.

    python -I -S reaper.py SOCKET OWNER_LABEL=NAME FOLDER < pipe

The engine's containers are no children of the runner, so nothing else ends them when it is killed. The pipe's other
end is the runner's alone: reading its end means that the runner is gone. Only the standard library, and nothing of
ours: it starts in milliseconds and takes little memory.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import sys
import time
from typing import Any, Final
from urllib.parse import quote

_TRIES: Final = 30
_PAUSE_SECONDS: Final = 1.0  # The engine may be restarting.
_ANSWER_SECONDS: Final = 30.0


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("engine", timeout=_ANSWER_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_ANSWER_SECONDS)
        self.sock.connect(self._path)


def main(path: str, label: str, folder: str) -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # The group's signals are for the runner; we follow it.
    os.read(0, 1)
    for _ in range(_TRIES):
        try:
            _remove_all(path, label)
            break
        except (OSError, ValueError, http.client.HTTPException):
            time.sleep(_PAUSE_SECONDS)
    shutil.rmtree(folder, ignore_errors=True)


def _remove_all(path: str, label: str) -> None:
    """Twice nothing: a container that was being made when the runner died appears a moment later."""
    empty = 0
    while empty < 2:
        filters = quote(json.dumps({"label": [label]}))
        found: list[dict[str, Any]] = json.loads(_ask(path, "GET", f"/containers/json?all=1&filters={filters}"))
        for container in found:
            _ask(path, "DELETE", f"/containers/{container['Id']}?force=1&v=1")
        empty = 0 if found else empty + 1
        time.sleep(_PAUSE_SECONDS / 2)


def _ask(path: str, method: str, target: str) -> bytes:
    connection = _Connection(path)
    try:
        connection.request(method, target)
        return connection.getresponse().read()
    finally:
        connection.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
