"""What a client publishes: the content of a version and the name of its component, validated to the last field.

Fields that are not known are refused, not ignored: a misspelt `dependencies` or `retry` would otherwise publish
something else than was meant, for ever.
"""

from __future__ import annotations

import keyword
from typing import Annotated, Any, Final

from packaging.requirements import InvalidRequirement, Requirement
from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from flow_platform.domain import errors
from flow_platform.domain.component import MAX_CODE_BYTES, MAX_DEPENDENCIES, Definition, check_slug
from flow_platform.domain.destination import parse_destination
from flow_platform.domain.execution import RetryPolicy
from flow_platform.engine.closed import Closed
from flow_platform.engine.publish_graph import graph_definition
from flow_platform.engine.publish_secrets import MAX_SECRETS, Secret, handed_over, injected
from flow_sdk.wire.isolation import Isolation
from flow_sdk.wire.runner import Limits
from flow_sdk.wire.status import Kind

LANGUAGE: Final = "python"
DEFAULT_ENTRY_POINT: Final = "main"
MAX_TIMEOUT_SECONDS: Final = {Kind.TRANSFORM: 300.0}  # The platform specification, section 1.
MAX_OTHER_TIMEOUT_SECONDS: Final = 30 * 24 * 3600.0  # As a submit's own timeout.
MAX_NAME: Final = 200
MAX_DESCRIPTION: Final = 10_000
MAX_TAGS: Final = 50
MAX_EXAMPLES: Final = 100
MAX_HOSTS: Final = 100
MAX_REQUIREMENT: Final = 500  # Characters; the longest with many markers have about 200.


def _text_without_nul(value: str) -> str:
    if "\0" in value:
        raise ValueError("expected text without NUL characters")
    return value


def _entry_point(value: str) -> str:
    if not value.isidentifier() or keyword.iskeyword(value):
        raise ValueError("expected the name of a Python function")
    return value


def _language(value: str) -> str:
    if value != LANGUAGE:
        raise ValueError(f"language is not supported: expected {LANGUAGE!r}")
    return value


def _code(value: str) -> str:
    size = len(value.encode())
    if not value.strip():
        raise ValueError("expected Python source")
    if size > MAX_CODE_BYTES:
        raise ValueError(f"code has {size} bytes: expected at most {MAX_CODE_BYTES}; larger things are input data")
    return _text_without_nul(value)


def _requirement(value: str) -> str:
    expected = "expected a requirement such as 'requests>=2.31' (PEP 508)"
    text = value.strip()
    if len(text) > MAX_REQUIREMENT or not text.isprintable():
        raise ValueError(f"{expected} of at most {MAX_REQUIREMENT} characters in one line")
    try:
        requirement = Requirement(text)
    except InvalidRequirement as error:
        raise ValueError(f"{expected}: {str(error).splitlines()[0]}") from None
    if requirement.url is not None:
        raise ValueError(f"{expected}; addresses and paths are no dependencies, only packages of the index")
    return text


def _host(value: str) -> str:
    """In normal form, so that equal destinations are equal versions."""
    return str(parse_destination(value))


def _empty_if_none(value: Any) -> Any:
    return () if value is None else value


Text = Annotated[str, AfterValidator(_text_without_nul)]
_Texts = BeforeValidator(_empty_if_none)
Code = Annotated[str, AfterValidator(_code)]
Tags = Annotated[tuple[Annotated[Text, Field(min_length=1, max_length=100)], ...], _Texts]
IsolationWord = Annotated[Isolation, Field(strict=False, description="What it must run in at least.")]
Requirements = Annotated[
    tuple[Annotated[str, AfterValidator(_requirement)], ...], _Texts, Field(max_length=MAX_DEPENDENCIES)
]


class RetryRequest(Closed):
    """A retry policy. Intervals in seconds. Source: Temporal's retry policy."""

    max_attempts: int = Field(1, ge=1, le=100)
    initial_interval_seconds: float = Field(1.0, ge=0, le=3600)
    backoff_coefficient: float = Field(2.0, ge=1, le=100)
    maximum_interval_seconds: float = Field(100.0, ge=0, le=86_400)
    non_retryable_errors: Annotated[tuple[Annotated[str, Field(min_length=1, max_length=200)], ...], _Texts] = Field(
        (), max_length=100, strict=False
    )


class LimitsRequest(Closed):
    """What one container may use; what is not given has the platform's default."""

    memory_bytes: int = Field(Limits().memory_bytes, ge=16 << 20, le=64 << 30)
    cpus: float = Field(Limits().cpus, ge=0.01, le=64)
    pids: int = Field(Limits().pids, ge=8, le=4096)
    tmp_bytes: int = Field(Limits().tmp_bytes, ge=1 << 20, le=64 << 30)
    output_bytes: int = Field(Limits().output_bytes, ge=1, le=32 << 20)
    log_bytes: int = Field(Limits().log_bytes, ge=0, le=64 << 20)
    events: int = Field(Limits().events, ge=1, le=100_000)


