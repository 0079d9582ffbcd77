"""`flow demo`: from nothing to the result of a real workflow, with one command."""

from __future__ import annotations

import contextlib
import sys
import sysconfig
import tempfile
import time
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from flow_platform.cli import output
from flow_platform.cli.costs import credits_text, show_tree
from flow_platform.domain.errors import FlowError
from flow_sdk.wire.status import Status

if TYPE_CHECKING:
    from flow_platform.cli.demo_crash import Crash
    from flow_platform.cli.publish import Outcome
    from flow_platform.cli.remote import Remote
    from flow_sdk.wire.execution import StatusDocument

EXAMPLE: Final = "code_census"
MODULES: Final = 40
MAX_MODULE_BYTES: Final = 120_000
MIN_MODULE_BYTES: Final = 15_000
ROWS: Final = 15
PROGRESS_SECONDS: Final = 0.5
CRASH_SECONDS: Final = 0.05  # The same until the runner is killed: half-way is short.
RUN_SECONDS: Final = 300.0


def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Leave the platform running, and say where.")] = False,
    modules: Annotated[int, typer.Option(min=1, max=200, help="Modules of the standard library to measure.")] = MODULES,
    crash: Annotated[bool, typer.Option("--crash", help="Kill the runner half-way; show what is on record.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The ranking and the times as JSON.")] = False,
) -> None:
    """Starts a platform in a temporary folder, runs the example workflow over real input, and prints the result.

    The example measures modules of this Python's standard library, each in a container of its own.
    """
    from flow_platform.cli.connection import Connection
    from flow_platform.cli.demo_agent import EXAMPLE as AGENT
    from flow_platform.cli.demo_agent import run_agent
    from flow_platform.cli.demo_crash import Crash, show_proof
    from flow_platform.cli.embedded import running_platform
    from flow_platform.cli.remote import Remote

    sources = stdlib_sources(modules)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(_folder(keep=keep)))
        began = time.monotonic()
        output.say("starting the platform ...")
        document = stack.enter_context(running_platform(folder, keep=keep))
        started = time.monotonic() - began
        output.say(f"ready at {document['console_url']} after {started:.2f} s")
        connection = Connection(document["base_url"], document["token"], document["org_id"], document["workspace_id"])
        with Remote(connection) as remote:
            killer = Crash(document["pid"], len(sources) + 1) if crash else None
            report: dict[str, Any] = {"start_s": started, **_census(remote, sources, killer)}
            report["agent"] = run_agent(remote, example_folder(AGENT), RUN_SECONDS)
        if as_json:
            output.emit_json(report)
        else:
            _show(report, sources)
            if crash:
                show_proof(report["crash"])
        if keep:
            output.say(f"\nstill running at {document['console_url']}, process {document['pid']}")
            output.say(f"  use it    flow ps --data {folder / 'data'}")
            output.say(f"  stop it   kill {document['pid']}")


def example_folder(name: str = EXAMPLE) -> Path:
    """Where an example is: in the installed package, or beside it in a checkout.

    Raises:
        FlowError: Nowhere.
    """
    package = Path(__file__).parents[1]
    for folder in (package / "examples" / name, package.parents[3] / "examples" / name):
        if folder.is_dir():
            return folder
    raise FlowError(f"the example {name!r} is not installed", hint="run from a checkout, or install the wheel again")


