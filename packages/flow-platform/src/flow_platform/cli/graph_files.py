"""Graph workflows as files: `NAME.workflow.json`, next to the Python files of the components that they refer to.

A file holds what is sent to publish it; what it means is the platform's to check. Its slug is the file's name, unless
it says another.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from flow_platform.domain.errors import InvalidInput
from flow_sdk.wire.status import Kind

SUFFIX: Final = ".workflow.json"


@dataclass(frozen=True)
class GraphFile:
    """One graph workflow and the file that it is published from."""

    slug: str
    body: dict[str, Any]
    place: str
    kind: Kind = Kind.WORKFLOW

    @property
    def label(self) -> str:
        return f"{self.kind.path}/{self.slug}"

    @property
    def needs(self) -> frozenset[str]:
        """Slugs of the workflows among its nodes, as far as it has the form of a graph."""
        nodes = self.body.get("nodes")
        refs = [_ref(node) for node in cast("list[Any]", nodes)] if isinstance(nodes, list) else []
        prefix = f"{Kind.WORKFLOW.value}/"
        return frozenset(ref.removeprefix(prefix).partition("@")[0] for ref in refs if ref.startswith(prefix))


def is_graph_file(path: Path) -> bool:
    return path.name.endswith(SUFFIX)


def read_graph(file: Path) -> GraphFile:
    """The graph of one file.

    Raises:
        InvalidInput: With file and line.
    """
    try:
        body: Any = json.loads(file.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise InvalidInput(f"{file}:{error.lineno}: is not JSON: {error.msg}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidInput(f"{file}: cannot be read as JSON: {error}") from error
    if not isinstance(body, dict):
        raise InvalidInput(f"{file}: holds {type(body).__name__!r}: expected a JSON object")
    fields = cast("dict[str, Any]", body)
    slug = fields.setdefault("slug", file.name.removesuffix(SUFFIX))
    if not isinstance(slug, str):
        raise InvalidInput(f"{file}: slug is {slug!r}: expected text")
    return GraphFile(slug, fields, str(file))


def in_order(graphs: Sequence[GraphFile]) -> list[GraphFile]:
    """Those that others refer to before these; of a circle, which the platform refuses, in the order given."""
    ordered: list[GraphFile] = []
    left = list(graphs)
    while left:
        names = {graph.slug for graph in left}
        ready = [graph for graph in left if not graph.needs & (names - {graph.slug})] or left[:1]
        ordered += ready
        left = [graph for graph in left if graph not in ready]
    return ordered


def _ref(node: Any) -> str:
    ref: Any = cast("dict[str, Any]", node).get("component_ref") if isinstance(node, dict) else None
    return ref if isinstance(ref, str) else ""
