"""The harness: the first and only program of ours in a container, from START to RESULT.

The body of the START frame, which the runner writes:

    mode          "run" or "inspect"
    channel       "socket" (default): input in this frame, output in the RESULT frame.
                  "nats": input and output go through `PlatformClient`, as in any other image; the RESULT
                  frame is then an empty object that only marks the end. STARTED and EVENT are sent either way.
    kind          "code_block", "transform", "workflow" or "agent"
    code          the source;  entry_point  the name of its function
    agent         of an agent, in the place of code: an `AgentDocument`
    input         {"input_data", "session_id", "messages", "state"}: what exec.input carries. Absent for "nats".
    context       the execution's config, for a parameter named `context`
    env           added to os.environ before any code of the component is loaded
    suspend_after_seconds  absent: the container is kept, however long its code only waits
    output_bytes  the largest output as JSON; a larger one becomes the error `output_too_large`
    examples      inspect only: [{"input", "output"}]

The body of RESULT: {output, usage, messages, state, error}, `error` being null or an ErrorDocument. For inspect the
`output` is {input_schema, output_schema, description}, and no STARTED comes before it.

Error codes: component_error, invalid_input, invalid_output, output_too_large, syntax_error, entry_point_missing,
invalid_signature, example_failed, out_of_memory, cancelled (SIGTERM), suspended (see `idle`).
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import Mapping
from typing import Any, Final, NoReturn

from flow_sdk.harness import channel, invoke
from flow_sdk.harness.failure import Terminated, describe
from flow_sdk.wire.execution import ErrorDocument
from flow_sdk.wire.harness import Frame, Mode

_DEFAULT_OUTPUT_BYTES: Final = 32 << 20


def run(connection: socket.socket) -> NoReturn:
    """Serves one START frame and ends the process. Never returns into the caller's frames."""
    runner = channel.Channel(connection)
    start = runner.receive_start()
    if start is None:
        os._exit(0)
    prepare(start)
    channel.set_current(runner)
    if start.get("channel") == "nats" and start["mode"] == Mode.RUN:
        _run_over_nats(start, runner)
        body = b"{}"
    else:
        body = run_over_socket(start, runner)
    _flush()
    runner.send(Frame.RESULT, body)
    # Not sys.exit: threads, atexit handlers and destructors of the component get no say in when it ends.
    os._exit(0)


def prepare(start: Mapping[str, Any]) -> None:
    """Makes this process what START says, before any code of the component is loaded."""
    os.environ.update(start.get("env") or {})
    signal.signal(signal.SIGTERM, _terminate)  # Process 1 ignores what it does not handle.
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(line_buffering=True, errors="backslashreplace")
    if os.getpid() == 1:
        os.kill = _kill


_system_kill: Final = os.kill
_KILLED: Final = 128 + signal.SIGKILL  # The exit code of a killed process, as a shell says it.


def _kill(pid: int, number: int, /) -> None:
    """`os.kill` as elsewhere: the kernel does not deliver SIGKILL to process 1 from within its container."""
    if number == signal.SIGKILL and pid in (0, 1):
        os._exit(_KILLED)
    _system_kill(pid, number)


def _terminate(_number: int, _frame: object) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # Once is enough; clean-up code shall not be interrupted again.
    raise Terminated(143)


def run_over_socket(start: Mapping[str, Any], runner: channel.Channel) -> bytes:
    """Runs or inspects the component; returns the body of RESULT, whatever became of it."""
    limit = start.get("output_bytes") or _DEFAULT_OUTPUT_BYTES
    try:
        if start["mode"] == Mode.INSPECT:
            output = json.dumps(invoke.inspect_component(start)).encode()
        else:
            given: Mapping[str, Any] = start.get("input") or {}
            if start.get("agent") is not None:
                return _agent_result(start, given, runner, limit)
            output = invoke.call(start, given.get("input_data"), lambda: runner.send(Frame.STARTED))
    except BaseException as exc:  # noqa: BLE001 - whatever a component raises is its result.
        return _failed(describe(exc))
    if len(output) > limit:
        return _failed(_too_large(len(output), limit))
    return _result(output)


def _run_over_nats(start: Mapping[str, Any], runner: channel.Channel) -> None:
    """Input and output by the contract's NATS methods; a failure to deliver the output ends the process with 1."""
    execution_id = os.environ["EXECUTION_ID"]
    deployment_id = os.environ.get("DEPLOYMENT_ID")
    limit = start.get("output_bytes") or _DEFAULT_OUTPUT_BYTES
    output: Any = None
    about: dict[str, Any] = {}
    error: ErrorDocument | None = None
    fetched = asyncio.run(_fetch(deployment_id, execution_id))
    try:
        if start.get("agent") is not None:
            about = json.loads(_agent_result(start, fetched, runner, limit))
            output = about.pop("output")
            told = about.pop("error")
            error = None if told is None else ErrorDocument.model_validate(told)
        else:
            encoded = invoke.call(start, fetched["input_data"], lambda: runner.send(Frame.STARTED))
            output = json.loads(encoded)
            if len(encoded) > limit:
                output, error = None, _too_large(len(encoded), limit)
    except BaseException as exc:  # noqa: BLE001
        error = describe(exc)
    _flush()
    asyncio.run(_push(deployment_id, execution_id, output, error, about))


async def _fetch(deployment_id: str | None, execution_id: str) -> dict[str, Any]:
    from flow_sdk.platform_client import PlatformClient

    async with PlatformClient() as client:
        fetched: dict[str, Any] = await client.fetch_execution_input(deployment_id, execution_id)
    return fetched


async def _push(
    deployment_id: str | None, execution_id: str, output: Any, error: ErrorDocument | None, about: Mapping[str, Any]
) -> None:
    from flow_sdk.platform_client import PlatformClient

    document = error.model_dump(mode="json") if error is not None else None
    async with PlatformClient() as client:
        await client.push_execution_output(deployment_id, execution_id, output, error=document, **about)


def _agent_result(start: Mapping[str, Any], given: Mapping[str, Any], runner: channel.Channel, limit: int) -> bytes:
    """Runs an agent; the body of RESULT."""
    from flow_sdk.harness import agent  # With what agents run with, which nothing else has.

    runner.send(Frame.STARTED)
    body = agent.run(start, given)
    return _failed(_too_large(len(body), limit)) if len(body) > limit else body


def _result(output: bytes) -> bytes:
    return b'{"output":%s,"usage":null,"messages":null,"state":null,"error":null}' % output


def _failed(document: ErrorDocument) -> bytes:
    error = document.model_dump_json().encode()
    return b'{"output":null,"usage":null,"messages":null,"state":null,"error":%s}' % error


def _too_large(size: int, limit: int) -> ErrorDocument:
    message = f"the output has {size} bytes as JSON, the limit output_bytes is {limit}"
    return ErrorDocument(code="output_too_large", message=message, retryable=False)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            continue  # Closed by the component.
