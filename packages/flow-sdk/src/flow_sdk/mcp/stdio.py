"""A server as a program in this container: one message a line, on its standard input and output."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Final

from flow_sdk.mcp.messages import (
    MAX_MESSAGE_BYTES,
    Deadline,
    Message,
    is_answer,
    reply_to,
    too_large,
    unreachable,
)

END_SECONDS: Final = 1.0  # For a program whose input has ended to end by itself.
SHOWN_LINES: Final = 20  # Of what it wrote to standard error, in the error when it ends too early.
SHOWN_CHARACTERS: Final = 2_000
_CHUNK: Final = 64 << 10
_KEPT_VARIABLES: Final = ("PATH", "HOME", "TMPDIR", "LANG", "PYTHONDONTWRITEBYTECODE", "SSL_CERT_FILE", "PIP_CERT")
_KEPT_ENDINGS: Final = ("_PROXY", "_CA_BUNDLE", "_NUM_THREADS")
_PROGRAMS: Final = ("/env/bin",)  # Where packages of the environment have theirs.


class StdioTransport:
    """Starts the program, and ends it with `close`.

    Args:
        command: Program and arguments.
        env: Variables beside those that every program in a container needs. None of the execution's credentials.
    """

    def __init__(self, command: Sequence[str], env: Mapping[str, str]) -> None:
        self._written: deque[str] = deque(maxlen=SHOWN_LINES)
        self._buffer = bytearray()
        self._name = command[0]
        variables = environment(env)
        try:
            self._process = subprocess.Popen(
                [sys.executable if command[0] in ("python", "python3") else command[0], *command[1:]],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=variables,
            )
        except OSError as error:
            raise unreachable(f"the MCP server {self._name!r} cannot be started: {error.strerror or error}") from error
        assert self._process.stdin is not None  # noqa: S101 - pipes, as asked for.
        assert self._process.stdout is not None  # noqa: S101
        self._stdin, self._stdout = self._process.stdin.fileno(), self._process.stdout.fileno()
        os.set_blocking(self._stdin, False)
        os.set_blocking(self._stdout, False)
        self._reader = threading.Thread(target=self._follow_errors, daemon=True)
        self._reader.start()

    def exchange(self, request: Message, deadline: Deadline) -> Message:
        self._write(request, deadline)
        while True:
            message = self._read(deadline)
            if is_answer(message, request):
                return message
            reply = reply_to(message)
            if reply is not None:
                self._write(reply, deadline)

    def notify(self, message: Message, deadline: Deadline) -> None:
        self._write(message, deadline)

    def speak(self, protocol: str) -> None:
        """All versions are written alike."""

    def close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(END_SECONDS)
        # A program that it started may still hold it, and then the thread reads on.
        if self._process.stderr is not None and not self._reader.is_alive():
            self._process.stderr.close()

    def _write(self, message: Message, deadline: Deadline) -> None:
        """Reads meanwhile: a program that waits for us to read would never read what we write."""
        rest = memoryview(json.dumps(message, ensure_ascii=False).encode() + b"\n")
        while rest:
            readable, writable, _ = select.select([self._stdout], [self._stdin], [], deadline.remaining())
            if readable:
                self._fill()
            if writable:
                try:
                    rest = rest[os.write(self._stdin, rest) :]
                except BlockingIOError:
                    continue
                except OSError:
                    raise self._ended(deadline) from None

    def _read(self, deadline: Deadline) -> Message:
        searched = 0
        while True:
            end = self._buffer.find(b"\n", searched)
            if end >= 0:
                line = bytes(self._buffer[:end])
                del self._buffer[: end + 1]
                searched = 0
                message = _parsed(line)
                if message is not None:
                    return message
                self._say(line)  # Programs print what belongs to standard error.
                continue
            searched = len(self._buffer)
            if searched > MAX_MESSAGE_BYTES:
                raise too_large()
            readable, _, _ = select.select([self._stdout], [], [], deadline.remaining())
            if readable and not self._fill():
                raise self._ended(deadline)

    def _fill(self) -> bool:
        """Takes what there is; False at its end."""
        try:
            chunk = os.read(self._stdout, _CHUNK)
        except BlockingIOError:
            return True
        self._buffer += chunk
        return bool(chunk)

    def _ended(self, deadline: Deadline) -> Exception:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(END_SECONDS)
        self._reader.join(END_SECONDS)
        code = self._process.poll()
        how = "closed its output" if code is None else f"ended with exit code {code}"
        text = "\n".join(self._written)[-SHOWN_CHARACTERS:]
        wrote = f"; it wrote: {text}" if text else ""
        return unreachable(f"the MCP server {self._name!r} {how} before it answered {deadline.what!r}{wrote}")

    def _follow_errors(self) -> None:
        """What the program says becomes log lines of the execution."""
        stream = self._process.stderr
        assert stream is not None  # noqa: S101
        with contextlib.suppress(OSError, ValueError):
            for line in iter(lambda: stream.readline(_CHUNK), b""):
                self._say(line)

    def _say(self, line: bytes) -> None:
        text = line.decode(errors="replace").rstrip()
        if text:
            self._written.append(text)
            sys.stderr.write(f"{text}\n")


def environment(env: Mapping[str, str]) -> dict[str, str]:
    """Variables of the program: what it needs to run here, and what was asked for."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in _KEPT_VARIABLES or name.upper().endswith(_KEPT_ENDINGS)
    }
    folders = [folder for folder in _PROGRAMS if os.path.isdir(folder)]  # noqa: PTH112
    kept["PATH"] = os.pathsep.join([*folders, kept.get("PATH", os.defpath)])
    # A container's packages are in folders of their own, which its interpreter was told of and a new one is not.
    ours = [folder for folder in sys.path if folder and not folder.startswith((sys.prefix, sys.base_prefix))]
    return {**kept, "PYTHONPATH": os.pathsep.join(ours), "PYTHONUNBUFFERED": "1", **env}


def _parsed(line: bytes) -> Message | None:
    """None for what is no message."""
    try:
        message: Any = json.loads(line)
    except ValueError:
        return None
    return message if isinstance(message, dict) else None  # pyright: ignore[reportUnknownVariableType] - JSON.
