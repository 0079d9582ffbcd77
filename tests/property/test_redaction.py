"""Whatever a component prints of its secrets by mistake, and however it is cut into pieces, it is taken out."""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, quote_plus

from hypothesis import given
from hypothesis import strategies as st

from flow_platform.domain.secrets import MIN_VALUE_CHARACTERS
from flow_platform.runner.logs import LogLines
from flow_platform.runner.redaction import MARKER, RedactedStream, Redactor
from flow_platform.sandbox.base import LogChunk

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60)
values = texts.filter(lambda text: len("".join(text.split())) >= MIN_VALUE_CHARACTERS)
plain_values = st.text(st.sampled_from("ABCDabcd0189-_+/=%\"'\\ é€"), min_size=6, max_size=40).filter(
    lambda text: len("".join(text.split())) >= MIN_VALUE_CHARACTERS
)
ENCODINGS = {
    "plain": lambda text: text,
    "json": lambda text: json.dumps(text)[1:-1],
    "json, not only ASCII": lambda text: json.dumps(text, ensure_ascii=False)[1:-1],
    "repr": lambda text: repr(text)[1:-1],
    "hex": lambda text: text.encode().hex(),
    "HEX": lambda text: text.encode().hex().upper(),
    "percent": lambda text: quote(text, safe=""),
    "path": quote,
    "form": quote_plus,
}


@given(values, texts, texts, st.sampled_from(sorted(ENCODINGS)))
def test_a_secret_is_found_in_every_form(value: str, before: str, behind: str, encoding: str) -> None:
    shown = ENCODINGS[encoding](value.strip())
    if len(shown.replace("\n", "").replace("\r", "")) < MIN_VALUE_CHARACTERS:
        return

    redacted = Redactor([value]).text(before + shown + behind)

    assert MARKER in redacted
    assert shown not in redacted.replace(MARKER, "\0")


@given(plain_values, st.binary(max_size=20), st.binary(max_size=20), st.booleans())
def test_a_secret_is_found_inside_of_anything_in_base64(
    value: str, before: bytes, behind: bytes, in_lines: bool
) -> None:
    data = before + value.encode() + behind
    for encoded in (base64.b64encode(data), base64.urlsafe_b64encode(data), base64.encodebytes(data)):
        redacted = Redactor([value]).text(encoded.decode())

        assert MARKER in redacted
        kept = redacted.replace("\n", "").split(MARKER)
        assert value.strip().encode() not in b"\0".join(_decoded(piece) for piece in kept)


def _decoded(piece: str) -> bytes:
    whole = piece.rstrip("=")
    return base64.b64decode(whole[: len(whole) // 4 * 4], altchars=b"-_" if {"-", "_"} & set(whole) else None)


@given(values, st.lists(texts, max_size=6), st.lists(st.integers(0, 200), max_size=12))
def test_a_secret_cut_in_pieces_is_found(value: str, around: list[str], cuts: list[int]) -> None:
    shown = value.strip()
    text = shown.join(["", *around, ""])
    stream = RedactedStream(redactor := Redactor([value]))

    places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    said = [stream.feed(text[start:end]) for start, end in itertools.pairwise(places)]
    whole = "".join([*said, stream.feed("", final=True)])

    assert not redactor.find(whole.replace(MARKER, "\0"))
    assert whole.count(MARKER) >= 1


@given(values, st.lists(texts, max_size=8))
def test_a_text_without_secrets_comes_out_as_it_went_in(value: str, pieces: list[str]) -> None:
    redactor = Redactor([value])
    if redactor.find("".join(pieces)) or redactor.unfinished("".join(pieces)) >= MIN_VALUE_CHARACTERS:
        return
    stream = RedactedStream(redactor)

    assert "".join(map(stream.feed, pieces)) + stream.feed("", final=True) == "".join(pieces)
    assert redactor.value({"a": pieces, "b": 1, "c": None}) == {"a": pieces, "b": 1, "c": None}


@given(plain_values, st.lists(st.integers(1, 12), max_size=30), st.booleans())
def test_log_lines_never_show_a_secret_cut_anywhere(value: str, sizes: list[int], one_line: bool) -> None:
    shown = value.strip()
    broken = shown if one_line else f"{shown[: len(shown) // 2]}\n{shown[len(shown) // 2 :]}"
    data = f"start\nthe key is {broken}!\nend\n".encode()
    lines = LogLines(1 << 20, redactor := Redactor([value]))
    for size in sizes:
        lines.feed(LogChunk("stdout", data[:size]))
        data = data[size:]
    lines.feed(LogChunk("stdout", data))
    lines.finish()

    text = "\n".join(text for _, text in lines.take())
    assert MARKER in text
    assert not redactor.find(text.replace(MARKER, "\0"))
    assert text.startswith("start\n")
    assert text.endswith("!\nend")


@given(st.sampled_from(["ab", "aab", "abc", "a"]), st.integers(6, 60), st.text(st.sampled_from("abc\n"), max_size=120))
def test_repetitive_secrets_are_found_as_the_definition_says(unit: str, length: int, text: str) -> None:
    """The quick way to the longest unfinished end and the linear one agree with the definition."""
    value = (unit * length)[:length]
    redactor = Redactor([value])
    plain = text.replace("\n", "")
    expected = max(
        (count for count in range(min(len(plain), length - 1) + 1) if plain.endswith(value[:count])), default=0
    )

    assert redactor.unfinished(plain) >= expected
    assert all(value not in piece.replace("\n", "") for piece in redactor.text(text).split(MARKER))


@given(plain_values, st.dictionaries(st.text("abc", max_size=3), st.integers() | st.text(max_size=10), max_size=4))
def test_results_are_redacted_and_stay_json(value: str, output: dict[str, object]) -> None:
    redactor = Redactor([value])
    body = {"output": {**output, "list": [value, {value: 1}], "text": f"x{value}y"}, "error": {"message": value[:-1]}}

    redacted = json.loads(redactor.result(json.dumps(body).encode()))

    assert all(value.strip() not in text.replace(MARKER, "\0") for text in _texts_of(redacted))
    assert redacted["output"]["list"] == [
        value.replace(value.strip(), MARKER),
        {value.replace(value.strip(), MARKER): 1},
    ]


def _texts_of(value: Any) -> Iterator[str]:
    match value:
        case str():
            yield value
        case dict():
            for name, item in value.items():
                yield name
                yield from _texts_of(item)
        case list():
            for item in value:
                yield from _texts_of(item)
        case _:
            pass


def test_numbers_are_secrets_too() -> None:
    redactor = Redactor(["12345678"])

    assert redactor.result(b'{"output":{"pin":12345678,"more":[912345678.5,1234,true,null]}}') == (
        b'{"output":{"pin":"[redacted]","more":["[redacted]",1234,true,null]}}'
    )


def test_a_private_key_is_found_line_by_line() -> None:
    key = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSj\nAgEAAoIBAQC7VJTUt9Us8cKj\n-----END"
    redactor = Redactor([key])

    assert redactor.text("line: MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSj.") == "line: [redacted]."
    assert redactor.text(json.dumps({"key": key})) == '{"key": "[redacted]"}'
    assert redactor.text(key.replace("\n", "\r\n")) == "[redacted]"
