"""Environments with real uv in a real sandbox, from a package index on loopback."""

from __future__ import annotations

import ast
import asyncio
import dataclasses
import hashlib
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from flow_platform.build.egress import BuildWayOut
from flow_platform.build.environment import Environments
from flow_platform.build.index import Index, configured_index
from flow_platform.build.uv import uv_binary
from flow_platform.domain import errors
from flow_platform.domain.operator_rules import parse_allow
from flow_platform.egress.policy import OperatorRules
from flow_platform.runner.builds import Builds
from flow_platform.runner.sandboxes import Sandboxes
from flow_platform.sandbox.namespaces.sandbox import NamespacesSandbox
from flow_sdk.wire.runner import BuildReply, BuildRequest, EnvironmentRef
from flow_sdk.wire.status import Kind
from tests.support.package_index import PackageIndex
from tests.support.sandbox_cache import sandbox_cache

pytestmark = pytest.mark.asyncio(loop_scope="module")

USES_GREETER = "import greeter\ndef main(name: str) -> str:\n    '''Greets.'''\n    return greeter.greet(name)"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sandbox() -> AsyncIterator[NamespacesSandbox]:
    opened = NamespacesSandbox(sandbox_cache(), pool_size=1)
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture(scope="module")
def packages() -> Iterator[PackageIndex]:
    with PackageIndex() as index:
        index.add_wheel("greeter", "1.0", {"greeter.py": "def greet(name): return 'Hello ' + name"})
        index.add_wheel("greeter", "2.0", {"greeter.py": "def greet(name): return 'Hi ' + name"})
        index.add_wheel("wants_old", "1.0", {"wants_old.py": ""}, requires=("pydantic<2",))
        index.add_wheel("wants_ours", "1.0", {"wants_ours.py": "import pydantic"}, requires=("pydantic>=2",))
        index.add_wheel("pydantic", "1.0", {"pydantic.py": ""})
        for name, version in _base().items():
            index.add_wheel(name.replace("-", "_"), version, {})
        yield index


@pytest_asyncio.fixture(loop_scope="module")
async def environments(
    tmp_path: Path, sandbox: NamespacesSandbox, packages: PackageIndex
) -> AsyncIterator[Environments]:
    opened = Environments(tmp_path / "cache", sandbox, index=packages.index)
    yield opened
    await opened.close()


async def test_no_requirements_need_nothing(environments: Environments, tmp_path: Path) -> None:
    reference = await environments.resolve([])
    assert reference == EnvironmentRef()
    assert await environments.ensure(reference) is None
    assert not (tmp_path / "cache").exists()


async def test_what_the_base_has_is_not_installed_again(environments: Environments) -> None:
    assert await environments.resolve(["pydantic>=2", "flow-sdk", "httpx"]) == EnvironmentRef()
    reference = await environments.resolve(["wants-ours"])
    assert "wants-ours==1.0" in reference.lock
    assert "pydantic" not in reference.lock


async def test_a_lock_becomes_a_read_only_folder(environments: Environments) -> None:
    reference = await environments.resolve(["greeter<2"])
    assert "greeter==1.0" in reference.lock
    assert "--hash=sha256:" in reference.lock
    assert environments.find(reference) is None
    path = await environments.ensure(reference)
    assert path is not None
    assert environments.find(reference) == path
    assert (path / "greeter.py").stat().st_mode & 0o777 == 0o444
    assert list((path / "__pycache__").glob("greeter.*.pyc"))
    assert reference == await environments.resolve(["greeter <2"])


async def test_two_callers_share_one_build_and_one_may_give_up(
    environments: Environments, packages: PackageIndex
) -> None:
    reference = await environments.resolve(["greeter==2.0"])
    packages.requests.clear()
    impatient = asyncio.create_task(environments.ensure(reference))
    await asyncio.sleep(0)
    patient = asyncio.create_task(environments.ensure(reference))
    await asyncio.sleep(0)
    impatient.cancel()
    path = await patient
    assert path is not None
    assert len(list(path.parent.glob("*/greeter.py"))) == 1


