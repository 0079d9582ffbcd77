"""The answer of an agent: text, or a value that fits a JSON Schema. One that does not fit is asked for again."""

from __future__ import annotations

from typing import Any, Final

from pydantic_ai import ModelRetry, StructuredDict, ToolOutput
from pydantic_ai.exceptions import UserError

from flow_sdk.agents.json_schema import ANSWER, is_object, problem_with, wrapped

ANSWER_TOOL: Final = "final_result"
"""How the model gives a structured answer. No other tool has this name."""


class Answer:
    """What is expected of one run.

    Attributes:
        problem: What was wrong with the last answer that did not fit.
        shown_schema: What the model is shown in the place of what pydantic-ai makes of `type`; None: just that.
    """

    def __init__(self, schema: dict[str, Any] | None) -> None:
        self._schema = schema
        self._is_wrapped = schema is not None and not is_object(schema)
        self.problem: str | None = None
        self.shown_schema: dict[str, Any] | None = None

    @property
    def is_structured(self) -> bool:
        return self._schema is not None

    def type(self) -> Any:
        """As pydantic-ai takes it."""
        if self._schema is None:
            return str
        schema = wrapped(self._schema, ANSWER) if self._is_wrapped else self._schema
        try:
            made = StructuredDict(schema, name=ANSWER_TOOL)
        except UserError:  # It replaces references by what they refer to, which has no end in a schema that recurs.
            self.shown_schema = schema
            made = StructuredDict({"type": "object"}, name=ANSWER_TOOL)
        return ToolOutput(made, name=ANSWER_TOOL, description="Give the answer, and end.")

    async def check(self, given: Any) -> Any:
        """The answer as it is; what does not fit is asked for again.

        A coroutine, as pydantic-ai calls functions in threads, and a container with a thread is not given back.
        """
        if self._schema is None:
            return given
        value = given.get(ANSWER) if self._is_wrapped else given
        self.problem = problem_with(self._schema, value, ANSWER)
        if self.problem is not None:
            raise ModelRetry(f"The answer does not fit the schema: {self.problem}")
        return given

    def unwrapped(self, given: Any) -> Any:
        return given.get(ANSWER) if self._is_wrapped else given
