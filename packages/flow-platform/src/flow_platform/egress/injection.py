"""A credential that is added outside of the container, which never sees it.

The port between secrets and the way out: whoever has the value of a secret makes an `Injection` of it and hands it to
the attempt's way out (`runner/network.py`). It is set on plain http:// requests. What is in a TLS tunnel is between the
component and its host: adding a header there would take interception, which this does not do.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from flow_platform.domain.destination import Destination


@dataclass(frozen=True)
class Injection:
    """One header for one destination.

    Attributes:
        host: The requests that get it; they must be allowed anyhow.
        header: Its name. A header of that name that the container sends is left out.
        value: All of it, e.g. `Bearer ...`.
    """

    host: Destination
    header: str
    value: str = field(repr=False)