async def test_another_machine_installs_from_the_lock(
    environments: Environments, sandbox: NamespacesSandbox, packages: PackageIndex, tmp_path: Path
) -> None:
    reference = await environments.resolve(["greeter==2.0"])
    other = Environments(tmp_path / "other", sandbox, index=packages.index)
    try:
        path = await other.ensure(reference)
        assert path is not None
        assert "Hi" in (path / "greeter.py").read_text()
    finally:
        await other.close()


async def test_a_lock_that_was_changed_is_refused(environments: Environments) -> None:
    reference = await environments.resolve(["greeter==2.0"])
    changed = EnvironmentRef(digest=reference.digest, lock=reference.lock.replace("2.0", "1.0"))
    with pytest.raises(errors.BuildFailed, match="digest"):
        await environments.ensure(changed)
    lock = reference.lock.replace("python=3.", "python=2.")
    foreign = EnvironmentRef(digest=hashlib.sha256(lock.encode()).hexdigest(), lock=lock)
    with pytest.raises(errors.BuildFailed) as caught:
        await environments.ensure(foreign)
    assert caught.value.error_code == "environment_mismatch"


async def test_other_bytes_under_the_same_version_are_refused(
    environments: Environments, sandbox: NamespacesSandbox, packages: PackageIndex
) -> None:
    reference = await environments.resolve(["greeter==2.0"])
    with PackageIndex() as swapped:
        swapped.add_wheel("greeter", "2.0", {"greeter.py": "def greet(name): return 'Owned ' + name"})
        lock = reference.lock
        assert environments._uv is not None
        environments._uv._index = swapped.index
        with pytest.raises(errors.BuildFailed) as caught:
            await environments.ensure(EnvironmentRef(digest=reference.digest, lock=lock))
    assert "greeter" in caught.value.message
    assert environments.find(reference) is None


REFUSED = {
    "unknown": ("no-such-package", "unresolvable_dependency"),
    "version": ("greeter>=9", "unresolvable_dependency"),
    "conflict with the base": ("wants-old", "unresolvable_dependency"),
    "our own": ("flow-sdk>=99", "invalid_requirement"),
    "not a requirement": ("greeter =>= 1", "invalid_requirement"),
    "a file": ("greeter @ file:///etc/passwd", "invalid_requirement"),
    "an option": ("--index-url=http://elsewhere greeter", "invalid_requirement"),
    "two lines": ("greeter\n-r /etc/passwd", "invalid_requirement"),
}


@pytest.mark.parametrize(("requirement", "code"), REFUSED.values(), ids=REFUSED.keys())
async def test_a_refusal_names_the_requirement(environments: Environments, requirement: str, code: str) -> None:
    with pytest.raises(errors.BuildFailed) as caught:
        await environments.resolve(["greeter", requirement])
    assert caught.value.error_code == code
    assert repr(requirement) in caught.value.message
    assert requirement in [detail["requirement"] for detail in caught.value.details]


async def test_an_index_that_is_away_is_worth_another_try(sandbox: NamespacesSandbox, tmp_path: Path) -> None:
    with PackageIndex() as closed:
        index = closed.index
    impatient = Index({**index.env, "UV_HTTP_RETRIES": "0"}, index.hosts)
    opened = Environments(tmp_path, sandbox, index=impatient)
    reply = await Builds(opened, Sandboxes([sandbox]), 1).build(_request(USES_GREETER, ["greeter"]))
    await opened.close()
    assert reply.error is not None
    assert reply.error.code == "index_unavailable"
    assert reply.error.retryable


