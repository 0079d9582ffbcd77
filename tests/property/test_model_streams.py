"""Streams of models: however bytes and chunks are cut, the same answer comes out."""

from __future__ import annotations

import itertools
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from flow_platform.gateway.assembly import Assembly, chunk_of
from flow_platform.gateway.sse import SseEvent, SseParser

LINE = st.text(st.characters(exclude_characters="\r\n\0", exclude_categories=["Cs"]), max_size=12)
ENDS = st.sampled_from(["\n", "\r", "\r\n"])


@st.composite
def cut(draw: st.DrawFn, data: bytes) -> list[bytes]:
    places = sorted(draw(st.lists(st.integers(0, len(data)), max_size=12)))
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]


@given(
    st.lists(st.tuples(st.lists(LINE, min_size=1, max_size=3), st.sampled_from(["", "ping", "done"])), max_size=4),
    st.lists(LINE, max_size=2),
    st.lists(ENDS, min_size=1, max_size=5),
    st.booleans(),
    st.data(),
)
def test_events_are_the_same_however_the_bytes_are_cut(
    events: list[tuple[list[str], str]], comments: list[str], ends: list[str], has_bom: bool, data: st.DataObject
) -> None:
    text = "\ufeff" if has_bom else ""
    next_end = itertools.cycle(ends)
    for lines, name in events:
        rows = [f":{comment}" for comment in comments] + ["retry: 5", "id: 1"]
        rows += [f"event: {name}"] if name else []
        rows += [f"data: {line}" for line in lines]
        for row in [*rows, ""]:
            end = next(next_end)
            # After a CR, an LF would not end an empty line, but belong to the CR.
            text += row + ("\r\n" if end == "\n" and not row and text.endswith("\r") else end)
    parser = SseParser()

    found = [event for piece in data.draw(cut(text.encode())) for event in parser.feed(piece)]

    assert found == [SseEvent("\n".join(lines), name or "message") for lines, name in events]


@given(st.binary(max_size=200), st.data())
def test_any_bytes_give_the_same_events_in_one_piece_and_in_many(raw: bytes, data: st.DataObject) -> None:
    whole, parser = SseParser().feed(raw), SseParser()

    assert [event for piece in data.draw(cut(raw)) for event in parser.feed(piece)] == whole


NAMES = st.text("abc", min_size=1, max_size=4)
CALLS = st.builds(
    lambda number, name, arguments: {
        "id": f"call_{number}",
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    },
    st.integers(0, 99),
    NAMES,
    st.dictionaries(NAMES, st.integers() | st.text(max_size=5), max_size=3).map(json.dumps),
)
MESSAGES = st.fixed_dictionaries(
    {"role": st.just("assistant"), "content": st.none() | st.text(min_size=1, max_size=20)},
    optional={
        "tool_calls": st.lists(CALLS, min_size=1, max_size=3),
        "refusal": st.text(min_size=1, max_size=5),
        "reasoning_content": st.text(min_size=1, max_size=8),
    },
)
REASONS = st.sampled_from(["stop", "length", "tool_calls"])


@st.composite
def answers(draw: st.DrawFn) -> dict[str, Any]:
    choices = [
        {"index": index, "message": message, "finish_reason": draw(REASONS)}
        for index, message in enumerate(draw(st.lists(MESSAGES, min_size=1, max_size=2)))
    ]
    head = {"id": "x", "object": "chat.completion", "created": 1, "model": "m"}
    return {**head, "choices": choices, "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}}


@st.composite
def pieces(draw: st.DrawFn, answer: dict[str, Any]) -> list[dict[str, Any]]:
    """Chunks as providers send them: texts and arguments in parts, choices and calls in between one another."""
    head = {name: value for name, value in answer.items() if name not in ("choices", "usage", "object")}
    per_choice: list[list[dict[str, Any]]] = []
    for choice in answer["choices"]:
        message = choice["message"]
        deltas: list[dict[str, Any]] = [{"role": "assistant"}]
        for name in ("reasoning_content", "content", "refusal"):
            deltas += [{name: part} for part in draw(parts(message.get(name) or ""))]
        for index, call in enumerate(message.get("tool_calls", [])):
            function = {"name": call["function"]["name"], "arguments": ""}
            deltas.append({"tool_calls": [{**call, "index": index, "function": function}]})
            deltas += [
                {"tool_calls": [{"index": index, "function": {"arguments": part}}]}
                for part in draw(parts(call["function"]["arguments"]))
            ]
        ends = {"index": choice["index"], "delta": {}, "finish_reason": choice["finish_reason"]}
        per_choice.append([{"index": choice["index"], "delta": d, "finish_reason": None} for d in deltas] + [ends])
    chunks: list[dict[str, Any]] = []
    while any(per_choice):
        queue = draw(st.sampled_from([queue for queue in per_choice if queue]))
        chunks.append({**head, "choices": [queue.pop(0)]})
    return [*chunks, {**head, "choices": [], "usage": answer["usage"]}]


@st.composite
def parts(draw: st.DrawFn, text: str) -> list[str]:
    places = sorted(draw(st.lists(st.integers(0, len(text)), max_size=4)))
    return [part for a, b in zip([0, *places], [*places, len(text)], strict=True) if (part := text[a:b])]


@given(answers(), st.data())
def test_chunks_put_together_are_the_answer(answer: dict[str, Any], data: st.DataObject) -> None:
    assembly = Assembly()
    for chunk in data.draw(pieces(answer)):
        assembly.add(chunk)

    assert assembly.completion() == answer
    assert assembly.is_finished


@given(answers())
def test_an_answer_in_one_chunk_is_the_same_answer(answer: dict[str, Any]) -> None:
    assembly = Assembly()
    assembly.add(chunk_of(answer))
    assembly.add({"choices": [], "usage": answer["usage"]})

    assert assembly.completion() == answer
