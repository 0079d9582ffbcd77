"""The program `flow` as a user runs it: a subprocess; and a platform of its own, watched from outside."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flow_platform.cli import main

FLOW = Path(sys.executable).with_name("flow")
START_SECONDS = 110.0  # Within the time of a test.


def eventually(condition: Callable[[], Any], timeout: float = 60.0) -> Any:
    """Polls until the condition holds, and returns what it gave."""
    give_up = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < give_up, f"not within {timeout} s: {condition}"
        time.sleep(0.02)


def clean_environment(**more: str) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("FLOW_")} | more


@dataclass(frozen=True)
class Done:
    """A command that ended."""

    returncode: int
    stdout: str
    stderr: str


def flow(*arguments: str | Path, stdin: str = "", **environment: str) -> Done:
    """Runs a command to its end in this process: the same code, without the second that Python takes to load it."""
    out, err = io.StringIO(), io.StringIO()
    before = sys.argv, sys.stdin, dict(os.environ)
    sys.argv = ["flow", *map(str, arguments)]
    sys.stdin = io.StringIO(stdin)
    os.environ.clear()
    os.environ.update(clean_environment(**environment))
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                main()
                code: Any = 0
            except SystemExit as exit_:
                code = exit_.code or 0
    finally:
        sys.argv, sys.stdin = before[:2]
        os.environ.clear()
        os.environ.update(before[2])
    return Done(code, out.getvalue(), err.getvalue())


def flow_process(*arguments: str | Path, stdin: str = "", cwd: Path | None = None, **environment: str) -> Any:
    """Runs a command to its end as a process of its own; the result has returncode, stdout and stderr."""
    return subprocess.run(
        [FLOW, *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=100,
        cwd=cwd,
        env=clean_environment(**environment),
    )


class Platform:
    """One `flow up` over a folder, with these options and variables."""

    def __init__(self, folder: Path, *arguments: str, **environment: str) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.ready_file = folder / "ready.json"
        self._said = folder / "up.log"
        self._log = self._said.open("wb")
        command = [FLOW, "up", "--port", "0", "--data", self.data, "--ready-file", self.ready_file, *arguments]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            env=clean_environment(**environment),
            start_new_session=True,
        )

    @property
    def said(self) -> str:
        return self._said.read_text()

    def wait_ready(self) -> dict[str, Any]:
        eventually(lambda: self.ready_file.exists() or self.process.poll() is not None, START_SECONDS)
        assert self.ready_file.exists(), self.said
        return json.loads(self.ready_file.read_text())

    def flow(self, *arguments: str | Path, stdin: str = "") -> Any:
        return flow(*arguments, "--data", self.data, stdin=stdin)

    def output_of(self, *arguments: str | Path, stdin: str = "") -> Any:
        """The JSON that a command printed; it must have gone well."""
        done = self.flow(*arguments, stdin=stdin)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def processes(self) -> list[int]:
        """Everything below `flow up`, containers too: its children and theirs."""
        return descendants(self.process.pid)

    def child(self, part: str) -> int:
        """The process of a part: server, runner or nats-server."""
        found = [
            process for process in children_of(self.process.pid) if part in command_line(process).replace("\0", " ")
        ]
        assert len(found) == 1, (part, [command_line(process) for process in children_of(self.process.pid)])
        return found[0]

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(60)
        finally:
            self.close()

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._log.close()


@contextlib.contextmanager
def running(folder: Path, *arguments: str, **environment: str) -> Iterator[Platform]:
    platform = Platform(folder, *arguments, **environment)
    try:
        platform.wait_ready()
        yield platform
    finally:
        if platform.process.poll() is None:
            platform.stop()
        platform.close()


def command_line(process: int) -> str:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""


def children_of(process: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(fields[1]) == process and fields[0] != "Z":
                    found.append(int(entry.name))
    return found


def descendants(process: int) -> list[int]:
    found = []
    for child in children_of(process):
        found += [child, *descendants(child)]
    return found


def are_gone(processes: list[int]) -> bool:
    return not [process for process in processes if _state(process) not in ("", "Z")]


def _state(process: int) -> str:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def mounts() -> set[str]:
    """But those of a container engine, which other tests have: it mounts when it likes."""
    engines = ("docker", " - overlay ", " - nsfs ")
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return {line for line in lines if not any(word in line for word in engines)}


def network_namespaces() -> set[str]:
    """All that any process is in."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                found.add(str((entry / "ns" / "net").readlink()))
    return found