HOSTILE = """
import json, os, socket, zipfile
def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    seen = {}
    for path in ("/etc/shadow", "/root", "/home", "/proc/1/environ", "CANARY"):
        try:
            seen[path] = bool(os.listdir(path) if os.path.isdir(path) else open(path, "rb").read())
        except OSError as error:
            seen[path] = type(error).__name__
    for path in ("/canary", "/python/canary", "/flow/canary", "/usr/canary"):
        try:
            open(path, "w").close(); seen[path] = True
        except OSError as error:
            seen[path] = type(error).__name__
    for address in (("127.0.0.1", 22), ("169.254.169.254", 80), ("10.0.0.1", 80), ("8.8.8.8", 53)):
        try:
            socket.create_connection(address, 1).close(); seen[address[0]] = True
        except OSError as error:
            seen[address[0]] = type(error).__name__
    for target in ("169.254.169.254:80", "127.0.0.1:22", "localhost:80", "10.0.0.1:443"):
        with socket.create_connection(("127.0.0.1", 3128), 2) as proxy:
            proxy.sendall(f"CONNECT {target} HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n".encode())
            seen["proxy " + target] = proxy.recv(100).split()[1].decode()
    name = "hostile-1.0-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(wheel_directory, name), "w") as archive:
        archive.writestr("hostile.py", "SEEN = " + repr(seen))
        archive.writestr("hostile-1.0.dist-info/METADATA", "Metadata-Version: 2.1\\nName: hostile\\nVersion: 1.0\\n")
        wheel = "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"
        archive.writestr("hostile-1.0.dist-info/WHEEL", wheel)
        archive.writestr("hostile-1.0.dist-info/RECORD", "")
    return name
"""


async def test_code_of_a_source_archive_is_contained(
    environments: Environments, packages: PackageIndex, sandbox: NamespacesSandbox, tmp_path: Path
) -> None:
    canary = tmp_path / "canary"
    canary.write_text("secret")
    packages.add_source("hostile", "1.0", HOSTILE.replace("CANARY", str(canary)))
    code = "import hostile\ndef main() -> dict:\n    return hostile.SEEN"
    reply = await Builds(environments, Sandboxes([sandbox]), 1).build(_request(code, ["hostile"]))
    assert reply.error is None, reply.error
    assert "way=sources" in reply.environment.lock
    path = environments.find(reply.environment)
    assert path is not None
    seen = ast.literal_eval((path / "hostile.py").read_text().removeprefix("SEEN = "))
    assert {value for name, value in seen.items() if name.startswith("proxy")} == {"403"}
    reached = {name for name, value in seen.items() if value is True and not name.startswith("proxy")}
    assert reached <= {"/proc/1/environ"}, seen  # Of the sandbox's own first process.
    shared = tmp_path / "cache" / "uv"
    unpacked = [file for file in shared.rglob("*") if file.name.startswith("hostile") and file.suffix != ".rkyv"]
    assert not unpacked, "only uv's own copy of the index page may be in the shared cache"


async def test_the_least_recently_used_goes_first(
    sandbox: NamespacesSandbox, packages: PackageIndex, tmp_path: Path
) -> None:
    first = Environments(tmp_path, sandbox, index=packages.index, max_bytes=1)
    old = await first.resolve(["greeter==1.0"])
    path = await first.ensure(old)
    assert path is not None
    await first.close()  # Nobody uses it any more.
    complete = path.parent / "complete"
    earlier = complete.stat().st_mtime - 4000
    os.utime(complete, (earlier, earlier))
    second = Environments(tmp_path, sandbox, index=packages.index, max_bytes=1)
    new = await second.resolve(["greeter==2.0"])
    assert await second.ensure(new) is not None
    assert second.find(old) is None
    assert not path.exists()
    again = await second.ensure(old)
    assert again is not None
    assert again != path, "a new name, so that no template confuses the two"
    await second.close()


async def test_a_build_inspects_in_the_environment(environments: Environments, sandbox: NamespacesSandbox) -> None:
    reply = await Builds(environments, Sandboxes([sandbox]), 1).build(_request(USES_GREETER, ["greeter"]))
    assert reply.error is None, reply.error
    assert reply.description == "Greets."
    assert reply.input_schema["required"] == ["name"]
    assert reply.output_schema == {"type": "string"}


BAD_CODE = {
    "syntax": ("def main(:\n    pass", "syntax_error", "line 1"),
    "entry point": ("def other(): pass", "entry_point_missing", "'other'"),
    "import": ("import not_there\ndef main(): pass", "component_error", "not_there"),
    "exit": ("print('bye', flush=True)\nimport os\nos._exit(3)", "process_crashed", "exit code 3"),
    "example": ("def main(n: int) -> int:\n    return n", "example_failed", "examples[0]: gave 1, expected 2"),
}


