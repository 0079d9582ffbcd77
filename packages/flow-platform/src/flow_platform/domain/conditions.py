"""Conditions of edges: CEL expressions over `inputs`, `outputs` and `errors`.

CEL cannot loop without bound, has no side effects and cannot reach the host. `outputs[node]` is what a node gave,
`errors[node]` is `{code, type, message}` of one that failed; a node that did neither is in neither map, so
`has(errors.fetch)` asks whether it failed. The result must be a bool.

What bounds the cost of one evaluation: the expression's length (here), its depth of 32 and 10,000 iterations in all
(the library's own limits), regular expressions in linear time (RE2), how often `+` may multiply a value and how much
of the data is looked at (here). A condition gets only the part of the data that its text names.

The library is cel-expr-python, CEL's own C++ implementation: it checks types and unknown names when compiling, takes
4 ms and 12 MB to import, and has those limits. Weighed: cel-python (pure Python: 0.3 s to import, no limits) and
common-expression-language (Rust: 0.7 s to import with its command-line parts, no check of names, counts bytes where
CEL counts characters, no limit on iterations).

Source: https://github.com/google/cel-spec/blob/master/doc/langdef.md
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from flow_platform.domain import errors
from flow_platform.domain.condition_reads import VARIABLES, Reads, project, read

if TYPE_CHECKING:
    from cel_expr_python import cel

MAX_LENGTH: Final = 1_000
"""Characters of an expression: what a person can still review."""

MAX_MACROS: Final = 3
MAX_ADDITIONS: Final = 8
"""`all`, `exists`, `filter`, `map`; and `+`. Nested, they multiply: at these limits a value grows at most 81-fold."""

MAX_WEIGHT: Final = 1_000_000
MAX_WEIGHT_REPEATED: Final = 100_000
"""Values plus characters of strings that a condition may look at; the second one where a macro looks repeatedly."""

MAX_DEPTH: Final = 100
"""Levels of nesting of the data that is looked at."""

_LARGEST_INT: Final = 2**63 - 1
_PROBLEM: Final = re.compile(r"<input>:(-?\d+):(-?\d+): ([^\n]*)")
_STATUS: Final = re.compile(r"^[A-Z_]+: |\s*\[[A-Z_]+\]$")


@dataclass(frozen=True)
class Condition:
    """A compiled condition; make it with `compile_condition`."""

    text: str
    reads: Reads
    _program: cel.Expression

    def evaluate(self, inputs: Any, outputs: Mapping[str, Any], failures: Mapping[str, Any]) -> bool:
        """Decides. Depends on nothing but the arguments.

        Raises:
            InvalidInput: `condition_failed`: no bool came out, a key is missing, types do not fit, or a limit was hit.
        """
        values = {"inputs": inputs, "outputs": dict(outputs), "errors": dict(failures)}
        budget = _Budget(MAX_WEIGHT_REPEATED if self.reads.macros else MAX_WEIGHT)
        try:
            seen = {name: budget.convert(project(values[name], paths)) for name, paths in self.reads.paths.items()}
            result = self._program.eval(data=seen)
        except _TooMuch as error:
            raise self._failed(str(error)) from None
        except (RuntimeError, ValueError, TypeError) as error:
            raise self._failed(_plain(str(error))) from error
        value = result.plain_value()
        if isinstance(value, bool):
            return value
        kind = result.type().name()
        raise self._failed(
            _plain(str(value)) if kind == "ERROR" else f"expected a bool, got {kind.lower()} {value!r:.100}"
        )

    def _failed(self, problem: str) -> errors.InvalidInput:
        return errors.InvalidInput(f"condition {self.text!r} could not be decided: {problem}", code="condition_failed")


def compile_condition(text: str, where: str = "condition") -> Condition:
    """Compiles and checks a condition, when it is published.

    Args:
        where: What carries the condition, for the error: `edge 'a' -> 'b'`.

    Raises:
        InvalidInput: It is too long, is no CEL, names what does not exist, or cannot give a bool.
    """
    if len(text) > MAX_LENGTH:
        raise _invalid(where, text[:40] + "...", f"expected at most {MAX_LENGTH} characters, got {len(text)}")
    reads = read(text)
    if reads.macros > MAX_MACROS:
        raise _invalid(where, text, f"expected at most {MAX_MACROS} macros (all, exists, ...), got {reads.macros}")
    if reads.macros and reads.additions > MAX_ADDITIONS:
        raise _invalid(where, text, f"expected at most {MAX_ADDITIONS} '+' beside macros, got {reads.additions}")
    try:
        program = _compile(text)
    except (RuntimeError, ValueError) as error:
        raise _invalid(where, text, _explain(str(error))) from error
    kind = program.return_type().name()
    if kind not in ("BOOL", "DYN"):
        raise _invalid(where, text, f"expected an expression that gives a bool, got {kind.lower()}")
    return Condition(text, reads, program)


@functools.lru_cache(maxsize=1024)
def _compile(text: str) -> cel.Expression:
    return _environment().compile(text)


@functools.lru_cache(maxsize=1)
def _environment() -> cel.Env:
    from cel_expr_python import cel  # Lazily: most processes never see a graph workflow.

    return cel.NewEnv(
        variables={name: cel.Type.DYN if name == "inputs" else cel.Type("map<string, dyn>") for name in VARIABLES}
    )


class _TooMuch(Exception):
    pass


class _Budget:
    """Turns JSON into what CEL can hold, counting what is looked at."""

    def __init__(self, weight: int) -> None:
        self._weight = weight
        self._left = weight

    def convert(self, value: Any, depth: int = 0) -> Any:
        self._left -= 1 + (len(value) if isinstance(value, str) else 0)
        if self._left < 0:
            raise _TooMuch(f"it looks at more than {self._weight} values and characters: name the part that matters")
        if depth > MAX_DEPTH:
            raise _TooMuch(f"it looks at data nested deeper than {MAX_DEPTH} levels")
        if isinstance(value, dict):
            return {str(key): self.convert(item, depth + 1) for key, item in value.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        if isinstance(value, (list, tuple)):
            return [self.convert(item, depth + 1) for item in value]  # pyright: ignore[reportUnknownVariableType]
        if isinstance(value, int) and abs(value) > _LARGEST_INT:
            # JSON has one kind of number; CEL's int has 64 bits.
            return float(value) if abs(value) < 10**308 else math.copysign(math.inf, value)
        return value


def _explain(message: str) -> str:
    found = _PROBLEM.search(message)
    if found is None:
        return _plain(message)
    line, column, problem = found.groups()
    if problem.startswith("undeclared reference"):
        problem = problem.removesuffix(" (in container '')") + f"; the variables are {', '.join(VARIABLES)}"
    if int(column) < 1:
        return problem
    place = f"column {column}" if line == "1" else f"line {line}, column {column}"
    return f"{problem} (at {place})"


def _plain(message: str) -> str:
    return _STATUS.sub("", message.strip().split("\n")[0])


def _invalid(where: str, text: str, problem: str) -> errors.InvalidInput:
    return errors.InvalidInput(
        f"{where}: condition {text!r} is not valid: {problem}", details=[{"field": where, "message": problem}]
    )
