"""What an agent is asked: its prompt with the input's fields in it, and the user's message. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from flow_sdk.harness.failure import Refused

MESSAGE_FIELDS: Final = ("prompt", "message")
STATE: Final = "state"
_VARIABLE: Final = re.compile(r"\{\{|\}\}|\{([A-Za-z_][A-Za-z0-9_]*)\}")


@dataclass(frozen=True)
class Question:
    """`text` is the user's message; `fields` the rest of the input, for the prompt."""

    text: str
    fields: Mapping[str, Any]


def variables_of(prompt: str) -> list[str]:
    """Names that the prompt takes from the input, in their order, `state` left out: that is the agent's own."""
    found = (match[1] for match in _VARIABLE.finditer(prompt))
    return list(dict.fromkeys(name for name in found if name and name != STATE))


def question_of(input_data: Any) -> Question:
    """Reads an input: a text, or an object with `prompt` (or `message`) and variables.

    Raises:
        Refused: `invalid_input`.
    """
    if isinstance(input_data, str):
        return Question(input_data, {})
    expected = "expected a text, or an object with 'prompt' or 'message'"
    if not isinstance(input_data, Mapping):
        raise _refused("input", f"the input is {input_data!r:.200}: {expected}")
    fields = cast("Mapping[str, Any]", input_data)
    name = next((name for name in MESSAGE_FIELDS if fields.get(name) is not None), None)
    if name is None:
        raise _refused("prompt", f"the input has the fields {sorted(fields)!r:.200}: {expected}")
    text = fields[name]
    if not isinstance(text, str) or not text.strip():
        raise _refused(name, f"{name} is {text!r:.200}: expected a text")
    return Question(text, fields)


def render(prompt: str, fields: Mapping[str, Any], state: Mapping[str, Any]) -> str:
    """The prompt with its variables filled in; `{{` and `}}` stand for braces.

    Raises:
        Refused: `invalid_input`, when the input lacks one.
    """

    def fill(match: re.Match[str]) -> str:
        if match[1] is None:
            return match[0][0]
        if match[1] == STATE:
            return _text(state)
        if match[1] not in fields:
            raise _refused(match[1], f"the prompt needs {match[1]!r}: expected that field in the input")
        return _text(fields[match[1]])

    return _VARIABLE.sub(fill, prompt)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _refused(field: str, message: str) -> Refused:
    return Refused("invalid_input", message, [{"field": field, "message": message}])
