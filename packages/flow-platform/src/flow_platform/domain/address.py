"""Which addresses code of strangers may be connected to. Everything is closed that is not plainly public.

An IPv4 address can hide in an IPv6 one: it is taken out, and the rule of IPv4 decides. What cannot be judged so
(tunnels such as 6to4 and Teredo, networks for documentation, whatever is not global unicast) is closed.

    never       whatever the operator allows: metadata services, link-local, multicast, unspecified, reserved
    closed      unless the operator allows it: private, shared (carrier-grade NAT), loopback, everything else not public
    public      open

Source: IANA's special-purpose address registries for IPv4 and IPv6; RFC 6890, RFC 6052, RFC 8215.
"""

from __future__ import annotations

import enum
import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from flow_platform.domain.destination import parse_port

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Reach(enum.Enum):
    """How far an address is open."""

    PUBLIC = "public"
    CLOSED = "closed"
    NEVER = "never"


def _networks(text: str) -> tuple[Network, ...]:
    return tuple(ipaddress.ip_network(word) for word in text.split())


_NEVER: Final = _networks(
    # Link-local (with most metadata services), this network, multicast, reserved and broadcast.
    "169.254.0.0/16 0.0.0.0/8 224.0.0.0/4 240.0.0.0/4 "
    # Metadata services elsewhere: Alibaba, Azure, Oracle; Amazon and Google over IPv6.
    "100.100.100.200/32 168.63.129.16/32 192.0.0.192/32 fd00:ec2::254/128 fd00:ec2::23/128 fd20:ce::254/128 "
    "::/128 fe80::/10 fec0::/10 ff00::/8"
)
_CLOSED_IPV4: Final = _networks(
    "10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 172.16.0.0/12 192.0.0.0/24 192.0.2.0/24 192.88.99.0/24 192.168.0.0/16 "
    "198.18.0.0/15 198.51.100.0/24 203.0.113.0/24"
)
_GLOBAL_IPV6: Final = ipaddress.IPv6Network("2000::/3")
# IETF protocols (Teredo, ORCHID, benchmarks), documentation, 6to4.
_CLOSED_IPV6: Final = _networks("2001::/23 2001:db8::/32 2002::/16 3fff::/20")
_TRANSLATED: Final = ipaddress.IPv6Network("64:ff9b::/96")
_ISATAP: Final = frozenset({0x00005EFE, 0x02005EFE})  # Bits 64 to 95. Source: RFC 5214, section 6.1.
_RANGE: Final = re.compile(r"(?:\[(?P<bracketed>[^\]]+)\]|(?P<plain>[^:\[\]]+))(?::(?P<port>[0-9]+))?")


@dataclass(frozen=True)
class AddressRange:
    """Addresses that the operator names, on one port or all."""

    network: Network
    port: int | None = None

    def contains(self, address: Address, port: int) -> bool:
        return address in self.network and self.port in (None, port)


def parse_range(text: str) -> AddressRange:
    """Reads `10.1.0.0/16`, `10.1.2.3:5432`, `fd00::/8` or `[fd00::/8]:5432`.

    Raises:
        ValueError: It is none of these.
    """
    found = _RANGE.fullmatch(text)
    try:
        if found is None:
            return AddressRange(ipaddress.ip_network(text))
        port = parse_port(found["port"]) if found["port"] else None
        return AddressRange(ipaddress.ip_network(found["bracketed"] or found["plain"]), port)
    except ValueError as error:
        raise ValueError(f"a network such as '10.1.0.0/16' or '10.1.2.3:5432', not {text!r}: {error}") from None


def unwrapped(address: Address) -> Address:
    """The IPv4 address inside an IPv6 one, where it stands for it; without a scope."""
    if isinstance(address, ipaddress.IPv6Address):
        if address in _TRANSLATED:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        return address.ipv4_mapped or ipaddress.IPv6Address(int(address))
    return address


def reach_of(address: Address) -> Reach:
    """How far an address is open before the operator's own rules."""
    real = unwrapped(address)
    if isinstance(address, ipaddress.IPv6Address) and address.scope_id is not None:
        return Reach.NEVER
    if any(real in network for network in _NEVER):
        return Reach.NEVER
    if isinstance(real, ipaddress.IPv4Address):
        return Reach.CLOSED if any(real in network for network in _CLOSED_IPV4) else Reach.PUBLIC
    if real not in _GLOBAL_IPV6 or any(real in network for network in _CLOSED_IPV6):
        return Reach.CLOSED
    if int(real) >> 32 & 0xFFFFFFFF in _ISATAP:
        return Reach.CLOSED
    return Reach.PUBLIC


def is_within(ranges: Iterable[AddressRange], address: Address, port: int) -> bool:
    """Whether one of the ranges has the address, in either of its forms."""
    forms = {address, unwrapped(address)}
    return any(one.contains(form, port) for one in ranges for form in forms)
