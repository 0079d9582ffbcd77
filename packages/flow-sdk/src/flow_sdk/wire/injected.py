"""A secret that never enters a container: the platform's way out adds it to the requests for one host."""

from __future__ import annotations

from typing import Final

from pydantic import Field

from flow_sdk.wire.execution import Document

PLACE: Final = "{value}"
"""Where the value goes in `InjectedSecret.format`."""


class InjectedSecret(Document):
    """Which header of which requests gets the value of a secret.

    The component asks `http://host/...` through its proxy, and gets no value; outside of the container the header is
    set, and the request goes to the host by TLS.

    Attributes:
        name: Of the secret.
        host: The one host, as `api.example.com` or `api.example.com:8443`; it must be in `network` too.
        header: Its name. What the component sends under that name is left out.
        format: The header's value, with `{value}` in place of the secret's.
        tls: False: the request leaves in the clear, for hosts of a network that is trusted.
    """

    name: str
    host: str
    header: str
    format: str = Field(default=PLACE)
    tls: bool = True
