"""What a run has used, and where that ends. One per attempt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from flow_sdk.harness.failure import Refused
from flow_sdk.wire.agent import AgentLimits


@dataclass
class Spent:
    """Counts over an attempt. What was given again counts too: a resumed run ends where the first would have."""

    limits: AgentLimits
    turns: int = 0
    tool_calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cost_micro_credits: int = 0

    def begin_turn(self) -> int:
        """The number of the model call that is about to be made, from 1.

        Raises:
            Refused: `turn_limit`, `token_limit` or `cost_limit`.
        """
        limits = self.limits
        if self.turns >= limits.turns:
            raise refused("turn_limit", "turns", limits.turns, self.turns)
        if self.total_tokens >= limits.tokens:
            raise refused("token_limit", "tokens", limits.tokens, self.total_tokens)
        most = limits.cost_micro_credits
        if most is not None and self.cost_micro_credits >= most:
            raise refused("cost_limit", "cost_micro_credits", most, self.cost_micro_credits)
        self.turns += 1
        return self.turns

    def begin_tool_call(self) -> int:
        """The number of the tool call that is about to be made, from 1.

        Raises:
            Refused: `tool_call_limit`.
        """
        if self.tool_calls >= self.limits.tool_calls:
            raise refused("tool_call_limit", "tool_calls", self.limits.tool_calls, self.tool_calls)
        self.tool_calls += 1
        return self.tool_calls

    @property
    def total_tokens(self) -> int:
        return self.input_tokens + self.output_tokens

    def document(self) -> dict[str, Any]:
        """`usage` of the result."""
        return {
            "requests": self.turns,
            "tool_calls": self.tool_calls,
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "cached_tokens": self.cached_tokens,
            "total_tokens": self.total_tokens,
            "cost_micro_credits": self.cost_micro_credits,
        }


def refused(code: str, name: str, limit: int, used: int) -> Refused:
    message = f"the agent used {used} {name} and did not end: limits.{name} is {limit}"
    return Refused(code, message, [{"field": f"limits.{name}", "message": message}])
