"""Leaves something of every kind for whoever runs next; says what took hold within this execution."""

from __future__ import annotations

import builtins
import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

MARK = "left-by-hostile"
PLACES = ("/tmp", "/dev/shm", "/var/tmp", "/run", "/env", "/build", "/proc/self/cwd")  # noqa: S108
PORT = 47_111


def main() -> list[str]:
    taken: list[str] = []
    for place in PLACES:
        try:
            Path(place, MARK).write_text(MARK)
            taken.append(place)
        except OSError:
            continue
    sockets = [socket.socket(socket.AF_UNIX), socket.create_server(("127.0.0.1", PORT))]
    sockets[0].bind("\0" + MARK)
    sockets[0].listen()
    builtins.left_by_hostile = MARK  # type: ignore[attr-defined]
    json.left_by_hostile = MARK  # type: ignore[attr-defined]
    os.environ["LEFT_BY_HOSTILE"] = MARK
    sys.path.insert(0, "/tmp")  # noqa: S108
    Path("/tmp/sitecustomize.py").write_text("raise SystemExit")  # noqa: S108
    original = json.dumps

    def poisoned(*arguments: Any, **options: Any) -> str:
        return original(*arguments, **options)

    poisoned.left_by_hostile = MARK  # type: ignore[attr-defined]
    json.dumps = poisoned
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.closerange(0, 3)
            while True:
                sockets[0].accept()
        os._exit(0)
    return taken
