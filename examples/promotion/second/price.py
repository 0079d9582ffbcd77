"""A bad version that its smoke input finds: nothing is there under the new names yet."""

from __future__ import annotations

from flow_sdk import code_block


@code_block(smoke_input={"net": 10, "country": "DE"})
def price(net: float, country: str = "DE") -> float:
    """The price with the tax of a country."""
    taxes = {"Germany": 0.19, "France": 0.20, "Italy": 0.22}
    return round(net * (1 + taxes[country]), 2)
