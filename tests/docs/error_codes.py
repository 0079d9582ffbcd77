"""Every error code that the code base can give, found in its syntax: what people may meet and want explained."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

SOURCES = sorted(Path(__file__).parents[2].glob("packages/*/src/**/*.py"))
_CODE = re.compile(r"[a-z]+(_[a-z]+)*")
_TAKE_CODE_FIRST = {"Refused", "refused", "refuse_invalid", "error_body"}
_INTERNAL = {"unknown"}  # Stands for an error that came without a code.


def error_codes() -> dict[str, set[str]]:
    """Code -> the files that give it."""
    found: dict[str, set[str]] = {}
    for path in SOURCES:
        for code in _codes_of(ast.parse(path.read_text())):
            if _CODE.fullmatch(code) and code not in _INTERNAL:
                found.setdefault(code, set()).add(path.name)
    return found


def _codes_of(tree: ast.AST) -> Iterator[str]:
    constants = dict(_constants(tree))
    for node in ast.walk(tree):
        for value in (leaf for whole in _values(node) for leaf in _leaves(whole)):
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                yield value.value
            elif isinstance(value, ast.Name) and value.id in constants:
                yield constants[value.id]


def _leaves(value: ast.expr) -> Iterator[ast.expr]:
    if isinstance(value, ast.IfExp):
        yield from _leaves(value.body)
        yield from _leaves(value.orelse)
    else:
        yield value


def _constants(tree: ast.AST) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        for target, value in _assigned(node):
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                yield target, value.value


def _values(node: ast.AST) -> Iterator[ast.expr]:
    """The expressions that give a code in this node: an argument, or what is assigned to `code`."""
    if isinstance(node, ast.Call):
        yield from (keyword.value for keyword in node.keywords if keyword.arg == "code")
        name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
        if name in _TAKE_CODE_FIRST:
            yield from node.args[:1]
    for target, value in _assigned(node):
        if target == "code":
            yield value
        elif target == "_CODES" and isinstance(value, ast.Dict):
            yield from value.values


def _assigned(node: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """Names and what they get, also of `a, b = 1, 2`."""
    match node:
        case ast.Assign(targets=[ast.Name(id=name)], value=value):
            yield name, value
        case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
            yield name, value
        case ast.Assign(targets=[ast.Tuple(elts=targets)], value=ast.Tuple(elts=values)):
            for target, value in zip(targets, values, strict=False):
                if isinstance(target, ast.Name):
                    yield target.id, value
        case _:
            pass
