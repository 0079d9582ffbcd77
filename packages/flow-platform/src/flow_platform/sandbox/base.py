"""The port of all sandboxes: who makes the isolated place in which one attempt runs.

A sandbox hands out containers. A container is used once: `acquire` gives a fresh sealed one, `start` hands it the code
and the input, its frames and log lines come back, `end` kills whatever is left of its process tree. There is
deliberately no way to run something in a container a second time.
"""

from __future__ import annotations

import abc
import enum
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from flow_sdk.wire.harness import Frame
from flow_sdk.wire.runner import Limits


@dataclass(frozen=True)
class ContainerSpec:
    """What a container is made for. Equal specs may share a template, never a container.

    Attributes:
        tenant: Workspace id. Templates are never shared between tenants.
        environment_digest: Empty for the base environment.
        environment_path: Folder with the installed packages (a `site-packages`), read-only for the container.
        proxy: Also gives the container a loopback listener on `PROXY_PORT`: its way out, served by the caller.
        modules: Of the environment, imported once for all containers of the spec, before there is any tenant's code.
            Only for environments whose packages the platform chose: what is imported there can read what all of the
            template's containers are made of.
    """

    tenant: str
    environment_digest: str = ""
    environment_path: Path | None = None
    proxy: bool = False
    modules: tuple[str, ...] = ()


class Ending(enum.StrEnum):
    """How a container came to its end, with evidence, not guesses."""

    EXITED = "exited"  # Process 1 ended by itself; see `exit_code`.
    KILLED = "killed"  # We ended it: cancel, deadline, or its result was in.
    OUT_OF_MEMORY = "out_of_memory"  # The kernel's OOM killer; the cgroup counted it.
    FORBIDDEN_SYSCALL = "forbidden_syscall"  # SIGSYS.
    CRASHED = "crashed"  # Another signal.
    START_FAILED = "start_failed"


@dataclass(frozen=True)
class Usage:
    """Counters of the whole container, from cgroups where there are any, else from the kernel's accounting."""

    cpu_ms: float = 0.0
    max_rss_bytes: int = 0
    oom_kills: int = 0
    pids_limit_hits: int = 0


@dataclass(frozen=True)
class Ended:
    ending: Ending
    exit_code: int | None = None
    signal: int | None = None
    usage: Usage = field(default_factory=Usage)


@dataclass(frozen=True)
class LogChunk:
    """Bytes that the component wrote, as they came; not necessarily whole lines, not necessarily text."""

    stream: str  # "stdout" or "stderr"
    data: bytes


class Container(Protocol):
    """A fresh container. Sealed when handed out: it holds nothing of the tenant yet."""

    @property
    def listeners(self) -> Mapping[int, socket.socket]:
        """Listening sockets that live inside the container's network namespace, by port: `API_PORT`, `NATS_PORT`,
        and `PROXY_PORT` where the spec says so.

        The caller accepts on them and owns what comes in; the container reaches nothing else.
        """
        ...

    async def start(self, frame: bytes, limits: Limits) -> None:
        """Sets the limits, then sends the body of the START frame. Once."""
        ...

    def frames(self) -> AsyncIterator[tuple[Frame, bytes]]:
        """The harness's frames, bounded by the limits given to `start`. Ends when the container's socket closes.

        Raises:
            ProtocolError: A frame over its limit, an unknown kind, or half a frame. The caller ends the container.
        """
        ...

    def logs(self) -> AsyncIterator[LogChunk]:
        """Stdout and stderr, bounded by `Limits.log_bytes`; ends when both are closed."""
        ...

    def drain_logs(self) -> list[LogChunk]:
        """What was written and not yet read, without waiting: called when the result is in, before `end`."""
        ...

    def usage(self) -> Usage:
        """The counters now."""
        ...

    async def end(self, grace_seconds: float = 0.0) -> Ended:
        """Ends the whole process tree and frees everything: SIGTERM, `grace_seconds` later SIGKILL. Idempotent."""
        ...

    async def wait(self) -> Ended:
        """Waits until the container ended by itself or by `end`."""
        ...


