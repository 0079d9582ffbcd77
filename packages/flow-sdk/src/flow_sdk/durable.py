"""For workflows: effects that happen once, and waits that hold no container.

The calls of a workflow to other components are durable by themselves. What it does besides them is made so here: when
the code runs again, after its container was lost or given back, a step that was done is not done again, and a wait that
is over is over.

Outside of the platform each of these just does what it says, so that a workflow can be called by its tests; only
`wait_for_event` and `approval` need somebody who answers.
"""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Generic, TypeVar, cast, get_type_hints, overload

import pydantic
import pydantic_core

from flow_sdk import calling
from flow_sdk.checkpoints import Checkpoints
from flow_sdk.errors import PlatformExecutionError, PlatformStepError, PlatformValidationError
from flow_sdk.wire.durable import (
    MAX_VALUE_BYTES,
    ApprovalDocument,
    CheckpointDocument,
    CheckpointKind,
    CheckpointRequest,
    CheckpointStatus,
)
from flow_sdk.wire.execution import ErrorDocument

T = TypeVar("T")
Seconds = float | timedelta

MAX_CONCURRENCY: Final = 1000
DEFAULT_CONCURRENCY: Final = 16
_MESSAGE_CHARACTERS: Final = 4_000


async def step(name: str, function: Callable[..., Awaitable[T] | T], *args: Any, **kwargs: Any) -> T:
    """Calls the function, once: its result is kept, and given again when the code runs again.

    The function is called again only if the container died before the result was kept, so an effect that must not
    happen twice should be one that can be repeated. What it returns travels as JSON, and comes back as the type that
    the function is annotated with.

    Args:
        name: For people, and to tell steps apart; equal names are numbered in their order.
        function: Sync or async.

    Raises:
        PlatformStepError: The function raised. It is raised from what the function raised, and raised again when the
            code runs again.
        PlatformValidationError: The result is not JSON, or larger than `MAX_VALUE_BYTES`.
    """
    checkpoints = await _checkpoints()
    if checkpoints is None:
        returned = function(*args, **kwargs)
        return cast("T", await returned if inspect.isawaitable(returned) else returned)
    asked = await checkpoints.ask(CheckpointRequest(kind=CheckpointKind.STEP, name=name))
    if asked.status is CheckpointStatus.OPEN:
        value = await _do(checkpoints, asked, function, args, kwargs)
    elif asked.error is not None:
        raise _step_error(name, asked.error)
    else:
        value = asked.value
    return cast("T", _as_annotated(function, value))


async def sleep(duration: Seconds) -> None:
    """Waits; for longer than a few seconds without a container. The time runs on while nothing else does.

    Raises:
        ValueError: It is negative.
    """
    seconds = _seconds(duration)
    checkpoints = await _checkpoints()
    if checkpoints is None:
        await asyncio.sleep(seconds)
        return
    request = CheckpointRequest(kind=CheckpointKind.TIMER, name="sleep", seconds=seconds)
    await checkpoints.wait(await checkpoints.ask(request))


@overload
async def wait_for_event(name: str, timeout: Seconds | None = None) -> Any: ...  # noqa: ASYNC109 - see below
@overload
async def wait_for_event(name: str, timeout: Seconds | None = None, *, payload: type[T]) -> T: ...  # noqa: ASYNC109
async def wait_for_event(
    name: str,
    timeout: Seconds | None = None,  # noqa: ASYNC109 - the platform keeps this time: the process may be gone by then.
    *,
    payload: type[Any] | None = None,
) -> Any:
    """Waits for an event that somebody sends with `POST {W}/executions/{id}/events/{name}`, and returns its payload.

    Each event is given to one wait, the oldest first, also one that came before the wait. A wait that is cancelled gets
    none any more: what comes then is for the next one.

    Args:
        timeout: None: until the workflow's own deadline.
        payload: What it is validated as: any type that pydantic knows. What does not fit is refused when it is sent.

    Raises:
        TimeoutError: Nobody sent it in time.
        PlatformValidationError: It came before the wait, and does not fit.
    """
    adapter: pydantic.TypeAdapter[Any] | None = None if payload is None else pydantic.TypeAdapter(payload)
    request = CheckpointRequest(
        kind=CheckpointKind.EVENT,
        name=name,
        seconds=None if timeout is None else _seconds(timeout),
        value_schema=None if adapter is None else adapter.json_schema(),
    )
    value = (await _awaited(request)).value
    if adapter is None:
        return value
    try:
        return adapter.validate_python(value)
    except pydantic.ValidationError as exc:
        raise PlatformValidationError(f"the payload of event {name!r} does not fit: {exc}") from exc


@dataclass(frozen=True)
class Approval:
    """An answer. `by`: who gave it, as the platform knows them."""

    approved: bool
    comment: str
    by: str
    at: datetime | None


async def approval(
    name: str,
    message: str = "",
    *,
    approvers: Sequence[str] = (),
    timeout: Seconds | None = None,  # noqa: ASYNC109 - as above.
) -> Approval:
    """Waits until somebody says yes or no: `POST {W}/executions/{id}/events/{name}` with `{"approved": true}`.

    Args:
        message: What is asked, for people.
        approvers: Who may answer: subjects or roles. Empty: every admin and builder.
        timeout: None: until the workflow's own deadline.

    Raises:
        TimeoutError: Nobody answered in time.
    """
    request = CheckpointRequest(
        kind=CheckpointKind.APPROVAL,
        name=name,
        seconds=None if timeout is None else _seconds(timeout),
        approvers=list(approvers),
        message=message,
    )
    answer = ApprovalDocument.model_validate((await _awaited(request)).value)
    return Approval(answer.approved, answer.comment, answer.by, answer.at)


