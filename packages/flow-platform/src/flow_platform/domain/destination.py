"""Where a component may connect to, as it declares it: `host`, `host:port` or `*.domain`, and how a name is compared.

Every name is brought into one form before it is compared, resolved or shown: lower case, IDNA's ASCII form, no dot at
the end. An address is compared by its text, so it is allowed only where it is declared as that address; a notation in
which addresses hide (decimal, octal, hexadecimal, short, scoped, IPv4 within IPv6) is no name and no address here.

    api.example.com        that host, on ports 80 and 443
    example.com:8443       that host, on that port alone
    *.example.com          every name below example.com, however deep, not example.com itself; 80 and 443
    192.0.2.7:5432         that address; [2001:db8::7]:5432 for IPv6
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final

import idna

DEFAULT_PORTS: Final = frozenset({80, 443})
"""Of a destination that names no port."""

MAX_HOST: Final = 253  # Characters. Source: RFC 1035, without the dot at the end.
_LABEL: Final = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")
_PORT: Final = re.compile(r"[0-9]{1,5}")


@dataclass(frozen=True)
class Destination:
    """One declared destination.

    Attributes:
        host: In normal form; without the `*.` where `is_wildcard`.
        port: None: the default ports.
    """

    host: str
    port: int | None = None
    is_wildcard: bool = False

    def names(self, host: str) -> bool:
        """Whether a host in normal form is meant, on whatever port."""
        return host.endswith(f".{self.host}") if self.is_wildcard else host == self.host

    def allows(self, host: str, port: int) -> bool:
        return self.names(host) and (port in DEFAULT_PORTS if self.port is None else port == self.port)

    def __str__(self) -> str:
        host = f"*.{self.host}" if self.is_wildcard else shown_host(self.host)
        return host if self.port is None else f"{host}:{self.port}"


def parse_destination(text: str) -> Destination:
    """Reads a declared destination.

    Raises:
        ValueError: What was expected instead.
    """
    try:
        authority = text.removeprefix("*.")
        host, port = parse_authority(authority)
    except ValueError as error:
        raise ValueError(
            f"expected a host such as 'api.example.com', '*.example.com' or 'example.com:8443': {error}"
        ) from None
    is_wildcard = authority != text
    if is_wildcard and (is_address(host) or "." not in host):
        raise ValueError("expected at least two labels after '*.', as in '*.example.com'")
    return Destination(host, port, is_wildcard)


def parse_authority(text: str) -> tuple[str, int | None]:
    """Splits `host`, `host:port`, `[IPv6]` or `[IPv6]:port`; the host comes back in normal form.

    Raises:
        ValueError: It is none of these.
    """
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or ":" not in host or (rest and not rest.startswith(":")):
            raise ValueError(f"{text!r} is not an IPv6 address in brackets")
        port = rest[1:] if rest else None
    else:
        host, colon, after = text.partition(":")
        port = after if colon else None
    return normal_host(host), None if port is None else parse_port(port)


def parse_port(text: str) -> int:
    """Raises `ValueError` when it is none from 1 to 65535."""
    if not _PORT.fullmatch(text) or not 1 <= int(text) <= 65535:
        raise ValueError(f"port {text!r} is none from 1 to 65535")
    return int(text)


def normal_host(text: str) -> str:
    """The one form in which a host is compared.

    Raises:
        ValueError: Not a name, nor an address in its usual notation.
    """
    if len(text) > 4 * MAX_HOST:  # What comes after may take long for long texts.
        raise ValueError(f"a text of {len(text)} characters is not a host name")
    if ":" in text:
        return _normal_ipv6(text)
    name = text
    if not name.isascii():
        try:
            name = idna.encode(name, uts46=True).decode()
        except UnicodeError as error:  # Also idna's own.
            raise ValueError(f"{text!r} is not a host name: {error}") from None
    name = name.lower().removesuffix(".")
    labels = name.split(".")
    # A resolver would take it for an address. Source: WHATWG URL, "ends in a number".
    if _NUMBER.fullmatch(labels[-1]):
        try:
            return str(ipaddress.IPv4Address(name))
        except ValueError:
            raise ValueError(f"{text!r} is not an IPv4 address of four decimal numbers") from None
    if len(name) > MAX_HOST or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError(f"{text[:MAX_HOST]!r} is not a host name")
    return name


def is_address(host: str) -> bool:
    """Whether a host in normal form is an address."""
    return ":" in host or host.rpartition(".")[2].isdigit()


def shown_host(host: str) -> str:
    """With the brackets that an IPv6 address needs beside a port."""
    return f"[{host}]" if ":" in host else host


def _normal_ipv6(text: str) -> str:
    try:
        address = ipaddress.IPv6Address(text)
    except ValueError:
        raise ValueError(f"{text!r} is not an IPv6 address") from None
    if address.scope_id is not None:
        raise ValueError(f"{text!r} has a scope: expected an address that is the same everywhere")
    if address.ipv4_mapped is not None:
        raise ValueError(f"{text!r} is an IPv4 address: expected {str(address.ipv4_mapped)!r}")
    return str(address)
