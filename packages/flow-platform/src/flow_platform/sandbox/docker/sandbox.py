"""The port `Sandbox`, made of an engine's containers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import platform
import secrets
import shutil
import subprocess
import sys
from collections.abc import Coroutine
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from flow_platform.domain.errors import SandboxUnavailable
from flow_platform.sandbox import base
from flow_platform.sandbox.docker import (
    checks,
    creation,
    entrance,
    hardening,
    image,
    leftovers,
    reaper,
    seccomp_profile,
)
from flow_platform.sandbox.docker.container import DockerContainer, Made
from flow_platform.sandbox.docker.engine_api import DEFAULT_HOST, EngineApi
from flow_platform.sandbox.docker.pool import Pool
from flow_platform.sandbox.docker.users import Users
from flow_platform.sandbox.namespaces import runtime_root
from flow_platform.sandbox.namespaces.sandbox import NamespacesSandbox
from flow_sdk.wire.runner import Limits

logger = logging.getLogger(__name__)

_READY_SECONDS: Final = 60.0  # An idle machine takes 0.7 s.
_LOOK_SECONDS: Final = 0.5
_PORTS: Final = (base.API_PORT, base.NATS_PORT, base.PROXY_PORT)
_REAPER_SECONDS: Final = 5.0
_NO_SUCH_IMAGE: Final = "build or pull it where the engine runs; without FLOW_DOCKER_IMAGE the platform makes its own"


@dataclass(frozen=True)
class _Kind:
    """What containers of one pool have in common."""

    environment: str
    modules: tuple[str, ...]
    inode: int = 0  # Of the environment: one that was removed and built again is another.


@dataclass
class _Opened:
    engine: EngineApi
    recipe: creation.Recipe
    owner: leftovers.Owner
    users: Users
    folder: Path
    reaper: subprocess.Popen[bytes]


class DockerSandbox:
    """See `flow_platform.sandbox.base.Sandbox`."""

    name = "docker"

    def __init__(
        self,
        cache_dir: Path,
        *,
        host: str = "",
        image: str = "",
        runner_id: str = "",
        pool_size: int = 4,
        max_pools: int = 4,
        commands: base.Sandbox | None = None,
    ) -> None:
        """Args:
        cache_dir: Holds the runtime roots, of which the platform's own image is made.
        host: `unix://` and the path of the engine's socket; empty: Docker's own place.
        image: That holds the SDK; empty: the platform's own, made and loaded when the engine has it not.
        runner_id: Stable over restarts: what an earlier process of that id left is removed.
        pool_size: Sealed containers that wait per environment; 0 makes each when it is asked for.
        max_pools: Environments for which containers wait; the least recently used one goes.
        commands: Runs commands, that is builds; by default a namespaces sandbox, opened with the first one.
        """
        self._cache_dir = cache_dir.absolute()
        self._host = host or DEFAULT_HOST
        self._image = image
        self._runner_id = runner_id
        self._pool_size = pool_size
        self._max_pools = max_pools
        self._commands = commands
        self._own_commands: NamespacesSandbox | None = None
        self._opening_commands = asyncio.Lock()
        self._opened: _Opened | None = None
        self._pools: dict[_Kind, Pool] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._unremoved: set[str] = set()

    @property
    def is_open(self) -> bool:
        return self._opened is not None

    @property
    def folder(self) -> Path:
        """Of the sockets of its containers."""
        return self._now().folder

    @property
    def engine(self) -> EngineApi:
        return self._now().engine

    async def check(self) -> list[base.Check]:
        return await checks.check(self)

    async def open(self) -> None:
        if self._opened is not None:
            return
        if sys.platform != "linux":
            raise SandboxUnavailable(
                f"containers of an engine need Linux beside it, this is {sys.platform!r}",
                hint="run Flow where the engine runs, in its virtual machine",
            )
        engine = EngineApi(self._host)
        users: Users | None = None
        folder: Path | None = None
        try:
            info = await engine.info()
            owner = leftovers.new_owner(self._runner_id)
            await _remove_abandoned(engine, owner)
            folder = entrance.make_folder()
            recipe = await self._recipe(engine, owner, folder)
            users = Users(mapped=checks.maps_users(info))
            watcher = _start_reaper(engine.path, owner, folder)
        except BaseException:
            await engine.close()
            if users is not None:
                users.release()
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)
            raise
        self._opened = _Opened(engine, recipe, owner, users, folder, watcher)
        try:
            await self._probe()
        except BaseException:
            await self.close()
            raise

    async def warm(self, spec: base.ContainerSpec) -> None:
        self._pool(spec).warm()

    async def acquire(self, spec: base.ContainerSpec) -> DockerContainer:
        container = await self._pool(spec).acquire()
        if not spec.proxy:
            container.close_way_out()
        return container

    async def run_command(self, command: base.Command, /, proxy_handler: object | None = None) -> base.CommandEnded:
        """In a namespaces sandbox: a command gets folders of this machine to write, which an engine gives only to
        users that may write them anyway.
        """
        return await (await self._command_sandbox()).run_command(command, proxy_handler)

    async def close(self) -> None:
        pools, self._pools = list(self._pools.values()), {}
        await asyncio.gather(*(pool.close() for pool in pools))
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._own_commands is not None:
            await self._own_commands.close()
            self._own_commands = None
        opened, self._opened = self._opened, None
        if opened is None:
            return
        with contextlib.suppress(SandboxUnavailable):
            for container in await opened.engine.list(f"{leftovers.OWNER_LABEL}={opened.owner.name}"):
                await opened.engine.remove(container["Id"])
        opened.reaper.kill()
        await asyncio.get_running_loop().run_in_executor(None, opened.reaper.wait)
        if opened.reaper.stdin is not None:
            opened.reaper.stdin.close()
        await opened.engine.close()
        opened.users.release()
        shutil.rmtree(opened.folder, ignore_errors=True)

    # --- making containers ---

    async def _recipe(self, engine: EngineApi, owner: leftovers.Owner, folder: Path) -> creation.Recipe:
        """Of the image that was named, or of our own."""
        loop = asyncio.get_running_loop()
        root = await loop.run_in_executor(None, runtime_root.ensure_runtime_root, self._cache_dir)
        try:
            name = self._image or image.name_of(root.key)
            found = await engine.image(name)
            if found is None and not self._image:
                logger.info("loading the image of containers", extra={"image": name})
                await engine.load_image(image.read_archive(root.path, root.key))
                found = await engine.image(name)
            if found is None:
                raise SandboxUnavailable(f"the container engine has no image {name!r}", hint=_NO_SUCH_IMAGE)
            is_podman = checks.is_podman(await engine.version())
            certificates = root.path / base.CERTIFICATES.lstrip("/")
            return creation.Recipe(
                image=found["Id"],
                command=creation.command_of(found),
                certificates=str(certificates) if self._image else "",
                seccomp=_seccomp(folder) if is_podman else json.dumps(seccomp_profile.profile()),
                is_podman=is_podman,
                labels={**owner.labels, leftovers.FOLDER_LABEL: str(folder)},
                hardens=hardening.is_possible(),
            )
        finally:
            root.release()

    async def _probe(self) -> None:
        """Makes one container for real, so that a refusal is known at start-up."""
        opened = self._now()
        try:
            container = await self._make(_Kind("", ()))
        except PermissionError as exc:
            # Root, but not over the engine's containers: they are in a user namespace, or this process is.
            logger.info("containers cannot be closed up from outside", extra={"reason": str(exc)})
            opened.recipe = replace(opened.recipe, hardens=False)
            container = await self._make(_Kind("", ()))
        await container.end()
        await asyncio.gather(*self._tasks)  # Until it is removed.

    async def _make(self, kind: _Kind) -> DockerContainer:
        opened = self._now()
        user = opened.users.take()
        way_in = entrance.Entrance(opened.folder)
        made: DockerContainer | None = None
        identity = ""
        try:
            recipe = replace(opened.recipe, environment=kind.environment)
            body = creation.body(recipe, user, str(way_in.folder), Limits())
            identity = await self._create(opened.engine, body)
            await opened.engine.start(identity)
            made = await self._meet(opened, recipe, kind, identity, way_in, user)
        except (FileNotFoundError, ProcessLookupError) as exc:
            raise SandboxUnavailable(f"a container ended while it was being made: {exc}") from exc
        else:
            return made
        finally:
            way_in.close()
            if made is None:
                opened.users.give_back(user)
                if identity:
                    self._remove_later(identity)

    async def _create(self, engine: EngineApi, body: dict[str, Any]) -> str:
        """The id of a new container. Whoever gives up leaves none: the engine makes it all the same."""
        creating = asyncio.ensure_future(engine.create(f"flow-{secrets.token_hex(8)}", body))
        try:
            return await asyncio.shield(creating)
        except asyncio.CancelledError:
            self._run(self._remove_created(creating))
            raise

    async def _remove_created(self, creating: asyncio.Future[str]) -> None:
        with contextlib.suppress(SandboxUnavailable):
            await self._remove(await creating)

    async def _meet(
        self,
        opened: _Opened,
        recipe: creation.Recipe,
        kind: _Kind,
        identity: str,
        way_in: entrance.Entrance,
        user: int,
    ) -> DockerContainer:
        """Waits until the container's first program is ready, and closes up what the engine left open."""
        out, their_out = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        err, their_err = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            for descriptor in (their_out, their_err):
                os.set_blocking(descriptor, True)
            arrived = await self._arrive(opened, kind, identity, way_in, (their_out, their_err))
            try:
                _check_python(kind, arrived)
                if recipe.hardens:
                    hardening.close_up(arrived.process)
                made = Made(opened.engine, identity, arrived, out, err, recipe.hardens)
                return DockerContainer(made, lambda container: self._forget(container, user))
            except BaseException:
                arrived.close()
                raise
        except BaseException:
            os.close(out)
            os.close(err)
            raise
        finally:
            os.close(their_out)
            os.close(their_err)

    async def _arrive(
        self, opened: _Opened, kind: _Kind, identity: str, way_in: entrance.Entrance, streams: tuple[int, int]
    ) -> entrance.Arrived:
        arriving = asyncio.ensure_future(
            way_in.arrive(identity, _PORTS, kind.modules, environment=bool(kind.environment), streams=streams)
        )
        try:
            async with asyncio.timeout(_READY_SECONDS):
                # Looked at now and then: a request that waits for its end would have to be cut off each time.
                while not arriving.done() and await _is_running(opened.engine, identity):
                    await asyncio.wait({arriving}, timeout=_LOOK_SECONDS)
            if arriving.done() and arriving.exception() is None:
                return arriving.result()
            reason = str(arriving.exception()) if arriving.done() else "it ended before it was ready"
        except TimeoutError:
            reason = f"it was not ready within {_READY_SECONDS:g} s"
        except BaseException:
            await _leave(arriving)
            raise
        await _leave(arriving)
        said = ""
        with contextlib.suppress(SandboxUnavailable):
            said = await opened.engine.said(identity)
        raise SandboxUnavailable(f"a container could not be made: {reason}: {said}".rstrip(": "))

    def _forget(self, container: DockerContainer, user: int) -> None:
        if self._opened is not None:
            self._opened.users.give_back(user)
        for pool in self._pools.values():
            pool.on_ended(container)
        self._remove_later(container.id)

    def _remove_later(self, identity: str) -> None:
        self._run(self._remove(identity))

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _remove(self, identity: str) -> None:
        """With those that could not be removed when their time came, because the engine was away."""
        if self._opened is None:
            return
        self._unremoved.add(identity)
        for one in [identity, *self._unremoved]:
            if one in self._unremoved:
                self._unremoved.discard(one)  # Nobody else tries it meanwhile.
                try:
                    await self._opened.engine.remove(one)
                except SandboxUnavailable as exc:
                    self._unremoved.add(one)
                    logger.warning("a container could not be removed", extra={"reason": exc.message})
                    return

    # --- commands ---

    async def _command_sandbox(self) -> base.Sandbox:
        if self._commands is not None:
            return self._commands
        async with self._opening_commands:
            if self._own_commands is None:
                opening = NamespacesSandbox(self._cache_dir, pool_size=0)
                await opening.open()
                self._own_commands = opening
            return self._own_commands

    # --- pools ---

    def _now(self) -> _Opened:
        if self._opened is None:
            raise SandboxUnavailable("the sandbox is not open")
        return self._opened

    def _pool(self, spec: base.ContainerSpec) -> Pool:
        """Waiting containers hold nothing of a workspace, so all may have them."""
        self._now()
        path = spec.environment_path
        kind = _Kind("", spec.modules)
        if path is not None:
            kind = _Kind(str(path.absolute()), spec.modules, path.stat().st_ino)
        pool = self._pools.get(kind)
        if pool is None:
            pool = self._pools[kind] = Pool(lambda: self._make(kind), size=self._pool_size)
            self._evict(kind)
        return pool

    def _evict(self, keep: _Kind) -> None:
        """Leaves room for the pool of `keep`; those with containers in use stay."""
        idle = sorted(
            (kind for kind, pool in self._pools.items() if kind != keep and pool.is_idle),
            key=lambda kind: self._pools[kind].used_at,
        )
        for kind in idle[: max(0, len(self._pools) - self._max_pools)]:
            self._run(self._pools.pop(kind).close())


