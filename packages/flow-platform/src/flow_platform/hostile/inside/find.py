"""Looks for what an earlier execution left: see `leave`."""

from __future__ import annotations

import builtins
import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

from flow_platform.hostile.inside.trying import Answers, attempt

MARK = "left-by-hostile"
PLACES = ("/tmp", "/dev/shm", "/var/tmp", "/run", "/env", "/build", "/proc/self/cwd")  # noqa: S108
PORT = 47_111


def main() -> Answers:
    answers = {f"file in {place}": attempt(Path(place, MARK).read_text) for place in PLACES}
    found = [name for name in os.listdir("/tmp") if name != ".shm"]  # noqa: PTH208, S108
    answers["any file in /tmp"] = f"OK {found}" if found else "empty"
    answers["abstract socket"] = connect(socket.AF_UNIX, "\0" + MARK)
    answers["port"] = connect(socket.AF_INET, ("127.0.0.1", PORT))
    answers["name in a module"] = (
        "OK" if hasattr(json, "left_by_hostile") or hasattr(builtins, "left_by_hostile") else "none"
    )
    answers["changed function"] = "OK" if hasattr(json.dumps, "left_by_hostile") else "as it was"
    answers["variable"] = "OK" if "LEFT_BY_HOSTILE" in os.environ else "none"
    answers["search path"] = "OK" if "/tmp" in sys.path else "as it was"  # noqa: S108
    listed = [name for name in os.listdir("/proc") if name.isdigit() and name != "1"]  # noqa: PTH208
    answers["process"] = f"OK {listed}" if listed else "none"
    answers["unix sockets"] = unix_sockets()
    return {"8": answers, "7": {"module of an earlier run": "OK" if "sitecustomize" in sys.modules else "none"}}


def connect(family: int, address: Any) -> str:
    def try_it() -> str:
        with socket.socket(family, socket.SOCK_STREAM) as connection:
            connection.settimeout(1)
            connection.connect(address)
            return "connected"

    return attempt(try_it)


def unix_sockets() -> str:
    """Names that the kernel lists for this network namespace, where it lists any."""
    try:
        lines = Path("/proc/self/net/unix").read_text().splitlines()[1:]
    except OSError as error:
        return type(error).__name__
    named = [line.split()[7] for line in lines if len(line.split()) > 7]
    return f"OK {named}" if named else "none"
