"""Finds the components declared in files without running them: what is published is read, never executed.

The declaration itself is made by `flow_sdk.declare`, from the literals of the decorator, so a file means the same here
as when it is imported.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from flow_platform.cli import agent_calls, service_declarations
from flow_platform.cli.agent_calls import AgentFound, read_agents
from flow_platform.cli.declared_names import FileNames, Named
from flow_platform.cli.graph_files import GraphFile, in_order, is_graph_file, read_graph
from flow_platform.cli.service_declarations import ServiceFound, read_services
from flow_platform.domain.errors import FlowError, InvalidInput
from flow_sdk import declare
from flow_sdk.declare import Declaration
from flow_sdk.wire.status import Kind

SDK_MODULES: Final = ("flow_sdk", "flow_sdk.declare", "flow_sdk.declare_agents", "flow_sdk.declare_services")
DECORATORS: Final[dict[str, Callable[..., Any]]] = {
    "code_block": declare.code_block,
    "transform": declare.transform,
    "workflow": declare.workflow,
}
ORDER: Final = (Kind.CODE_BLOCK, Kind.TRANSFORM, Kind.WORKFLOW)
"""What is called is published before what calls it."""

SKIPPED_FOLDERS: Final = frozenset({"__pycache__", "node_modules", "venv", "site-packages"})

_Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Found:
    """One declared component and the file that it is published from."""

    declaration: Declaration
    code: str
    place: str
    file: Path

    @property
    def kind(self) -> Kind:
        return self.declaration.kind

    @property
    def slug(self) -> str:
        return self.declaration.slug

    @property
    def label(self) -> str:
        return f"{self.kind.path}/{self.slug}"

    @property
    def body(self) -> dict[str, Any]:
        return self.declaration.publish_body(self.code)


Publishable = Found | GraphFile | AgentFound | ServiceFound


def find_components(path: Path) -> list[Publishable]:
    """All components of a file or, recursively, a folder, in the order in which to publish them.

    Agents come after code, then graphs, then services, each after those of the folder that it refers to; a service that
    an agent takes as tools comes before it.

    Raises:
        FlowError: There is none, or one is declared in a way that cannot be read; with file and line.
    """
    if not path.exists():
        raise FlowError(f"{str(path)!r} does not exist: expected a Python file, a *.workflow.json or a folder")
    files = [path] if path.is_file() else sorted(_source_files(path))
    found: list[Publishable] = []
    for file in files:
        found += [read_graph(file)] if is_graph_file(file) else read_components(file)
    if not found:
        raise FlowError(
            f"{str(path)!r} declares no component",
            hint="decorate a top-level function with @code_block, @transform or @workflow from flow_sdk, "
            "or declare an agent(...) or a service(...)",
        )
    seen: dict[str, Publishable] = {}
    for component in found:
        if other := seen.get(component.label):
            raise InvalidInput(f"{component.place}: {component.label} is declared at {other.place} already")
        seen[component.label] = component

    def refer(source: AgentFound | ServiceFound, named: Named) -> str | None:
        return _ref_of(found, source.file, named)

    code = sorted(
        (component for component in found if isinstance(component, Found)),
        key=lambda component: ORDER.index(component.kind),
    )
    graphs = [component for component in found if isinstance(component, GraphFile)]
    agents = [agent_calls.resolved(agent, refer) for agent in found if isinstance(agent, AgentFound)]
    services = [service_declarations.resolved(service, refer) for service in found if isinstance(service, ServiceFound)]
    tools = frozenset[str]().union(*(agent.needs for agent in agents))
    first = [service for service in services if service.label in tools]
    last = [service for service in services if service.label not in tools]
    ordered = _in_order_of_needs([*first, *agents])
    return [*code, *ordered, *in_order(graphs), *last]


def _ref_of(found: list[Publishable], asking: Path, named: Named) -> str | None:
    """The component, or the service, that a file knows by this name."""
    for component in found:
        if isinstance(component, GraphFile):
            continue
        file = component.file
        if file != asking if named.module is None else file.stem != named.module:
            continue
        name = component.declaration.entry_point if isinstance(component, Found) else component.variable
        if name != named.name:
            continue
        if isinstance(component, ServiceFound):
            return f"{agent_calls.SERVICE_REF}{component.slug}"
        return f"{component.kind.value}/{component.slug}"
    return None


def _in_order_of_needs(found: list[AgentFound | ServiceFound]) -> list[AgentFound | ServiceFound]:
    """Those that others refer to before these; of a circle, which the platform refuses, in the order given."""
    ordered: list[AgentFound | ServiceFound] = []
    left = list(found)
    while left:
        labels = {one.label for one in left}
        ready = [one for one in left if not one.needs & (labels - {one.label})] or left[:1]
        ordered += ready
        left = [one for one in left if one not in ready]
    return ordered


def read_components(file: Path) -> list[Found | AgentFound | ServiceFound]:
    """The components and services of one file.

    Raises:
        InvalidInput: With file and line.
    """
    try:
        code = file.read_text(encoding="utf-8")
        tree = ast.parse(code, filename=str(file))
    except SyntaxError as error:
        hint = "" if file.suffix == ".py" else "expected a Python file, a *.workflow.json or a folder"
        raise InvalidInput(f"{file}:{error.lineno}: does not parse: {error.msg}", hint=hint) from error
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{file}: cannot be read as Python source: {error}") from error
    names = _Names(tree)
    in_file = FileNames(tree, names.meaning, file)
    found: list[Found | AgentFound | ServiceFound] = [
        *read_agents(tree, in_file, code, file),
        *read_services(tree, in_file, file),
    ]
    for node in ast.walk(tree):
        if not isinstance(node, _Function):
            continue
        for decorator in node.decorator_list:
            word = names.meaning(decorator.func if isinstance(decorator, ast.Call) else decorator)
            if word in DECORATORS:
                place = f"{file}:{node.lineno}"
                if node not in tree.body:
                    raise InvalidInput(f"{place}: {node.name!r} is not at the top level of its file, so it has no name")
                found.append(Found(_declaration(word, node, decorator, file), code, place, file))
    return found


class _Names:
    """What the names of a file mean: `from flow_sdk import code_block as cb`, `import flow_sdk as f`."""

    def __init__(self, tree: ast.Module) -> None:
        self._words: dict[str, str] = {}
        self._modules: set[str] = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module in SDK_MODULES and node.level == 0:
                for alias in node.names:
                    if alias.name == "declare":
                        self._modules.add(alias.asname or alias.name)
                    else:
                        self._words[alias.asname or alias.name] = alias.name
            elif isinstance(node, ast.Import):
                self._modules |= {alias.asname or alias.name for alias in node.names if alias.name in SDK_MODULES}

    def meaning(self, node: ast.expr) -> str | None:
        """The SDK's own word for an expression such as `cb` or `f.code_block`."""
        if isinstance(node, ast.Name):
            return self._words.get(node.id)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in self._modules:
            return node.attr
        return None


