"""A platform of one's own for the length of a command: `flow up` as a child, on a free port."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any, Final

from flow_platform.domain.errors import FlowError
from flow_platform.settings import PREFIX

START_SECONDS: Final = 130.0  # A little more than `flow up` gives itself, so that its own words are heard.
STOP_SECONDS: Final = 30.0
POLL_SECONDS: Final = 0.01

_UP: Final = "from flow_platform.cli import main; main()"
_UP_UNTIL_PARENT_DIES: Final = "import ctypes; ctypes.CDLL(None).prctl(1, 15, 0, 0, 0); " + _UP


@contextlib.contextmanager
def running_platform(
    folder: Path, *arguments: str, keep: bool = False, settings: Mapping[str, str] | None = None
) -> Generator[dict[str, Any]]:
    """`flow up` over `folder`/data; gives the document of its ready file, and stops it at the end.

    Args:
        folder: Also gets what `flow up` says, in `up.log`.
        arguments: More of them for `flow up`.
        keep: Leave it running, unless the block raises.
        settings: As variables; of its surroundings it gets none.

    Raises:
        FlowError: It did not start; with what it said.
    """
    ready, words = folder / "ready.json", folder / "up.log"
    ready.unlink(missing_ok=True)
    command = [sys.executable, "-P", "-c", _UP if keep else _UP_UNTIL_PARENT_DIES, "up", "--port", "0"]
    command += ["--data", str(folder / "data"), "--ready-file", str(ready), *arguments]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    environment |= settings or {}
    with words.open("wb") as log:
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield _wait_ready(process, ready, words)
    except BaseException:
        keep = False
        raise
    finally:
        if not keep:
            _end(process)


def _wait_ready(process: subprocess.Popen[bytes], ready: Path, words: Path) -> dict[str, Any]:
    give_up = time.monotonic() + START_SECONDS
    while not ready.exists():
        if process.poll() is not None or time.monotonic() > give_up:
            text = words.read_text(errors="replace").strip()
            raise FlowError(f"the platform did not start:\n{text}")
        time.sleep(POLL_SECONDS)
    return json.loads(ready.read_text())


def _end(process: subprocess.Popen[bytes]) -> None:
    """Drains; then at once; then by force."""
    for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGKILL):
        process.send_signal(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
            return
