"""What an agent is asked: variables, inputs, and where its limits end it."""

from __future__ import annotations

from typing import Any

import pytest

from flow_sdk.agents.limits import Spent
from flow_sdk.agents.prompt import question_of, render, variables_of
from flow_sdk.agents.stream import MAX_SHOWN_CHARACTERS, Stream
from flow_sdk.harness.failure import Refused
from flow_sdk.wire.agent import AgentLimits

PROMPT = 'For {name}, who likes {likes}. Answer {{"a": 1}} or { } or {0}. {name} {state}'


def test_variables_are_filled_from_the_input_and_all_other_braces_stay() -> None:
    assert variables_of(PROMPT) == ["name", "likes"]
    filled = render(PROMPT, {"name": "Ada", "likes": ["tea", 1]}, {"n": 2})
    assert filled == 'For Ada, who likes ["tea", 1]. Answer {"a": 1} or { } or {0}. Ada {"n": 2}'
    assert render("{{name}}", {"name": "Ada"}, {}) == "{name}"


def test_a_variable_that_the_input_lacks_is_named() -> None:
    with pytest.raises(Refused, match="needs 'likes'") as caught:
        render(PROMPT, {"name": "Ada"}, {})
    assert caught.value.document.details[0]["field"] == "likes"


@pytest.mark.parametrize(
    ("given", "text"),
    [("Hi", "Hi"), ({"prompt": "Hi"}, "Hi"), ({"message": "Hi", "x": 1}, "Hi"), ({"prompt": "a", "message": "b"}, "a")],
)
def test_an_input_is_a_text_or_has_one(given: Any, text: str) -> None:
    assert question_of(given).text == text


@pytest.mark.parametrize("given", [None, 3, [], {}, {"prompt": ""}, {"prompt": 1}, {"text": "Hi"}])
def test_other_inputs_are_refused(given: Any) -> None:
    with pytest.raises(Refused) as caught:
        question_of(given)
    assert caught.value.document.code == "invalid_input"


def test_limits_are_looked_at_before_the_next_call() -> None:
    spent = Spent(AgentLimits(turns=2, tool_calls=1, tokens=100, cost_micro_credits=10))
    assert (spent.begin_turn(), spent.begin_tool_call()) == (1, 1)
    with pytest.raises(Refused, match=r"limits\.tool_calls is 1"):
        spent.begin_tool_call()
    spent.output_tokens, spent.cost_micro_credits = 100, 10
    with pytest.raises(Refused, match="tokens"):
        spent.begin_turn()
    spent.output_tokens = 99
    with pytest.raises(Refused, match="cost_micro_credits"):
        spent.begin_turn()


async def test_chunks_that_come_together_travel_together_and_none_comes_again() -> None:
    seen: list[tuple[str, Any]] = []
    stream = Stream(lambda name, data: seen.append((name, data)))
    stream.begin_turn(1)
    for text in ("a", "b", "c"):
        stream.text(text)
    stream.message("abc")
    stream.begin_turn(2)
    stream.mark_replayed()
    stream.text("known")
    stream.message("k" * (MAX_SHOWN_CHARACTERS + 1))

    assert [(name, data["text"]) for name, data in seen[:3]] == [("chunk", "a"), ("chunk", "bc"), ("message", "abc")]
    assert (seen[3][1]["replayed"], len(seen[3][1]["text"]), len(seen)) == (True, MAX_SHOWN_CHARACTERS + 4, 4)