def stdlib_sources(count: int) -> dict[str, str]:
    """The sources of that many modules of this Python's standard library, spread over the sizes that are of interest.

    Raises:
        FlowError: This Python has no sources.
    """
    folder = Path(sysconfig.get_path("stdlib"))
    sized = sorted(
        (path.stat().st_size, path) for path in folder.rglob("*.py") if not _is_foreign(path.relative_to(folder))
    )
    fitting = [path for size, path in sized if MIN_MODULE_BYTES <= size <= MAX_MODULE_BYTES]
    if not fitting:
        raise FlowError(f"no sources of the standard library in {str(folder)!r}: expected .py files")
    step = max(1, len(fitting) // count)
    chosen = fitting[::-1][::step][:count]
    return {_module_name(path.relative_to(folder)): path.read_text(encoding="utf-8") for path in chosen}


def _is_foreign(relative: Path) -> bool:
    """Not of the standard library itself, or its tests."""
    foreign = {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "__pycache__", "ensurepip"}
    return bool(foreign & set(relative.parts)) or relative.parts[0].startswith(("config-", "lib-dynload"))


def _module_name(relative: Path) -> str:
    return ".".join(relative.with_suffix("").parts).removesuffix(".__init__")


@contextlib.contextmanager
def _folder(*, keep: bool) -> Generator[str]:
    if keep:
        yield tempfile.mkdtemp(prefix="flow-demo-")
        return
    with tempfile.TemporaryDirectory(prefix="flow-demo-", ignore_cleanup_errors=True) as folder:
        yield folder


def _census(remote: Remote, sources: dict[str, str], crash: Crash | None) -> dict[str, Any]:
    from flow_platform.cli.declarations import find_components
    from flow_platform.cli.publish import publish_components
    from flow_platform.cli.run import submit

    began = time.monotonic()
    outcomes: list[Outcome] = []
    for outcome in publish_components(remote, find_components(example_folder()), "dev"):
        outcomes.append(outcome)
        output.say(f"published {outcome.kind}/{outcome.slug} v{outcome.version} ({outcome.seconds:.2f} s)")
    published = time.monotonic() - began
    size = sum(len(source) for source in sources.values())
    output.say(f"running workflows/census over {len(sources)} modules, {size / 1000:.0f} kB of source ...")
    began = time.monotonic()
    value = {"modules": sources}
    execution_id = submit(remote, "workflows", "census", value, remote.ring_id("dev"), RUN_SECONDS)
    document = _watch(remote, execution_id, len(sources) + 1, crash)
    elapsed = time.monotonic() - began
    if document.status is not Status.COMPLETED:
        raise FlowError(f"the workflow ended as {document.status}: {document.error and document.error.message}")
    children = list(remote.executions(parent_id=execution_id))
    proof = {"crash": crash.proof(document, children)} if crash else {}
    costs = remote.get(f"/api/v1/orgs/{remote.connection.org_id}/billing/transactions/{execution_id}")
    return {
        **proof,
        "costs": costs,
        "publish_s": published,
        "workflow_s": elapsed,
        "containers": sum(one.attempt for one in (document, *children)),
        "stages": _stages([document, *children]),
        "output": document.output,
    }


def _watch(remote: Remote, execution_id: str, expected: int, crash: Crash | None) -> StatusDocument:
    """Waits for the end and shows how many children have ended: in place on a terminal, as plain lines elsewhere."""
    on_terminal = sys.stderr.isatty()
    said = -1
    while True:
        document = remote.status(execution_id, CRASH_SECONDS if crash and crash.ended is None else PROGRESS_SECONDS)
        children = list(remote.executions(parent_id=execution_id))
        ended = sum(child.status.is_terminal for child in children)
        if crash and not document.status.is_terminal:
            crash.look(children)
        if on_terminal:
            bar = "█" * (30 * ended // expected)
            sys.stderr.write(f"\r  {bar:<30} {ended} of {expected} containers done ")
            sys.stderr.flush()
        elif ended != said:
            output.say(f"  {ended} of {expected} containers done")
        said = ended
        if document.status.is_terminal:
            if on_terminal:
                sys.stderr.write("\n")
            return document


def _stages(documents: list[StatusDocument]) -> dict[str, dict[str, float]]:
    """For each kind of time, over all executions: its sum, median and maximum, in milliseconds."""
    result: dict[str, dict[str, float]] = {}
    for stage in ("queue_ms", "start_ms", "run_ms", "cpu_ms"):
        measured = (getattr(document.metrics, stage) for document in documents)
        values = sorted(float(value) for value in measured if value is not None)
        if values:
            result[stage] = {"sum": sum(values), "median": values[len(values) // 2], "max": values[-1]}
    return result


def _show(report: dict[str, Any], sources: dict[str, str]) -> None:
    columns = ("rank", "module", "lines", "functions", "complexity", "longest", "function")
    rows = [[row[column] for column in columns] for row in report["output"]["ranking"]]
    total = report["output"]["total"]
    output.emit(f"\nThe {min(ROWS, len(rows))} most complex of {len(rows)} modules of Python's standard library")
    output.show_table(columns, rows[:ROWS])
    output.emit("")
    output.emit(
        f"{total['modules']} modules, {total['lines']} lines, {total['functions']} functions, "
        f"complexity {total['complexity']} in all"
    )
    output.emit(f"{report['containers']} containers, each fresh, for {len(sources)} modules")
    output.emit("")
    rows = [
        ["start of the platform", output.milliseconds(report["start_s"] * 1000), ""],
        ["publish and build", output.milliseconds(report["publish_s"] * 1000), ""],
        ["workflow", output.milliseconds(report["workflow_s"] * 1000), ""],
    ]
    names = {"queue_ms": "queued", "start_ms": "start of a container", "run_ms": "own code", "cpu_ms": "CPU"}
    for stage, figures in report["stages"].items():
        rows.append(
            [
                f"  {names[stage]}, each",
                output.milliseconds(figures["median"]),
                output.milliseconds(figures["max"]),
            ]
        )
    output.show_table(("where the time went", "median", "at most"), rows)
    output.emit(f"\nWhat it cost: {credits_text(report['costs']['total_micro_credits'])} credits")
    show_tree(report["costs"])
