"""Parts of the Docker sandbox that decide something by themselves."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest

from flow_platform.sandbox.docker import leftovers, seccomp_profile
from flow_platform.sandbox.namespaces import seccomp

EDGES = (0, 1, 2, 3, 4, 5, 15, 16, 1 << 31, (1 << 32) - 1, 0x5411, 0x5412, 0x5413, 0x541B, 0x541C, 0x541D)


def fits(value: int, rules: list[tuple[int, int]]) -> bool:
    return any(value & mask == wanted for mask, wanted in rules)


@pytest.mark.parametrize("refused", [seccomp.TERMINAL_INJECTION, seccomp.WATCHES, (0,), (7, 8, 9), ((1 << 32) - 1, 0)])
def test_masks_fit_all_numbers_but_the_refused_ones(refused: tuple[int, ...]) -> None:
    rules = seccomp_profile.other_than(refused)
    chance = random.Random(5)  # noqa: S311 - the same numbers each time.
    near = [value ^ (1 << bit) for value in refused for bit in range(32)]
    others = {*EDGES, *near, *(chance.getrandbits(32) for _ in range(2000))} - set(refused)
    assert not [value for value in refused if fits(value, rules)]
    assert [value for value in others if not fits(value, rules)] == []


def test_no_comparison_of_the_profile_can_be_passed_with_the_upper_half_of_an_argument() -> None:
    for rule in seccomp_profile.profile()["syscalls"]:
        for argument in rule.get("args", []):
            whole = argument["op"] == "SCMP_CMP_EQ" and (argument["index"], argument["value"]) == (2, 0)  # A pointer.
            assert whole or argument["op"] == "SCMP_CMP_MASKED_EQ"
            assert argument["value"] < 1 << 32


def test_the_profile_allows_nothing_that_only_sets_containers_up() -> None:
    named = {name for rule in seccomp_profile.profile()["syscalls"] for name in rule["names"]}
    assert not named & seccomp.SET_UP
    assert named - {"clone3"} <= seccomp.ALLOWED | {"clone", "socket", "socketpair", "ioctl", "fcntl"}


def test_containers_are_abandoned_by_dead_makers_and_earlier_processes_of_the_runner_alone() -> None:
    owner = leftovers.new_owner("mine")
    other = leftovers.new_owner("")
    place, _, started, _ = owner.name.split("-")

    def container(name: str, maker: str, runner: str = "") -> dict[str, Any]:
        labels = {leftovers.OWNER_LABEL: maker} | ({leftovers.RUNNER_LABEL: runner} if runner else {})
        return {"Id": name, "Labels": labels}

    found = leftovers.abandoned(
        [
            container("own", owner.name, "mine"),
            container("another sandbox's of this process", other.name),
            container("another living process's", f"{place}-{os.getppid()}-{_started(os.getppid())}-1"),
            container("dead process's", f"{place}-{os.getpid()}-{int(started) + 1}-1"),
            container("out of sight", "elsewhere-1-1-1", "other"),
            container("earlier process of this runner's", "elsewhere-1-1-1", "mine"),
        ],
        owner,
    )
    assert [one["Id"] for one in found] == ["dead process's", "earlier process of this runner's"]


def _started(process: int) -> str:
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]
