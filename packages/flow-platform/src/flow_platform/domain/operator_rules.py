"""The operator's words on where containers may connect to, as the settings hold them."""

from __future__ import annotations

from flow_platform.domain.address import AddressRange, parse_range
from flow_platform.domain.destination import Destination, normal_host, parse_destination


def parse_allow(text: str) -> tuple[AddressRange, ...]:
    """Reads networks, apart by commas or spaces.

    Raises:
        ValueError: What was expected.
    """
    return tuple(parse_range(word) for word in _words(text))


def parse_deny(text: str) -> tuple[tuple[AddressRange, ...], tuple[Destination, ...]]:
    """Reads networks and hosts, apart by commas or spaces.

    Raises:
        ValueError: What was expected.
    """
    ranges: list[AddressRange] = []
    hosts: list[Destination] = []
    for word in _words(text):
        try:
            ranges.append(parse_range(word))
        except ValueError:
            try:
                hosts.append(parse_destination(word))
            except ValueError:
                raise ValueError(f"networks and hosts such as '192.0.2.0/24, *.example.com', not {word!r}") from None
    return tuple(ranges), tuple(hosts)


def parse_hosts(text: str) -> frozenset[str]:
    """Reads names of hosts, apart by commas or spaces.

    Raises:
        ValueError: What was expected.
    """
    return frozenset(normal_host(word) for word in _words(text))


def _words(text: str) -> list[str]:
    return text.replace(",", " ").split()
