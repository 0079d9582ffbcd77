"""The JSON of a graph workflow, field by field.

    {"type": "graph",
     "nodes": [{"id": "fetch", "component_ref": "code_block/fetch"},
               {"id": "store", "component_ref": "transform/store@3", "input": {"row": "$.nodes.fetch.output.row"},
                "retry": {"max_attempts": 3}, "timeout_seconds": 30, "join": "all"}],
     "edges": [{"source": "fetch", "target": "store", "condition": "outputs.fetch.ok"}],
     "outputs": {"stored": "$.nodes.store.output"}}

Unknown fields are refused: a misspelt `condition` would otherwise run something else than was meant.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal

import pydantic
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from flow_platform.domain import errors
from flow_platform.domain.component import check_slug
from flow_sdk.wire.status import Kind

MAX_NODES: Final = 500
MAX_EDGES: Final = 2_000
"""Of one graph: what a person can still read, and what is walked through at each step of a run."""

MAX_TIMEOUT_SECONDS: Final = 30 * 24 * 3600.0
MAX_DETAILS: Final = 20
"""Problems listed in one error; the first ones tell."""

_ID: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,62}")
_REF: Final = re.compile(r"([a-z_]+)/([^/@]+)(?:@([0-9]{1,9}))?")


def _node_id(value: str) -> str:
    if not _ID.fullmatch(value):
        raise ValueError("expected 1 to 63 letters, digits, '_' or '-', beginning with a letter or '_'")
    return value


def _component_ref(value: str) -> str:
    match = _REF.fullmatch(value)
    kinds = ", ".join(kind.value for kind in Kind)
    if match is None or match[1] not in {kind.value for kind in Kind} or match[3] in {"0", "00"}:
        raise ValueError(f"expected kind/slug or kind/slug@version, with a kind of {kinds}")
    try:
        check_slug(match[2])
    except errors.InvalidInput as error:
        raise ValueError(error.message) from None
    return value


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class RetryDocument(_Closed):
    """A retry policy of a node, in place of its component's."""

    max_attempts: int = Field(1, ge=1, le=100)
    initial_interval_seconds: float = Field(1.0, ge=0, le=3600)
    backoff_coefficient: float = Field(2.0, ge=1, le=100)
    maximum_interval_seconds: float = Field(100.0, ge=0, le=86_400)
    non_retryable_errors: tuple[Annotated[str, Field(min_length=1, max_length=200)], ...] = Field(
        (), max_length=100, strict=False
    )


class NodeDocument(_Closed):
    id: Annotated[str, AfterValidator(_node_id)]
    component_ref: Annotated[str, AfterValidator(_component_ref)]
    type: Literal["code_block", "transform", "agent", "workflow"] | None = None
    input: Any = None
    retry: RetryDocument | None = None
    timeout_seconds: float | None = Field(None, gt=0, le=MAX_TIMEOUT_SECONDS)
    join: Literal["all", "any"] = "all"


class EdgeDocument(_Closed):
    source: str = Field(max_length=200)
    target: str = Field(max_length=200)
    condition: str | None = None


class GraphDocument(_Closed):
    type: Literal["sequential", "parallel", "graph", "single"] = "graph"
    nodes: tuple[NodeDocument, ...] = Field(min_length=1, max_length=MAX_NODES, strict=False)
    edges: tuple[EdgeDocument, ...] = Field((), max_length=MAX_EDGES, strict=False)
    outputs: dict[str, Any] | None = Field(None, max_length=MAX_NODES)
    input_schema: dict[str, Any] | None = None


def parse_document(document: Any) -> GraphDocument:
    """Checks the shape of a graph; what its parts mean to each other is `graph.parse_graph`'s business.

    Raises:
        InvalidInput: One detail per problem; a field of a node or edge is named by the node's id or the edge's ends.
    """
    try:
        return GraphDocument.model_validate(document)
    except pydantic.ValidationError as error:
        problems = [problem for problem in error.errors(include_url=False) if not _follows(problem)]
        raise problems_error([_detail(document, one) for one in problems[:MAX_DETAILS]], len(problems)) from error


def canonical(document: GraphDocument) -> dict[str, Any]:
    """The JSON that a version keeps: equal for documents that mean the same. What is left out stays left out, so that
    fields of later releases change no digest.
    """
    return {"type": document.type, **document.model_dump(mode="json", exclude_defaults=True)}


def problems_error(details: list[dict[str, Any]], count: int | None = None) -> errors.InvalidInput:
    """One error for all problems of a graph; its message tells the first."""
    more = f" (and {count - 1} more)" if (count := count or len(details)) > 1 else ""
    return errors.InvalidInput(f"{details[0]['field']}: {details[0]['message']}{more}", details=details[:MAX_DETAILS])


def edge_name(source: str, target: str) -> str:
    """An edge in messages."""
    return f"edge {source!r} -> {target!r}"


def _follows(problem: Any) -> bool:
    """Whether it says that there is too little only because what is there has problems of its own."""
    return problem["type"] == "too_short" and bool(problem["input"])


def _detail(document: Any, problem: Any) -> dict[str, Any]:
    location = list(problem["loc"])
    place = ".".join(str(part) for part in location) or "graph"
    match location:
        case ["nodes", int(index), *rest]:
            node_id = _member(document, "nodes", index, "id")
            place = ".".join([f"node {node_id!r}" if node_id else f"nodes[{index}]", *map(str, rest)])
        case ["edges", int(index), *rest]:
            source, target = (_member(document, "edges", index, end) for end in ("source", "target"))
            place = ".".join([edge_name(source, target) if source and target else f"edges[{index}]", *map(str, rest)])
        case _:
            pass
    match problem["type"]:
        case "missing":
            return {"field": place, "message": "is required"}
        case "extra_forbidden":
            return {"field": place, "message": "is no field that is known here"}
        case "too_short":
            return {"field": place, "message": f"expected at least {problem['ctx']['min_length']}, got none"}
        case "too_long":
            limits = problem["ctx"]
            message = f"expected at most {limits['max_length']}, got {limits['actual_length']}"
            return {"field": place, "message": message}
        case _:
            message = str(problem["msg"]).removeprefix("Value error, ")
            return {"field": place, "message": f"{message[:1].lower()}{message[1:]}, got {problem['input']!r:.100}"}


def _member(document: Any, name: str, index: int, field: str) -> str | None:
    try:
        found = document[name][index][field]
    except (KeyError, IndexError, TypeError):
        return None
    return found if isinstance(found, str) else None
