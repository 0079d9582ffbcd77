"""Whose word on the client's address is taken."""

from __future__ import annotations

import pytest

from flow_platform.domain.client_address import TrustedProxies, parse_proxies

PROXIES = parse_proxies("10.0.0.0/8, 192.0.2.7 2001:db8::/64")


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("10.0.0.1", ["198.51.100.4"], "198.51.100.4"),
        ("10.0.0.1", ["1.2.3.4, 198.51.100.4"], "198.51.100.4"),  # What the client wrote itself is not believed.
        ("10.0.0.1", ["198.51.100.4, 10.0.0.2", "192.0.2.7"], "198.51.100.4"),  # Three proxies, two headers.
        ("10.0.0.1", ["198.51.100.4:5123"], "198.51.100.4"),
        ("10.0.0.1", ["[2001:db8:1::9]:443"], "2001:db8:1::9"),
        ("2001:db8::1", ["2001:db8:1::9"], "2001:db8:1::9"),
        ("::ffff:10.0.0.1", ["::ffff:198.51.100.4"], "198.51.100.4"),
        ("10.0.0.1", ["198.51.100.4, unknown"], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.4, <script>, 10.0.0.3"], "10.0.0.3"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["10.0.0.9, 10.0.0.2"], "10.0.0.9"),  # Within the operator's own network.
        ("198.51.100.9", ["1.2.3.4"], "198.51.100.9"),  # A stranger who says that he is a proxy.
        ("", ["1.2.3.4"], ""),
        ("10.0.0.1", [",".join(["10.0.0.2"] * 10_000)], "10.0.0.2"),
    ],
)
def test_the_client_is_who_asked_the_outermost_trusted_proxy(peer: str, forwarded: list[str], client: str) -> None:
    assert PROXIES.client_of(peer, forwarded) == client


def test_nobody_is_trusted_by_default() -> None:
    assert TrustedProxies().client_of("127.0.0.1", ["1.2.3.4"]) == "127.0.0.1"
    assert parse_proxies("") == TrustedProxies()


@pytest.mark.parametrize("text", ["proxy.example.com", "10.0.0.1/8", "10.0.0.0/33"])
def test_what_is_no_network_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="addresses and networks"):
        parse_proxies(text)
