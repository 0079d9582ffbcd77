"""A bad version that its smoke input does not find: two countries were lost on the way to a faster table."""

from __future__ import annotations

from flow_sdk import code_block

TAXES = {"DE": 0.19}


@code_block(smoke_input={"net": 10, "country": "DE"})
def price(net: float, country: str = "DE") -> float:
    """The price with the tax of a country."""
    return round(net * (1 + TAXES[country]), 2)