class Example(Closed):
    """Run when the version is published: a transform whose example gives another output is refused."""

    input: Any
    output: Any


class PublishRequest(Closed):
    """One version of a code block, a transform or a workflow: `code`, or the `nodes` and `edges` of a graph.

    What a graph may hold is `domain/graph_document.py`'s business: its errors name nodes and edges.
    """

    slug: str = Field(max_length=63)
    code: Code | None = None
    entry_point: Annotated[str, Field(max_length=200), AfterValidator(_entry_point)] = DEFAULT_ENTRY_POINT
    name: Annotated[Text | None, Field(max_length=MAX_NAME)] = None
    description: Annotated[Text | None, Field(max_length=MAX_DESCRIPTION)] = None
    tags: Tags = Field((), max_length=MAX_TAGS, strict=False)
    language: Annotated[str, AfterValidator(_language)] = LANGUAGE
    dependencies: Requirements = Field((), strict=False)
    timeout_seconds: float | None = Field(None, gt=0)
    retry: RetryRequest | None = None
    limits: LimitsRequest | None = None
    network: Annotated[tuple[Annotated[str, AfterValidator(_host)], ...], _Texts] = Field(
        (), max_length=MAX_HOSTS, strict=False
    )
    secrets: Annotated[tuple[Secret, ...], _Texts] = Field((), max_length=MAX_SECRETS, strict=False)
    isolation: IsolationWord | None = None
    examples: Annotated[tuple[Example, ...], _Texts] = Field((), max_length=MAX_EXAMPLES, strict=False)
    requires_context: bool = False
    smoke_input: Any = None
    type: Any = Field(None, description="Of a graph: graph (default), sequential, parallel or single.")
    nodes: Any = Field(None, description="Of a graph: `{id, component_ref, input?, join?, retry?, timeout_seconds?}`.")
    edges: Any = Field(None, description="Of a graph: `{source, target, condition?}`.")
    outputs: Any = Field(None, description="Of a graph: the mapping that makes its result.")
    input_schema: Any = Field(None, description="Of a graph: the JSON Schema of its input.")

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, value: Any) -> Any:
        """A field that is null is a field that is not given; only a smoke input is removed by it."""
        if isinstance(value, dict):
            return {name: item for name, item in value.items() if item is not None or name == "smoke_input"}  # pyright: ignore[reportUnknownVariableType] - JSON.
        return value


def definition_of(kind: Kind, request: PublishRequest) -> Definition:
    """The content of the version, as it is compared and stored.

    Raises:
        InvalidInput: The slug is not one, or a field does not go with this kind.
    """
    check_slug(request.slug)
    check_timeout(kind, request.timeout_seconds)
    if kind is not Kind.TRANSFORM and (request.examples or request.requires_context):
        name = "examples" if request.examples else "requires_context"
        expected = f"no {name} for a {kind.value}: only transforms have them"
        raise errors.InvalidInput(
            f"{name} is not valid: expected {expected}", details=[{"field": name, "message": f"expected {expected}"}]
        )
    graph = graph_definition(kind, request)
    if graph is not None:
        return graph
    if request.code is None:
        required = "is required" if kind is not Kind.WORKFLOW else "is required, or the nodes of a graph"
        raise errors.InvalidInput(f"code: {required}", details=[{"field": "code", "message": required}])
    return Definition(
        kind=kind,
        code=request.code,
        entry_point=request.entry_point,
        language=request.language,
        dependencies=request.dependencies,
        timeout_seconds=request.timeout_seconds,
        retry=RetryPolicy(**dict(request.retry)) if request.retry else RetryPolicy(),
        limits=Limits(**dict(request.limits)) if request.limits else Limits(),
        network=request.network,
        secrets=handed_over(request.secrets),
        injected=injected(request.secrets, request.network),
        isolation=request.isolation,
        examples=tuple({"input": example.input, "output": example.output} for example in request.examples),
        requires_context=request.requires_context,
    )


def check_timeout(kind: Kind, timeout_seconds: float | None) -> None:
    """Raises InvalidInput when it is out of the bounds of that kind."""
    lowest, highest = (1.0, MAX_TIMEOUT_SECONDS[kind]) if kind in MAX_TIMEOUT_SECONDS else (0.0, None)
    highest = highest or MAX_OTHER_TIMEOUT_SECONDS
    if timeout_seconds is not None and not lowest <= timeout_seconds <= highest:
        expected = f"{lowest:g} to {highest:g} seconds for a {kind.value}"
        raise errors.InvalidInput(
            f"timeout_seconds {timeout_seconds!r} is not valid: expected {expected}",
            details=[{"field": "timeout_seconds", "message": f"expected {expected}"}],
        )
