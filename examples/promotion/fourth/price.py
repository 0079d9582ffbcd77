"""A good version again: one more country."""

from __future__ import annotations

from flow_sdk import code_block

TAXES = {"DE": 0.19, "ES": 0.21, "FR": 0.20, "IT": 0.22}


@code_block(smoke_input={"net": 10, "country": "ES"})
def price(net: float, country: str = "DE") -> float:
    """The price with the tax of a country."""
    return round(net * (1 + TAXES[country]), 2)
