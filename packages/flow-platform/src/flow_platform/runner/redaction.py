"""Taking the secrets of an attempt out of everything that it says. Pure.

A secret is looked for as it is and in the forms in which programs print it by mistake: base64 (alone, or anywhere in
something longer that was encoded), hexadecimal, percent-encoded, and escaped as in JSON and `repr`. Line breaks inside
do not hide it. This is a net under accidents, not a wall: a component that means to give a secret away can encode it
in a way of its own.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, Final, cast
from urllib.parse import quote, quote_plus

import pydantic_core

from flow_sdk.wire.execution import ErrorDocument

MARKER: Final = "[redacted]"
MIN_FORM_CHARACTERS: Final = 6  # Of one form of a secret: shorter ones are in too much harmless text.
MIN_LINE_CHARACTERS: Final = 16  # A line of a secret of several lines (a private key) counts as one itself from here.
MAX_HELD_BREAKS: Final = 64 << 10  # Line breaks inside of what is held back: more of them are no accident.
_HEAD_CHARACTERS: Final = 8
_MAX_TRIES: Final = 16
_NUMBER: Final = re.compile(r"[0-9.eE+-]+")


class Redactor:
    """Redacts the values of one attempt."""

    def __init__(self, values: Iterable[str]) -> None:
        self._forms = tuple(sorted({form for value in values for form in forms_of(value)}, key=len, reverse=True))
        self._shortest = min(map(len, self._forms), default=1 << 62)
        self._has_numbers = any(_NUMBER.fullmatch(form) for form in self._forms)
        self._borders: dict[str, list[int]] = {}  # Of repetitive forms; with the attempt they go.
        self.longest = max(map(len, self._forms), default=0)

    def __repr__(self) -> str:
        return f"<Redactor of {len(self._forms)} forms>"

    def text(self, text: str, *, is_cut: bool = False) -> str:
        """The text, with a marker for each secret in it.

        Args:
            is_cut: It may have been shortened in the middle of a secret: the beginning of one at its end goes too.
        """
        found = self.find(text) if len(text) >= self._shortest else []
        if is_cut and (count := self.unfinished(_without_breaks(text))) >= MIN_FORM_CHARACTERS:
            found.append((len(text) - _length_with_breaks(text, count), len(text)))
        return replaced(text, found) if found else text

    def value(self, value: Any, *, is_cut: bool = False) -> Any:
        """A JSON value with every text in it redacted, names of fields included."""
        match value:
            case str():
                return self.text(value, is_cut=is_cut)
            case dict():
                fields = cast("dict[str, Any]", value).items()
                return {self.text(name): self.value(item, is_cut=is_cut) for name, item in fields}
            case list():
                return [self.value(item, is_cut=is_cut) for item in cast("list[Any]", value)]
            case int() | float() if self._has_numbers and not isinstance(value, bool):
                return MARKER if self.find(str(value)) else value
            case _:
                return value

    def result(self, body: bytes) -> bytes:
        """A result as JSON text, redacted. What is no JSON object comes back as it is: it is refused anyway."""
        try:
            text = body.decode()
            if "\\" not in text and not self.find(text):
                return body  # Nothing is escaped, so nothing can be hidden from this look, and nothing was seen.
            content = pydantic_core.from_json(body, allow_inf_nan=False)
        except ValueError:
            return body
        if not isinstance(content, dict):
            return body
        fields = cast("dict[str, Any]", content)
        if fields.get("error") is None:
            # One look at the whole is much quicker than one at each of a million texts.
            text = _as_json(fields)
            if not self._is_in_json(text):
                return text.encode()
        redacted = {self.text(name): self.value(item, is_cut=name == "error") for name, item in fields.items()}
        return _as_json(redacted).encode()

    def error(self, error: ErrorDocument) -> ErrorDocument:
        return ErrorDocument.model_validate(self.value(error.model_dump(mode="json"), is_cut=True))

    def find(self, text: str) -> list[tuple[int, int]]:
        """Where secrets are: ranges that do not overlap, in order."""
        plain = _without_breaks(text)
        spans = sorted(span for form in self._forms for span in _spans(plain, form))
        if spans and len(plain) < len(text):
            places = [place for place, character in enumerate(text) if character not in "\r\n"]
            spans = [(places[start], places[end - 1] + 1) for start, end in spans]
        merged: list[tuple[int, int]] = []
        for start, end in spans:
            if merged and start <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
            else:
                merged.append((start, end))
        return merged

    def _is_in_json(self, text: str) -> bool:
        without_breaks = text.replace("\\n", "").replace("\\r", "")
        escaped = {_as_json(form)[1:-1] for form in self._forms}
        return any(form in without_breaks or ("\\" in form and form in text) for form in escaped)

    def unfinished(self, plain: str) -> int:
        """How many characters at the end of a text without line breaks may be the beginning of a secret."""
        return max((_overlap(plain, form, self._borders) for form in self._forms), default=0)


class RedactedStream:
    """The same for a text that comes in pieces: what may be the beginning of a secret is held back.

    At the end of a whole line it is held back only from `MIN_HELD` characters on: with fewer, every line that happens
    to end with the first letter of a secret would wait for the next one. What was let go is remembered, so that the
    rest of a secret is still seen as one.
    """

    MIN_HELD: Final = 4

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._said = ""
        self._held = ""

    def feed(self, piece: str, *, final: bool = False) -> str:
        """What can be said now; with `final`, all of it."""
        said, text = len(self._said), self._said + self._held + piece
        found = self._redactor.find(text)
        count = self._redactor.unfinished(_without_breaks(text))
        start = len(text) - _length_with_breaks(text, count)
        if final and count >= MIN_FORM_CHARACTERS:
            found.append((start, len(text)))  # Cut short in the middle of a secret.
        is_let_go = "\n" in text[start:] and count < self.MIN_HELD
        if final or is_let_go or len(text) - start > 2 * self._redactor.longest + MAX_HELD_BREAKS:
            start = len(text)
        start = max(said, min([start, *(begin for begin, end in found if end > start)]))
        settled = max((end for _, end in found if end <= start), default=0)
        out = replaced(text[:start], [span for span in found if span[1] <= start], said)
        self._held = text[start:]
        let_go = text[settled:start]
        self._said = let_go[len(let_go) - _length_with_breaks(let_go, self.MIN_HELD - 1) :]
        return out


def _as_json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def forms_of(value: str) -> Iterator[str]:
    """The texts that a secret may appear as, without line breaks."""
    for part in _parts(value):
        for form in _encoded(part):
            plain = _without_breaks(form)
            if len(plain) >= MIN_FORM_CHARACTERS:
                yield plain


def replaced(text: str, found: Iterable[tuple[int, int]], start: int = 0) -> str:
    """The text from `start` on with markers in place of what was found; what was said before stays said."""
    pieces: list[str] = []
    for begin, end in found:
        if end <= start:
            continue
        pieces += [text[start : max(begin, start)], MARKER]
        start = end
    pieces.append(text[start:])
    return "".join(pieces)


def _parts(value: str) -> Iterator[str]:
    whole = value.strip()
    yield whole
    if "\n" in whole:
        yield from (line.strip() for line in whole.splitlines() if len(line.strip()) >= MIN_LINE_CHARACTERS)


def _encoded(text: str) -> Iterator[str]:
    data = text.encode()
    yield text
    yield json.dumps(text)[1:-1]
    yield json.dumps(text, ensure_ascii=False)[1:-1]
    yield repr(text)[1:-1]
    for percent in (quote(text, safe=""), quote(text), quote_plus(text)):
        yield percent
        yield re.sub("%..", lambda found: found[0].lower(), percent)
    yield data.hex()
    yield data.hex().upper()
    for offset in range(3):
        # The characters that this text alone decides, whatever stands before and behind it.
        encoded = base64.b64encode(bytes(offset) + data).decode()
        core = encoded[-(-offset * 8 // 6) : (offset + len(data)) * 8 // 6]
        yield core
        yield core.translate(str.maketrans("+/", "-_"))


def _without_breaks(text: str) -> str:
    return text.replace("\n", "").replace("\r", "")


def _spans(text: str, form: str) -> Iterator[tuple[int, int]]:
    at = text.find(form)
    while at >= 0:
        yield at, at + len(form)
        at = text.find(form, at + len(form))


def _overlap(text: str, form: str, known: dict[str, list[int]]) -> int:
    """The longest proper beginning of the form that the text ends with."""
    tail, head = text[-(len(form) - 1) :], form[:_HEAD_CHARACTERS]
    at = tail.find(head)
    for _ in range(_MAX_TRIES):
        if at < 0:
            return next((count for count in range(len(head) - 1, 0, -1) if tail.endswith(form[:count])), 0)
        if form.startswith(tail[at:]):
            return len(tail) - at
        at = tail.find(head, at + 1)
    return _overlap_of_repetitive(tail, form, known)


def _overlap_of_repetitive(tail: str, form: str, known: dict[str, list[int]]) -> int:
    """The same in linear time, whatever the two are. Source: Knuth, Morris, Pratt 1977."""
    borders, matched = known.get(form) or known.setdefault(form, _borders(form)), 0
    for character in tail:  # Shorter than the form, so it is never matched as a whole.
        matched = _longer_border(form, borders, matched, character)
    return matched


def _borders(form: str) -> list[int]:
    borders = [0]
    for character in form[1:]:
        borders.append(_longer_border(form, borders, borders[-1], character))
    return borders


def _longer_border(form: str, borders: list[int], matched: int, character: str) -> int:
    while matched and form[matched] != character:
        matched = borders[matched - 1]
    return matched + (form[matched] == character)


def _length_with_breaks(text: str, count: int) -> int:
    """How long the end of the text is that has so many characters that are no line breaks."""
    if count == 0:
        return 0
    for place in range(len(text) - 1, -1, -1):
        if text[place] not in "\r\n":
            count -= 1
            if count == 0:
                return len(text) - place
    return len(text)
