"""Whose address a request comes from, when proxies that the operator trusts stand in front.

Each proxy adds who connected to it at the end of `X-Forwarded-For`. What is before the first trusted proxy's word is
whatever the client liked to write: so the header is read from its end, as far as those are trusted who wrote it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

MAX_PROXIES: Final = 20  # Of one request; no real way has more.

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True)
class TrustedProxies:
    """The networks of the operator's own proxies."""

    networks: tuple[_Network, ...] = ()

    def client_of(self, peer: str, forwarded: Iterable[str]) -> str:
        """The address of who asked the outermost proxy that is trusted.

        Args:
            peer: Who is connected to us.
            forwarded: The values of all `X-Forwarded-For` headers, in their order.
        """
        client = _parsed(peer)
        if not self.networks or client is None or not self._trusts(client):
            return peer
        for word in list(reversed(",".join(forwarded).split(",")))[:MAX_PROXIES]:
            before = _parsed(word)
            if before is None:
                break  # No address: who wrote that is the last one that is known.
            client = before
            if not self._trusts(client):
                break
        return str(client)

    def _trusts(self, address: _Address) -> bool:
        return any(address.version == network.version and address in network for network in self.networks)


def parse_proxies(text: str) -> TrustedProxies:
    """Reads addresses and networks, apart by commas or spaces.

    Raises:
        ValueError: What was expected.
    """
    networks: list[_Network] = []
    for word in text.replace(",", " ").split():
        try:
            networks.append(ipaddress.ip_network(word))
        except ValueError:
            raise ValueError(f"addresses and networks such as '192.0.2.7, 10.0.0.0/8', not {word!r}") from None
    return TrustedProxies(tuple(networks))


def _parsed(text: str) -> _Address | None:
    """An address, also with a port behind it; IPv4 within IPv6 as itself."""
    word = text.strip()
    if word.startswith("["):
        word = word[1:].partition("]")[0]
    elif word.count(":") == 1:
        word = word.partition(":")[0]
    try:
        address = ipaddress.ip_address(word)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
