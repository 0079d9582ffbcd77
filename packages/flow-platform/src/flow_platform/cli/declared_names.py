"""What declarations that are read, never run, say of one another: names of components, and literals."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flow_platform.domain.errors import InvalidInput

Meaning = Callable[[ast.expr], str | None]
"""The SDK's own word for an expression."""


@dataclass(frozen=True)
class Named:
    """A component by its name in Python: in this file, or in that module."""

    module: str | None
    name: str
    place: str


class FileNames:
    """The names of one file.

    Attributes:
        meaning: What a name of the SDK means there.
    """

    def __init__(self, tree: ast.Module, meaning: Meaning, file: Path) -> None:
        self.meaning = meaning
        self._imported = _imported(tree)
        self._file = file

    def place(self, node: ast.expr | ast.stmt) -> str:
        return f"{self._file}:{node.lineno}"

    def called(self, what: str, expression: ast.expr) -> Named | str:
        """A component by its name, or a text such as `code_block/slug`.

        Args:
            what: The role that it has there, for the error.

        Raises:
            InvalidInput: It is something else; with file and line.
        """
        if isinstance(expression, ast.Constant) and isinstance(expression.value, str):
            return expression.value
        if isinstance(expression, ast.Name):
            return self._imported.get(expression.id) or Named(None, expression.id, self.place(expression))
        raise InvalidInput(
            f"{self.place(expression)}: {what} is {ast.unparse(expression)!r}: expected the name of a component of this"
            " file, one that it imports, or a text such as 'code_block/slug'"
        )

    def literal(self, word: str, name: str, value: ast.expr) -> Any:
        """Raises InvalidInput, with file and line, for what would have to be run."""
        try:
            return ast.literal_eval(value)
        except (ValueError, TypeError) as error:
            raise InvalidInput(
                f"{self.place(value)}: option {name!r} of {word} is {ast.unparse(value)!r}: expected a literal, "
                "as the file is read and not run"
            ) from error

    def items(self, name: str, value: ast.expr) -> list[ast.expr]:
        """The elements of a list that is written out."""
        if not isinstance(value, ast.List | ast.Tuple):
            raise InvalidInput(f"{self.place(value)}: {name} is {ast.unparse(value)!r}: expected a list")
        return value.elts


def assigned(statement: ast.stmt) -> tuple[str | None, ast.expr | None]:
    """Variable and value of a statement at the top level."""
    match statement:
        case ast.Assign(targets=[ast.Name(id=name)], value=value):
            return name, value
        case ast.AnnAssign(target=ast.Name(id=name), value=value):
            return name, value
        case ast.Expr(value=value):
            return None, value
        case _:
            return None, None


def _imported(tree: ast.Module) -> Mapping[str, Named]:
    found: dict[str, Named] = {}
    for node in tree.body:
        for alias in node.names if isinstance(node, ast.ImportFrom) else ():
            module = ((node.module if isinstance(node, ast.ImportFrom) else "") or "").rpartition(".")[2]
            found[alias.asname or alias.name] = Named(module, alias.name, str(node.lineno))
    return found
