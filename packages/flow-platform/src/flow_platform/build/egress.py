"""Where a build may go: to the package index that the operator configured, to the hosts of its files, nowhere else.

The way out itself is the one of `flow_platform.egress`; this is its policy and its limits for builds. What a build
downloads is held against the lock's hashes, not against the proxy. Private addresses are open for an index and for the
hosts of its files, as a mirror of one's own usually has one: what an index links to is the word of whom the operator
chose, not of a package. Loopback is open only where the operator wrote loopback himself, as opposed to a name that
turns to it.
"""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass, field
from typing import Final

from flow_platform.domain.address import Address, Reach, reach_of, unwrapped
from flow_platform.domain.destination import DEFAULT_PORTS, is_address
from flow_platform.egress.broker import Broker
from flow_platform.egress.policy import OperatorRules, is_own
from flow_platform.egress.refusal import Refusal
from flow_platform.egress.resolver import Resolver, SystemResolver
from flow_platform.egress.traffic import Limits, Record

LIMITS: Final = Limits(
    connections=96,  # uv downloads 50 files at a time.
    accepted=5_000,
    bytes_each_way=8 << 30,  # The largest common stacks have 5 GB of wheels.
    idle_seconds=120.0,
)


@dataclass(frozen=True)
class BuildPolicy:
    """Where a build may go.

    Attributes:
        index_hosts: `(host, port)` of each index.
        hosts: Those that the operator named besides, on the web's two ports.
        file_hosts: `(host, port)` where an index says that its files are.
        rules: The operator's for all; what they deny is denied to builds, too.
    """

    index_hosts: frozenset[tuple[str, int]] = frozenset()
    hosts: frozenset[str] = frozenset()
    file_hosts: frozenset[tuple[str, int]] = frozenset()
    rules: OperatorRules = field(default_factory=OperatorRules)

    def check_destination(self, host: str, port: int) -> None:
        if not self._is_named(host, port) and not self._has_files(host, port):
            raise Refusal(
                f"{host}:{port} is neither a configured package index nor a host of its files (FLOW_BUILD_HOSTS)"
            )
        self.rules.check_host(host, port)

    def check_address(self, host: str, port: int, address: Address) -> None:
        is_loopback = unwrapped(address).is_loopback
        is_private = reach_of(address) is Reach.CLOSED and not is_loopback and not is_own(address)
        if is_private or (is_loopback and _names_loopback(host) and self._is_named(host, port)):
            self.rules.check_denied(host, port, address)
        else:
            self.rules.check_address(host, port, address)

    def _has_files(self, host: str, port: int) -> bool:
        return (host, port) in self.file_hosts

    def _is_named(self, host: str, port: int) -> bool:
        """Whether it is the operator's word that a build may go there."""
        return (host, port) in self.index_hosts or (host in self.hosts and port in DEFAULT_PORTS)


@dataclass(frozen=True)
class BuildWayOut:
    """What the way out of all builds of a runner has in common.

    Attributes:
        hosts: Besides the index's own; see `BuildPolicy`.
        rules: See `BuildPolicy`.
    """

    resolver: Resolver = field(default_factory=SystemResolver)
    hosts: frozenset[str] = frozenset()
    rules: OperatorRules = field(default_factory=OperatorRules)

    def open(
        self, index_hosts: frozenset[tuple[str, int]], file_hosts: frozenset[tuple[str, int]] = frozenset()
    ) -> BuildEgress:
        """For one build; see `BuildPolicy`."""
        return BuildEgress(BuildPolicy(index_hosts, self.hosts, file_hosts, self.rules), self.resolver)


class BuildEgress:
    """Serves the connections of one build.

    Attributes:
        denied: What was refused, in words.
    """

    def __init__(self, policy: BuildPolicy, resolver: Resolver) -> None:
        self.denied: list[str] = []
        self._broker = Broker(policy, resolver, LIMITS, self._ended)

    async def serve(self, connection: socket.socket) -> None:
        """Serves one accepted connection to its end and closes it."""
        await self._broker.serve(connection)

    def _ended(self, record: Record) -> None:
        if record.verdict in {"refused", "limit"}:
            self.denied.append(record.reason)


def _names_loopback(host: str) -> bool:
    return host == "localhost" or (is_address(host) and ipaddress.ip_address(host).is_loopback)
