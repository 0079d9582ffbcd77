"""Requirements become a lock, a lock becomes a folder of packages. Nothing is installed when a component runs.

The lock is the environment's identity: a pip requirements file with the hash of every file, headed by what else
decides the content (Python and platform). Equal locks share one folder. The lock leaves out what every container has
anyway, and was resolved under exactly those versions, so an environment cannot bring a second copy of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import re
import tempfile
import time
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement

from flow_platform.build import base, explain, folder, requirements
from flow_platform.build.cache import UvCaches
from flow_platform.build.egress import BuildWayOut
from flow_platform.build.index import Index, configured_index
from flow_platform.build.uv import CONSTRAINTS, LOCK, PACKAGES, REQUIREMENTS, Uv, UvRun, Way, uv_binary
from flow_platform.domain import errors
from flow_platform.domain.component import MAX_DEPENDENCIES
from flow_platform.sandbox.base import Sandbox
from flow_sdk.wire.runner import EnvironmentRef

logger = logging.getLogger(__name__)

RESOLVED_SECONDS: Final = 600.0
"""For so long equal requirements have the same lock: who publishes ten components waits for the index once."""

MAX_RESOLVED: Final = 256
LOCK_POLL_SECONDS: Final = 0.1  # While another process builds the same environment.
MAX_LOCK_BYTES: Final = 512 << 10  # It travels in every assignment.
_HEADER: Final = re.compile(r"# flow environment: (?P<target>python=\S+ platform=\S+) way=(?P<way>wheels|sources)\n")
_REQUIREMENT: Final = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*==\S+)", re.MULTILINE)


class Environments:
    """All environments of this machine.

    Args:
        cache_dir: Shared by all runners of this machine; readable by containers.
        max_bytes: Disk for finished environments; the least recently used go first.
        way_out: What builds may reach besides the index.
    """

    def __init__(
        self,
        cache_dir: Path,
        sandbox: Sandbox,
        *,
        max_bytes: int = 10 << 30,
        way_out: BuildWayOut | None = None,
        index: Index | None = None,
    ) -> None:
        self._root = cache_dir
        self._max_bytes = max_bytes
        self._sandbox = sandbox
        self._index = index
        self._way_out = way_out or BuildWayOut()
        self._uv: Uv | None = None
        self._folder = folder.Folder(cache_dir / "environments")
        self._building: dict[str, asyncio.Task[Path]] = {}
        self._resolved: dict[tuple[str, ...], tuple[float, EnvironmentRef]] = {}

    def find(self, environment: EnvironmentRef) -> Path | None:
        """The packages when they are installed already; quick. None also for the base."""
        return self._folder.find(environment.digest) if environment.digest else None

    async def ensure(self, environment: EnvironmentRef) -> Path | None:
        """The folder with the packages, installed from the lock when it is missing here. None: the base is enough.

        Raises:
            BuildFailed: The lock is for another Python or platform, was tampered with, or cannot be installed now.
        """
        if not environment.digest:
            return None
        found = self._folder.find(environment.digest)
        if found is not None:
            return found
        # Shared by everybody who waits: one that gives up must not end the build of the others.
        building = self._building.get(environment.digest)
        if building is None:
            building = asyncio.create_task(self._build(environment), name=f"environment-{environment.digest[:12]}")
            self._building[environment.digest] = building
            building.add_done_callback(lambda _: self._building.pop(environment.digest, None))
        return await asyncio.shield(building)

    async def resolve(self, dependencies: Sequence[str]) -> EnvironmentRef:
        """Locks the requirements. Without any beyond the base it runs nothing.

        Raises:
            BuildFailed: A requirement is malformed, or they cannot be met together.
        """
        if len(dependencies) > MAX_DEPENDENCIES:
            raise errors.BuildFailed(f"{len(dependencies)} dependencies: at most {MAX_DEPENDENCIES} are allowed")
        checked = requirements.check(dependencies, base.own_versions())
        if not checked.lines:
            return EnvironmentRef()
        at, known = self._resolved.get(checked.lines, (0.0, None))
        if known is not None and time.monotonic() - at < RESOLVED_SECONDS:
            return known
        resolved = await self._resolve(checked.lines)
        if len(self._resolved) >= MAX_RESOLVED:
            self._resolved.pop(next(iter(self._resolved)))
        self._resolved[checked.lines] = time.monotonic(), resolved
        return resolved

    async def _resolve(self, lines: tuple[str, ...]) -> EnvironmentRef:
        with self._work_folder() as work:
            way, text = await self._locked(work, lines)
        if not text.strip():
            return EnvironmentRef()  # Everything asked for is in the base.
        lock = f"# flow environment: {base.target()} way={way.value}\n{text}"
        if len(lock) > MAX_LOCK_BYTES:
            raise errors.BuildFailed(f"the lock has {len(lock)} bytes: at most {MAX_LOCK_BYTES} are allowed")
        return EnvironmentRef(digest=hashlib.sha256(lock.encode()).hexdigest(), lock=lock)

    async def close(self) -> None:
        for task in list(self._building.values()):
            task.cancel()
        await asyncio.gather(*self._building.values(), return_exceptions=True)
        self._folder.close()

    async def _opened_uv(self) -> Uv:
        """Made for the first build: who has no dependencies needs neither uv nor an index."""
        if self._uv is None:
            index = self._index or await asyncio.to_thread(configured_index, os.environ, uv_binary())
            if self._uv is None:
                self._uv = Uv(self._sandbox, UvCaches(self._root / "uv"), index, self._way_out)
        return self._uv

    async def _locked(self, work: Path, lines: Sequence[str]) -> tuple[Way, str]:
        known = {**base.base_versions(), **base.own_versions()}
        (work / REQUIREMENTS).write_text("\n".join(lines) + "\n")
        (work / CONSTRAINTS).write_text("".join(f"{name}=={version}\n" for name, version in sorted(known.items())))
        uv = await self._opened_uv()
        projects = [Requirement(line).name for line in lines]
        run = UvRun(succeeded=False, output="", denied=())
        for way in Way:
            run = await uv.compile(work, way, projects, sorted(known))
            if run.succeeded:
                return way, _read_text(work / LOCK)
            if explain.is_unreachable(run.output):
                break  # The other way would only wait for the same index.
        raise explain.failure(run.output, lines, run.denied)

    async def _build(self, environment: EnvironmentRef) -> Path:
        way = _check(environment)
        digest = environment.digest
        while not self._folder.try_lock(digest):  # noqa: ASYNC110 - the holder is another process.
            await asyncio.sleep(LOCK_POLL_SECONDS)
        try:
            finished = self._folder.locked(digest)
            if finished is None:
                finished = await self._install(environment, way)
        except BaseException:
            self._folder.unlock(digest)
            raise
        return finished

    async def _install(self, environment: EnvironmentRef, way: Way) -> Path:
        logger.info("installing an environment", extra={"environment": environment.digest, "way": way.value})
        with self._work_folder() as work:
            (work / LOCK).write_text(environment.lock)
            (work / PACKAGES).mkdir()
            uv = await self._opened_uv()
            pinned = _REQUIREMENT.findall(environment.lock)
            run = await uv.install(work, way, [one.partition("==")[0] for one in pinned])
            if not run.succeeded:
                raise explain.failure(run.output, pinned, run.denied)
            built = work / PACKAGES
            if built.is_symlink() or not built.is_dir():
                raise errors.BuildFailed(f"a package replaced the folder {PACKAGES!r} that it was installed into")
            finished = await asyncio.to_thread(self._folder.finish, environment.digest, built)
        removed = await asyncio.to_thread(self._folder.collect, self._max_bytes)
        if removed:
            logger.info("removed unused environments", extra={"environments": removed})
        return finished

    @contextlib.contextmanager
    def _work_folder(self) -> Generator[Path]:
        parent = self._root / "builds"
        parent.mkdir(parents=True, exist_ok=True)
        folder.remove_abandoned(parent)
        work = Path(tempfile.mkdtemp(prefix="build-", dir=parent))
        try:
            yield work
        finally:
            folder.remove_tree(work)


def _check(environment: EnvironmentRef) -> Way:
    """Holds a reference against itself and this machine.

    Raises:
        BuildFailed: The lock is not what the digest names, or is for another machine.
    """
    digest = hashlib.sha256(environment.lock.encode()).hexdigest()
    if digest != environment.digest:
        raise errors.BuildFailed(f"the lock has digest {digest!r}: expected {environment.digest!r}")
    header = _HEADER.match(environment.lock)
    if header is None:
        raise errors.BuildFailed(f"the lock begins with {environment.lock[:80]!r}: expected its target")
    if header["target"] != base.target():
        raise errors.BuildFailed(
            f"the environment was locked for {header['target']!r} and this machine is {base.target()!r}",
            code="environment_mismatch",
            hint="publish the component again on a machine like this one",
        )
    return Way(header["way"])


def _read_text(path: Path) -> str:
    """What uv wrote; never through a link that a build put in its place."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    with os.fdopen(descriptor, "rb") as file:
        return file.read(MAX_LOCK_BYTES + 1).decode("utf-8", "replace")
