"""However an address is written or wrapped, the rule for what it stands for decides."""

from __future__ import annotations

import contextlib
import ipaddress
import socket

from hypothesis import example, given
from hypothesis import strategies as st

from flow_platform.domain.address import Reach, parse_range, reach_of, unwrapped
from flow_platform.domain.destination import is_address, normal_host, parse_destination

V4 = st.ip_addresses(v=4)
V6 = st.ip_addresses(v=6)
CLOSED_V4 = [
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
    "192.168.0.0/16", "198.18.0.0/15", "224.0.0.0/4", "240.0.0.0/4",
]  # fmt: skip
INSIDE = st.sampled_from(CLOSED_V4).flatmap(lambda network: st.ip_addresses(network=network))

NOTATIONS = st.sampled_from(
    [
        lambda n: str(n),
        lambda n: hex(n),
        lambda n: f"0x{n:08X}",
        lambda n: f"0{n:o}",
        lambda n: f"{n >> 24}.{n & 0xFFFFFF}",
        lambda n: f"{n >> 24}.{n >> 16 & 255}.{n & 0xFFFF}",
        lambda n: ".".join(f"0{n >> shift & 255:o}" for shift in (24, 16, 8, 0)),
        lambda n: ".".join(hex(n >> shift & 255) for shift in (24, 16, 8, 0)),
        lambda n: ".".join(f"{n >> shift & 255:03d}" for shift in (24, 16, 8, 0)),
        lambda n: ".".join(str(n >> shift & 255) for shift in (24, 16, 8, 0)),
        lambda n: ".".join(str(n >> shift & 255) for shift in (24, 16, 8, 0)) + ".",
        lambda n: "[::ffff:" + str(ipaddress.IPv4Address(n)) + "]",
        lambda n: f"[::ffff:{n >> 16:x}:{n & 0xFFFF:x}]",
        lambda n: f"[::{n >> 16:x}:{n & 0xFFFF:x}]",
        lambda n: "".join(chr(0xFF10 + int(c)) if c.isdigit() else c for c in str(ipaddress.IPv4Address(n))),
        lambda n: str(ipaddress.IPv4Address(n)).replace(".", "\u3002"),
    ]
)

WRAPPINGS = st.sampled_from(
    [
        lambda n: n,
        lambda n: 0xFFFF << 32 | n,  # mapped
        lambda n: 0x64FF9B << 96 | n,  # NAT64
        lambda n: 0x64FF9B0001 << 80 | n,  # local NAT64
        lambda n: 0x2002 << 112 | n << 80,  # 6to4
        lambda n: 0x20010000 << 96 | 0xFFFFFFFF ^ n,  # Teredo
        lambda n: 0x2600 << 112 | 0x5EFE << 32 | n,  # ISATAP
        lambda n: 0xFFFF0000 << 32 | n,  # translated
    ]
)


@given(INSIDE, NOTATIONS)
def test_a_written_address_is_that_address_or_nothing(address: ipaddress.IPv4Address, notation: object) -> None:
    text = notation(int(address))  # type: ignore[operator]
    with contextlib.suppress(ValueError):
        destination = parse_destination(text)
        assert is_address(destination.host)
        assert reach_of(ipaddress.ip_address(destination.host)) is not Reach.PUBLIC


@given(st.text(st.sampled_from("0123456789abcdefx.:%[]"), max_size=20))
@example("0x7f.1")
@example("1.")
def test_no_name_is_an_address_to_the_system(text: str) -> None:
    """What the C library takes for an address is one to us, in its usual notation."""
    try:
        host = normal_host(text)
    except ValueError:
        return
    try:
        packed = socket.inet_aton(host)
    except OSError:
        return
    assert is_address(host)
    assert str(ipaddress.IPv4Address(packed)) == host


@given(INSIDE, WRAPPINGS)
def test_a_wrapped_address_is_not_public(address: ipaddress.IPv4Address, wrap: object) -> None:
    number = wrap(int(address))  # type: ignore[operator]
    wrapped = ipaddress.ip_address(number) if number <= 0xFFFFFFFF else ipaddress.IPv6Address(number)
    assert reach_of(wrapped) is not Reach.PUBLIC


@given(st.one_of(V4, V6))
def test_public_is_global_unicast_to_the_standard_library_too(address: ipaddress.IPv4Address) -> None:
    if reach_of(address) is Reach.PUBLIC and address not in ipaddress.ip_network("64:ff9b::/96"):
        real = unwrapped(address)
        assert real.is_global
        assert not real.is_multicast
        assert not real.is_reserved


@given(st.one_of(V4, V6), st.integers(1, 65535))
def test_a_range_with_a_port_contains_its_own(address: ipaddress.IPv4Address, port: int) -> None:
    shown = f"[{address}]" if address.version == 6 else str(address)
    found = parse_range(f"{shown}:{port}")
    assert found.contains(address, port)
    assert not found.contains(address, port % 65535 + 1)
    assert parse_range(str(address)).contains(address, port)