async def _remove_abandoned(engine: EngineApi, owner: leftovers.Owner) -> None:
    for container in leftovers.abandoned(await engine.list(leftovers.OWNER_LABEL), owner):
        logger.warning("removing a container that an earlier runner left", extra={"container": container["Id"][:12]})
        await engine.remove(container["Id"])
        entrance.remove_folder(container["Labels"].get(leftovers.FOLDER_LABEL, ""))


def _seccomp(folder: Path) -> str:
    """Where Podman finds the profile."""
    path = folder / "seccomp.json"
    path.write_text(json.dumps(seccomp_profile.profile()))
    return str(path)


def _start_reaper(socket_path: str, owner: leftovers.Owner, folder: Path) -> subprocess.Popen[bytes]:
    label = f"{leftovers.OWNER_LABEL}={owner.name}"
    program = str(Path(str(reaper.__file__)).resolve())
    return subprocess.Popen(
        [sys.executable, "-I", "-S", "-B", program, socket_path, label, str(folder)],
        stdin=subprocess.PIPE,  # Its other end closes with this process, whatever ends it.
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={},
        start_new_session=True,
    )


async def _is_running(engine: EngineApi, identity: str) -> bool:
    return bool((await engine.inspect(identity))["State"]["Running"])


async def _leave(arriving: asyncio.Future[entrance.Arrived]) -> None:
    """Nobody takes who arrives, or has arrived in this moment."""
    arriving.cancel()
    await asyncio.gather(arriving, return_exceptions=True)
    if not arriving.cancelled() and arriving.exception() is None:
        arriving.result().close()


def _check_python(kind: _Kind, arrived: entrance.Arrived) -> None:
    ours = f"{sys.version_info.major}.{sys.version_info.minor}"
    theirs = arrived.about.get("python")
    if kind.environment and (theirs, arrived.about.get("machine")) != (ours, platform.machine()):
        raise SandboxUnavailable(
            f"the image has Python {theirs!r} on {arrived.about.get('machine')!r}, packages are installed for {ours!r} "
            f"on {platform.machine()!r}",
            hint=f"name an image with Python {ours} in FLOW_DOCKER_IMAGE",
        )
