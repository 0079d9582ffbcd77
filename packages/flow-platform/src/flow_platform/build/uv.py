"""Runs uv in a sandbox of its own: no host files, no network but the build's proxy.

A package without a wheel runs its own code while it is built. So there are two ways, tried in this order: `WHEELS`
shares uv's cache between builds and runs nobody's code; `SOURCES` may build, and its cache is thrown away with it, as
whatever ran there could have changed the cached packages of others. The first way also means that an older version
with a wheel is preferred to a newer one without.
"""

from __future__ import annotations

import enum
import functools
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import uv

from flow_platform.build.cache import UvCaches
from flow_platform.build.egress import BuildWayOut
from flow_platform.build.index import Index
from flow_platform.build.index_files import FileHosts, HostAndPort
from flow_platform.domain import errors
from flow_platform.sandbox.base import PROXY_PORT, Command, Sandbox

INSIDE_UV: Final = "/build/uv"
INSIDE_WORK: Final = "/build/work"
INSIDE_CACHE: Final = "/build/cache"
INSIDE_CERTIFICATES: Final = "/build/certificates.pem"
INSIDE_PYTHON: Final = "/python/bin/python3"  # Where every sandbox has its interpreter.
TIMEOUT_SECONDS: Final = 600.0
MEMORY_BYTES: Final = 2 << 30
PIDS: Final = 512

REQUIREMENTS: Final = "requirements.in"
CONSTRAINTS: Final = "constraints.txt"
LOCK: Final = "requirements.lock"
PACKAGES: Final = "packages"


class Way(enum.StrEnum):
    WHEELS = "wheels"
    SOURCES = "sources"


@dataclass(frozen=True)
class UvRun:
    """How a run of uv ended. `denied`: what the proxy refused."""

    succeeded: bool
    output: str
    denied: tuple[str, ...]


class Uv:
    """Runs uv on a work folder.

    Args:
        caches: Shared by builds that run no foreign code.
        way_out: What builds may reach besides the index.
    """

    def __init__(self, sandbox: Sandbox, caches: UvCaches, index: Index, way_out: BuildWayOut) -> None:
        self._sandbox = sandbox
        self._caches = caches
        self._index = index
        self._way_out = way_out
        self._file_hosts = FileHosts(index)

    async def compile(self, work: Path, way: Way, projects: Sequence[str], left_out: Sequence[str]) -> UvRun:
        """Locks `REQUIREMENTS` under `CONSTRAINTS` into `LOCK`, leaving some packages out of it.

        Args:
            projects: Names of what is to be downloaded, as far as they are known.
        """
        arguments = [
            *("pip", "compile", "--generate-hashes", "--no-header", "--no-annotate", "--python", INSIDE_PYTHON),
            *("--constraints", f"{INSIDE_WORK}/{CONSTRAINTS}", "--output-file", f"{INSIDE_WORK}/{LOCK}"),
            *(argument for name in left_out for argument in ("--no-emit-package", name)),
            f"{INSIDE_WORK}/{REQUIREMENTS}",
        ]
        return await self._run(arguments, work, way, projects)

    async def install(self, work: Path, way: Way, projects: Sequence[str]) -> UvRun:
        """Installs `LOCK` into `PACKAGES`: exactly what it lists, each held against its hashes."""
        arguments = [
            *("pip", "install", "--require-hashes", "--no-deps", "--compile-bytecode", "--python", INSIDE_PYTHON),
            *("--target", f"{INSIDE_WORK}/{PACKAGES}", "--requirements", f"{INSIDE_WORK}/{LOCK}"),
        ]
        return await self._run(arguments, work, way, projects)

    async def _run(self, arguments: Sequence[str], work: Path, way: Way, projects: Sequence[str]) -> UvRun:
        file_hosts = await self._file_hosts.find(projects)
        if way is Way.WHEELS:
            async with self._caches.take() as cache:
                return await self._run_with(cache, [*arguments, "--no-build"], work, file_hosts)
        cache = work / "cache"
        cache.mkdir(exist_ok=True)
        return await self._run_with(cache, arguments, work, file_hosts)

    async def _run_with(
        self, cache: Path, arguments: Sequence[str], work: Path, file_hosts: frozenset[HostAndPort]
    ) -> UvRun:
        proxy = self._way_out.open(self._index.hosts, file_hosts)
        common = ["--quiet", "--no-progress", "--color", "never", "--no-config", "--no-python-downloads"]
        command = Command(
            argv=[INSIDE_UV, *arguments, *common],
            env=self._environment(),
            writable={work: INSIDE_WORK, cache: INSIDE_CACHE},
            readable=self._readable(),
            proxy=True,
            timeout_seconds=TIMEOUT_SECONDS,
            memory_bytes=MEMORY_BYTES,
            pids=PIDS,
        )
        result = await self._sandbox.run_command(command, proxy.serve)
        return UvRun(result.ended.exit_code == 0, result.output, tuple(proxy.denied))

    def _environment(self) -> Mapping[str, str]:
        proxy = f"http://127.0.0.1:{PROXY_PORT}"
        certificates = {"SSL_CERT_FILE": INSIDE_CERTIFICATES} if self._index.certificates is not None else {}
        return {
            **self._index.env,
            **certificates,
            "PATH": "/python/bin:/usr/bin:/bin",
            "HOME": "/tmp",  # noqa: S108 - the sandbox's own.
            "LANG": "C.UTF-8",
            "UV_CACHE_DIR": INSIDE_CACHE,
            "UV_LINK_MODE": "copy",  # The cache and the target are different mounts.
            "HTTP_PROXY": proxy,
            "HTTPS_PROXY": proxy,
            "ALL_PROXY": proxy,
        }

    def _readable(self) -> Mapping[Path, str]:
        readable = {uv_binary(): INSIDE_UV}
        if self._index.certificates is not None:
            readable[self._index.certificates.resolve()] = INSIDE_CERTIFICATES
        return readable


@functools.cache
def uv_binary() -> Path:
    """The uv of the `uv` wheel, wherever it was installed."""
    try:
        return Path(uv.find_uv_bin()).resolve()
    except FileNotFoundError as error:
        found = shutil.which("uv")
        if found is None:
            raise errors.BuildFailed(
                f"uv is not installed beside the platform: {error}", hint="pip install uv"
            ) from error
        return Path(found).resolve()
