"""Agents as they are declared in Python files, `triage = agent("triage", ...)`: read, never run.

What an agent calls is written as a name: of a component of the file, or of one that it imports from another file that
is published with it.
"""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from flow_platform.cli.declared_names import FileNames, Named, assigned
from flow_platform.domain.errors import InvalidInput
from flow_sdk import declare_agents
from flow_sdk.declare_agents import AgentDeclaration, ToolDeclaration
from flow_sdk.wire.status import Kind

AGENT: Final = "agent"
TOOL: Final = "tool"
SERVICE_REF: Final = "service:"


@dataclass(frozen=True)
class AgentFound:
    """One declared agent and the file that it is published from.

    Attributes:
        variable: What it is assigned to, by which others name it.
        tools: What it calls, not looked up yet.
        output: The type of its output as it is written; None for text.
    """

    declaration: AgentDeclaration
    variable: str | None
    tools: tuple[tuple[Named | str, Mapping[str, Any]], ...]
    output: str | None
    code: str
    file: Path
    place: str
    refs: tuple[ToolDeclaration, ...] = ()
    kind: Kind = Kind.AGENT

    @property
    def slug(self) -> str:
        return self.declaration.slug

    @property
    def label(self) -> str:
        return f"{self.kind.path}/{self.slug}"

    @property
    def needs(self) -> frozenset[str]:
        """Labels of what it calls."""
        return frozenset(label_of(tool.ref) for tool in self.refs)

    @property
    def body(self) -> dict[str, Any]:
        body = self.declaration.publish_body(self.code, self.output)
        return {**body, "tools": [tool.publish_body() for tool in self.refs]} if self.refs else body


def label_of(ref: str) -> str:
    """`agent/triage` as components are labelled: `agents/triage`; `service:shop/note-order` as `services/shop`."""
    if ref.startswith(SERVICE_REF):
        return f"services/{ref.removeprefix(SERVICE_REF).partition('/')[0].partition('@')[0]}"
    kind, slash, slug = ref.partition("/")
    kinds = {one.value: one.path for one in Kind}
    return f"{kinds[kind]}/{slug}" if slash and kind in kinds else ref


def read_agents(tree: ast.Module, names: FileNames, code: str, file: Path) -> list[AgentFound]:
    """The agents of one file.

    Raises:
        InvalidInput: With file and line.
    """
    found: list[AgentFound] = []
    top: set[int] = set()
    for statement in tree.body:
        variable, value = assigned(statement)
        if isinstance(value, ast.Call) and names.meaning(value.func) == AGENT:
            top.add(id(value))
            found.append(_Reader(names, code, file).agent(variable, value))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and names.meaning(node.func) == AGENT and id(node) not in top:
            raise InvalidInput(f"{file}:{node.lineno}: an agent is declared at the top level: name = agent(...)")
    return found


class _Reader:
    def __init__(self, names: FileNames, code: str, file: Path) -> None:
        self._names = names
        self._code = code
        self._file = file

    def agent(self, variable: str | None, call: ast.Call) -> AgentFound:
        place = self._names.place(call)
        if len(call.args) != 1:
            raise InvalidInput(f"{place}: agent takes its slug first, and everything else by name")
        options: dict[str, Any] = {"slug": self._literal("slug", call.args[0])}
        tools: list[tuple[Named | str, Mapping[str, Any]]] = []
        output: str | None = None
        for keyword in call.keywords:
            match keyword.arg:
                case "tools":
                    tools = [self._tool(element) for element in self._names.items("tools", keyword.value)]
                case "output":
                    output = None if _is_none(keyword.value) else ast.unparse(keyword.value)
                case None:
                    raise InvalidInput(f"{place}: agent cannot take **{ast.unparse(keyword.value)}")
                case name:
                    options[name] = self._literal(name, keyword.value)
        try:
            declaration = declare_agents.agent(options.pop("slug"), **options)
        except (ValueError, TypeError) as error:
            raise InvalidInput(f"{place}: agent: {error}") from error
        return AgentFound(declaration, variable, tuple(tools), output, self._code, self._file, place)

    def _tool(self, element: ast.expr) -> tuple[Named | str, Mapping[str, Any]]:
        if isinstance(element, ast.Call) and self._names.meaning(element.func) == TOOL:
            if len(element.args) != 1 or any(keyword.arg is None for keyword in element.keywords):
                raise InvalidInput(f"{self._names.place(element)}: tool takes what is called, then options by name")
            wishes = {str(word.arg): self._literal(str(word.arg), word.value) for word in element.keywords}
            try:
                declare_agents.tool("checked", **wishes)
            except (ValueError, TypeError) as error:
                raise InvalidInput(f"{self._names.place(element)}: tool: {error}") from error
            return self._names.called("a tool", element.args[0]), wishes
        return self._names.called("a tool", element), {}

    def _literal(self, name: str, value: ast.expr) -> Any:
        return self._names.literal(AGENT, name, value)


def resolved(agent: AgentFound, find: Callable[[AgentFound, Named], str | None]) -> AgentFound:
    """The agent with what it calls looked up.

    Args:
        find: The reference of a component by its name in Python.

    Raises:
        InvalidInput: A name is none of a component that is published with it.
    """
    refs: list[ToolDeclaration] = []
    for called, wishes in agent.tools:
        ref = called if isinstance(called, str) else find(agent, called)
        if ref is None:
            name = called.name if isinstance(called, Named) else called
            raise InvalidInput(f"{agent.place}: tool {name!r} is no component that is published with this file")
        refs.append(ToolDeclaration(ref, **wishes))
    return dataclasses.replace(agent, refs=tuple(refs))


def _is_none(value: ast.expr) -> bool:
    return isinstance(value, ast.Constant) and value.value is None
