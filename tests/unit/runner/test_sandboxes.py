"""The sandboxes of a runner: opened all or none, each found by exactly its own isolation."""

from __future__ import annotations

import pytest

from flow_platform.domain.errors import SandboxUnavailable, SettingsError
from flow_platform.runner.sandboxes import Sandboxes
from flow_platform.sandbox.base import Check, Command, CommandEnded, Container, ContainerSpec
from flow_platform.settings import load_settings
from flow_sdk.wire.isolation import Isolation


class Counted:
    """A sandbox that only counts how often it was opened and closed."""

    def __init__(self, name: str, refuses: str = "") -> None:
        self.name = name
        self.refuses = refuses
        self.log: list[str] = []

    async def check(self) -> list[Check]:
        return []

    async def open(self) -> None:
        self.log.append("open")
        if self.refuses:
            raise SandboxUnavailable(self.refuses, hint="mend it")

    async def warm(self, spec: ContainerSpec) -> None:
        raise AssertionError

    async def acquire(self, spec: ContainerSpec) -> Container:
        raise AssertionError

    async def run_command(self, command: Command, /, proxy_handler: object | None = None) -> CommandEnded:
        raise AssertionError

    async def close(self) -> None:
        self.log.append("close")


async def test_each_is_found_by_exactly_its_own_isolation() -> None:
    gvisor, namespaces = Counted("gvisor"), Counted("namespaces")
    offered = Sandboxes([gvisor, namespaces])

    assert offered.offered == (Isolation.NAMESPACES, Isolation.GVISOR)
    assert offered.get(Isolation.GVISOR) is gvisor
    with pytest.raises(SandboxUnavailable, match="does not offer isolation 'docker', only namespaces, gvisor"):
        offered.get(Isolation.DOCKER)


@pytest.mark.parametrize(
    ("names", "builder"),
    [
        (["process", "namespaces", "gvisor"], "namespaces"),
        (["gvisor", "docker"], "docker"),
        (["process", "gvisor"], "gvisor"),
        (["process"], "process"),
    ],
)
async def test_environments_are_never_built_in_less_than_the_default_where_there_is_more(
    names: list[str], builder: str
) -> None:
    assert Sandboxes(Counted(name) for name in names).builder.name == builder


async def test_all_are_open_or_none() -> None:
    good, bad = Counted("namespaces"), Counted("docker", refuses="no socket")
    with pytest.raises(SandboxUnavailable, match="isolation 'docker' is not available: no socket") as refused:
        await Sandboxes([good, bad]).open()
    assert refused.value.hint == "mend it"
    assert good.log == ["open", "close"]
    assert bad.log[-1] == "close"


async def test_a_runner_without_any_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Sandboxes([])


def test_the_setting_is_a_list_of_rungs() -> None:
    assert load_settings(environ={}).offered == (Isolation.NAMESPACES,)
    assert load_settings(environ={"FLOW_ISOLATIONS": "gvisor, namespaces"}).offered == (
        Isolation.NAMESPACES,
        Isolation.GVISOR,
    )
    for wrong in ("", "vm", "namespaces,vm"):
        with pytest.raises(SettingsError, match="FLOW_ISOLATIONS"):
            load_settings(environ={"FLOW_ISOLATIONS": wrong})


def test_plain_processes_need_a_second_word() -> None:
    with pytest.raises(SettingsError, match="FLOW_UNSAFE_PROCESSES=1"):
        load_settings(environ={"FLOW_ISOLATIONS": "process,namespaces"})
    permitted = load_settings(environ={"FLOW_ISOLATIONS": "process", "FLOW_UNSAFE_PROCESSES": "1"})
    assert permitted.offered == (Isolation.PROCESS,)
