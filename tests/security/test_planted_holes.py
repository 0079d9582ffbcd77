"""The suite is a check that can fail: each hole that is planted here is found by it."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from flow_platform.egress import policy
from flow_platform.hostile import escape, exhaustion, frames, neighbours, supply, ways_out
from flow_platform.hostile.answer import leaks
from flow_platform.hostile.attempt import Attempt
from flow_platform.hostile.box import Box
from flow_platform.hostile.canaries import planted
from flow_platform.hostile.suite import box_around
from flow_platform.sandbox import frames as frame_reader
from flow_platform.sandbox.namespaces import identity, runtime_root, sandbox, template
from flow_platform.sandbox.namespaces.sandbox import NamespacesSandbox
from tests.support.sandbox_cache import sandbox_cache

Patch = pytest.MonkeyPatch

FOUND_IN_THE_JAIL = {
    "interfaces of the kernel": {"kcmp", "watch files (inotify)", "shmget"},
    "privileges and priorities": {"CapBnd"},
    "the same memory twice": {"random"},
    "packages that shadow": {"shadow json"},
}


@asynccontextmanager
async def weakened(cache: Path) -> AsyncIterator[Box]:
    with planted() as canaries:
        async with box_around(NamespacesSandbox(cache, pool_size=0), canaries) as box:
            yield box


async def found(cache: Path, attempts: tuple[Attempt[Box], ...], name: str) -> list[str]:
    """The attempts of that name that leaked."""
    (attempt,) = (attempt for attempt in attempts if attempt.name == name)
    async with weakened(cache) as box:
        return [answer.attempt for answer in leaks(await attempt.answers(box))]


def with_changed_jail(patch: Patch, folder: Path, *changes: tuple[str, str, str]) -> None:
    """Containers are made of a copy of what runs inside the jail, with changes: file, old text, new text."""
    original = Path(str(template.__file__)).parent
    shutil.copytree(original.parent, folder / "sandbox")  # What runs beside the jail is part of it, too.
    copy = folder / "sandbox" / original.name
    for name, old, new in changes:
        text = (copy / name).read_text()
        assert text.count(old) == 1, (name, old)
        (copy / name).write_text(text.replace(old, new))
    patch.setattr(runtime_root, "_jail_folder", lambda: copy)


async def test_a_variable_of_the_server(monkeypatch: Patch) -> None:
    monkeypatch.setitem(sandbox.ENVIRON, "DATABASE_URL", "postgresql://secret")
    leaked = await found(sandbox_cache(), escape.ATTEMPTS, "files, processes and engines of the host")
    assert "variable DATABASE_URL" in leaked


async def test_a_secret_in_the_templates_memory(monkeypatch: Patch) -> None:
    start = NamespacesSandbox.start_template

    async def with_secret(self: NamespacesSandbox, spec: Any) -> Any:
        monkeypatch.setitem(sandbox.ENVIRON, "LANG", "C.UTF-8;" + os.environ.get("HOSTILE_CANARY", ""))
        return await start(self, spec)

    monkeypatch.setattr(NamespacesSandbox, "start_template", with_secret)
    leaked = await found(sandbox_cache(), escape.ATTEMPTS, "secrets in memory")
    assert leaked == ["secret in the server's environment"]


async def test_a_folder_of_the_host(monkeypatch: Patch) -> None:
    config = sandbox.jail_process.jail_config

    def with_host(who: Any, *, binds: list[Any], **more: Any) -> Any:
        return config(who, binds=[*binds, ("/etc", "/etc", False)], **more)

    monkeypatch.setattr(sandbox.jail_process, "jail_config", with_host)
    leaked = await found(sandbox_cache(), escape.ATTEMPTS, "files, processes and engines of the host")
    assert leaked == ["/etc/shadow"]


async def test_holes_in_the_jail(monkeypatch: Patch, tmp_path: Path) -> None:
    """A filter that allows all, capabilities that are kept, clones with one seed, an environment that comes first."""
    allow = "return _assemble([*program, _return(_error(errno.EPERM))])"
    with_changed_jail(
        monkeypatch,
        tmp_path,
        ("seccomp.py", allow, "return _assemble([*program, _return(_ALLOW)])"),
        ("seal.py", "    syscalls.drop_capabilities()\n", ""),
        ("seal.py", "    _forget_shared_randomness()\n", "    import random; random.seed(1)\n"),
        (
            "preload.py",
            "sys.path.insert(sys.path.index(_PACKAGES), _ENVIRONMENT)",
            "sys.path.insert(0, _ENVIRONMENT); sys.modules.pop('json')",
        ),
    )
    leaked: dict[str, set[str]] = {}
    async with weakened(tmp_path / "cache") as box:
        for attempt in (*escape.ATTEMPTS, *neighbours.ATTEMPTS, *supply.ATTEMPTS):
            if attempt.name in FOUND_IN_THE_JAIL:
                leaked[attempt.name] = {answer.attempt for answer in leaks(await attempt.answers(box))}
    assert {name: wanted - leaked[name] for name, wanted in FOUND_IN_THE_JAIL.items() if wanted - leaked[name]} == {}


async def test_the_network_of_the_host(monkeypatch: Patch, tmp_path: Path) -> None:
    with_changed_jail(monkeypatch, tmp_path, ("seal.py", " | syscalls.NEW_NET\n", "\n"))
    leaked = await found(tmp_path / "cache", neighbours.ATTEMPTS, "reach a neighbour")
    assert leaked, "the jail's network is shared by its containers"


async def test_limits_that_are_not_set(monkeypatch: Patch) -> None:
    monkeypatch.setitem(sandbox._RLIMITS, "CORE", 0)
    monkeypatch.setitem(sandbox._RLIMITS, "NOFILE", 4096)
    assert "open files" in await found(sandbox_cache(), exhaustion.ATTEMPTS, "descriptors and ports")
    assert "dump core" in await found(sandbox_cache(), escape.ATTEMPTS, "privileges and priorities")


async def test_user_ids_that_count(monkeypatch: Patch) -> None:
    counted = iter(range(100, 1000))
    monkeypatch.setattr(identity.Identity, "take_user", lambda self: next(counted) if self.users else None)
    async with weakened(sandbox_cache()) as box:
        if "own user ids" in box.weak:
            pytest.skip("containers have no user ids of their own here")
        (clones,) = (attempt for attempt in neighbours.ATTEMPTS if attempt.name == "the same memory twice")
        leaked = [answer.attempt for answer in leaks(await clones.answers(box))]
    assert leaked == ["count the executions of others by user ids"]


async def test_frames_without_a_limit(monkeypatch: Patch) -> None:
    def trusting(self: Any, number: int, length: int) -> Any:
        return frame_reader.Frame(number) if number in (2, 3, 4) else frame_reader.Frame.EVENT

    monkeypatch.setattr(frame_reader.FrameReader, "_check", trusting)
    assert "huge frames" in await found(sandbox_cache(), frames.ATTEMPTS, "fuzz the harness's socket")


async def test_an_address_that_is_not_checked(monkeypatch: Patch) -> None:
    checked = policy.OperatorRules.check_address

    def trusting(self: Any, host: str, port: int, address: Any) -> None:
        if not address.is_loopback:
            checked(self, host, port, address)

    monkeypatch.setattr(policy.OperatorRules, "check_address", trusting)
    leaked = await found(sandbox_cache(), ways_out.ATTEMPTS, "declared names at closed addresses")
    assert "reach a service of the host" in leaked
