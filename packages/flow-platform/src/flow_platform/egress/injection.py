"""A credential that is added outside of the container, which never sees it.

The port between secrets and the way out: whoever has the value of a secret makes an `Injection` of it and hands it to
the attempt's way out (`runner/network.py`). It is set on http:// requests, which then go to the host by TLS: the broker
is the TLS client, and checks the host's certificate. What is in a TLS tunnel of the component's own is between it and
its host: adding a header there would take interception, which this does not do.
"""

from __future__ import annotations

import functools
import ssl
from dataclasses import dataclass, field
from typing import Final

from flow_platform.domain.destination import Destination

_HTTP: Final = 80
_HTTPS: Final = 443


@dataclass(frozen=True)
class Injection:
    """One header for one host.

    Attributes:
        host: The requests that get it; they must be allowed anyhow.
        header: Its name. A header of that name that the container sends is left out.
        value: All of it, e.g. `Bearer ...`.
        tls: Whether the request goes on by TLS; to port 443, unless the host names another.
    """

    host: Destination
    header: str
    value: str = field(repr=False)
    tls: bool = True

    @property
    def port(self) -> int:
        """Where the request goes to."""
        return self.host.port or (_HTTPS if self.tls else _HTTP)

    def is_for(self, host: str, port: int) -> bool:
        """Whether an http:// request for that host and port gets the header; http://host/ means its one port."""
        return self.host.names(host) and port in (self.port, _HTTP)


@functools.cache
def trusted() -> ssl.SSLContext:
    """Believes the certificate authorities that this machine trusts. Made at the first need: it takes some 20 ms."""
    return ssl.create_default_context()
