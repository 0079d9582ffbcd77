"""Declaring components: plain functions that carry what the platform must know about them.

A decorated function stays an ordinary function: called, it just runs, with no platform. It carries its declaration in
`fn.declaration`, and `await fn.call(...)` runs the deployed component in a container of its own.

    @code_block(dependencies=["python-slugify>=8"], memory_mb=256, retry={"max_attempts": 3})
    def slug(title: str) -> str: ...

    @workflow(timeout_seconds=600)
    async def index(titles: list[str]) -> dict:
        return {title: await slug.call(title=title) for title in titles}
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, ParamSpec, Protocol, TypedDict, TypeVar, Unpack, cast, overload

from flow_sdk.wire.isolation import Isolation
from flow_sdk.wire.status import Kind

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)

MAX_TRANSFORM_SECONDS: Final = 300
"""Source: the platform specification, section 1, "Transform"."""

MIN_MEMORY_MB: Final = 16
MAX_MEMORY_MB: Final = 64 << 10
"""The platform's own bounds of `limits.memory_bytes`, said in the unit of the option."""

_SLUG: Final = re.compile(r"[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?")


class Retry(TypedDict, total=False):
    """When a failed attempt is repeated; what is left out takes the platform's default. Intervals are seconds.

    `non_retryable_errors` holds names of exception classes or error codes.
    """

    max_attempts: int
    initial_interval_seconds: float
    backoff_coefficient: float
    maximum_interval_seconds: float
    non_retryable_errors: Sequence[str]


class Options(TypedDict, total=False):
    """What can be declared of every function.

    `slug` names the component in its workspace (default: the function's name with `-` for `_`), `dependencies` are pip
    requirement strings, `network` the hosts it may reach (default: none), `secrets` the names of those handed to it (or
    `{"name", "inject": {"host", "header"}}`: added to its requests for that host, never handed to it),
    `isolation` what stands at least between it and the machine (default: `namespaces`), `timeout_seconds` counts from
    acceptance, queue time included; with `smoke_input` a new version runs in its ring before it turns active there.
    """

    slug: str
    name: str
    description: str
    tags: Sequence[str]
    dependencies: Sequence[str]
    timeout_seconds: float
    memory_mb: int
    retry: Retry
    network: Sequence[str]
    secrets: Sequence[str | Mapping[str, Any]]
    isolation: str
    smoke_input: Any


class TransformOptions(Options, total=False):
    """`examples` are `{"input", "output"}` pairs, run at publish; `requires_context` passes the caller's context."""

    examples: Sequence[Mapping[str, Any]]
    requires_context: bool


@dataclass(frozen=True)
class Declaration:
    """What the platform must know about a function. None: the platform's default."""

    kind: Kind
    slug: str
    entry_point: str
    name: str
    description: str = ""
    language: str = "python"
    tags: tuple[str, ...] = ()
    dependencies: tuple[str, ...] = ()
    timeout_seconds: float | None = None
    memory_mb: int | None = None
    retry: Retry | None = None
    network: tuple[str, ...] = ()
    secrets: tuple[str | Mapping[str, Any], ...] = ()
    isolation: Isolation | None = None
    examples: tuple[Mapping[str, Any], ...] = ()
    requires_context: bool = False
    smoke_input: Any = None

    def publish_body(self, code: str) -> dict[str, Any]:
        """The JSON body that publishes this component from the given source; defaults are left to the platform."""
        body: dict[str, Any] = {"slug": self.slug, "code": code, "entry_point": self.entry_point, "name": self.name}
        optional: dict[str, Any] = {
            "description": self.description,
            "tags": list(self.tags),
            "dependencies": list(self.dependencies),
            "timeout_seconds": self.timeout_seconds,
            "retry": self.retry,
            "limits": {"memory_bytes": self.memory_mb << 20} if self.memory_mb else None,
            "network": list(self.network),
            "secrets": [one if isinstance(one, str) else dict(one) for one in self.secrets],
            "isolation": self.isolation.value if self.isolation else None,
            "examples": [dict(example) for example in self.examples],
            "requires_context": self.requires_context,
        }
        # Always said: without one, the one of earlier versions is removed.
        return body | {key: value for key, value in optional.items() if value} | {"smoke_input": self.smoke_input}


