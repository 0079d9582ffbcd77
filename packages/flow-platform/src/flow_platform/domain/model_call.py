"""One call of a language model: what it used, and what that costs by a price table.

A price is in credits per million tokens, which is the same number in micro-credits per token. Costs are whole
micro-credits, rounded up once per call: a call that used something never costs nothing by rounding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import ROUND_CEILING, Decimal
from typing import Final, Literal

CHARACTERS_PER_TOKEN: Final = 4
"""For an estimate, where a provider tells no usage. Source: the rule of thumb of the providers' own manuals."""


@dataclass(frozen=True)
class TokenUsage:
    """Tokens of one call. `cached` are those of `prompt` that the provider had cached."""

    prompt: int = 0
    completion: int = 0
    cached: int = 0
    is_estimated: bool = False

    @property
    def total(self) -> int:
        return self.prompt + self.completion


@dataclass(frozen=True)
class Price:
    """Micro-credits per token. Cached tokens cost what others do when there is no price for them."""

    prompt: Decimal
    completion: Decimal
    cached: Decimal | None = None

    def cost(self, usage: TokenUsage) -> int:
        cached = min(usage.cached, usage.prompt)
        of_cached = self.prompt if self.cached is None else self.cached
        exact = (usage.prompt - cached) * self.prompt + cached * of_cached + usage.completion * self.completion
        return int(exact.to_integral_value(ROUND_CEILING))


@dataclass(frozen=True)
class PriceTable:
    """Prices by `provider/model`; a name that ends in `*` is for all that begin like it, the longest one wins."""

    version: str = "none"
    prices: Mapping[str, Price] = field(default_factory=dict[str, Price])

    def find(self, model: str) -> Price | None:
        exact = self.prices.get(model)
        if exact is not None:
            return exact
        fitting = [name for name in self.prices if name.endswith("*") and model.startswith(name[:-1])]
        return self.prices[max(fitting, key=len)] if fitting else None

    def cost(self, model: str, usage: TokenUsage) -> tuple[int, str | None]:
        """Micro-credits, and the version of the table; 0 and None for a model that has no price."""
        price = self.find(model)
        return (0, None) if price is None else (price.cost(usage), self.version)


@dataclass(frozen=True)
class ModelCall:
    """The record of one call, made when it ended, however it did.

    Attributes:
        execution_id: Who called; None for a person or a program outside.
        billing_transaction_id: What it is billed to; for an execution its own transaction.
        model: Without its provider. With `provider` the one that answered, or was tried last.
        price_version: None: the table had no price for the model, and the cost is 0 for that reason.
        latency_ms: From the gateway's first look to the end, retries and pauses included.
        first_token_ms: To the first chunk; None when none came, or it was not streamed.
        attempts: Requests to providers, over all models of the chain.
        error_code: None: it was answered in whole.
    """

    id: str
    org_id: str
    workspace_id: str
    kind: Literal["chat", "embedding"]
    provider: str
    model: str
    created_at: datetime
    execution_id: str | None = None
    billing_transaction_id: str | None = None
    usage: TokenUsage = TokenUsage()
    cost_micro_credits: int = 0
    price_version: str | None = None
    latency_ms: float = 0.0
    first_token_ms: float | None = None
    attempts: int = 0
    is_streamed: bool = False
    error_code: str | None = None