@pytest.mark.parametrize(("code", "expected", "named"), BAD_CODE.values(), ids=BAD_CODE.keys())
async def test_bad_code_is_refused(
    environments: Environments, sandbox: NamespacesSandbox, code: str, expected: str, named: str
) -> None:
    reply = await Builds(environments, Sandboxes([sandbox]), 1).build(
        _request(code, [], [{"input": {"n": 1}, "output": 2}])
    )
    assert reply.error is not None
    assert reply.error.code == expected
    assert named in reply.error.message


async def test_endless_code_is_refused(environments: Environments, sandbox: NamespacesSandbox) -> None:
    request = _request("while True: pass\ndef main(): pass", []).model_copy(update={"timeout_seconds": 0.5})
    reply = await Builds(environments, Sandboxes([sandbox]), 1).build(request)
    assert reply.error is not None
    assert reply.error.code == "inspection_timeout"


@pytest.mark.parametrize("is_allowed", [True, False])
async def test_files_on_a_host_that_the_index_names(
    sandbox: NamespacesSandbox, tmp_path: Path, is_allowed: bool
) -> None:
    """A build may go where the index says that its files are; that does not open what is closed to everybody."""
    with PackageIndex() as files, PackageIndex() as index:
        for one in (files, index):
            one.add_wheel("greeter", "1.0", {"greeter.py": "def greet(name): return 'Hello ' + name"})
        index.files_at = f"http://127.0.0.1:{files.port}"
        rules = OperatorRules(parse_allow(f"127.0.0.1:{files.port}" if is_allowed else ""))
        way_out = BuildWayOut(rules=rules)
        opened = Environments(tmp_path, sandbox, index=index.index, way_out=way_out)
        reply = await Builds(opened, Sandboxes([sandbox]), 1).build(_request(USES_GREETER, ["greeter"]))
        await opened.close()
    if is_allowed:
        assert reply.error is None, reply.error
        assert any(request.startswith("/files/greeter") for request in files.requests)
    else:
        assert reply.error is not None
        assert f"127.0.0.1:{files.port}' is at '127.0.0.1'" in reply.error.message
        assert files.requests == []


async def test_a_host_that_nobody_named_is_refused_with_what_to_do(sandbox: NamespacesSandbox, tmp_path: Path) -> None:
    with PackageIndex() as files, PackageIndex() as index:
        index.add_wheel("greeter", "1.0", {"greeter.py": ""})
        index.files_at = f"http://127.0.0.1:{files.port}"
        opened = Environments(tmp_path, sandbox, index=dataclasses.replace(index.index, urls=()))
        reply = await Builds(opened, Sandboxes([sandbox]), 1).build(_request(USES_GREETER, ["greeter"]))
        await opened.close()
    assert reply.error is not None
    assert f"127.0.0.1:{files.port} is neither" in reply.error.message
    assert "FLOW_BUILD_HOSTS" in reply.error.message


async def test_every_request_is_answered(environments: Environments, sandbox: NamespacesSandbox) -> None:
    reply = BuildReply.model_validate_json(await Builds(environments, Sandboxes([sandbox]), 1).handle(b"not a request"))
    assert reply.error is not None
    assert reply.error.code == "invalid_request"


@pytest.mark.slow
async def test_the_operators_index(sandbox: NamespacesSandbox, tmp_path: Path) -> None:
    opened = Environments(tmp_path, sandbox, index=configured_index(os.environ, uv_binary()))
    code = "from slugify import slugify\ndef main(text: str) -> str:\n    return slugify(text)"
    reply = await Builds(opened, Sandboxes([sandbox]), 1).build(_request(code, ["python-slugify>=8"]))
    await opened.close()
    if reply.error is not None and reply.error.code == "index_unavailable":
        pytest.skip("no package index can be reached from here")
    assert reply.error is None, reply.error
    assert "text-unidecode==" in reply.environment.lock


def _request(code: str, dependencies: list[str], examples: list[dict[str, object]] | None = None) -> BuildRequest:
    return BuildRequest(
        kind=Kind.CODE_BLOCK,
        slug="main",
        code=code,
        entry_point="main",
        dependencies=dependencies,
        examples=examples or [],
    )


def _base() -> dict[str, str]:
    from flow_platform.build.base import base_versions

    return base_versions()
