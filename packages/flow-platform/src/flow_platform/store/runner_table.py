"""The port of runners that were heard of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from flow_sdk.wire.isolation import DEFAULT, Isolation


@dataclass(frozen=True)
class RegisteredRunner:
    """`instance`: the process start that is registered under a runner's id; empty when none is."""

    instance: str = ""
    isolations: tuple[Isolation, ...] = (DEFAULT,)


class RunnerTable(Protocol):
    def register(
        self, runner_id: str, instance: str, slots: int, at: datetime, isolations: Sequence[Isolation] = (DEFAULT,)
    ) -> None: ...

    def find(self, runner_id: str) -> RegisteredRunner: ...

    def offered(self, since: datetime) -> frozenset[Isolation]:
        """The isolations of all runners that were heard of since then; empty when there is none."""
        ...

    def seen(self, runner_id: str, instance: str, at: datetime, completed: int) -> bool:
        """Notes a heartbeat; False when the instance is not the registered one."""
        ...

    def alive(self, since: datetime) -> int:
        """How many runners were heard of since then."""
        ...