def _declaration(word: str, function: _Function, decorator: ast.expr, file: Path) -> Declaration:
    options = _literals(word, decorator, file) if isinstance(decorator, ast.Call) else {}

    def stand_in() -> None: ...

    stand_in.__name__ = function.name
    stand_in.__doc__ = ast.get_docstring(function)
    try:
        return DECORATORS[word](**options)(stand_in).declaration
    except (ValueError, TypeError) as error:
        raise InvalidInput(f"{file}:{decorator.lineno}: @{word} of {function.name!r}: {error}") from error


def _literals(word: str, decorator: ast.Call, file: Path) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if decorator.args:
        raise InvalidInput(f"{file}:{decorator.lineno}: @{word} takes its options by name only")
    for keyword in decorator.keywords:
        place = f"{file}:{keyword.value.lineno}"
        if keyword.arg is None:
            raise InvalidInput(f"{place}: @{word} cannot take **{ast.unparse(keyword.value)}: write each option out")
        try:
            options[keyword.arg] = ast.literal_eval(keyword.value)
        except (ValueError, TypeError) as error:
            raise InvalidInput(
                f"{place}: option {keyword.arg!r} of @{word} is {ast.unparse(keyword.value)!r}: expected a literal, "
                "as the file is read and not run"
            ) from error
    return options


def _source_files(folder: Path) -> Iterator[Path]:
    for entry in folder.iterdir():
        if entry.name.startswith(".") or entry.name in SKIPPED_FOLDERS:
            continue
        if entry.is_dir() and not entry.is_symlink():
            yield from _source_files(entry)
        elif (entry.suffix == ".py" or is_graph_file(entry)) and entry.is_file():
            yield entry
