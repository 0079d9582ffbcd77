"""Where connections may go: first the name and port are held against what is declared, then every address of it."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from typing import Protocol

from flow_platform.domain.address import Address, AddressRange, Reach, is_within, reach_of, unwrapped
from flow_platform.domain.destination import Destination, shown_host
from flow_platform.egress.refusal import Refusal


class Policy(Protocol):
    """Hosts are in normal form; see `domain/destination.py`."""

    def check_destination(self, host: str, port: int) -> None:
        """Before the name is resolved: raises `Refusal`."""
        ...

    def check_address(self, host: str, port: int, address: Address) -> None:
        """For each address of the name: raises `Refusal`."""
        ...


@dataclass(frozen=True)
class OperatorRules:
    """What the operator says for all components.

    Attributes:
        allow: Addresses that are closed by default and shall be reachable.
        deny: Addresses that are never reachable, whatever is allowed.
        deny_hosts: Hosts that no component reaches, whatever it declares.
    """

    allow: tuple[AddressRange, ...] = ()
    deny: tuple[AddressRange, ...] = ()
    deny_hosts: tuple[Destination, ...] = ()

    def check_host(self, host: str, port: int) -> None:
        """Raises `Refusal` for a host on the operator's list. One without a port there means all ports."""
        for denied in self.deny_hosts:
            if denied.names(host) and denied.port in (None, port):
                raise Refusal(f"{_at(host, port)} is on the operator's deny list ({str(denied)!r})")

    def check_address(self, host: str, port: int, address: Address) -> None:
        """Raises `Refusal` for an address that nobody may reach, or that the operator has not opened."""
        self.check_denied(host, port, address)
        where = f"{_at(host, port)} is at {str(address)!r}"
        reach = reach_of(address)
        if reach is Reach.NEVER:
            raise Refusal(f"{where}: a link-local, metadata, multicast or reserved address is never reachable")
        if is_within(self.allow, address, port):
            return
        if reach is Reach.CLOSED:
            raise Refusal(f"{where}: a private or special address is reachable only where the operator allows it")
        if is_own(address):
            raise Refusal(f"{where}, which is the runner's own machine: the operator has to allow it")

    def check_denied(self, host: str, port: int, address: Address) -> None:
        """Raises `Refusal` for an address on the operator's list."""
        if is_within(self.deny, address, port):
            raise Refusal(f"{_at(host, port)} is at {str(address)!r}, which is on the operator's deny list")


@dataclass(frozen=True)
class DeclaredPolicy:
    """What one component declared, within what the operator allows all of them."""

    declared: tuple[Destination, ...]
    rules: OperatorRules = field(default_factory=OperatorRules)

    def check_destination(self, host: str, port: int) -> None:
        if not any(one.allows(host, port) for one in self.declared):
            on_other_ports = sorted(str(one) for one in self.declared if one.names(host))
            hint = f", only {', '.join(map(repr, on_other_ports))}" if on_other_ports else ""
            port_text = "" if not on_other_ports else f" on port {port}"
            raise Refusal(f"host {host!r}{port_text} is not declared in network=[...]{hint}")
        self.rules.check_host(host, port)

    def check_address(self, host: str, port: int, address: Address) -> None:
        self.rules.check_address(host, port, address)


def is_own(address: Address) -> bool:
    """Whether it is an address of this machine: the kernel would then send from that very address. Nothing is sent."""
    real = unwrapped(address)
    family = socket.AF_INET if real.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((str(real), 9))
            return str(probe.getsockname()[0]) == str(real)
    except OSError:
        return False


def _at(host: str, port: int) -> str:
    return repr(f"{shown_host(host)}:{port}")
