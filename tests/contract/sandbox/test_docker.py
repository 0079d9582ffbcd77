"""What the sandbox of an engine promises beyond the port: any image, nothing left behind, and what fails is said."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import signal
import sys
import tarfile
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any

import pytest

from flow_platform.domain.errors import SandboxUnavailable
from flow_platform.sandbox.base import ContainerSpec, Ending
from flow_platform.sandbox.docker import image, leftovers
from flow_platform.sandbox.docker.sandbox import DockerSandbox
from flow_platform.sandbox.namespaces import runtime_root
from flow_sdk.wire.harness import Frame
from flow_sdk.wire.runner import Limits
from tests.support.belongings import belongings
from tests.support.component_runs import SPEC, run_component
from tests.support.docker_daemon import DockerDaemon, own_daemon
from tests.support.eventually import eventually
from tests.support.sandbox_cache import sandbox_cache

ROOT = Path(__file__).resolve().parents[3]
HELLO = "def main():\n    return 'hello'\n"
DOOMED = f"{leftovers.RUNNER_LABEL}=doomed"
WAIT = "import time\ndef main():\n    print('it runs', flush=True)\n    time.sleep(60)\n"


def start_frame(code: str) -> bytes:
    given: dict[str, Any] = {"input_data": {}}
    start = {"mode": "run", "kind": "code_block", "code": code, "entry_point": "main", "input": given}
    return json.dumps(start).encode()


def children_of(process: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


@contextlib.asynccontextmanager
async def opened(daemon: DockerDaemon, pool_size: int = 0, **options: Any) -> AsyncGenerator[DockerSandbox]:
    sandbox = DockerSandbox(sandbox_cache(), host=daemon.host, pool_size=pool_size, **options)
    await sandbox.open()
    try:
        yield sandbox
    finally:
        await sandbox.close()


@pytest.fixture
def daemon() -> Iterator[DockerDaemon]:
    """One that the test may stop; its containers go on without it."""
    with own_daemon("--live-restore") as started:
        yield started


def containers_of(docker: DockerDaemon, sandbox: DockerSandbox, state: str = "") -> set[str]:
    """Not all of the engine's: the pool of other tests may be filling while its loop stands still."""
    return set(docker.containers(f"{leftovers.FOLDER_LABEL}={sandbox.folder}", state=state))


async def test_leaves_nothing_behind(docker: DockerDaemon) -> None:
    async def left() -> set[str]:
        return belongings() - before

    await asyncio.get_running_loop().run_in_executor(None, int)  # The loop's own threads and descriptors.
    before = belongings()
    async with opened(docker, pool_size=1) as sandbox:
        assert (await run_component(sandbox, HELLO)).output == "hello"
        assert containers_of(docker, sandbox)
        folder = sandbox.folder
        assert folder.exists()
    assert not docker.containers(f"{leftovers.FOLDER_LABEL}={folder}")
    assert not folder.exists()
    await eventually(left, lambda found: not found)


@pytest.mark.asyncio(loop_scope="package")
async def test_a_killed_container_is_told_as_crashed(docker: DockerDaemon, docker_sandbox: DockerSandbox) -> None:
    container = await docker_sandbox.acquire(SPEC)
    await container.start(start_frame(WAIT), Limits())
    logs = container.logs()
    assert (await anext(logs)).data == b"it runs\n"
    with docker.client() as client:
        client.post(f"/containers/{container.id}/kill").raise_for_status()
    ended = await container.wait()
    assert (ended.ending, ended.signal) == (Ending.CRASHED, signal.SIGKILL)
    assert [kind async for kind, _ in container.frames()] == [Frame.STARTED]


async def test_waiting_containers_that_were_killed_are_replaced(docker: DockerDaemon) -> None:
    async with opened(docker, pool_size=2) as sandbox:

        async def waiting() -> set[str]:
            return containers_of(docker, sandbox, "running")

        await sandbox.warm(SPEC)
        killed = await eventually(waiting, lambda found: len(found) == 2)
        with docker.client() as client:
            for container in killed:
                client.post(f"/containers/{container}/kill")
        await eventually(waiting, lambda found: len(found - killed) == 2)
        assert (await run_component(sandbox, HELLO)).output == "hello"


async def test_a_sandbox_that_closes_takes_no_containers_of_another_along(docker: DockerDaemon) -> None:
    async with opened(docker) as sandbox:
        container = await sandbox.acquire(SPEC)
        async with opened(docker) as other:
            assert (await run_component(other, HELLO)).output == "hello"
        assert container.is_alive
        assert (await container.end()).ending is Ending.KILLED


async def test_who_gives_up_while_a_container_is_made_leaves_none(docker: DockerDaemon) -> None:
    async with opened(docker) as sandbox:
        folder = sandbox.folder
        for turns in range(0, 60, 5):
            making = asyncio.ensure_future(sandbox.acquire(SPEC))
            for _ in range(turns):  # Of the loop: before, while and after the engine is asked for it.
                await asyncio.sleep(0)
            making.cancel()
            await asyncio.gather(making, return_exceptions=True)
    assert docker.containers(f"{leftovers.FOLDER_LABEL}={folder}") == []


