"""What the server itself evaluates for strangers: expressions, mappings, text, settings. No container is needed."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any, Final

from flow_platform.domain.conditions import compile_condition
from flow_platform.domain.errors import FlowError
from flow_platform.domain.graph_mapping import parse_template
from flow_platform.domain.inert import inert
from flow_platform.hostile.answer import Answer, expect
from flow_platform.hostile.attempt import Attempt
from flow_platform.hostile.box import Box
from flow_platform.settings import load_settings

_EXPRESSION_SECONDS: Final = 5.0  # Of the processor: how long a busy machine lets it wait tells nothing.
_CODE: Final = ("class", "import", "eval")  # An expression with one of these holds only if it was run as code.
_DATA: Final[dict[str, Any]] = {"text": "a" * 2_000, "list": list(range(2_000)), "x": {"y": 1}}
_EXPRESSIONS: Final = (
    "().__class__.__base__.__subclasses__() != []",
    "__import__('os').system('true') == 0",
    "inputs.__class__ != null",
    "'{0.__class__}'.format(inputs) != ''",
    "eval('1') == 1",
    "inputs.list.all(a, inputs.list.all(b, inputs.list.all(c, a + b + c >= 0)))",
    "inputs.list.map(a, inputs.list.map(b, inputs.list)).size() > 0",
    "inputs.text.matches('^(a+)+$b')",
    "inputs.text + inputs.text + inputs.text + inputs.text + inputs.text == ''",
    "9223372036854775807 + 1 > 0",
    "(" * 200 + "true" + ")" * 200,
    "inputs.x.y == " + "1 + " * 500 + "1",
)
_TEMPLATES: Final[tuple[Any, ...]] = (
    {"$from": "inputs.__class__.__init__.__globals__"},
    {"$from": "inputs['__class__']"},
    {"$from": "outputs.a.__dict__"},
    "{{ inputs.__class__ }}",
    "${jndi:ldap://127.0.0.1/x}",
)
_TERMINAL: Final = {
    "set the title": "\x1b]0;owned\x07",
    "clear the screen": "\x1b[2J\x1b[H",
    "answer back": "\x1b[6n\x1bP$q\x1b\\",
    "write the clipboard": "\x1b]52;c;ZXZpbA==\x07",
    "eight-bit codes": "\x9b2J\x9d0;x\x9c",
    "overwrite a line": "good\rbad\b\b",
    "turn text round": "\u202eevil\u2066",
    "a link": "\x1b]8;;http://evil.test\x1b\\click\x1b]8;;\x1b\\",
}
_OBEYED: Final = ("\x1b", "\x9b", "\x9d", "\r", "\b", "\x07", "\u202e", "\u2066")
_OPEN: Final = ("0.0.0.0", "::", "192.0.2.1", "")  # noqa: S104 - what must be refused.


async def _expressions(_: Box) -> list[Answer]:
    """Each is refused, or no code that it names runs, and none takes long."""
    return [await asyncio.to_thread(_expression, text) for text in _EXPRESSIONS]


def _expression(text: str) -> Answer:
    began = time.thread_time()
    try:
        reached = compile_condition(text).evaluate(_DATA, {}, {})
        how = "OK it holds" if reached and any(word in text for word in _CODE) else f"evaluates to {reached}"
    except FlowError as error:
        how = error.message[:60]
    late = time.thread_time() - began > _EXPRESSION_SECONDS
    return expect(40, f"condition {text[:40]!r}", how, refused=not how.startswith("OK") and not late)


async def _templates(_: Box) -> list[Answer]:
    found: list[Answer] = []
    for value in _TEMPLATES:
        try:
            resolved = parse_template(value).resolve(_DATA, {}, {})
            # What is no reference stays the text that it is.
            how = "plain text" if resolved == value else f"OK {resolved!r:.40}"
        except FlowError as error:
            how = error.message[:60]
        found.append(expect(40, f"mapping {str(value)[:50]!r}", how, refused=not how.startswith("OK")))
    return found


async def _terminal(_: Box) -> list[Answer]:
    found: list[Answer] = []
    for name, codes in _TERMINAL.items():
        shown = inert(codes)
        harmless = not any(sign in shown for sign in _OBEYED)
        found.append(expect(15, name, ascii(shown)[:60], refused=harmless))
    return found


async def _settings(_: Box) -> list[Answer]:
    found: list[Answer] = []
    for host in _OPEN:
        try:
            load_settings({"host": host, "data_dir": Path("unused")}, environ={})
            how = "OK it starts"
        except FlowError as error:
            how = error.message[:60]
        found.append(expect(48, f"listen on {host!r} unasked", how, refused=not how.startswith("OK")))
    return found


ATTEMPTS: Final = (
    Attempt("conditions", (40,), _expressions),
    Attempt("mappings", (40,), _templates),
    Attempt("codes for the terminal", (15,), _terminal),
    Attempt("open addresses", (48,), _settings),
)
