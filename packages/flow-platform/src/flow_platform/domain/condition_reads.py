"""What a condition reads, told from its text alone: so that an edge waits for these nodes and sees nothing else.

A path is followed as far as it is written out: `outputs.a.items.size() > 0` reads `outputs` at `("a", "items")`.
What is not written out (`outputs[inputs.which]`, `"a" in errors`) reads everything below that point. The answer may
name too much, never too little.

Source: the CEL specification, "Syntax" (lexis of strings, identifiers, comments).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

VARIABLES: Final = ("inputs", "outputs", "errors")
MACROS: Final = frozenset({"all", "exists", "exists_one", "filter", "map"})

Path = tuple[str, ...]

_TOKEN: Final = re.compile(
    r"""
      (?P<space>\s+ | //[^\n]*)
    | (?P<raw>[bB]?[rR] (?:""\".*?""\" | \'''.*?\''' | "[^"\n]*" | '[^'\n]*'))
    | (?P<string>[bB]?
        (?:""\"(?:\\.|[^\\])*?""\" | \'''(?:\\.|[^\\])*?\''' | "(?:\\.|[^"\\\n])*" | '(?:\\.|[^'\\\n])*'))
    | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
    | (?P<number>\.?[0-9](?:[0-9A-Za-z_.]|(?<=[eE])[+-])*)
    | (?P<sign>.)
    """,
    re.VERBOSE | re.DOTALL,
)
_PLAIN_STRING: Final = re.compile(r"""(["'])([^"'\\\n]*)\1""")
_OPERAND_ENDS: Final = frozenset({"]", ")", "}"})


@dataclass(frozen=True)
class Token:
    """`kind` is `string`, `name`, `number` or `sign`."""

    kind: str
    text: str


@dataclass(frozen=True)
class Reads:
    """What an expression reads, and what of it can multiply work.

    Attributes:
        paths: Per variable, the paths below it; the empty path is the whole variable.
        macros: Calls that repeat an expression over a list or map.
        additions: `+` signs: what makes longer strings and lists.
    """

    paths: dict[str, frozenset[Path]]
    macros: int
    additions: int

    def nodes(self) -> frozenset[str] | None:
        """The nodes whose output or error is read; None when it is not written out which."""
        paths = self.paths.get("outputs", frozenset()) | self.paths.get("errors", frozenset())
        return None if () in paths else frozenset(path[0] for path in paths)

    @property
    def is_constant(self) -> bool:
        return not self.paths


def read(text: str) -> Reads:
    """Tells what an expression reads. It need not be valid."""
    tokens = list(tokenize(text))
    paths: dict[str, set[Path]] = {}
    for index, token in enumerate(tokens):
        if token.kind == "name" and token.text in VARIABLES and not _is_member(tokens, index):
            paths.setdefault(token.text, set()).add(_path(tokens, index + 1))
    macros = sum(
        token.text in MACROS and _is_member(tokens, index) and _text(tokens, index + 1) == "("
        for index, token in enumerate(tokens)
    )
    return Reads(
        paths={name: frozenset(found) for name, found in paths.items()},
        macros=macros,
        additions=sum(token == Token("sign", "+") for token in tokens),
    )


def project(value: Any, paths: frozenset[Path]) -> Any:
    """The part of a JSON value at and below the paths; maps on the way keep only the keys that are read."""
    if () in paths or not isinstance(value, dict):
        return value
    below: dict[str, set[Path]] = {}
    for first, *rest in paths:
        below.setdefault(first, set()).add(tuple(rest))
    members: dict[str, Any] = value  # pyright: ignore[reportUnknownVariableType] - JSON: keys are strings.
    return {name: project(members[name], frozenset(rest)) for name, rest in below.items() if name in members}


def tokenize(text: str) -> Iterator[Token]:
    """The tokens of an expression, without spaces and comments."""
    for match in _TOKEN.finditer(text):
        kind = match.lastgroup or "sign"
        if kind != "space":
            yield Token("string" if kind == "raw" else kind, match.group())


def _is_member(tokens: Sequence[Token], index: int) -> bool:
    """Whether the name follows `x.`, instead of standing for itself (`.x` does, too)."""
    if _text(tokens, index - 1) != "." or index < 2:
        return False
    owner = tokens[index - 2]
    return owner.kind != "sign" or owner.text in _OPERAND_ENDS


def _path(tokens: Sequence[Token], index: int) -> Path:
    path: list[str] = []
    while True:
        if _text(tokens, index) == "." and index + 1 < len(tokens) and tokens[index + 1].kind == "name":
            if _text(tokens, index + 2) == "(":
                return tuple(path)
            path.append(tokens[index + 1].text)
            index += 2
        elif _text(tokens, index) == "[" and _text(tokens, index + 2) == "]" and tokens[index + 1].kind == "string":
            plain = _PLAIN_STRING.fullmatch(tokens[index + 1].text)
            if plain is None:
                return tuple(path)
            path.append(plain.group(2))
            index += 3
        else:
            return tuple(path)


def _text(tokens: Sequence[Token], index: int) -> str:
    return tokens[index].text if 0 <= index < len(tokens) else ""