class ProtocolError(Exception):
    """A container broke the harness protocol."""


@dataclass(frozen=True)
class Command:
    """A program of ours to run on files of a tenant, e.g. uv building an environment.

    Attributes:
        argv: Absolute path first, as seen inside.
        writable: Host folder -> path inside. Everything else is read-only.
        readable: Host path -> path inside.
        proxy: A listening socket's handler is attached by the caller through `Container.listeners`; when true the
            command gets a loopback listener on `PROXY_PORT` and no other network.
    """

    argv: Sequence[str]
    env: Mapping[str, str]
    writable: Mapping[Path, str] = field(default_factory=dict[Path, str])
    readable: Mapping[Path, str] = field(default_factory=dict[Path, str])
    proxy: bool = False
    timeout_seconds: float = 300.0
    memory_bytes: int = 2 << 30
    pids: int = 256


@dataclass(frozen=True)
class CommandEnded:
    ended: Ended
    output: str  # stdout and stderr together, the last 256 KiB.


@dataclass(frozen=True)
class Check:
    """One thing this machine can or cannot do.

    Attributes:
        level: `ok`, `weak` (works, but weaker than it should) or `missing` (cannot run).
        hint: The one command or setting that mends it.
    """

    name: str
    level: str
    message: str
    hint: str = ""


API_PORT = 8420
NATS_PORT = 4222
PROXY_PORT = 3128
"""Loopback ports inside every container. Fixed: each container has a network namespace of its own."""

CORE_BYTES = 1
"""RLIMIT_CORE of every container, which may not change it. Linux writes no core file below one page, but at 0 it still
pipes one to a program of the host (`core_pattern` of systemd and others): memory with secrets goes out, and a parser
that runs as root gets what the container chose. At exactly 1 there is neither. Source: fs/coredump.c, core(5).
"""

CERTIFICATES = "/etc/ssl/certificates.pem"
"""Certificate authorities, inside every container: those that the runner's machine trusts."""


@dataclass(frozen=True)
class Whereabouts:
    """Where a container finds what is outside of it.

    Attributes:
        ports: On loopback, of `API_PORT`, `NATS_PORT` and `PROXY_PORT`.
        certificates: Path of certificate authorities; empty: wherever its libraries look by themselves.
    """

    ports: Mapping[int, int]
    certificates: str


INSIDE = Whereabouts({port: port for port in (API_PORT, NATS_PORT, PROXY_PORT)}, CERTIFICATES)
"""In every container that has a network and files of its own."""


class OnTheMachine(abc.ABC):
    """Base of containers that have neither network nor files of their own."""

    @property
    @abc.abstractmethod
    def whereabouts(self) -> Whereabouts: ...


def whereabouts(container: Container) -> Whereabouts:
    return container.whereabouts if isinstance(container, OnTheMachine) else INSIDE


class Sandbox(Protocol):
    name: str

    async def check(self) -> list[Check]:
        """Tries everything for real on this machine; never reads a sysctl and guesses."""
        ...

    async def open(self) -> None:
        """Raises `SandboxUnavailable` with what the kernel refused and how to allow it."""
        ...

    async def warm(self, spec: ContainerSpec) -> None:
        """Makes sure that a template for the spec is ready, so that the next `acquire` is fast."""
        ...

    async def acquire(self, spec: ContainerSpec) -> Container:
        """A fresh sealed container, from the pool when one waits there.

        Raises:
            SandboxUnavailable: None could be made.
        """
        ...

    async def run_command(self, command: Command, /, proxy_handler: object | None = None) -> CommandEnded:
        """Runs one command in a sandbox of its own and waits for its end."""
        ...

    async def close(self) -> None:
        """Ends all containers and templates; leaves no process, mount, cgroup or namespace behind."""
        ...