async def test_a_missing_image_is_said(docker: DockerDaemon) -> None:
    with pytest.raises(SandboxUnavailable, match="no image 'nowhere:1'"):
        await DockerSandbox(sandbox_cache(), host=docker.host, image="nowhere:1").open()


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ("unix:///nowhere/docker.sock", "at unix:///nowhere/docker.sock does not answer"),
        ("tcp://10.0.0.1:2375", "expected unix:// and the path of a socket of this machine"),
    ],
)
async def test_an_engine_that_cannot_be_used_is_said(host: str, words: str) -> None:
    sandbox = DockerSandbox(sandbox_cache(), host=host)
    with pytest.raises(SandboxUnavailable, match=words):
        await sandbox.open()
    (check,) = await sandbox.check()
    assert (check.name, check.level) == ("docker", "missing")
    assert check.hint


async def test_nothing_outlives_a_runner_that_was_killed(docker: DockerDaemon) -> None:
    process = await _doomed(docker)
    assert docker.containers(DOOMED)
    process.send_signal(signal.SIGKILL)
    await process.wait()

    async def left() -> list[str]:
        return docker.containers(DOOMED)

    await eventually(left, lambda value: not value)


async def test_the_next_runner_of_that_name_removes_what_is_left(docker: DockerDaemon) -> None:
    process = await _doomed(docker)
    (watcher,) = children_of(process.pid)
    os.kill(watcher, signal.SIGKILL)
    process.send_signal(signal.SIGKILL)
    await process.wait()
    abandoned = set(docker.containers(DOOMED))
    assert abandoned
    async with opened(docker, runner_id="doomed"):
        assert not abandoned.intersection(docker.containers(DOOMED))


async def _doomed(docker: DockerDaemon) -> asyncio.subprocess.Process:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.support.doomed_docker_runner", docker.host),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"it runs\n"
    return process


@pytest.mark.slow
async def test_an_engine_that_goes_away_and_comes_back(daemon: DockerDaemon) -> None:
    """What ran goes on without it, and nothing of it is left when it is back."""
    async with opened(daemon) as sandbox:
        container, other = await sandbox.acquire(SPEC), await sandbox.acquire(SPEC)
        daemon.stop()
        await container.start(start_frame(HELLO), Limits())
        assert [kind async for kind, _ in container.frames()] == [Frame.STARTED, Frame.RESULT]
        with pytest.raises(SandboxUnavailable, match="does not answer"):
            await sandbox.acquire(SPEC)
        assert (await container.end()).ending in (Ending.KILLED, Ending.EXITED)
        assert (await other.end()).ending is Ending.KILLED
        daemon.start()
        assert (await run_component(sandbox, HELLO)).output == "hello"

        async def left() -> list[str]:
            return daemon.containers()

        await eventually(left, lambda value: not value)


async def test_the_same_machine_gives_the_same_image(tmp_path: Path) -> None:
    """From two roots, made one after the other."""
    written: list[bytes] = []
    for name in ("first", "second"):
        root = runtime_root.ensure_runtime_root(tmp_path / name)
        target = io.BytesIO()
        assert image.write(root.path, root.key, target) == image.name_of(root.key)
        root.release()
        written.append(target.getvalue())
    assert written[0] == written[1]


async def test_any_image_with_the_sdk_will_do(docker: DockerDaemon, tmp_path: Path) -> None:
    """As `pip install flow-sdk` makes one: no label, no entry point, the SDK beside other packages."""
    with docker.client() as client:
        options = {"fromSrc": "-", "repo": "somebodys", "tag": "1", "changes": "ENV PATH=/python/bin"}
        client.post("/images/create", params=options, content=_installed_root(), timeout=60).raise_for_status()
    packages = tmp_path / "packages"
    packages.mkdir()
    (packages / "slugs.py").write_text("def slug(text):\n    return text.lower()\n")
    (packages / "pydantic.py").write_text("raise RuntimeError('shadowed')\n")
    spec = ContainerSpec(tenant="tests", environment_digest="d", environment_path=packages)
    code = """
        import json, os, slugs, flow_sdk, ssl
        def main():
            trusted = ssl.create_default_context(cafile="/etc/ssl/certificates.pem").cert_store_stats()["x509_ca"] > 0
            return [slugs.slug('ADA'), flow_sdk.__file__.startswith('/python/lib/'), trusted, os.environ['PATH']]
    """
    async with opened(docker, image="somebodys:1") as sandbox:
        assert (await run_component(sandbox, code, spec=spec)).output == ["ada", True, True, "/python/bin"]


def _installed_root() -> bytes:
    root = runtime_root.ensure_runtime_root(sandbox_cache())
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name in ("python", "lib", "lib64", "usr", "tmp"):
            tar.add(root.path / name, name)
        for folder in (
            "flow/sdk/flow_sdk",
            *(f"flow/packages/{path.name}" for path in (root.path / "flow/packages").iterdir()),
        ):
            tar.add(root.path / folder, f"python/lib/{version}/site-packages/{Path(folder).name}")
    root.release()
    return archive.getvalue()
