"""What a runner process is told at its start. Composed by `bootstrap` from the settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from flow_platform.egress.policy import OperatorRules
from flow_platform.egress.traffic import MAX_TRANSFER_BYTES

Channel = Literal["socket", "nats"]

DEFAULT_MAX_CONTAINERS: Final = 512
"""A lent slot (a parent that waits for its children) keeps its container, so there are more containers than slots."""

DEFAULT_ENVIRONMENT_BYTES: Final = 10 << 30
"""Disk for installed environments; the least recently used ones go first."""

DEFAULT_DRAIN_SECONDS: Final = 30.0
"""How long a graceful stop waits for running attempts before it hands their leases back."""

DEFAULT_SUSPEND_AFTER_SECONDS: Final = 5.0
"""Shorter waits are not worth the new container and the replay of the calls."""

DEFAULT_PATIENCE_SECONDS: Final = 5.0
"""Twice as long as a runner whose supervisor died takes to end itself."""


@dataclass(frozen=True)
class RunnerConfig:
    """Everything one runner needs; it holds no credential of the database.

    Attributes:
        nats_url: With its credential.
        api_host: Where the relay of the containers reaches the API.
        runner_id: Stable over restarts: leases of an earlier instance of the same id are given up at once. It is a
            token of a NATS subject: letters, digits, `-` and `_`.
        slots: How many executions may compute at the same time.
        max_containers: How many containers may exist at all, those of lent slots included.
        channel: How containers exchange input and output: over the inherited socket, or by NATS through the gateway.
        cache_dir: Runtime roots, environments and uv's cache. A neutral path: containers can see it in mountinfo.
        pool_size: Sealed containers that wait per template.
        build_hosts: Hosts besides the package index's that builds may reach.
        egress_rules: What the operator allows and denies all components.
        egress_bytes: That one execution may carry over the network, in each direction.
        drain_seconds: How long a graceful stop waits for running attempts.
        suspend_after_seconds: How long a workflow only waits before its container is given back.
        patience_seconds: How long a start waits for an earlier process of the same id to end.
        ready: Called once, when the runner is registered and asks for work.
    """

    nats_url: str
    api_host: str
    api_port: int
    runner_id: str
    slots: int
    cache_dir: Path
    max_containers: int = DEFAULT_MAX_CONTAINERS
    channel: Channel = "socket"
    pool_size: int = 4
    drain_seconds: float = DEFAULT_DRAIN_SECONDS
    suspend_after_seconds: float = DEFAULT_SUSPEND_AFTER_SECONDS
    patience_seconds: float = DEFAULT_PATIENCE_SECONDS
    environment_bytes: int = DEFAULT_ENVIRONMENT_BYTES
    parallel_builds: int = 2
    build_hosts: frozenset[str] = frozenset()
    egress_rules: OperatorRules = field(default_factory=OperatorRules)
    egress_bytes: int = MAX_TRANSFER_BYTES
    ready: Callable[[], None] | None = None
