"""The first version: prices with tax."""

from __future__ import annotations

from flow_sdk import code_block


@code_block(smoke_input={"net": 10, "country": "DE"})
def price(net: float, country: str = "DE") -> float:
    """The price with the tax of a country."""
    taxes = {"DE": 0.19, "FR": 0.20, "IT": 0.22}
    return round(net * (1 + taxes[country]), 2)