@dataclass(frozen=True)
class Item(Generic[T]):
    """What became of one input of `map`.

    Attributes:
        error: Why there is no output; None: there is one.
    """

    index: int
    input: Any
    output: T | None = None
    error: PlatformExecutionError | None = None

    @property
    def ok(self) -> bool:
        return self.error is None


async def map(  # noqa: A001 - the word that everybody knows, in a module of its own.
    component: Any, inputs: Iterable[Any], *, concurrency: int = DEFAULT_CONCURRENCY
) -> list[Item[Any]]:
    """Calls a component for each input, so many at the same time, and returns what became of each, in their order.

    An input that fails does not stop the others.

    Args:
        component: A declared function, or any async function.
        inputs: Of each call: an object of keyword arguments, or else the one argument.

    Raises:
        ValueError: The concurrency is not 1 to `MAX_CONCURRENCY`.
        PlatformClientError: A call could not be made at all, e.g. because the component is not deployed.
    """
    if not 1 <= concurrency <= MAX_CONCURRENCY:
        raise ValueError(f"concurrency {concurrency!r} is not valid: expected 1 to {MAX_CONCURRENCY}")
    call = getattr(component, "call", component)
    turns = asyncio.Semaphore(concurrency)

    async def one(index: int, given: Any) -> Item[Any]:
        async with turns:
            try:
                output = await (call(**given) if isinstance(given, Mapping) else call(given))  # pyright: ignore[reportUnknownArgumentType]
            except PlatformExecutionError as error:
                return Item(index, given, error=error)
        return Item(index, given, output)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(index, given)) for index, given in enumerate(inputs)]
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from failures
    return [task.result() for task in tasks]


async def _checkpoints() -> Checkpoints | None:
    """None: this is no execution of the platform."""
    if not os.environ.get("PLATFORM_API_URL") or not os.environ.get("EXECUTION_ID"):
        return None
    return (await calling.shared_client()).checkpoints


async def _awaited(request: CheckpointRequest) -> CheckpointDocument:
    checkpoints = await _checkpoints()
    if checkpoints is None:
        raise PlatformExecutionError(
            f"{request.kind.value} {request.name!r} is waited for outside of the platform: nobody can send it"
        )
    document = await checkpoints.awaited(request)
    if document.status is CheckpointStatus.EXPIRED:
        raise TimeoutError(f"{request.kind.value} {request.name!r} did not come within {request.seconds:g} s")
    return document


async def _do(
    checkpoints: Checkpoints,
    asked: CheckpointDocument,
    function: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
) -> Any:
    try:
        returned = function(*args, **kwargs)
        if inspect.isawaitable(returned):
            returned = await returned
    except Exception as exc:
        message = str(exc)[:_MESSAGE_CHARACTERS]
        error = ErrorDocument(code="step_failed", type=type(exc).__name__, message=message)
        await checkpoints.finish(asked.checkpoint_id, error=error)
        raise _step_error(asked.name, error) from exc
    # What JSON makes of it, in the first run as well: a workflow must not see a difference later.
    value = _as_json(asked.name, returned)
    await checkpoints.finish(asked.checkpoint_id, value=value)
    return value


def _as_json(name: str, value: Any) -> Any:
    try:
        encoded = pydantic_core.to_json(value, inf_nan_mode="constants")
        plain = pydantic_core.from_json(encoded, allow_inf_nan=False)
    except (pydantic_core.PydanticSerializationError, ValueError) as exc:
        raise PlatformValidationError(f"step {name!r} returned what is not JSON: {exc}") from exc
    if len(encoded) > MAX_VALUE_BYTES:
        raise PlatformValidationError(
            f"step {name!r} returned {len(encoded)} bytes as JSON: at most {MAX_VALUE_BYTES} are kept"
        )
    return plain


def _as_annotated(function: Callable[..., Any], value: Any) -> Any:
    try:
        annotation = get_type_hints(function).get("return", Any)
    except (NameError, TypeError):  # Annotations that cannot be resolved, or no function.
        return value
    if annotation in (Any, None, type(None)) or isinstance(annotation, TypeVar):
        return value
    try:
        return pydantic.TypeAdapter(annotation).validate_python(value)
    except pydantic.ValidationError as exc:
        raise PlatformValidationError(
            f"the result {value!r:.200} is not what the step is annotated with: {exc}"
        ) from exc
    except pydantic.PydanticSchemaGenerationError:
        return value


def _step_error(name: str, error: ErrorDocument) -> PlatformStepError:
    return PlatformStepError(f"step {name!r} failed: {error.type}: {error.message}", name=name, type_name=error.type)


def _seconds(duration: Seconds) -> float:
    seconds = duration.total_seconds() if isinstance(duration, timedelta) else float(duration)
    if not 0 <= seconds < float("inf"):
        raise ValueError(f"a duration of {duration!r} is not valid: expected 0 seconds or more")
    return seconds