class Declared(Protocol[P, R_co]):
    """A function that is also a component."""

    declaration: Declaration

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Runs the function here."""
        ...

    async def call(self, *args: P.args, **kwargs: P.kwargs) -> Any:
        """Runs the deployed component in a container of its own and returns its output, as JSON made it.

        It runs in the ring of the caller (`RING_ID`). Without a platform (no `PLATFORM_API_URL`) the function itself
        runs, here and now: so a workflow can be tested without one.

        Raises:
            PlatformExecutionError: It did not complete; `execution` has the status document.
            PlatformClientError: The platform could not be asked.
            TypeError: The arguments do not fit the function's signature.
        """
        ...


@overload
def code_block(function: Callable[P, R_co], /) -> Declared[P, R_co]: ...
@overload
def code_block(**options: Unpack[Options]) -> Callable[[Callable[P, R_co]], Declared[P, R_co]]: ...
def code_block(function: Callable[..., Any] | None = None, /, **options: Unpack[Options]) -> Any:
    """Declares a code block: the keys of its input are the function's keyword arguments.

    Raises:
        ValueError: An option has no meaning; the message names it and what was expected.
    """
    return _decorate(Kind.CODE_BLOCK, function, options)


@overload
def transform(function: Callable[P, R_co], /) -> Declared[P, R_co]: ...
@overload
def transform(**options: Unpack[TransformOptions]) -> Callable[[Callable[P, R_co]], Declared[P, R_co]]: ...
def transform(function: Callable[..., Any] | None = None, /, **options: Unpack[TransformOptions]) -> Any:
    """Declares a transform: its input is the function's first argument.

    Raises:
        ValueError: An option has no meaning; the message names it and what was expected.
    """
    return _decorate(Kind.TRANSFORM, function, options)


@overload
def workflow(function: Callable[P, R_co], /) -> Declared[P, R_co]: ...
@overload
def workflow(**options: Unpack[Options]) -> Callable[[Callable[P, R_co]], Declared[P, R_co]]: ...
def workflow(function: Callable[..., Any] | None = None, /, **options: Unpack[Options]) -> Any:
    """Declares a workflow: plain code that calls other components, by their `.call` or with `PlatformClient`.

    Raises:
        ValueError: An option has no meaning; the message names it and what was expected.
    """
    return _decorate(Kind.WORKFLOW, function, options)


def _decorate(kind: Kind, function: Callable[..., Any] | None, options: Mapping[str, Any]) -> Any:
    def decorator(decorated: Callable[..., Any]) -> Declared[..., Any]:
        return _attach(kind, decorated, options)

    return decorator if function is None else decorator(function)


def _attach(kind: Kind, function: Callable[..., Any], options: Mapping[str, Any]) -> Declared[..., Any]:
    declaration = _declare(kind, function, options)

    async def call(*args: Any, **kwargs: Any) -> Any:
        from flow_sdk import calling

        return await calling.call(function, declaration, args, kwargs)

    declared = cast("Declared[..., Any]", function)
    declared.declaration = declaration
    setattr(declared, "call", call)  # noqa: B010 - a method of the protocol, an attribute of the function.
    return declared


def _declare(kind: Kind, function: Callable[..., Any], options: Mapping[str, Any]) -> Declaration:
    known = (TransformOptions if kind is Kind.TRANSFORM else Options).__annotations__
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ValueError(f"{kind.value} has no option {unknown[0]!r}: expected one of {', '.join(sorted(known))}")
    entry_point = getattr(function, "__name__", "")
    if not entry_point.isidentifier():
        raise ValueError(f"{function!r} cannot be a component: expected a function with a name")
    memory_mb = options.get("memory_mb")
    if memory_mb is not None and not MIN_MEMORY_MB <= memory_mb <= MAX_MEMORY_MB:
        expected = f"{MIN_MEMORY_MB} to {MAX_MEMORY_MB} MiB"
        raise ValueError(f"memory_mb {memory_mb!r} is not valid: expected {expected}")
    timeout_seconds = options.get("timeout_seconds")
    check_timeout(timeout_seconds, MAX_TRANSFORM_SECONDS if kind is Kind.TRANSFORM else None)
    slug = check_slug(options.get("slug") or entry_point.strip("_").lower().replace("_", "-"))
    return Declaration(
        kind=kind,
        slug=slug,
        entry_point=entry_point,
        name=options.get("name") or slug,
        description=options.get("description") or inspect.cleandoc(function.__doc__ or ""),
        tags=_strings(options, "tags"),
        dependencies=_strings(options, "dependencies"),
        timeout_seconds=timeout_seconds,
        memory_mb=memory_mb,
        retry=check_retry(options.get("retry")),
        network=_strings(options, "network"),
        secrets=_strings(options, "secrets"),
        isolation=check_isolation(options.get("isolation")),
        examples=_check_examples(options.get("examples", ())),
        requires_context=options.get("requires_context", False),
        smoke_input=options.get("smoke_input"),
    )


def check_slug(slug: str) -> str:
    """Raises ValueError when it is none."""
    if not _SLUG.fullmatch(slug):
        expected = "1 to 63 of a-z, 0-9, '-' and '_', beginning and ending with a letter or digit"
        raise ValueError(f"slug {slug!r} is not valid: expected {expected}")
    return slug


def check_timeout(timeout_seconds: float | None, maximum: float | None) -> None:
    """Raises ValueError when it has no meaning."""
    if timeout_seconds is None or (timeout_seconds > 0 and (maximum is None or timeout_seconds <= maximum)):
        return
    expected = "a positive number of seconds" if maximum is None else f"more than 0 and at most {maximum} seconds"
    raise ValueError(f"timeout_seconds {timeout_seconds!r} is not valid: expected {expected}")


def check_isolation(isolation: str | None) -> Isolation | None:
    """Raises ValueError when it is none."""
    if isolation is None:
        return None
    try:
        return Isolation(isolation)
    except ValueError:
        expected = ", ".join(repr(rung.value) for rung in Isolation)
        raise ValueError(f"isolation {isolation!r} is not valid: expected one of {expected}") from None


def _strings(options: Mapping[str, Any], name: str) -> tuple[str, ...]:
    value = options.get(name, ())
    if isinstance(value, str):  # A string is a sequence of strings too, and never what was meant.
        raise ValueError(f"{name} {value!r} is not valid: expected a list of strings")  # noqa: TRY004
    return tuple(value)


def check_retry(retry: Retry | None) -> Retry | None:
    """Raises ValueError when an option is unknown or has no meaning."""
    if retry is None:
        return None
    unknown = sorted(set(retry) - set(Retry.__annotations__))
    if unknown:
        raise ValueError(f"retry has no option {unknown[0]!r}: expected one of {', '.join(Retry.__annotations__)}")
    attempts = retry.get("max_attempts", 1)
    if attempts < 1:
        raise ValueError(f"retry max_attempts {attempts!r} is not valid: expected at least 1")
    return retry.copy()


def _check_examples(examples: Sequence[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    for example in examples:
        if set(example) != {"input", "output"}:
            raise ValueError(f"example {example!r} is not valid: expected the keys 'input' and 'output'")
    return tuple(examples)
