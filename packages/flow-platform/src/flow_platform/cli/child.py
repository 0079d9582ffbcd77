"""One supervised process of `flow up`: started, watched, started again when it dies, given up when it always dies."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from flow_platform.domain.errors import FlowError

REFUSED: Final = 78
"""Exit code of a child that cannot work on this machine and said why: starting it again would not help. Source:
sysexits.h, EX_CONFIG.
"""

MAX_DEATHS: Final = 8  # Within DEATH_WINDOW_SECONDS; then it is a crash loop, not an accident.
DEATH_WINDOW_SECONDS: Final = 60.0
FIRST_PAUSE_SECONDS: Final = 0.1  # Doubles with each death in the window.
MAX_REPORT_BYTES: Final = 1 << 20
TAIL_LINES: Final = 20
TAIL_BYTES: Final = 16 << 10


@dataclass(frozen=True)
class Program:
    """What to start.

    Attributes:
        arguments: After the interpreter.
        descriptors: Option -> descriptor that the child inherits; the option and its number are added to `arguments`.
        nats_url: Handed over through a pipe (`--nats-fd`) as soon as it is known, so that the child can load meanwhile;
            and not in the environment, where a credential has no business.
    """

    name: str
    arguments: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    descriptors: Mapping[str, int] = field(default_factory=dict[str, int])
    nats_url: asyncio.Future[str] | None = None


class ChildFailed(FlowError):
    """A child cannot be kept running; `tail` is the end of its log."""

    code = "child_failed"

    def __init__(self, message: str, *, hint: str = "", tail: str = "") -> None:
        super().__init__(message, hint=hint)
        self.tail = tail


class Child:
    """Keeps one program running.

    Attributes:
        ready: Done with the child's first report, a JSON object.
        starts: How often it was started.
    """

    def __init__(
        self, program: Program, say: Callable[[str], None], first_pause_seconds: float = FIRST_PAUSE_SECONDS
    ) -> None:
        self.program = program
        self._first_pause_seconds = first_pause_seconds
        self.ready: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self.starts = 0
        self._say = say
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = False

    async def keep_running(self) -> None:
        """Returns after `terminate` or `kill`.

        Raises:
            ChildFailed: It refused to work, or died too often.
        """
        loop = asyncio.get_running_loop()
        deaths: deque[float] = deque(maxlen=MAX_DEATHS)
        while not self._stopping:
            code = await self._run_once()
            if self._stopping:
                return
            deaths.append(loop.time())
            how = _ending(code)
            if len(deaths) == MAX_DEATHS and deaths[-1] - deaths[0] < DEATH_WINDOW_SECONDS:
                raise ChildFailed(
                    f"the {self.program.name} {how}, the {MAX_DEATHS}th time within {DEATH_WINDOW_SECONDS:g} s",
                    hint=f"its whole log: {self.program.log}",
                    tail=tail_of(self.program.log),
                )
            recent = sum(1 for death in deaths if deaths[-1] - death < DEATH_WINDOW_SECONDS)
            pause = self._first_pause_seconds * 2 ** (recent - 1)
            self._say(f"the {self.program.name} {how}; starting it again in {pause:g} s (log: {self.program.log})")
            await asyncio.sleep(pause)

    def terminate(self) -> None:
        """Asks it to drain, or, the second time, to stop at once. It is not started again."""
        self._stopping = True
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        self._stopping = True
        self._signal(signal.SIGKILL)

    async def wait_gone(self) -> None:
        """Returns when no process of this program is left."""
        if self._process:
            await self._process.wait()

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    def _signal(self, number: signal.Signals) -> None:
        if self._process and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def _run_once(self) -> int:
        program = self.program
        reading, writing = os.pipe()
        # While we live, the writing end of this pipe is open; the child takes its closing as our death.
        living, alive = os.pipe()
        asking, telling = os.pipe()
        descriptors = {**program.descriptors, "--ready-fd": writing, "--life-fd": living}
        if program.nats_url:
            descriptors["--nats-fd"] = asking
        options = [word for name, number in descriptors.items() for word in (name, str(number))]
        log = os.open(program.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",  # Nothing in the working directory may pose as one of our modules.
                *program.arguments,
                *options,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=dict(program.environment),
                pass_fds=tuple(descriptors.values()),
                start_new_session=True,  # A terminal's Ctrl-C is ours to hand on, in the right order.
            )
        except BaseException:
            for descriptor in (reading, alive, telling):
                os.close(descriptor)
            raise
        finally:
            for descriptor in (writing, living, asking, log):
                os.close(descriptor)
        self.starts += 1
        if self._stopping:  # Asked to stop while it was being started.
            self._signal(signal.SIGKILL)
        handing = asyncio.create_task(_hand_over(telling, program.nats_url))
        try:
            await self._hear(reading)
            return await self._process.wait()
        finally:
            handing.cancel()
            await asyncio.gather(handing, return_exceptions=True)
            os.close(alive)
            if self._process.returncode is None:
                self._signal(signal.SIGKILL)
                await self._process.wait()

    async def _hear(self, descriptor: int) -> None:
        """Reads the child's report; it closes the pipe after it, or by dying."""
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=MAX_REPORT_BYTES)
        transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb", buffering=0)
        )
        try:
            text = await reader.read()
        finally:
            transport.close()
        try:
            report = json.loads(text)
        except ValueError:
            return  # It died before it could say anything.
        if self.ready.done():
            return  # It worked before, so what stops it now may pass: it counts as a death like any other.
        if "error" in report:
            raise ChildFailed(str(report["error"]), hint=str(report.get("hint", "")))
        self.ready.set_result(report)


async def _hand_over(descriptor: int, text: asyncio.Future[str] | None) -> None:
    """Writes the text when it is known; whatever happens, the reader sees an end."""
    try:
        if text is not None:
            os.write(descriptor, (await asyncio.shield(text)).encode())
    except BrokenPipeError:
        return  # The child died first.
    finally:
        os.close(descriptor)


def tail_of(path: Path) -> str:
    """The last lines of a log."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-TAIL_LINES:])


def _ending(code: int) -> str:
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"
