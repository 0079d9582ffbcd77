"""Services as they are declared in Python files, `shop = service("shop", endpoints=[...])`: read, never run."""

from __future__ import annotations

import ast
import dataclasses
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from flow_platform.cli.agent_calls import label_of
from flow_platform.cli.declared_names import FileNames, Named, assigned
from flow_platform.domain.errors import InvalidInput
from flow_sdk import declare_services
from flow_sdk.declare_services import ServiceDeclaration

SERVICE: Final = "service"
ENDPOINT: Final = "endpoint"
_POSITIONAL: Final = ("component", "method", "path")
_OPTIONS: Final = frozenset(inspect.signature(declare_services.endpoint).parameters) - {"component"}


@dataclass(frozen=True)
class ServiceFound:
    """One declared service and the file that it is published from.

    Attributes:
        variable: What it is assigned to, by which agents name it.
        endpoints: Their components, not looked up yet, and options.
        declaration: Once they are looked up.
    """

    slug: str
    options: Mapping[str, Any]
    variable: str | None
    endpoints: tuple[tuple[Named | str, Mapping[str, Any]], ...]
    file: Path
    place: str
    declaration: ServiceDeclaration | None = None

    @property
    def label(self) -> str:
        return f"services/{self.slug}"

    @property
    def needs(self) -> frozenset[str]:
        """Labels of what answers."""
        return (
            frozenset(label_of(endpoint.ref) for endpoint in self.declaration.endpoints)
            if self.declaration
            else frozenset()
        )

    @property
    def body(self) -> dict[str, Any]:
        """As in a file for `flow service publish`."""
        if self.declaration is None:
            raise TypeError(f"{self.place}: the components of {self.label} were not looked up")
        return self.declaration.publish_body()


def read_services(tree: ast.Module, names: FileNames, file: Path) -> list[ServiceFound]:
    """The services of one file.

    Raises:
        InvalidInput: With file and line.
    """
    found: list[ServiceFound] = []
    top: set[int] = set()
    for statement in tree.body:
        variable, value = assigned(statement)
        if isinstance(value, ast.Call) and names.meaning(value.func) == SERVICE:
            top.add(id(value))
            found.append(_service(names, variable, value, file))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and names.meaning(node.func) == SERVICE and id(node) not in top:
            raise InvalidInput(f"{file}:{node.lineno}: a service is declared at the top level: name = service(...)")
    return found


def _service(names: FileNames, variable: str | None, call: ast.Call, file: Path) -> ServiceFound:
    place = names.place(call)
    if len(call.args) != 1:
        raise InvalidInput(f"{place}: service takes its slug first, and everything else by name")
    slug = names.literal(SERVICE, "slug", call.args[0])
    options: dict[str, Any] = {}
    endpoints: list[tuple[Named | str, Mapping[str, Any]]] = []
    for keyword in call.keywords:
        match keyword.arg:
            case "endpoints":
                endpoints = [_endpoint(names, element) for element in names.items("endpoints", keyword.value)]
            case None:
                raise InvalidInput(f"{place}: service cannot take **{ast.unparse(keyword.value)}")
            case name:
                options[name] = names.literal(SERVICE, name, keyword.value)
    return ServiceFound(str(slug), options, variable, tuple(endpoints), file, place)


def _endpoint(names: FileNames, element: ast.expr) -> tuple[Named | str, Mapping[str, Any]]:
    place = names.place(element)
    if not isinstance(element, ast.Call) or names.meaning(element.func) != ENDPOINT:
        raise InvalidInput(f"{place}: an endpoint is {ast.unparse(element)!r}: expected endpoint(...) from flow_sdk")
    if len(element.args) > len(_POSITIONAL) or any(keyword.arg is None for keyword in element.keywords):
        raise InvalidInput(f"{place}: endpoint takes {', '.join(_POSITIONAL)}, then options by name")
    given = dict(zip(_POSITIONAL, element.args, strict=False))
    given |= {str(keyword.arg): keyword.value for keyword in element.keywords}
    if "component" not in given:
        raise InvalidInput(f"{place}: endpoint: expected the component that answers")
    component = names.called("what answers", given.pop("component"))
    unknown = sorted(given.keys() - _OPTIONS)
    if unknown:
        raise InvalidInput(f"{place}: endpoint has no option {unknown[0]!r}: expected {', '.join(sorted(_OPTIONS))}")
    return component, {name: names.literal(ENDPOINT, name, value) for name, value in given.items()}


def resolved(service: ServiceFound, find: Callable[[ServiceFound, Named], str | None]) -> ServiceFound:
    """The service with its components looked up.

    Args:
        find: The reference of a component by its name in Python.

    Raises:
        InvalidInput: A name is none of a component that is published with it, or an option has no meaning.
    """
    endpoints: list[declare_services.EndpointDeclaration] = []
    for called, options in service.endpoints:
        ref = called if isinstance(called, str) else find(service, called)
        if ref is None:
            name = called.name if isinstance(called, Named) else called
            raise InvalidInput(f"{service.place}: {name!r} is no component that is published with this file")
        try:
            endpoints.append(declare_services.endpoint(ref, **options))
        except (ValueError, TypeError) as error:
            raise InvalidInput(f"{service.place}: endpoint of {ref!r}: {error}") from error
    try:
        declaration = declare_services.service(service.slug, endpoints=endpoints, **service.options)
    except (ValueError, TypeError) as error:
        raise InvalidInput(f"{service.place}: service: {error}") from error
    return dataclasses.replace(service, declaration=declaration)
